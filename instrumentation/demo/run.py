"""The main job, live: starts a collector, a model server and an example application, and shows the money move.

`make demo` runs until Ctrl-C; `make demo ONCE=1` makes a fixed number of calls, checks that what was debited equals
what the receipts say, and ends with status 0 if it does. The books stay under `.farebox/`.
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
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from books import Books, find_errors
from rich.columns import Columns
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

HERE = Path(__file__).parent
STATE = Path(".farebox")
FAREBOX = (sys.executable, "-m", "farebox_collector.cli")
PORTS = {"grpc": 4317, "otlp_http": 4318, "api": 8080, "metrics": 9464}
ONCE_CALLS = 200
LIVE_CALLS_PER_S = 8
DEPOSITS = {"ada": "2", "grace": "1.5", "linus": "1", "acme-team": "5"}
MULTIPLIER = "1.4"

console = Console()


class DemoFailed(Exception):
    """The demo cannot go on; the message says why."""


def main() -> int:
    """Run the demo; the exit status."""
    parser = argparse.ArgumentParser(description="Farebox's main job, live.")
    parser.add_argument("--once", action="store_true", help="a fixed number of calls, checked, then end")
    once = parser.parse_args().once
    database = STATE / ("once.db" if once else "demo.db")
    if once:
        for leftover in STATE.glob("once.db*"):
            leftover.unlink()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return _run(f"sqlite:///{database}", once)
    except DemoFailed as error:
        console.print(f"The demo failed: {error}", style="bold red", markup=False)
        return 1


def _run(database_url: str, once: bool) -> int:
    _charge_more_than_cost(database_url)
    with ExitStack() as stack:
        collector = stack.enter_context(_process(_collector_command(database_url, once), "collector"))
        listening = _first_line(collector, "collector")
        model_server = stack.enter_context(_process([str(HERE / "model_server.py"), "--port", "0"], "model-server"))
        model_url = f"http://127.0.0.1:{_first_line(model_server, 'model-server')['port']}"
        api_url = f"http://127.0.0.1:{listening['api']}"
        metrics_url = f"http://127.0.0.1:{listening['metrics']}/metrics"
        books = Books(api_url, metrics_url)
        new = not books.wallets()
        for wallet, credits in DEPOSITS.items():
            books.deposit(wallet, credits, f"demo-{wallet}-{os.getpid()}-{time.time_ns()}")

        volume = ["--calls", str(ONCE_CALLS)] if once else ["--seconds", "1e9", "--rate", str(LIVE_CALLS_PER_S)]
        environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{listening['grpc']}"}
        environment |= {"OTEL_SERVICE_NAME": "farebox-demo", "OTEL_BSP_SCHEDULE_DELAY": "500"}
        application = stack.enter_context(
            _process([str(HERE / "application.py"), "--model-url", model_url, *volume], "application", environment)
        )
        _show_until_over(books, application, _where(api_url, metrics_url, database_url))
        if not once:
            return 0
        summary = _first_line(application, "application")
        application.wait(timeout=30)
        return _check(books, summary, new, database_url)


def _charge_more_than_cost(database_url: str) -> None:
    """Give the demo's books a charge rule with a margin, unless they have it from an earlier run."""
    listed = _farebox("rules", "list", "--json", "--database-url", database_url)
    if listed.returncode == 0 and any(rule["author"] == "demo" for rule in json.loads(listed.stdout)):
        return
    rule = ("*", "--multiplier", MULTIPLIER, "--reason", "so that there is a margin to see", "--author", "demo")
    done = _farebox("rules", "set", *rule, "--database-url", database_url)
    if done.returncode:
        raise DemoFailed(done.stderr.strip())


def _farebox(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the `farebox` command to its end."""
    return subprocess.run([*FAREBOX, *arguments], capture_output=True, text=True, check=False)


def _collector_command(database_url: str, once: bool) -> list[str]:
    """Serve on the usual ports; on any free ones for a single run, or where the usual ones are taken."""
    free = once or not all(_is_free(port) for port in PORTS.values())
    if free and not once:
        console.print("The usual ports are taken: using others.", style="yellow")
    addresses = [
        part
        for name, port in PORTS.items()
        for part in (f"--{name.replace('_', '-')}-address", f"127.0.0.1:{0 if free else port}")
    ]
    return [*FAREBOX[1:], "serve", "--database-url", database_url, *addresses]


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


@contextmanager
def _process(
    arguments: list[str], name: str, environment: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[str]]:
    """Run one of the demo's processes, its stderr in `.farebox/NAME.log`; ends it when the block is left."""
    STATE.mkdir(exist_ok=True)
    with open(STATE / f"{name}.log", "w", encoding="utf-8") as log:
        process = subprocess.Popen(
            [sys.executable, *arguments],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env={**os.environ, **(environment or {})},
            # Ctrl-C is for this process, which then ends the others in order.
            start_new_session=True,
        )
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _first_line(process: subprocess.Popen[str], name: str) -> dict[str, Any]:
    """Wait for the line of JSON that each of our processes prints."""
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        log = (STATE / f"{name}.log").read_text(encoding="utf-8").strip()
        raise DemoFailed(f"the {name} ended: {log[-2000:]}")
    return json.loads(line)  # type: ignore[no-any-return]


def _show_until_over(books: Books, application: subprocess.Popen[str], where: Text) -> None:
    """Draw the table twice a second until the application ends or somebody presses Ctrl-C."""
    with Live(_screen(books, where), console=console, auto_refresh=False) as live:
        try:
            while application.poll() is None:
                time.sleep(0.5)
                live.update(_screen(books, where), refresh=True)
        except KeyboardInterrupt:
            application.terminate()
            application.wait(timeout=30)
        live.update(_screen(books, where), refresh=True)


def _screen(books: Books, where: Text) -> Group:
    wallets = Table("wallet", title="Wallets, in credits", title_justify="left")
    for heading in ("left", "spent"):
        wallets.add_column(heading, justify="right")
    for wallet in books.wallets():
        wallets.add_row(wallet["wallet"], wallet["balance_credits"], wallet["spent_credits"])
    events = Table("event", title="Events, in US dollars", title_justify="left")
    for heading in ("calls", "cost", "charged", "margin"):
        events.add_column(heading, justify="right")
    for name, event in books.events().items():
        margin = event.charged_credits - event.cost_usd
        figures = (f"{figure:.6f}" for figure in (event.cost_usd, event.charged_credits, margin))
        events.add_row(name, str(event.requests), *figures)
    return Group(Columns([wallets, events]), where)


def _where(api_url: str, metrics_url: str, database_url: str) -> Text:
    return Text(
        f"API and its documentation  {api_url}/docs\n"
        f"One wallet                 {api_url}/v1/wallets/ada\n"
        f"Metrics                    {metrics_url}\n"
        f"Logs                       {STATE}/collector.log\n"
        f"When it has ended          .venv/bin/farebox audit --database-url {database_url}\n"
    )


def _check(books: Books, summary: dict[str, Any], new: bool, database_url: str) -> int:
    """Compare calls, receipts and wallets, then audit the books; the exit status."""
    errors = find_errors(books, summary["calls"] if new else None)
    for error in errors:
        console.print(error, style="red", markup=False)
    audit = _farebox("audit", "--database-url", database_url)
    console.print(audit.stdout.strip(), markup=False)
    if errors or audit.returncode:
        return 1
    console.print(
        f"{summary['calls']} calls: what was debited equals what the receipts say, to the nano.", style="green"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
