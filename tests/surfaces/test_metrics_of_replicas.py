"""Several collectors over one ledger: each exports the same figures, none is doubled, and a crash resets none."""

from collections.abc import Iterator

import pytest
from harness import Collector
from postgres import PostgresServer
from spans import llm_span, protobuf_body

OWN = (
    "farebox_spans",
    "farebox_export_requests",
    "farebox_ingest",
    "farebox_commit",
    "farebox_fold",
    "farebox_queue",
    "farebox_turned",
)


@pytest.fixture
def pair(postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Collector, Collector]]:
    url, logs = postgres.new_database(), tmp_path_factory.mktemp("pair")
    # No audit in between: what it notes is read from the ledger too, but at its own time.
    first, second = (Collector(url, logs / f"{name}.log", audit_seconds=3600) for name in ("first", "second"))
    yield first, second
    first.close()
    second.close()


def from_the_ledger(collector: Collector) -> dict[str, float]:
    return {name: value for name, value in collector.metrics().items() if not name.startswith(OWN)}


def test_replicas_export_one_ledger_and_a_crash_resets_nothing(pair: tuple[Collector, Collector]) -> None:
    first, second = pair
    spans = [llm_span(farebox__dept=f"d{n % 2}", latency_ns=n * 10**8) for n in range(1, 21)]
    for collector in pair:  # the same ones twice: the second time changes nothing
        collector.export_grpc(protobuf_body(spans[:10]))
    second.export_grpc(protobuf_body(spans[10:]))

    shown = from_the_ledger(first)
    assert shown == from_the_ledger(second)
    assert sum(value for name, value in shown.items() if name.startswith("farebox_requests_total")) == 20
    assert sum(value for name, value in shown.items() if name.startswith("farebox_call_seconds_count")) == 20
    cost = sum(value for name, value in shown.items() if name.startswith("farebox_cost_usd_total"))
    assert round(cost * 10**9) == 20 * 270_000

    second.kill()
    second.start()
    assert from_the_ledger(second) == shown
    assert first.stop() == second.stop() == 0
    first.audit()
