"""Time and memory of the price book: reading the catalogue, importing it, comparing, loading, compiling, asking.

`make bench-prices` prints a table; with `ARGS=--write` it goes into docs/explanation/performance.md. Each figure is
the median of
five runs in a process of its own, on books of their own in a temporary directory.
"""

import argparse
import os
import re
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.extend(str(Path(__file__).parents[1] / folder) for folder in ("tests", "tests/ledger"))

from calls import call
from farebox_collector import assembly
from farebox_collector.ledger.storage.database import Database
from farebox_collector.ledger.tariffs.prices import import_prices, load_prices, revision_of
from farebox_collector.model.records import Buckets, ChargeRule
from farebox_collector.pricing.book import PriceBook
from farebox_collector.pricing.catalogue import genai_prices_catalogue
from farebox_collector.pricing.price import price_at
from farebox_collector.pricing.price_lists import Catalogue
from farebox_collector.pricing.rules import RuleBook
from farebox_collector.settings import Settings

REPOSITORY = Path(__file__).parents[1]
PAGE = REPOSITORY / "docs/explanation/performance.md"
SECTION = re.compile(r"(<!-- price-book -->\n)(.*?)(<!-- /price-book -->)", re.DOTALL)
RUNS = 5
ASKED = 200_000
NOW_NS = 1_795_000_000 * 10**9


def median_s(work: Callable[[], Any]) -> float:
    """The median time of a few runs, in seconds."""
    times = []
    for _ in range(RUNS):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def resident_mib() -> float:
    """What this process holds now, in MiB."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def databases(directory: str) -> Iterator[tuple[str, Callable[[], Database]]]:
    """Every kind of database that is installed here, and how to make an empty one."""
    from postgres import PostgresServer, find_binaries

    counter = iter(range(1000))

    def sqlite() -> Database:
        return assembly.open_books(Settings(database_url=f"sqlite:///{directory}/books-{next(counter)}.db"))

    yield "SQLite", sqlite
    binaries = find_binaries()
    if binaries is None:
        return
    server = PostgresServer(binaries)
    try:
        yield "PostgreSQL", lambda: assembly.open_books(Settings(database_url=server.new_database()))
    finally:
        server.close()


def emptied(database: Database) -> Database:
    """The same books without any price that applies."""
    with database.transaction() as connection:
        connection.exec_driver_sql("UPDATE price_versions SET valid_to_ns = valid_from_ns")
    return database


def import_rows(catalogue: Catalogue, directory: str) -> Iterator[tuple[str, str]]:
    """Importing into either database, and comparing with what is there."""
    for kind, make in databases(directory):
        times = []
        for _ in range(RUNS):
            database = emptied(make())
            started = time.perf_counter()
            with database.transaction() as connection:
                import_prices(connection, catalogue.prices, catalogue.models, NOW_NS, NOW_NS)
            times.append(time.perf_counter() - started)
            database.close()
        yield f"import it into an empty book, {kind}", f"{statistics.median(times) * 1000:,.0f} ms"
        database = make()
        with database.reading() as connection:
            compare = median_s(lambda: revision_of(connection, catalogue.prices, NOW_NS))
            load = median_s(lambda: load_prices(connection))
        database.close()
        yield f"compare it with a full book (`--dry-run`), {kind}", f"{compare * 1000:,.0f} ms"
        yield f"load the book, {kind}", f"{load * 1000:,.0f} ms"


def book_rows(directory: str) -> Iterator[tuple[str, str]]:
    """Building, compiling, asking; and what a book holds in memory."""
    database = assembly.open_books(Settings(database_url=f"sqlite:///{directory}/asked.db"))
    with database.reading() as connection:
        versions, models = load_prices(connection)
    database.close()
    before = resident_mib()
    book = PriceBook(versions, models)
    built = resident_mib()
    compiled_models = book.compile_all()
    compiled = resident_mib()
    yield "build the book in memory (what a new edition costs a collector)", ms(lambda: PriceBook(versions, models))
    yield (
        f"compile all {compiled_models:,} models (done one by one, at a model's first call)",
        ms(lambda: PriceBook(versions, models).compile_all()),
    )
    yield "memory of the book, and of all its compiled models", f"{built - before:.1f} and {compiled - built:.1f} MiB"
    yield (
        "price of a model that was asked for before",
        ns(lambda: book.rate_for("openai", "gpt-4o-mini", NOW_NS, 1000, ""), ASKED),
    )
    fresh = iter([PriceBook(versions, models) for _ in range(RUNS)])
    yield "first question for a model", ms(lambda: next(fresh).rate_for("aws", "us.amazon.nova-pro-v1:0", NOW_NS))
    rules = RuleBook([ChargeRule(**{**RULE, "id": 1})])
    yield "cost and charge of a call, four kinds of tokens", ns(lambda: price_at(CALL, NOW_NS, book, rules), ASKED // 4)


def ms(work: Callable[[], Any]) -> str:
    """Median time in milliseconds."""
    return f"{median_s(work) * 1000:,.1f} ms"


def ns(work: Callable[[], Any], times: int) -> str:
    """Median time of one call of many, in nanoseconds."""

    def repeat() -> None:
        for _ in range(times):
            work()

    return f"{median_s(repeat) / times * 1e9:,.0f} ns"


def table() -> str:
    """All figures as a Markdown table."""
    catalogue = genai_prices_catalogue()
    listed = f"{len(catalogue.prices.rows):,} prices of {len(catalogue.models):,} models"
    lines = [f"genai-prices {catalogue.prices.source_version}: {listed}.", "", "| what | time |", "| --- | --- |"]
    with tempfile.TemporaryDirectory() as directory:
        rows = [("read the catalogue", ms(genai_prices_catalogue)), *book_rows(directory)]
        rows += import_rows(catalogue, directory)
    lines += [f"| {what} | {figure} |" for what, figure in rows]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    lines.append(f"| peak memory of the whole benchmark | {peak:,.0f} MiB |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, and print or write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="put the table into docs/explanation/performance.md")
    arguments = parser.parse_args()
    made = table()
    print(made)
    if arguments.write:
        text = PAGE.read_text(encoding="utf-8")
        PAGE.write_text(SECTION.sub(lambda found: found.group(1) + made + found.group(3), text), encoding="utf-8")


RULE: dict[str, Any] = {
    "event": "*",
    "kind": "cost_plus",
    "multiplier": 1,
    "usd_per_credit": 1,
    "valid_from_ns": 0,
    "valid_to_ns": None,
}
CALL = call(start_ns=NOW_NS, buckets=Buckets(input=1000, cache_read=400, output=200, reasoning=50)).usage._replace(
    provider="openai", request_model="gpt-4o-mini", response_model="gpt-4o-mini-2024-07-18", service_tier="default"
)

if __name__ == "__main__":
    main()
