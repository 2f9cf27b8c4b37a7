"""Books with millions of records, written by Farebox itself over thirty days of calls, and what they do to its speed.

They come in through the front door, so that every roll-up, leg and index is what it would be. Books in SQLite are kept
under .bench/ for the next time.
"""

import shutil
import sqlite3
import statistics
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import httpx2
from bodies import Shape
from figures import Figure, number, quantile, ratio
from intake import Bench
from load import HTTP, Generator, Load, Sent
from rounds import Round, Subject, alternating, difference_nanocredits, median_rate, rates
from systems import SCRATCH, SQLITE, Databases, Farebox

SHAPE = Shape(seed=90)
DAYS = 30
DAY_NS = 86_400 * 10**9
STARTS = 5
ASKED = 200
_NEVER_HOURS = 1_000_000
_PIECE = 1_000
"""Bodies that are sent at once while books are filled."""

Progress = Callable[[int, Sent], None]
"""Told how many spans there are now, and what came of the last piece."""


class History(NamedTuple):
    """What is in the books."""

    bodies: int
    began_ns: int

    @property
    def spans(self) -> int:
        """Usage records."""
        return self.bodies * SHAPE.spans


def settings() -> dict[str, Any]:
    """Of collectors over such books: calls of a month ago are priced as of then, and no full audit runs beside."""
    return {"max_span_age_hours": _NEVER_HOURS, "full_audit_hours": _NEVER_HOURS}


def fill(generator: Generator, server: Farebox, spans: int, progress: Progress, piece: int = _PIECE) -> History:
    """Send thirty days of calls to a collector over blank books; progress is told after every so many bodies."""
    bodies = max(1, spans // SHAPE.spans)
    step_ns = DAYS * DAY_NS // bodies
    # Not up to now: what comes after it is to be newer.
    history = History(bodies, time.time_ns() - DAYS * DAY_NS)
    for first in range(0, bodies, piece):
        count = min(piece, bodies - first)
        load = Load(
            [server.endpoint(HTTP)], HTTP, SHAPE, first=first, bodies=count, began_ns=history.began_ns, step_ns=step_ns
        )
        progress((first + count) * SHAPE.spans, generator.send(load))
    return history


def sqlite_books(generator: Generator, databases: Databases, spans: int, progress: Progress) -> Path:
    """A file with books of so many records: the one of an earlier run, or a new one that is kept for the next."""
    kept = _kept(spans)
    blank = Path(databases.blank(SQLITE).removeprefix("sqlite:///"))
    if kept.exists() and _edition(kept) == _edition(blank) and _is_recent(kept):
        return kept
    path = unfinished(databases)
    with databases.farebox(f"sqlite:///{path}", **settings()) as server:
        fill(generator, server, spans, progress)
        server.stop()
    return keep(path, spans)


def unfinished(databases: Databases) -> Path:
    """A file with blank books, to be filled."""
    path = SCRATCH / "unfinished.db"
    for stale in SCRATCH.glob("unfinished.db*"):
        stale.unlink()
    shutil.copyfile(databases.blank(SQLITE).removeprefix("sqlite:///"), path)
    return path


def keep(path: Path, spans: int) -> Path:
    """Keep a file that was filled with so many records for the next time; where it is now."""
    return path.rename(_kept(spans))


def _kept(spans: int) -> Path:
    return SCRATCH / f"history-{spans}.db"


def _edition(path: Path) -> str:
    """The schema of the books in a file."""
    with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as connection:
        return str(connection.execute("SELECT version_num FROM alembic_version").fetchone()[0])


def _is_recent(path: Path) -> bool:
    """Whether its days are still those that a report of thirty days shows, all but one."""
    return time.time() - path.stat().st_mtime < 86_400


def on_history(bench: Bench, kind: str, spans: int) -> list[Figure]:
    """Starting, reading and taking calls over large books, against empty ones."""
    url = _books(bench, kind, spans)
    where = f"{kind}, {number(max(1, spans // SHAPE.spans) * SHAPE.spans)} records"
    figures = [_start(bench.databases, url, where)]
    with (
        bench.databases.farebox(url, **settings()) as full,
        bench.databases.farebox(bench.databases.blank(kind), **settings()) as empty,
    ):
        figures += _reads(full, where)
        figures += _taking(bench, full, empty, where)
    return figures


def _books(bench: Bench, kind: str, spans: int) -> str:
    """The URL of books with so many records, to be written to; in PostgreSQL they are filled each time."""

    def progress(done: int, sent: Sent) -> None:
        rate = len(sent.answered) * SHAPE.spans / (sent.ended_s - sent.began_s)
        bench.console.print(f"{kind}: {done:,} of {spans:,} records, {rate:,.0f} spans/s")

    if kind == SQLITE:
        path = bench.databases.new_directory() / "farebox.db"
        shutil.copyfile(sqlite_books(bench.generator, bench.databases, spans, progress), path)
        return f"sqlite:///{path}"
    url = bench.databases.blank(kind)
    with bench.databases.farebox(url, **settings()) as server:
        fill(bench.generator, server, spans, progress)
        server.stop()
    return url


def _start(databases: Databases, url: str, where: str) -> Figure:
    """From the command to the answer of /readyz."""
    taken = []
    for _ in range(STARTS):
        started = time.monotonic()
        with databases.farebox(url, **settings()) as server:
            server.collector.api.get("/readyz").raise_for_status()
            taken.append(time.monotonic() - started)
            server.stop()
    return Figure("start until ready", where, statistics.median(taken), "s", 3, False, samples=taken)


def _reads(server: Farebox, where: str) -> list[Figure]:
    wallets = [f"wallet-{n:05d}" for n in range(SHAPE.wallets)]
    api = server.collector.api
    balance = _asked_ms(api, lambda n: (f"/v1/wallets/{wallets[n * 37 % len(wallets)]}", {}))
    report = _asked_ms(api, lambda n: ("/v1/reports/usage", {"group_by": "event", "days": DAYS}))
    return [
        Figure("wallet balance over HTTP", where, statistics.median(balance), "ms", 5, False, _p99(balance), balance),
        Figure(
            "usage of 30 days by event over HTTP",
            where,
            statistics.median(report),
            "ms",
            100,
            False,
            _p99(report),
            report,
        ),
    ]


def _asked_ms(api: httpx2.Client, question: Callable[[int], tuple[str, dict[str, Any]]]) -> list[float]:
    taken = []
    for n in range(ASKED):
        path, query = question(n)
        started = time.perf_counter()
        api.get(path, params=query).raise_for_status()
        taken.append((time.perf_counter() - started) * 1000)
    return taken


def _p99(taken_ms: list[float]) -> str:
    return f"median of {len(taken_ms)}; p99 {quantile(taken_ms, 0.99):.1f} ms"


def _taking(bench: Bench, full: Farebox, empty: Farebox, where: str) -> list[Figure]:
    before = full.debited_nanocredits()
    subjects = [
        Subject(bench.generator, [server], Shape(seed=seed)) for server, seed in ((full, time.time_ns()), (empty, 7))
    ]

    def send(subject: Subject) -> Round:
        return subject.send(subject.load(HTTP, bench.sizes.seconds))

    works = [partial(send, subject) for subject in subjects]
    for work in works:
        work()
    over, fresh = alternating(bench.sizes.rounds, *works)
    due = subjects[0].owed()
    debited = full.debited_nanocredits()
    difference = sum(abs(debited.get(name, 0) - before.get(name, 0) - due[name]) for name in {*due, *debited})
    return [
        Figure(
            "throughput ÷ that over empty books",
            where,
            ratio(rates(over), rates(fresh)),
            goal=0.85,
            note=f"{median_rate(over):,.0f} ÷ {median_rate(fresh):,.0f} spans/s",
            samples=rates(over),
        ),
        Figure(
            "debited wallet by wallet, less what the calls cost",
            where,
            difference + difference_nanocredits(empty, subjects[1:]),
            "nano-USD",
            0,
            False,
            f"of {subjects[0].spans + subjects[1].spans:,} spans",
        ),
    ]
