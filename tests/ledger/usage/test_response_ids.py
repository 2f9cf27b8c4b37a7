"""A permanently unique id means one call, at any time and from any emitter; other ids only while spans overlap."""

from typing import Any

import pytest
from calls import SECOND_NS, START_NS, call
from farebox_collector.ledger.audit.books_audit import audit
from farebox_collector.ledger.reports.statements import UsageFilter, usage
from farebox_collector.ledger.storage.database import Database
from farebox_collector.ledger.usage.booking import record_usage
from farebox_collector.ledger.usage.claims import slots
from farebox_collector.ledger.usage.response_ids import Uniqueness, call_key, uniqueness
from farebox_collector.ledger.usage.running_totals import TotalLabels
from farebox_collector.model.records import Buckets, PricedUsage
from farebox_collector.model.verdicts import Verdict
from hypothesis import given
from hypothesis import strategies as st

HOUR_NS = 3600 * SECOND_NS
RESPONSE = "resp_67ccd2bed1ec8190b14f964abc0542670bb6a6b452d3795b"
NEWER_RESPONSE = "resp_0b1c2d3e4f506172006912ab34c0548195a1b2c3d4e5f60718"
GENERATION = "gen-1741476542-aBcDeFgHiJkLmNoPqRsT"
COMPLETION = "chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT"
MESSAGE = "msg_01XFDUDYJgAACzvnptvVoYEL"
REQUEST = "req_011CSHoEeqs5C35K2UUqR7Fy"
UUID = "chatcmpl-0123456789abcdef0123456789abcdef"


def record(database: Database, *calls: PricedUsage) -> list[Verdict]:
    with database.transaction() as connection:
        return record_usage(connection, 1, calls, START_NS, TotalLabels())


def paid(database: Database) -> list[int | None]:
    """What the charged records cost, once the books are found clean."""
    with database.reading() as connection:
        assert list(audit(connection)) == []
        rows = usage(connection, 1, UsageFilter())
        return [row.cost_nanousd for row in rows if row.verdict == Verdict.CHARGED]


def polled(number: int, response_id: str, after_ns: int, cost: int = 100, **more: Any) -> PricedUsage:
    """A span that tells of a response some time after it was made, in a trace of its own."""
    start_ns = START_NS + after_ns
    return call(number, trace=number, response_id=response_id, start_ns=start_ns, cost_nanousd=cost, **more)


@pytest.mark.parametrize("response_id", [RESPONSE, NEWER_RESPONSE, GENERATION, COMPLETION, "resp_polled", "gen-1"])
def test_a_response_that_is_fetched_again_and_again_is_one_charge(database: Database, response_id: str) -> None:
    for number, after_ns in enumerate((0, 10 * SECOND_NS, HOUR_NS, 900 * HOUR_NS, -5 * HOUR_NS), start=1):
        expected = Verdict.CHARGED if number == 1 else Verdict.COVERED
        assert record(database, polled(number, response_id, after_ns)) == [expected]
    assert paid(database) == [100]


@pytest.mark.parametrize("response_id", [MESSAGE, REQUEST])
def test_messages_are_one_charge_for_some_hours(database: Database, response_id: str) -> None:
    verdicts = [record(database, polled(n, response_id, n * HOUR_NS // 2)) for n in range(1, 5)]
    assert verdicts == [[Verdict.CHARGED], *[[Verdict.COVERED]] * 3]
    assert paid(database) == [100]


@given(st.integers(0, 2**62), st.integers(0, 2**43), st.integers(0, 2**40))
def test_messages_that_start_within_the_look_back_share_a_slot(start: int, later: int, latency: int) -> None:
    key = call_key(MESSAGE)
    assert key is not None
    assert set(slots(key, start, latency)) & set(slots(key, start + later, latency))


def test_all_polls_in_one_batch_are_one_charge(database: Database) -> None:
    verdicts = record(database, *(polled(n, RESPONSE, n * HOUR_NS) for n in range(1, 4)))
    assert sorted(verdicts) == [Verdict.CHARGED, Verdict.COVERED, Verdict.COVERED]
    assert paid(database) == [100]


def test_the_poll_that_knows_more_pays_by_a_correction(database: Database) -> None:
    assert record(database, polled(1, RESPONSE, 0)) == [Verdict.CHARGED]
    whole = polled(2, RESPONSE, HOUR_NS, 700, buckets=Buckets(input=10, output=80))
    assert record(database, whole) == [Verdict.CHARGED]
    assert record(database, polled(3, RESPONSE, 2 * HOUR_NS)) == [Verdict.COVERED]
    assert record(database, whole) == [Verdict.DUPLICATE]
    assert paid(database) == [700]


def test_a_poll_without_usage_is_no_charge_and_covered_once_the_response_is_paid_for(database: Database) -> None:
    assert record(database, polled(1, RESPONSE, 0)) == [Verdict.CHARGED]
    unmetered = polled(2, RESPONSE, HOUR_NS, verdict=Verdict.UNMETERED, buckets=None)
    assert record(database, unmetered) == [Verdict.COVERED]


@pytest.mark.parametrize("response_id", ["again", "chatcmpl-1", "chatcmpl-998", UUID])
def test_ids_that_servers_repeat_are_a_call_each_time(database: Database, response_id: str) -> None:
    for number, after_ns in enumerate((0, 5 * HOUR_NS), start=1):
        assert record(database, polled(number, response_id, after_ns)) == [Verdict.CHARGED]


@pytest.mark.parametrize("response_id", ["resp_1", "msg_1", "gen-1"])
def test_short_ids_with_other_counts_are_calls_of_their_own(database: Database, response_id: str) -> None:
    assert record(database, polled(1, response_id, 0)) == [Verdict.CHARGED]
    assert record(database, polled(2, response_id, HOUR_NS)) == [Verdict.COVERED]
    other = polled(3, response_id, 2 * HOUR_NS, buckets=Buckets(input=11, output=5))
    assert record(database, other) == [Verdict.CHARGED]
    assert len(paid(database)) == 2


def test_how_far_ids_are_unique() -> None:
    known = (RESPONSE, NEWER_RESPONSE, GENERATION, COMPLETION, MESSAGE, UUID)
    assert {uniqueness(response_id) for response_id in known} == {Uniqueness.FOREVER}
    assert uniqueness("") is uniqueness("respond") is uniqueness("chatcmpl-893") is Uniqueness.OVERLAPPING


def test_keys_of_ordered_ids_are_in_the_order_of_time() -> None:
    later = RESPONSE.replace("67ccd2be", "67ccd2bf")
    assert (call_key(RESPONSE) or b"") < (call_key(later) or b"")
    assert (call_key(GENERATION) or b"")[:6] == (1_741_476_542).to_bytes(6, "big")
    assert (call_key(NEWER_RESPONSE) or b"")[:6] == (0x6912AB34).to_bytes(6, "big")


@given(st.text(max_size=60))
def test_every_id_has_one_key(response_id: str) -> None:
    for given_id in (response_id, f"resp_{response_id}", f"msg_{response_id}", f"chatcmpl-{response_id}"):
        key = call_key(given_id)
        assert key == call_key(given_id)
        assert key is None or len(key) in (16, 17, 22)
