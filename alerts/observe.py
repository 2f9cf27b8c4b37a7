"""Run Prometheus and Alertmanager with the repository's configuration, without containers: `make observe`.

Both must be installed (Debian: prometheus, prometheus-alertmanager). Their data and a copy of the configuration, in
which only addresses differ, are under `.farebox/observe/`.
"""

from __future__ import annotations

import argparse
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
COPIED = ("prometheus.yml", "recording.yml", "spending.yml", "service.yml", "metering.yml")
WEBHOOK = "http://collector:8080"
_SHORTEST_MS = 500
_UNITS_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
_DURATION = r"(?:\d+(?:ms|[smhdw]))+"
_SPANS = re.compile(rf"(?P<before>\[|offset )(?P<time>{_DURATION})")
_WAITS = re.compile(
    r"(?P<before>\b(?:for|keep_firing_for|group_wait|group_interval|repeat_interval|resolve_timeout): )"
    rf"(?P<time>{_DURATION})"
)
_ROUNDS = re.compile(rf"(?P<before>\b(?:interval|scrape_interval|evaluation_interval): )(?P<time>{_DURATION})")


class CannotObserve(Exception):
    """A program is missing or did not start; the message names it and what to do."""


def write_configuration(
    directory: Path, collectors: Sequence[str], api: str, alertmanager: str, key: str = "", speed: int = 1
) -> None:
    """Copy the configuration with real addresses (host:port).

    Receivers that need missing keys are disabled. `speed` divides every duration, so that a test takes seconds instead
    of hours; it changes nothing else in the rules.
    """
    (directory / "targets").mkdir(parents=True, exist_ok=True)
    (directory / "secrets").mkdir(exist_ok=True)
    (directory / "secrets/farebox_key").write_text(key, encoding="utf-8")
    for name in COPIED:
        (directory / name).write_text(_faster((HERE / name).read_text(encoding="utf-8"), speed), encoding="utf-8")
    _write_targets(directory / "targets/collectors.yml", collectors)
    _write_targets(directory / "targets/alertmanager.yml", [alertmanager])
    routes: dict[str, Any] = yaml.safe_load(_faster((HERE / "alertmanager.yml").read_text(encoding="utf-8"), speed))
    for receiver in routes["receivers"]:
        for kind in ("pagerduty_configs", "slack_configs"):
            receiver.pop(kind, None)
        for webhook in receiver.get("webhook_configs", ()):
            webhook["url"] = webhook["url"].replace(WEBHOOK, f"http://{api}")
            if not key:
                del webhook["http_config"]
    (directory / "alertmanager.yml").write_text(yaml.safe_dump(routes), encoding="utf-8")


@contextmanager
def running(directory: Path, prometheus: str, alertmanager: str) -> Iterator[None]:
    """Run both programs with a written configuration until the block ends. Raises CannotObserve."""
    commands = {
        "prometheus": [
            _program("prometheus"),
            "--config.file=prometheus.yml",
            f"--storage.tsdb.path={directory / 'prometheus-data'}",
            f"--web.listen-address={prometheus}",
            "--enable-feature=exemplar-storage",
        ],
        "alertmanager": [
            _program("prometheus-alertmanager", "alertmanager"),
            "--config.file=alertmanager.yml",
            f"--storage.path={directory / 'alertmanager-data'}",
            f"--web.listen-address={alertmanager}",
            "--cluster.listen-address=",
        ],
    }
    started: list[subprocess.Popen[bytes]] = []
    try:
        for name, command in commands.items():
            with open(directory / f"{name}.log", "wb") as log:
                started.append(subprocess.Popen(command, cwd=directory, stdout=log, stderr=log, start_new_session=True))
        for process, address in zip(started, (prometheus, alertmanager), strict=True):
            _wait_until_ready(process, address, directory)
        yield
    finally:
        for process in started:
            process.terminate()
        for process in started:
            process.wait(timeout=30)


def free_address() -> str:
    """Return a free port of loopback."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def _faster(text: str, speed: int) -> str:
    if speed == 1:
        return text

    def divided(found: re.Match[str], shortest_ms: int = 1) -> str:
        parts = re.findall(r"(\d+)(ms|[smhdw])", found["time"])
        whole_ms = sum(int(number) * _UNITS_MS[unit] for number, unit in parts)
        return f"{found['before']}{max(shortest_ms, whole_ms // speed)}ms"

    text = _WAITS.sub(divided, _SPANS.sub(divided, text))
    # Shorter intervals than half a second would overload the programs.
    return _ROUNDS.sub(lambda found: divided(found, _SHORTEST_MS), text)


def _write_targets(path: Path, targets: Sequence[str]) -> None:
    path.write_text(yaml.safe_dump([{"targets": list(targets)}]), encoding="utf-8")


def _program(*names: str) -> str:
    for name in names:
        found = shutil.which(name)
        if found:
            return found
    raise CannotObserve(f"{names[0]} is not installed; run `apt-get install prometheus prometheus-alertmanager`")


def _wait_until_ready(process: subprocess.Popen[bytes], address: str, directory: Path) -> None:
    for _ in range(600):
        if process.poll() is not None:
            raise CannotObserve(f"{process.args[0]!s} ended; see its log in {directory}")  # type: ignore[index]
        try:
            with urllib.request.urlopen(f"http://{address}/-/ready", timeout=5) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise CannotObserve(f"{address} does not become ready; see its log in {directory}")


def main() -> int:
    """Run until Ctrl-C."""
    parser = argparse.ArgumentParser(description="Prometheus and Alertmanager with Farebox's configuration.")
    parser.add_argument("--collector", default="127.0.0.1:9464", help="address of a collector's metrics")
    parser.add_argument("--api", default="127.0.0.1:8080", help="address of its API, for incidents")
    parser.add_argument("--prometheus", default="127.0.0.1:9090", help="address for Prometheus")
    parser.add_argument("--alertmanager", default="127.0.0.1:9093", help="address for Alertmanager")
    parser.add_argument("--key", default="", help="an API key with the scope alerts, if keys are required")
    parser.add_argument("--directory", type=Path, default=Path(".farebox/observe"))
    chosen = parser.parse_args()
    directory = chosen.directory.resolve()
    write_configuration(directory, [chosen.collector], chosen.api, chosen.alertmanager, chosen.key)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with running(directory, chosen.prometheus, chosen.alertmanager):
            print(f"Prometheus    http://{chosen.prometheus}/alerts")
            print(f"Alertmanager  http://{chosen.alertmanager}/")
            print("Incidents     .venv/bin/farebox incidents list")
            print("Ctrl-C ends both. Run `make demo` in another terminal for traffic.", flush=True)
            signal.pause()
    except KeyboardInterrupt:
        pass
    except CannotObserve as error:
        print(f"make observe: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
