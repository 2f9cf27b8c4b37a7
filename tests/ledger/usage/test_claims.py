"""One charge a call by claims in slots of time, and the records of a wallet without an index over all of them."""

import pytest
from alembic import command
from calls import SECOND_NS, START_NS, call
from farebox_collector.ledger.audit.books_audit import audit
from farebox_collector.ledger.reports.statements import UsageFilter, ledger, usage
from farebox_collector.ledger.storage.database import Database
from farebox_collector.ledger.storage.migrate import alembic_config
from farebox_collector.ledger.tables.books import usage_records
from farebox_collector.ledger.usage.booking import record_usage
from farebox_collector.ledger.usage.claims import MAX_SLOTS, SLOT_BITS, slots
from farebox_collector.ledger.usage.corrections import Cause, correct, cover
from farebox_collector.ledger.usage.running_totals import TotalLabels
from farebox_collector.ledger.usage.stored_usage import stored_calls, usage_query
from farebox_collector.model.records import PricedUsage
from farebox_collector.model.verdicts import Verdict
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text

SLOT_NS = 2**SLOT_BITS
SLOT_START_NS = START_NS // SLOT_NS * SLOT_NS


def record(database: Database, *calls: PricedUsage) -> list[Verdict]:
    with database.transaction() as connection:
        return record_usage(connection, 1, calls, START_NS, TotalLabels())


def claims_of(database: Database) -> list[tuple[int, int]]:
    """Slots from that of SLOT_START_NS on, and how many claims are in each."""
    query = "SELECT slot, count(*) FROM call_claims GROUP BY slot ORDER BY slot"
    with database.reading() as connection:
        return [(slot - (SLOT_START_NS >> SLOT_BITS), count) for slot, count in connection.execute(text(query))]


def require_clean(database: Database) -> None:
    with database.reading() as connection:
        assert list(audit(connection)) == []


moments = st.integers(0, 2**63 - 1)
latencies = st.one_of(st.integers(0, 4 * SLOT_NS), st.integers(0, 2**63 - 1))


@given(moments, latencies, latencies, latencies)
def test_spans_that_overlap_share_a_slot(start: int, latency: int, later: int, other_latency: int) -> None:
    other_start = start + min(later, latency)
    first, second = slots(bytes(16), start, latency), slots(bytes(16), other_start, other_latency)
    assert 1 <= len(first) <= MAX_SLOTS
    if (other_start >> SLOT_BITS) - (start >> SLOT_BITS) < MAX_SLOTS:
        assert set(first) & set(second)


@pytest.mark.parametrize("outer_first", [True, False])
def test_a_twin_that_starts_slots_later_is_the_same_call(database: Database, outer_first: bool) -> None:
    outer = call(1, response_id="r", start_ns=SLOT_START_NS + SLOT_NS // 2, latency_ns=3 * SLOT_NS)
    inner = call(2, trace=2, response_id="r", start_ns=SLOT_START_NS + 3 * SLOT_NS, latency_ns=SECOND_NS)
    first, second = (outer, inner) if outer_first else (inner, outer)
    assert record(database, first) == [Verdict.CHARGED]
    assert record(database, second) == [Verdict.COVERED]
    assert record(database, first, second) == [Verdict.DUPLICATE, Verdict.DUPLICATE]
    assert claims_of(database) == ([(0, 1), (1, 1), (2, 1), (3, 1)] if outer_first else [(3, 1)])
    require_clean(database)


def test_an_id_that_a_server_repeats_is_a_call_each_time(database: Database) -> None:
    times = [SLOT_START_NS, SLOT_START_NS + 5 * SECOND_NS, SLOT_START_NS + SLOT_NS]
    calls = [call(n, trace=n, response_id="again", start_ns=start) for n, start in enumerate(times, start=1)]
    assert [record(database, one) for one in calls] == [[Verdict.CHARGED]] * 3
    with database.reading() as connection:
        flagged = [row.assumptions for row in usage(connection, 1, UsageFilter())]
    assert flagged == ["", "response_id_reused", ""], "what is in another slot need not be told apart"
    assert claims_of(database) == [(0, 1), (1, 1)]
    require_clean(database)


def test_a_claim_is_let_go_of_with_the_charge(database: Database) -> None:
    assert record(database, call(1, response_id="r", latency_ns=2 * SLOT_NS)) == [Verdict.CHARGED]
    with database.transaction() as connection:
        (stored,) = stored_calls(connection, usage_query(1))
        correct(connection, 1, Cause.TWIN, [cover(stored)], START_NS, TotalLabels())
    assert claims_of(database) == []
    assert record(database, call(2, trace=2, response_id="r")) == [Verdict.CHARGED]
    require_clean(database)


def test_a_charge_without_its_claim_is_found(database: Database) -> None:
    record(database, call(1, response_id="r"), call(2, trace=2, response_id="s"), call(3, trace=3))
    with database.transaction() as connection:
        connection.execute(text("DELETE FROM call_claims WHERE usage_record_id = (SELECT min(id) FROM usage_records)"))
    with database.reading() as connection:
        assert [mismatch.check for mismatch in audit(connection)] == ["claims"]


def test_claims_are_made_for_records_from_before(database: Database) -> None:
    long = call(1, response_id="r", start_ns=SLOT_START_NS, latency_ns=3 * SLOT_NS)
    record(database, long, call(2, trace=2, response_id="s", start_ns=SLOT_START_NS), call(3, trace=3))
    before = claims_of(database)
    with database.transaction() as connection:
        (stored, *_) = stored_calls(connection, usage_query(1).where(usage_records.c.response_id == "s"))
        correct(connection, 1, Cause.TWIN, [cover(stored)], START_NS, TotalLabels())
        command.downgrade(alembic_config(connection), "0022")
    with database.appending() as connection:
        command.upgrade(alembic_config(connection), "head")
    assert before == [(0, 2), (1, 1), (2, 1), (3, 1)]
    assert claims_of(database) == [(0, 1), (1, 1), (2, 1), (3, 1)]
    require_clean(database)


def test_the_records_of_a_wallet_are_those_that_a_look_at_all_records_finds(database: Database) -> None:
    for number in range(1, 150):
        verdict = Verdict.UNPRICED if number % 7 == 0 else Verdict.CHARGED
        wallets = ["ada", "bob"] if number % 3 else ["bob"]
        record(
            database,
            *(
                call(100 * number + place, trace=number, wallet=wallet, verdict=verdict, event="ab"[number % 2])
                for place, wallet in enumerate(wallets)
            ),
        )
    with database.transaction() as connection:
        stored = list(stored_calls(connection, usage_query(1).where(usage_records.c.verdict == Verdict.CHARGED)))
        correct(connection, 1, Cause.TWIN, [cover(one) for one in stored[::11]], START_NS, TotalLabels())
    with database.reading() as connection:
        everything = usage(connection, 1, UsageFilter(), limit=10_000)
        for wanted in (UsageFilter("ada"), UsageFilter("ada", event="a"), UsageFilter("ada", verdict="covered")):
            expected = [
                row.id
                for row in everything
                if row.wallet == "ada" and wanted.event in ("", row.event) and wanted.verdict in ("", row.verdict)
            ]
            found: list[int] = []
            while page := usage(connection, 1, wanted, found[-1] if found else None, limit=17):
                found += [row.id for row in page]
            assert found == expected
        booked: list[int] = []
        before = None
        while rows := ledger(connection, 1, "ada", "charge", before, limit=13):
            booked += [row.id for row in rows]
            before = (rows[-1].transaction_id, rows[-1].type, rows[-1].id)
        assert booked == [row.id for row in everything if row.wallet == "ada" and row.verdict == Verdict.CHARGED]
