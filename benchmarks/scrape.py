"""What one scrape costs at the bounds of the books' labels: `make bench-scrape`. Seconds of one core, median of nine.

A thousand combinations of event, model, department, project and task, and two hundred of model, route and region, each
with its histograms: more than that a tenant cannot have.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from farebox_collector.ledger.usage.batch import Calls

sys.path.extend(str(Path(__file__).parents[1] / folder) for folder in ("tests", "tests/ledger"))

from calls import START_NS, call
from farebox_collector import assembly
from farebox_collector.ledger.usage.booking import record_usage
from farebox_collector.ledger.usage.running_totals import TotalLabels
from farebox_collector.metrics.exporter import LedgerCollector
from farebox_collector.metrics.exposition import openmetrics
from farebox_collector.metrics.meters import Meters
from farebox_collector.model.records import DEFAULT_TENANT_ID, Buckets, PricedUsage
from farebox_collector.settings import Settings
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.exposition import generate_latest

LABELS = 1_000
RUNS = 9


def calls() -> list[PricedUsage]:
    """One call for each combination."""
    made = []
    for n in range(1, LABELS + 1):
        buckets = Buckets(input=5, cache_read=3, output=4)
        one = call(n, trace=n, model=f"model-{n % 20}", event=f"event-{n % 10}", buckets=buckets)
        usage = one.usage._replace(
            dept=f"dept-{n % 25}",
            project=f"project-{n // 40}",
            task=f"task-{n % 7}",
            route=f"route-{n % 5}",
            region=("eu-central-1", "us-east-1")[n % 2],
            time_to_first_chunk_ns=10**9,
        )
        made.append(one._replace(usage=usage))
    return made


def median_s(work: Callable[[], object]) -> float:
    """The median of a few runs, in seconds of this process's own time."""
    took = []
    for _ in range(RUNS):
        began = time.process_time()
        work()
        took.append(time.process_time() - began)
    return statistics.median(took)


def main() -> None:
    """Fill books up to the bounds, and read them as a scraper does."""
    with tempfile.TemporaryDirectory() as directory:
        url = f"sqlite:///{directory}/farebox.db"
        with closing(assembly.open_books(Settings(database_url=url), lambda: START_NS)) as database:
            made = calls()
            with database.transaction() as connection:
                record_usage(connection, DEFAULT_TENANT_ID, made, START_NS, TotalLabels())
            registry = CollectorRegistry()
            meters = Meters(registry, 10**6)
            meters.recorded(Calls.of(made), START_NS)
            registry.register(LedgerCollector(database, meters.exemplars, lambda: START_NS))
            text = openmetrics(registry.collect())
            lines = text.count(b"\n")
            print(f"{lines:,} lines, {len(text) / 2**20:.1f} MiB")
            print(f"a scrape         {median_s(lambda: openmetrics(registry.collect())) * 1000:6.0f} ms")
            print(f"of it the books  {median_s(lambda: list(registry.collect())) * 1000:6.0f} ms")
            library = median_s(lambda: generate_latest(registry))  # type: ignore[no-untyped-call]
            print(f"the library's    {library * 1000:6.0f} ms")


if __name__ == "__main__":
    main()
