"""Run the demo: start a collector, a model server and an example application, and show the charges live.

It starts with a customer without credits, whose action is refused before it costs anything, and who tops up at the
checkout of a double of Stripe. `make demo` runs until Ctrl-C. `make demo ONCE=1` makes a fixed number of calls, checks
that debits equal the receipts, and exits with status 0 if they do. The books stay under `.farebox/`.

A collector that dies is restarted: kill it with -9 to see that nothing is lost or charged twice.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx2
from books import Books, find_errors
from processes import LOGS, DemoFailed, Process
from rich.console import Console
from rich.live import Live
from screen import screen

HERE = Path(__file__).parent
FAREBOX = ["-m", "farebox_collector"]
PORTS = {"grpc": 4317, "otlp_http": 4318, "api": 8080, "metrics": 9464}
ONCE_CALLS = 200
LIVE_CALLS_PER_S = 8
DEPOSITS = {"ada": "2", "grace": "1.5", "linus": "1", "acme-team": "5"}
MULTIPLIER = "1.4"
PACK, STARTER = "starter", ("5", "5.00")

console = Console()


def main() -> int:
    """Run the demo and return the exit status."""
    parser = argparse.ArgumentParser(description="Farebox's live demo.")
    parser.add_argument("--once", action="store_true", help="make a fixed number of calls, check them and exit")
    once = parser.parse_args().once
    if once:
        for leftover in LOGS.glob("once.db*"):
            leftover.unlink()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return _run(f"sqlite:///{LOGS}/{'once' if once else 'demo'}.db", once)
    except DemoFailed as error:
        console.print(f"The demo failed: {error}", style="bold red", markup=False)
        return 1


def _run(database_url: str, once: bool) -> int:
    with ExitStack() as stack:
        # It starts while the charge rule is set.
        double = stack.enter_context(Process("stripe-double", [*FAREBOX, "stripe-double", "--address", "127.0.0.1:0"]))
        _charge_more_than_cost(database_url)
        stripe = double.read_line()
        settings = {**stripe["settings"], "FAREBOX_TOPUP_RETURN_URL": stripe["url"]}
        collector = stack.enter_context(Process("collector", _serve(database_url, _ports(once)), settings))
        ports = {name: port for name, port in collector.read_line().items() if name in PORTS}
        collector.arguments = _serve(database_url, ports)  # the same ports for a restart
        model_server = stack.enter_context(Process("model-server", [str(HERE / "model_server.py"), "--port", "0"]))
        model_url = f"http://127.0.0.1:{model_server.read_line()['port']}"
        books = Books(f"http://127.0.0.1:{ports['api']}", f"http://127.0.0.1:{ports['metrics']}/metrics")
        for wallet, credits in DEPOSITS.items():
            books.deposit(wallet, credits, f"demo-{wallet}-{os.getpid()}-{time.time_ns()}")
        books.sell(PACK, *STARTER)
        _send_events(stripe, ports["api"])
        newcomer = f"newcomer-{time.strftime('%H%M%S')}"
        volume = ["--calls", str(ONCE_CALLS)] if once else ["--seconds", "1e9", "--rate", str(LIVE_CALLS_PER_S)]
        telemetry = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{ports['grpc']}",
            "OTEL_RESOURCE_ATTRIBUTES": "cloud.region=eu-central-1",
            "FAREBOX_API_URL": f"http://127.0.0.1:{ports['api']}",
        }
        arguments = [str(HERE / "application.py"), "--model-url", model_url, *volume, "--newcomer", newcomer]
        application = stack.enter_context(Process("application", arguments, telemetry))
        _show_first_visit(application, newcomer)
        _show_until_over(books, application, collector, _where(ports, database_url))
        return _check(books, application, database_url) if once else 0


def _send_events(stripe: dict[str, Any], api_port: int) -> None:
    """Make Stripe's double send payment events to the collector."""
    endpoint = {"url": f"http://127.0.0.1:{api_port}/v1/webhooks/stripe"}
    key = {"Authorization": f"Bearer {stripe['settings']['FAREBOX_STRIPE_API_KEY']}"}
    httpx2.post(f"{stripe['url']}/v1/webhook_endpoints", data=endpoint, headers=key).raise_for_status()


def _show_first_visit(application: Process, wallet: str) -> None:
    """Show how a customer without credits is refused, tops up, and is served."""
    words = {
        "refused": ("agent.run was refused before it cost anything", "yellow"),
        "paid": ("topped up at the checkout of Stripe's double", "cyan"),
        "done": ("agent.run succeeded", "green"),
    }
    while True:
        step = application.read_line()
        what, style = words[step["step"]]
        console.print(f"{wallet}: {what}: {step['detail']}", style=style, markup=False, highlight=False)
        if step["step"] == "done":
            return


def _charge_more_than_cost(database_url: str) -> None:
    """Set a charge rule with a margin, unless an earlier run has set it."""
    listed = _farebox("rules", "list", "--json", "--database-url", database_url)
    if listed.returncode == 0 and any(rule["author"] == "demo" for rule in json.loads(listed.stdout)):
        return
    rule = ("*", "--multiplier", MULTIPLIER, "--reason", "to show a margin", "--author", "demo")
    done = _farebox("rules", "set", *rule, "--database-url", database_url)
    if done.returncode:
        raise DemoFailed(done.stderr.strip())


def _farebox(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the `farebox` command and wait for it."""
    return subprocess.run([sys.executable, *FAREBOX, *arguments], capture_output=True, text=True, check=False)


def _serve(database_url: str, ports: dict[str, int]) -> list[str]:
    addresses = [f"--{name.replace('_', '-')}-address=127.0.0.1:{port}" for name, port in ports.items()]
    return [*FAREBOX, "serve", "--database-url", database_url, *addresses]


def _ports(once: bool) -> dict[str, int]:
    """Return the usual ports, or 0 (any free port) for a single run or if the usual ones are taken."""
    if not once and all(_is_free(port) for port in PORTS.values()):
        return PORTS
    if not once:
        console.print("The usual ports are taken; using free ones.", style="yellow")
    return dict.fromkeys(PORTS, 0)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _show_until_over(books: Books, application: Process, collector: Process, where: str) -> None:
    """Draw the table twice a second until the application ends or Ctrl-C is pressed."""
    with Live("", console=console, auto_refresh=False) as live:
        try:
            while not application.has_ended:
                time.sleep(0.5)
                if collector.has_ended:
                    live.console.print("The collector has died; restarting it.", style="yellow")
                    collector.start_again()
                    collector.read_line()
                try:
                    live.update(screen(books, where), refresh=True)
                except httpx2.TransportError:
                    continue  # the collector died during the read
        except KeyboardInterrupt:
            application.end()
        live.update(screen(books, where), refresh=True)


def _where(ports: dict[str, int], database_url: str) -> str:
    return (
        f"API and its documentation  http://127.0.0.1:{ports['api']}/docs\n"
        f"One wallet                 http://127.0.0.1:{ports['api']}/v1/wallets/ada\n"
        f"Top it up (by a test card)  http://127.0.0.1:{ports['api']}/v1/wallets/ada/topup?pack={PACK}\n"
        f"Metrics                    http://127.0.0.1:{ports['metrics']}/metrics\n"
        f"Logs                       {LOGS}/collector.log\n"
        f"The audit                  .venv/bin/farebox audit --database-url {database_url}\n"
    )


def _check(books: Books, application: Process, database_url: str) -> int:
    """Compare calls, receipts and wallets, audit the books, and return the exit status."""
    summary = application.read_line()
    errors = find_errors(books, summary["calls"])
    if not summary["delivered"]:
        errors.append("the application could not deliver all its spans")
    for error in errors:
        console.print(error, style="red", markup=False)
    audit = _farebox("audit", "--database-url", database_url)
    console.print(audit.stdout.strip(), markup=False)
    if errors or audit.returncode:
        return 1
    console.print(f"{summary['calls']} calls: debits equal the receipts, to the nano.", style="green")
    return 0


if __name__ == "__main__":
    sys.exit(main())
