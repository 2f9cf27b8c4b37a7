"""`farebox serve` with its hands tied: the real collector, killed at a named point or living in another year.

The product has no hooks for this. What is needed is wrapped around its classes here, after they were imported.
"""

import argparse
import asyncio
import functools
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from farebox_collector import assembly, logs
from farebox_collector.intake.group_commit import COMMITTING
from farebox_collector.ledger.storage.database import has_unfolded
from farebox_collector.ledger.storage.postgresql import PostgresqlDatabase
from farebox_collector.ledger.storage.sqlite import SqliteDatabase
from farebox_collector.ledger.usage.folding import Folder
from farebox_collector.pipeline import Pipeline
from farebox_collector.settings import Settings
from sqlalchemy import Connection

_MOST_PAGES = 1_073_741_823
FAILPOINTS = ("before_commit", "after_commit", "before_acknowledgement", "before_fold", "in_fold", "after_fold")


class Failpoint:
    """Kills this process, as `kill -9` does, when it passes one point for the n-th time after it was ready."""

    def __init__(self, name: str, passes: int) -> None:
        self._name = name
        self._left = passes
        self.armed = False

    def passed(self, name: str) -> None:
        """This point was reached."""
        if self.armed and name == self._name:
            self._left -= 1
            if self._left <= 0:
                os.kill(os.getpid(), signal.SIGKILL)


def wrap_transactions(database: type, point: Failpoint) -> None:
    """Pass the points on both sides of COMMIT, of transactions that record what came in."""
    original = database.appending  # type: ignore[attr-defined]

    @contextmanager
    def appending(self: Any) -> Iterator[Connection]:
        with original(self) as connection:
            yield connection
            _pass(point, "before_commit")
        _pass(point, "after_commit")

    database.appending = appending  # type: ignore[attr-defined]


def wrap_fold(point: Failpoint) -> None:
    """Pass the points around the posting of a fold: the second is before its COMMIT, the third after it."""
    original = Folder.__call__

    def fold(self: Folder, connection: Connection) -> None:
        if not has_unfolded(connection):
            return
        # The fold before this one is committed.
        point.passed("after_fold")
        point.passed("before_fold")
        original(self, connection)
        point.passed("in_fold")

    Folder.__call__ = fold  # type: ignore[method-assign]


def _pass(point: Failpoint, name: str) -> None:
    # Jobs have transactions too, at moments of their own.
    if threading.current_thread().name == COMMITTING:
        point.passed(name)


def limit_pages(full: Path) -> None:
    """While this file exists the books in SQLite get no further page, by `max_page_count`, which is a connection's."""
    original = SqliteDatabase.appending

    @contextmanager
    def appending(self: Any) -> Iterator[Connection]:
        with original(self) as connection:
            # It never goes below what there is.
            connection.exec_driver_sql(f"PRAGMA max_page_count={1 if full.exists() else _MOST_PAGES}")
            yield connection

    SqliteDatabase.appending = appending  # type: ignore[method-assign]


def wrap_acknowledgement(point: Failpoint) -> None:
    """Pass the point between the commit, which is known by now, and the answer."""
    original: Callable[..., Awaitable[Any]] = Pipeline.accept

    @functools.wraps(original)
    async def accept(self: Pipeline, request: Any) -> Any:
        outcome = await original(self, request)
        point.passed("before_acknowledgement")
        return outcome

    Pipeline.accept = accept  # type: ignore[method-assign]


def main() -> None:
    """Serve until SIGTERM, or until the failpoint."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--database-url", required=True)
    parser.add_argument("--fail", default="", help="a failpoint and at which pass, such as before_commit:3")
    parser.add_argument("--clock-offset-s", type=int, default=0)
    parser.add_argument("--full-while", type=Path, help="SQLite's books may not grow while this file exists")
    arguments = parser.parse_args()
    name, _, passes = arguments.fail.partition(":")
    if name and name not in FAILPOINTS:
        parser.error(f"there is no failpoint {name!r}")
    point = Failpoint(name, int(passes or 1))
    wrap_transactions(SqliteDatabase, point)
    wrap_transactions(PostgresqlDatabase, point)
    wrap_acknowledgement(point)
    wrap_fold(point)
    if arguments.full_while is not None:
        limit_pages(arguments.full_while)

    def announce(listening: assembly.Listening) -> None:
        point.armed = True
        sys.stdout.write(json.dumps({"ready": True, "pid": os.getpid(), **listening._asdict()}) + "\n")
        sys.stdout.flush()

    anywhere: dict[str, Any] = dict.fromkeys(
        ("grpc_address", "otlp_http_address", "api_address", "metrics_address"), "127.0.0.1:0"
    )
    settings = Settings(database_url=arguments.database_url, **anywhere)
    logs.configure(settings.log_level)
    offset_ns = arguments.clock_offset_s * 10**9
    try:
        import uvloop

        run: Callable[..., Any] = uvloop.run
    except ImportError:  # not made for Windows
        run = asyncio.run
    run(assembly.serve(settings, announce, lambda: time.time_ns() + offset_ns))


if __name__ == "__main__":
    main()
