"""Time and memory of a replay: comparing, posting every record, and going through records that do not change.

`make bench-replay` prints a table; with `ARGS=--write` it goes into docs/explanation/performance.md. Each row has
books of its own
in a temporary directory and a process of its own, so that its peak memory is its own.
"""

import argparse
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from decimal import Decimal
from pathlib import Path

sys.path.extend(str(Path(__file__).parents[1] / folder) for folder in ("tests", "tests/ledger"))

from calls import call
from farebox_collector import assembly
from farebox_collector.background.replay import Replay
from farebox_collector.cache.tariffs import Tariffs
from farebox_collector.ledger.audit.books_audit import audit
from farebox_collector.ledger.storage.database import Database
from farebox_collector.ledger.tariffs.prices import set_price
from farebox_collector.ledger.usage.booking import record_usage
from farebox_collector.ledger.usage.replay_candidates import ReplayScope
from farebox_collector.ledger.usage.running_totals import TotalLabels
from farebox_collector.model.records import (
    DEFAULT_TENANT_ID,
    Buckets,
    CatalogueRow,
    UsageRecord,
)
from farebox_collector.pricing.price import price_at
from farebox_collector.settings import Settings

REPOSITORY = Path(__file__).parents[1]
PAGE = REPOSITORY / "docs/explanation/performance.md"
SECTION = re.compile(r"(<!-- replay -->\n)(.*?)(<!-- /replay -->)", re.DOTALL)
SIZES = (20_000, 200_000)
BATCH = 2_000
BEGIN_NS = 1_790_000_000 * 10**9
STEP_NS = 10**8
MIB = 1024


@contextmanager
def new_url(kind: str) -> Iterator[str]:
    """The URL of an empty database of a kind."""
    if kind == "SQLite":
        with tempfile.TemporaryDirectory() as directory:
            yield f"sqlite:///{directory}/books.db"
        return
    from postgres import PostgresServer, find_binaries

    binaries = find_binaries()
    if binaries is None:
        raise SystemExit("PostgreSQL is not installed here")
    server = PostgresServer(binaries)
    try:
        yield server.new_database()
    finally:
        server.close()


def fill(database: Database, records: int) -> None:
    """Record so many calls, each paid by a wallet of its own."""
    tariff = Tariffs(database, time.time_ns).of(DEFAULT_TENANT_ID)
    labels = TotalLabels()
    for first in range(0, records, BATCH):
        calls = [usage(number) for number in range(first, min(first + BATCH, records))]
        priced = [price_at(call, call.started_at_ns, tariff.book, tariff.rules) for call in calls]
        with database.transaction() as connection:
            record_usage(connection, DEFAULT_TENANT_ID, priced, BEGIN_NS, labels)


def usage(number: int) -> UsageRecord:
    """A call of gpt-4o-mini, ten a second."""
    buckets = Buckets(input=1000, cache_read=400, output=200, reasoning=50)
    made = call(trace=number, wallet=f"wallet {number}", start_ns=BEGIN_NS + number * STEP_NS, buckets=buckets).usage
    return made._replace(
        provider="openai", request_model="gpt-4o-mini", response_model="gpt-4o-mini-2024-07-18", service_tier="default"
    )


def measure(kind: str, records: int) -> str:
    """One row of the table."""
    with new_url(kind) as url, closing(assembly.open_books(Settings(database_url=url))) as database:
        fill(database, records)
        with database.transaction() as connection:
            row = CatalogueRow("openai", "gpt-4o-mini", "input", 0, 0, 0, Decimal("0.001"), BEGIN_NS, None)
            set_price(connection, row, "benchmark", time.time_ns())
        scope = ReplayScope(BEGIN_NS, BEGIN_NS + records * STEP_NS)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        replay = Replay(database, DEFAULT_TENANT_ID, scope, time.time_ns)
        figures = [rate(records, action) for action in (replay.compare, replay.post, replay.post)]
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        with database.reading() as connection:
            if list(audit(connection)):
                raise SystemExit("the books are not clean")
    return f"| {kind}, {records:,} | {' | '.join(f'{figure:,.0f}' for figure in figures)} | {grown / MIB:,.1f} MiB |"


def rate(records: int, action: Callable[[], object]) -> float:
    """Records a second."""
    started = time.perf_counter()
    action()
    return records / (time.perf_counter() - started)


def table(sizes: tuple[int, ...]) -> str:
    """All rows as a Markdown table."""
    lines = [
        "| books, records (each of a wallet of its own) | compared/s | corrected/s | unchanged/s | memory it took |",
        "| --- | --- | --- | --- | --- |",
    ]
    for kind in ("SQLite", "PostgreSQL"):
        for size in sizes:
            row = subprocess.run(
                [sys.executable, __file__, "--row", kind, str(size)], check=True, capture_output=True, text=True
            )
            lines.append(row.stdout.strip())
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, and print or write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="put the table into docs/explanation/performance.md")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="records in the books")
    parser.add_argument("--row", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.row:
        print(measure(arguments.row[0], int(arguments.row[1])))
        return
    made = table(tuple(arguments.sizes))
    print(made)
    if arguments.write:
        text = PAGE.read_text(encoding="utf-8")
        PAGE.write_text(SECTION.sub(lambda found: found.group(1) + made + found.group(3), text), encoding="utf-8")


if __name__ == "__main__":
    main()
