"""The books from outside: the collector under torture, and plain SQL to see what is really there."""

import json
import re
import resource
import sqlite3
import sys
from collections.abc import Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import psycopg
from farebox_collector.ledger.audit.books_audit import audit
from farebox_collector.ledger.storage.connect import open_database
from harness import Collector, farebox

SERVE = Path(__file__).with_name("serve.py")


class Served(Collector):
    """A collector that is started through `serve.py`; `fail` and `clock_offset_s` are for its next start."""

    def __init__(
        self,
        url: str,
        log: Path,
        fail: str = "",
        clock_offset_s: int = 0,
        full_while: Path | None = None,
        environment: Mapping[str, str] | None = None,
        **settings: Any,
    ) -> None:
        self.fail = fail
        self.clock_offset_s = clock_offset_s
        self._full_while = full_while
        self._environment = environment or {}
        self._peak_bytes = 0
        super().__init__(url if url.startswith("postgresql") else Path(url.removeprefix("sqlite:///")), log, **settings)

    def command(self) -> list[str]:
        """As in the base class, with another program."""
        options = ["--fail", self.fail, "--clock-offset-s", str(self.clock_offset_s)]
        if self._full_while is not None:
            options += ["--full-while", str(self._full_while)]
        return [sys.executable, str(SERVE), "--database-url", self.database_url, *options]

    def environment(self) -> dict[str, str]:
        """As in the base class, and what this collector was given on top."""
        return {**super().environment(), **self._environment}

    def wait_killed(self) -> None:
        """Wait until the failpoint has killed it."""
        self.process.wait(timeout=60)
        self._close_clients()

    def limit_file_size(self, limit_bytes: int) -> None:
        """From now on no file of this process grows beyond the limit; -1 is none."""
        resource.prlimit(self.process.pid, resource.RLIMIT_FSIZE, (limit_bytes, resource.RLIM_INFINITY))

    def kill(self) -> None:
        """As in the base class, but not before looking at its memory."""
        self._look_at_memory()
        super().kill()

    def stop(self) -> int:
        """As in the base class, but not before looking at its memory."""
        self._look_at_memory()
        return super().stop()

    @property
    def peak_bytes(self) -> int:
        """The most memory that this process, or one before it, ever had in use."""
        self._look_at_memory()
        return self._peak_bytes

    def _look_at_memory(self) -> None:
        with suppress(OSError):
            status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
            found = re.search(r"VmHWM:\s+(\d+) kB", status)
            if found:  # one that has ended has none
                self._peak_bytes = max(self._peak_bytes, int(found[1]) * 1024)


class Books:
    """What is in the database, read without the product's help."""

    def __init__(self, url: str) -> None:
        self.url = url

    def rows(self, statement: str) -> list[tuple[Any, ...]]:
        """The rows of one statement."""
        if self.url.startswith("sqlite:///"):
            with closing(sqlite3.connect(self.url.removeprefix("sqlite:///"), timeout=30)) as connection:
                connection.execute("PRAGMA query_only=ON")
                return connection.execute(statement).fetchall()
        with psycopg.connect(self.url.replace("+psycopg", "")) as link:
            return link.execute(statement.encode()).fetchall()

    def number(self, statement: str) -> int:
        """The one number a statement returns."""
        return int(self.rows(statement)[0][0] or 0)

    def mismatches(self, through_the_command: bool) -> list[str]:
        """A: what the audit finds, through `farebox audit --json` or, where there is no time for it, in-process."""
        if through_the_command:
            done = farebox("audit", "--json", "--database-url", self.url)
            assert done.returncode in (0, 1), done.stderr
            return [f"{row['check']}: {row['what']}" for row in json.loads(done.stdout)["mismatches"]]
        with closing(open_database(self.url, writable=False)) as database, database.reading() as connection:
            return [str(mismatch) for mismatch in audit(connection)]
