"""Farebox beside Phoenix and MLflow: the same bodies, in turns, in one run.

    make bench-peers
    make bench-peers ARGS="--spans 20000 --write"

Each is installed in an environment of its own under .bench/peers, with pinned versions, and runs as it does by
default, on SQLite. What counts is how many spans a second it has priced in its database, not how fast it says yes:
Phoenix acknowledges before it stores. Both must find the price of every span, and the same one.
"""

import argparse
import hashlib
import os
import shlex
import signal
import socket
import sqlite3
import statistics
import subprocess
import sys
import time
import venv
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

import httpx2
from bodies import SPANS_A_TRACE, Shape, owed
from figures import HEADINGS, Figure, machine, machine_words, markdown, save, show, write_section
from load import GRPC, HTTP, IN_FLIGHT, Generator, Load, spans_a_second
from rich.console import Console
from rounds import Subject, difference_nanocredits, seconds_until
from systems import REPOSITORY, SCRATCH, SQLITE, Databases, usage

REQUIREMENTS = REPOSITORY / "benchmarks/requirements"
_START_S = 300.0
_STALLED_S = 60.0
_POLL_S = 0.2
_WARM_UP = 64
"""Small requests before the clock starts, over many connections, so that every worker gets some."""
_HOST = "127.0.0.1"


class Peer(NamedTuple):
    """Another system, as it is by default."""

    name: str
    package: str
    command: Callable[[Path, int, int], list[str]]
    """From its environment and two free ports, for HTTP and gRPC."""
    environment: Callable[[Path, int, int], dict[str, str]]
    """From the directory for its data and the ports."""
    ready: str
    database: str
    priced: str
    """SQL: how many spans have a price, and what they cost in dollars."""
    transports: tuple[str, ...]
    goal: float
    """What Farebox is to be, times as fast."""
    headers: tuple[tuple[str, str], ...] = ()

    @property
    def requirements(self) -> Path:
        """Its pinned requirements."""
        return REQUIREMENTS / f"{self.name.lower()}.txt"

    @property
    def version(self) -> str:
        """Its pinned version."""
        lines = self.requirements.read_text(encoding="ascii").splitlines()
        return next(line.partition("==")[2] for line in lines if line.startswith(f"{self.package}=="))


PEERS = (
    Peer(
        "Phoenix",
        "arize-phoenix",
        lambda environment, _http, _grpc: [str(environment / "bin/phoenix"), "serve"],
        lambda directory, http, grpc: {
            "PHOENIX_WORKING_DIR": str(directory),
            "PHOENIX_HOST": _HOST,
            "PHOENIX_PORT": str(http),
            "PHOENIX_GRPC_PORT": str(grpc),
            "PHOENIX_TELEMETRY_ENABLED": "false",
        },
        "/healthz",
        "phoenix.db",
        "SELECT count(*), coalesce(sum(total_cost), 0) FROM span_costs WHERE total_cost > 0",
        (HTTP, GRPC),
        250,
    ),
    Peer(
        "MLflow",
        "mlflow",
        lambda environment, http, _grpc: [
            str(environment / "bin/mlflow"),
            "server",
            "--host",
            _HOST,
            "--port",
            str(http),
        ],
        lambda _directory, _http, _grpc: {"MLFLOW_DISABLE_TELEMETRY": "true"},
        "/health",
        "mlflow.db",
        "SELECT count(*), coalesce(sum(total_cost), 0) FROM spans WHERE total_cost > 0",
        (HTTP,),
        40,
        (("x-mlflow-experiment-id", "0"),),
    ),
)


class Running(NamedTuple):
    """A peer that runs."""

    pid: int
    endpoints: dict[str, str]
    database: Path

    def used(self) -> tuple[float, float]:
        """CPU seconds of all its processes so far, and the sum of the most memory that each ever had, in MiB."""
        found = usage(self.pid)
        return found.cpu_s, found.peak_mib


class Priced(NamedTuple):
    """What one run of a peer came to."""

    acknowledged: float
    priced: float
    """Spans a second."""
    cpu_s: float
    """For a thousand spans."""
    peak_mib: float
    share: float
    """How many of the spans it had priced when it stopped doing so."""


def environment_of(peer: Peer) -> Path:
    """The peer's environment, made at the first use of these requirements."""
    digest = hashlib.sha256(peer.requirements.read_bytes()).hexdigest()[:12]
    directory = SCRATCH / "peers" / f"{peer.package}-{digest}"
    done = directory / "installed"
    if not done.exists():
        venv.create(directory, clear=True, with_pip=False)
        uv = str(Path(sys.executable).with_name("uv"))
        python = str(directory / "bin/python")
        command = [uv, "pip", "install", "--quiet", "--python", python, "--no-deps", "-r", str(peer.requirements)]
        subprocess.run(command, check=True)
        done.touch()
    return directory


@contextmanager
def running(peer: Peer, directory: Path) -> Iterator[Running]:
    """A peer over a new database, for as long as the block runs."""
    http, grpc = _free_port(), _free_port()
    environment = environment_of(peer)
    with open(directory / "log", "wb") as log:
        process = subprocess.Popen(
            peer.command(environment, http, grpc),
            cwd=directory,
            env={**os.environ, **peer.environment(directory, http, grpc)},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        seconds_until(lambda: _answers(f"http://{_HOST}:{http}{peer.ready}", process), _START_S)
        endpoints = {HTTP: f"{_HOST}:{http}", GRPC: f"{_HOST}:{grpc}"}
        yield Running(process.pid, endpoints, directory / peer.database)
    finally:
        # Its workers too; it is the leader of a group of its own.
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=30)


def _free_port() -> int:
    with socket.create_server((_HOST, 0)) as probe:
        return int(probe.getsockname()[1])


def _answers(url: str, process: "subprocess.Popen[bytes]") -> bool:
    if process.poll() is not None:
        raise RuntimeError(f"it ended with status {process.returncode} instead of answering {url}")
    try:
        return httpx2.get(url, timeout=10).is_success
    except httpx2.HTTPError:
        return False


def measure(peer: Peer, transport: str, generator: Generator, directory: Path, spans: int) -> Priced:
    """Send so many spans, and wait until they are priced or nothing moves any more."""
    seed = time.time_ns() % 2**32
    shape, small = Shape(seed=seed), Shape(seed=seed + 1, spans=SPANS_A_TRACE)
    bodies = -(-spans // shape.spans)
    with running(peer, directory) as peer_running:

        def send(shape: Shape, count: int, in_flight: int) -> float:
            endpoints = [peer_running.endpoints[transport]]
            load = Load(endpoints, transport, shape, bodies=count, in_flight=in_flight, headers=peer.headers)
            return spans_a_second(generator.send(load), shape)

        # Each of its processes loads at its first request what it loads.
        send(small, _WARM_UP, _WARM_UP // 4)
        before = _WARM_UP * small.spans
        _wait_until_priced(peer, peer_running, before)
        cpu_s, _ = peer_running.used()
        began_s = time.monotonic()
        acknowledged = send(shape, bodies, IN_FLIGHT)
        last_s = _wait_until_priced(peer, peer_running, before + bodies * shape.spans)
        used_s, peak_mib = peer_running.used()
        count, dollars = _priced(peer, peer_running)
    due = (owed(shape, range(bodies)) + owed(small, range(_WARM_UP))).total() / 1e9
    done, wanted = count - before, bodies * shape.spans
    if done == wanted and abs(dollars - due) > 1e-6 * due:
        raise RuntimeError(f"{peer.name} found other prices: ${dollars:.6f}, not ${due:.6f}")
    cpu_each_s = (used_s - cpu_s) / max(1, done) * 1000
    return Priced(acknowledged, done / (last_s - began_s), cpu_each_s, peak_mib, done / wanted)


def _wait_until_priced(peer: Peer, peer_running: Running, spans: int) -> float:
    """When so many spans had a price, or the last one that got any."""
    count, last_s = -1, time.monotonic()
    while count < spans and time.monotonic() - last_s < _STALLED_S:
        time.sleep(_POLL_S)
        now, _ = _priced(peer, peer_running)
        if now > count:
            count, last_s = now, time.monotonic()
    return last_s


def _priced(peer: Peer, peer_running: Running) -> tuple[int, float]:
    uri = f"{peer_running.database.resolve().as_uri()}?mode=ro"
    with closing(sqlite3.connect(uri, uri=True, timeout=60)) as connection:
        count, dollars = connection.execute(peer.priced).fetchone()
    return int(count), float(dollars)


def beside(peer: Peer, generator: Generator, databases: Databases, options: argparse.Namespace) -> list[Figure]:
    """One peer and Farebox in turns."""
    figures = []
    with databases.farebox(databases.blank(SQLITE)) as farebox_server:
        farebox = Subject(generator, [farebox_server], Shape(seed=2))
        for transport in peer.transports:
            farebox.send(farebox.load(transport, 1.0))
            ours, theirs = [], []
            for _ in range(options.rounds):
                ours.append(farebox.send(farebox.load(transport, options.seconds)).spans_a_second)
                theirs.append(measure(peer, transport, generator, databases.new_directory(), options.spans))
            figures += _figures(peer, transport, ours, theirs)
        difference = difference_nanocredits(farebox_server, [farebox])
    what = "Farebox: debited wallet by wallet, less what the calls cost"
    return [*figures, Figure(what, SQLITE, difference, "nano-USD", 0, False, f"of {farebox.spans:,} spans")]


def _figures(peer: Peer, transport: str, ours: list[float], theirs: list[Priced]) -> list[Figure]:
    where = f"{peer.name} {peer.version}, {SQLITE}, {transport}"
    priced = statistics.median(one.priced for one in theirs)
    share = min(one.share for one in theirs)
    top = statistics.median(ours)
    return [
        Figure("acknowledged spans/s", where, statistics.median(one.acknowledged for one in theirs)),
        Figure(
            "priced in its database, spans/s", where, priced, note="" if share == 1 else f"{share:.0%} of the spans"
        ),
        Figure("server CPU for 1,000 spans", where, statistics.median(one.cpu_s for one in theirs), "s"),
        Figure("peak RSS", where, max(one.peak_mib for one in theirs), "MiB"),
        Figure("Farebox: priced and debited spans/s", f"{SQLITE}, {transport}", top, samples=ours),
        Figure(f"Farebox ÷ {peer.name}", f"{SQLITE}, {transport}", top / priced, goal=peer.goal),
    ]


def main() -> int:
    """The command; its exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [peer.name for peer in PEERS]
    parser.add_argument("--peers", nargs="+", choices=names, default=names)
    parser.add_argument("--spans", type=int, default=6_000, help="for a peer, in a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0, help="of Farebox's rounds")
    parser.add_argument("--write", action="store_true", help="put the table into docs/explanation/performance.md")
    options = parser.parse_args()
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
    host = machine()
    console.print(machine_words(host))
    figures: list[Figure] = []
    with closing(Databases()) as databases, closing(Generator()) as generator:
        for peer in PEERS:
            if peer.name in options.peers:
                environment_of(peer)
                figures += beside(peer, generator, databases, options)
    show(console, "Farebox beside its peers", figures)
    command = f"benchmarks/peers.py {shlex.join(sys.argv[1:])}".strip()
    path = SCRATCH / "results" / time.strftime("peers-%Y%m%dT%H%M%SZ.json", time.gmtime())
    save(path, command, host, figures)
    console.print(f"kept in {path}")
    if options.write:
        table = markdown(HEADINGS, [figure.row() for figure in figures])
        write_section("peers", f"`{command}`; {machine_words(host)}.\n\n{table}")
    return 1 if any(figure.value and figure.unit == "nano-USD" for figure in figures) else 0


if __name__ == "__main__":
    sys.exit(main())
