"""The servers that are measured, each in a process of its own on free ports, and what the system says of a process."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple, Protocol

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from blank import blank_postgresql, blank_sqlite
from harness import Collector
from load import HTTP
from postgres import PostgresServer, find_binaries

REPOSITORY = Path(__file__).parents[1]
SCRATCH = REPOSITORY / ".bench"
"""Books, environments and results; not tracked."""
SQLITE, POSTGRESQL = "SQLite", "PostgreSQL"
_NANO = 10**9


class Server(Protocol):
    """A receiver that runs."""

    @property
    def pid(self) -> int:
        """Its process."""

    def endpoint(self, transport: str) -> str:
        """`host:port` for OTLP."""


class FloorServer:
    """`benchmarks/floor.py` over a database of its own."""

    def __init__(self, database_url: str) -> None:
        command = [sys.executable, str(REPOSITORY / "benchmarks/floor.py"), "--database", database_url]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self._ports = json.loads(self._process.stdout.readline())
        self.database_url = database_url

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    def endpoint(self, transport: str) -> str:
        """`host:port` for OTLP."""
        return f"127.0.0.1:{self._ports['otlp_http' if transport == HTTP else 'grpc']}"

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait(timeout=30)
        assert self._process.stdout is not None
        self._process.stdout.close()


class Farebox:
    """`farebox serve` over books."""

    def __init__(self, collector: Collector) -> None:
        self.collector = collector

    @property
    def pid(self) -> int:
        """Its process."""
        return self.collector.process.pid

    def endpoint(self, transport: str) -> str:
        """`host:port` for OTLP."""
        return self.collector.otlp_url.removeprefix("http://") if transport == HTTP else self.collector.grpc_target

    def debited_nanocredits(self) -> dict[str, int]:
        """Wallet → what its calls took, as the API says."""
        wallets = self.collector.pages("/v1/wallets", limit=1_000)
        return {one["wallet"]: int(Decimal(one["spent_credits"]) * _NANO) for one in wallets if one["spent_credits"]}

    def stop(self) -> None:
        """SIGTERM; everything is in its file then."""
        if self.collector.stop() != 0:
            raise RuntimeError(f"the collector ended badly: {self.collector.log}")

    def close(self) -> None:
        """End it."""
        self.collector.close()


class Databases:
    """Makes new databases, of a PostgreSQL server of its own where that is asked for."""

    def __init__(self) -> None:
        SCRATCH.mkdir(exist_ok=True)
        self._open = ExitStack()
        self.directory = Path(self._open.enter_context(tempfile.TemporaryDirectory(prefix="run-", dir=SCRATCH)))
        self._postgres: PostgresServer | None = None
        self._made = 0

    def close(self) -> None:
        """Remove all of them."""
        self._open.close()

    def new_directory(self) -> Path:
        """An unused directory."""
        self._made += 1
        directory = self.directory / str(self._made)
        directory.mkdir()
        return directory

    def empty(self, kind: str) -> str:
        """The URL of a database with nothing in it."""
        return f"sqlite:///{self.new_directory()}/floor.db" if kind == SQLITE else self._server().new_database()

    def blank(self, kind: str) -> str:
        """The URL of new books with prices."""
        return blank_sqlite(self.new_directory()) if kind == SQLITE else blank_postgresql(self._server())

    def server_pid(self) -> int:
        """The process of the PostgreSQL server, whose children serve the connections."""
        pid_file = self._server().data / "data/postmaster.pid"
        return int(pid_file.read_text(encoding="ascii").splitlines()[0])

    def _server(self) -> PostgresServer:
        if self._postgres is None:
            binaries = find_binaries()
            if binaries is None:
                raise SystemExit("PostgreSQL's server is not installed here; leave it out with --databases SQLite")
            self._postgres = self._open.enter_context(closing(PostgresServer(binaries)))
        return self._postgres

    @contextmanager
    def farebox(self, database_url: str, **settings: Any) -> Iterator[Farebox]:
        """A collector over books, for as long as the block runs."""
        with closing(Farebox(Collector(database_url, self.new_directory() / "log", **settings))) as server:
            yield server


class Usage(NamedTuple):
    """What a process used so far, and holds."""

    cpu_s: float
    resident_mib: float
    peak_mib: float


def usage(pid: int) -> Usage:
    """What the system says of a process and all that it started: processor time, and memory as if none were shared."""
    return Usage(*map(sum, zip(*map(_usage_of_one, children(pid)), strict=True)))


def _usage_of_one(pid: int) -> Usage:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    ticks = int(fields[11]) + int(fields[12])
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    memory = {name: value.split()[0] for name, _, value in (line.partition(":") for line in lines) if "kB" in value}
    return Usage(ticks / os.sysconf("SC_CLK_TCK"), int(memory["VmRSS"]) / 1024, int(memory["VmHWM"]) / 1024)


def children(pid: int) -> list[int]:
    """A process and all that it started, and so on."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text(encoding="ascii").split():
            found += children(int(child))
    return found
