"""Recorded sessions of coding agents through a real collector: one charge for each call, whichever signals tell it."""

import json
from collections import defaultdict
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
from agent_sessions import (
    ANSWERS,
    BY_SUBSCRIPTION,
    EVENT_RECORDINGS,
    FAILURES,
    NAMES_NOBODY,
    SESSIONS,
    SPANS_ARE_CALLS,
    calls_by_trace,
    calls_in,
    event_recording,
    records_of,
    requests_of,
)
from blank import blank_sqlite
from goldens import CALLS
from harness import Collector
from lacking import NOT_INSTRUMENTED

pytestmark = pytest.mark.timeout(180)
JSON = "application/json"
Rows = list[dict[str, Any]]


@pytest.fixture
def collector(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collector]:
    """A collector with books of its own, which must be clean at the end."""
    # Old as they are, the recordings are to be priced as of when they were made.
    running = Collector(blank_sqlite(tmp_path_factory.mktemp("agents")), max_span_age_hours=10**6)
    yield running
    assert running.stop() == 0
    running.audit()
    running.close()


def tell(collector: Collector, signal: str) -> None:
    """Send one signal of every recording."""
    bodies = [body for name in SESSIONS for body in requests_of(name, signal)]
    if signal != "metrics":
        bodies += [json.dumps(event_recording(name)[signal]).encode() for name in EVENT_RECORDINGS]
    for body in bodies:
        answer = collector.export_http(body, JSON, signal).raise_for_status().json()
        assert not {"rejectedSpans", "rejectedLogRecords"} & set(answer.get("partialSuccess", {}))


def check(collector: Collector, told: set[str]) -> None:
    """Compare the books with what was answered; `told` are the signals that were sent."""
    rows = collector.usage(limit=1000)
    sessions = {usage.action_id: name for name in SESSIONS for usage in calls_in(records_of(name))}
    found: defaultdict[str, Rows] = defaultdict(list)
    for row in reversed(rows):
        found[sessions.get(row["action_id"], "")].append(row)
    spent = Decimal(0)
    for name, answers in ANSWERS.items():
        is_told = "logs" in told or name in SPANS_ARE_CALLS
        free = name in BY_SUBSCRIPTION
        costs = [Decimal(0 if free else answer.cost_nanousd).scaleb(-9) for answer in answers if is_told]
        charged = [row for row in found[name] if row["verdict"] == "charged"]
        charged.sort(key=lambda row: str(row["started_at"]))
        assert [Decimal(row["cost_usd"]) for row in charged] == costs, (name, found[name])
        spent += 0 if name in NAMES_NOBODY else sum(costs)
        failed = sorted(row["error_type"] for row in found[name] if row["verdict"] == "failed")
        assert failed == sorted(FAILURES.get(name, []) if "logs" in told else []), name
        twice = name in SPANS_ARE_CALLS and {"logs", "traces"} <= told
        covered = [row for row in found[name] if row["verdict"] == "covered"]
        assert len(covered) == (len(answers) if twice else 0), (name, found[name])
    assert Decimal(collector.wallet("platform")["spent_credits"]) == spent
    if "traces" in told:
        check_conventions(rows)


def check_conventions(rows: Rows) -> None:
    """An event of the conventions, its span and the span of the client are one call."""
    for name in EVENT_RECORDINGS:
        for trace_id, call in calls_by_trace(event_recording(name)["traces"]).items():
            expected = CALLS[call]
            told = expected.cost_nanousd is not None and (name, call) not in NOT_INSTRUMENTED
            charged = [row for row in rows if row["trace_id"] == trace_id and row["verdict"] == "charged"]
            assert len(charged) == (expected.calls if told else 0), (call, charged)


def test_sessions_told_by_logs_then_by_spans_and_then_again(collector: Collector) -> None:
    tell(collector, "logs")
    check(collector, {"logs"})
    tell(collector, "traces")
    check(collector, {"logs", "traces"})
    for signal in ("metrics", "traces", "logs"):
        tell(collector, signal)
    check(collector, {"logs", "traces"})


def test_sessions_told_by_spans_then_by_logs(collector: Collector) -> None:
    tell(collector, "traces")
    check(collector, {"traces"})
    tell(collector, "logs")
    check(collector, {"logs", "traces"})
