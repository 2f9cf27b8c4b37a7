"""The recorded spans through a real collector: each call is charged once, at its price, also when two emitters tell."""

from collections import defaultdict
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
from blank import blank_sqlite
from goldens import CALLS, EMITTERS, GOLDEN, calls_of, spans_of
from harness import Collector
from lacking import LACKS, NOT_INSTRUMENTED, WRONG
from test_golden import SINGLE_CALLS

Rows = dict[str, list[dict[str, Any]]]


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rows]:
    """Trace → its usage records, after all recordings were sent, twice, to one collector."""
    # Old as they are, the recordings are to be priced as of when they were made.
    collector = Collector(blank_sqlite(tmp_path_factory.mktemp("golden")), max_span_age_hours=10**6)
    for emitter in (*EMITTERS, *reversed(EMITTERS)):
        collector.export_http((GOLDEN / f"{emitter}.json").read_bytes(), "application/json").raise_for_status()
    found: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in collector.pages("/v1/usage", limit=1000):
        found[row["trace_id"]].append(row)
    yield found
    assert collector.stop() == 0
    collector.audit()
    collector.close()


@pytest.mark.parametrize("emitter", EMITTERS)
def test_each_call_is_charged_once_and_at_its_price(rows: Rows, emitter: str) -> None:
    for trace_id, call in calls_of(emitter).items():
        if (emitter, call) in NOT_INSTRUMENTED:
            continue
        expected = CALLS[call]
        charged = [row for row in rows[trace_id.hex()] if row["verdict"] == "charged"]
        told_anyway = any((emitter, scope, call) in WRONG for scope in _scopes(emitter, call))
        if expected.cost_nanousd is None:
            assert not charged or told_anyway, call
            continue
        wanted = 1 if (emitter, call) in SINGLE_CALLS else expected.calls
        assert len(charged) == wanted, (call, rows[trace_id.hex()])
        if not told_anyway and not _lacks_something(emitter, call):
            total = sum(Decimal(row["cost_usd"]) for row in charged)
            assert total == Decimal(expected.cost_nanousd * wanted).scaleb(-9), call


def _scopes(emitter: str, call: str) -> set[str]:
    return {span.scope_name for span in spans_of(emitter)[call]}


def _lacks_something(emitter: str, call: str) -> bool:
    """Whether one who tells of this call leaves out what would change its cost."""
    provider, _, kind = call.partition(".")
    tellers = [LACKS.get(emitter if emitter in LACKS else scope, {}).get(provider) for scope in _scopes(emitter, call)]
    return any(tellers) and kind in ("cache", "cache_stream", "search", "responses")


def test_two_emitters_at_once_are_the_ordinary_case(rows: Rows) -> None:
    covered = 0
    for emitter in ("genai-anthropic", "openllmetry", "openinference", "two-instrumentations", "framework-and-client"):
        traces = [rows[trace_id.hex()] for trace_id in calls_of(emitter)]
        covered += sum(row["verdict"] == "covered" for trace in traces for row in trace)
    assert covered > 30
