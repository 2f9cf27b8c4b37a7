"""A rule and a price hold from the moment they state, for every collector."""

import time
from contextlib import closing
from decimal import Decimal

import pytest
from calls import START_NS
from farebox_collector.cache.tariffs import Tariffs
from farebox_collector.ledger.storage.database import Database
from farebox_collector.ledger.tariffs.effective_times import CannotBegin, begin, starts_ns
from farebox_collector.ledger.tariffs.rules import RuleAuthorship, set_rule
from farebox_collector.pricing.rules import FLAT, RuleTerms
from harness import Collector
from spans import llm_span, protobuf_body
from sqlalchemy import Connection

MILLISECOND_NS = 10**6


def test_a_call_that_starts_after_the_last_look_is_priced_by_what_was_recorded_since(database: Database) -> None:
    """Two replicas that looked a moment before: each looks again for the first call from after that."""
    now = [START_NS]
    replicas = [Tariffs(database, lambda: now[0]) for _ in range(2)]
    for tariffs in replicas:
        tariffs.of(1)
    now[0] += 10 * MILLISECOND_NS
    with database.transaction() as connection:
        rule = set_rule(
            connection, 1, "run", RuleTerms(FLAT, flat_credits=Decimal(5)), RuleAuthorship("e", "r"), now[0]
        )
    started_ns, now[0] = now[0] + MILLISECOND_NS, now[0] + 5 * MILLISECOND_NS
    for tariffs in replicas:
        tariffs.refresh()
        before = tariffs.of(1).rules.rule_for("run", started_ns)
        assert before is not None
        assert before.event == "*", "it is not time yet to look for older calls"
        tariffs.refresh_for(started_ns)
        after = tariffs.of(1).rules.rule_for("run", started_ns)
        assert after is not None
        assert after.id == rule


def rule_of(tariffs: Tariffs, started_ns: int) -> str:
    """The event of the rule by which a collector charges a call that it reads now."""
    tariffs.refresh_for(started_ns)
    rule = tariffs.of(1).rules.rule_for("run", started_ns)
    assert rule is not None
    return rule.event


@pytest.mark.parametrize("busy_ms", [0, 100, 400, 3_000])
def test_a_rule_begins_when_it_is_committed_on_every_replica(database: Database, busy_ms: int) -> None:
    """Calls that are read while it is being written are from before it begins, however long that takes."""
    now, begun = [START_NS], []
    replicas = [Tariffs(database, lambda: now[0]) for _ in range(2)]
    read_meanwhile: list[int] = []

    def put(connection: Connection, at_ns: int, begins_ns: int) -> int:
        authorship = RuleAuthorship("e", "r")
        terms = RuleTerms(FLAT, flat_credits=Decimal(5))
        rule = set_rule(connection, 1, "run", terms, authorship, at_ns, begins_ns)
        # The books are busy, and every replica reads calls that start just now.
        now[0] += busy_ms * MILLISECOND_NS
        for tariffs in replicas:
            assert rule_of(tariffs, now[0]) == "*"
        read_meanwhile.append(now[0])
        begun.append(begins_ns)
        return rule

    def wait(seconds: float) -> None:
        assert now[0] < begun[-1]
        now[0] += int(seconds * 10**9)

    begin(database, lambda: now[0], None, put, wait)
    assert now[0] == begun[-1], "it holds when the answer comes"
    assert max(read_meanwhile) < begun[-1]
    now[0] += MILLISECOND_NS
    for tariffs in replicas:
        assert rule_of(tariffs, begun[-1] - 1) == "*"
        assert rule_of(tariffs, begun[-1]) == "run"


def test_books_that_are_too_busy_let_nothing_begin(database: Database) -> None:
    now = [START_NS]

    def put(connection: Connection, at_ns: int, begins_ns: int) -> int:
        now[0] += 60_000 * MILLISECOND_NS
        terms = RuleTerms(FLAT, flat_credits=Decimal(5))
        return set_rule(connection, 1, "run", terms, RuleAuthorship("e", "r"), at_ns, begins_ns)

    with pytest.raises(CannotBegin, match="a minute from now"):
        begin(database, lambda: now[0], None, put)
    assert rule_of(Tariffs(database, lambda: now[0]), now[0]) == "*"


@pytest.mark.parametrize(
    ("stated_ms", "found_ms"), [(None, 250), (0, 250), (249, 250), (250, 250), (300, 300), (-1, -1)]
)
def test_a_beginning_that_is_too_near_is_moved_and_one_of_the_past_is_not(stated_ms: int | None, found_ms: int) -> None:
    stated_ns = None if stated_ms is None else START_NS + stated_ms * MILLISECOND_NS
    assert starts_ns(START_NS, stated_ns) == START_NS + found_ms * MILLISECOND_NS


def test_older_calls_and_clocks_that_are_ahead_cause_no_look(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, looks = [START_NS], []
    tariffs = Tariffs(database, lambda: now[0])
    monkeypatch.setattr(tariffs, "_check", lambda: looks.append(now[0]))
    now[0] += 100 * MILLISECOND_NS
    tariffs.refresh_for(START_NS - 1000 * MILLISECOND_NS)
    assert looks == []
    tariffs._checked_at_ns = now[0]
    tariffs.refresh_for(START_NS + 300 * 1000 * MILLISECOND_NS)
    assert looks == [], "not twice in a millisecond"
    now[0] += MILLISECOND_NS
    tariffs.refresh_for(START_NS + 300 * 1000 * MILLISECOND_NS)
    assert looks == [now[0]]


def test_a_rule_holds_for_the_next_call_over_http(collector: Collector) -> None:
    with closing(collector):
        collector.export_http(protobuf_body([llm_span(wallet="warm")]))
        for number in range(1, 4):
            body = {"event": "run", "kind": "flat", "flat_credits": str(number), "reason": "x"}
            assert collector.api.post("/v1/rules", json=body).status_code == 201
            span = llm_span(wallet=f"ada{number}", event="run", start_ns=time.time_ns(), latency_ns=1000)
            collector.export_http(protobuf_body([span]))
            (call,) = collector.usage(wallet=f"ada{number}")
            assert call["charge_credits"] == f"{number}.000000000"
