"""Retired records: their detail is gone, and every promise about them is kept."""

from typing import Any

import pytest
from calls import SECOND_NS, START_NS, call
from farebox_collector.ledger.audit import audit
from farebox_collector.ledger.database import Database
from farebox_collector.ledger.retirement import Kept, Stretch, look, retire
from farebox_collector.ledger.totals import TotalLabels
from farebox_collector.ledger.usage import record_usage
from farebox_collector.records import PricedUsage
from farebox_collector.verdicts import Verdict
from sqlalchemy import text

LATER_NS = START_NS + 100 * 86_400 * 10**9
NEWEST = call(999, trace=999, start_ns=LATER_NS)


def record(database: Database, *calls: PricedUsage, at_ns: int = START_NS) -> list[Verdict]:
    with database.transaction() as connection:
        return record_usage(connection, 1, calls, at_ns, TotalLabels())


def retire_all(database: Database, before_ns: int = START_NS + 1, limit: int = 1_000) -> Stretch:
    """Retire what is old enough, beside one record that is not."""
    record(database, NEWEST, at_ns=LATER_NS)
    with database.reading() as connection:
        foreseen = look(connection, 0, before_ns, limit)
    with database.transaction() as connection:
        done = retire(connection, 0, before_ns, limit)
    assert done == foreseen
    return done


def rows(database: Database, statement: str) -> list[Any]:
    with database.reading() as connection:
        return list(connection.execute(text(statement)))


def require_clean(database: Database) -> None:
    with database.reading() as connection:
        assert list(audit(connection)) == []


def test_what_comes_again_is_known(database: Database) -> None:
    first, second = call(1, response_id="r"), call(2)
    assert record(database, first, second) == [Verdict.CHARGED, Verdict.CHARGED]
    money = rows(database, "SELECT * FROM postings ORDER BY id")
    assert retire_all(database).retired == 2
    assert rows(database, "SELECT count(*) FROM usage_records") == [(1,)]
    other = second._replace(usage=second.usage._replace(wallet="mallory"))
    fresh = call(3, trace=3)
    assert record(database, first, other, second, fresh) == [
        Verdict.DUPLICATE,
        Verdict.CONFLICT,
        Verdict.DUPLICATE,
        Verdict.CHARGED,
    ]
    assert rows(database, "SELECT span_id, facts FROM usage_conflicts")[0][0] == other.usage.span_id
    assert rows(database, "SELECT * FROM postings ORDER BY id")[: len(money)] == money
    require_clean(database)


def test_another_witness_of_a_retired_call_is_not_charged(database: Database) -> None:
    nobody = call(1, response_id="r", wallet="unattributed")
    assert record(database, nobody, call(2, trace=2, parent=9)) == [Verdict.CHARGED, Verdict.CHARGED]
    assert retire_all(database).retired == 2
    better = call(3, trace=3, response_id="r", wallet="ada", start_ns=START_NS + SECOND_NS // 2)
    around = call(9, trace=2)
    assert record(database, better) == [Verdict.COVERED]
    assert record(database, around) == [Verdict.COVERED]
    apart = call(4, trace=4, response_id="r", start_ns=START_NS + 5 * SECOND_NS)
    unlike = call(8, trace=2, model="another")
    assert record(database, apart, unlike) == [Verdict.CHARGED, Verdict.CHARGED], "other calls"
    open_one = call(5, trace=5, response_id="r", verdict=Verdict.UNMETERED)
    assert record(database, open_one) == [Verdict.COVERED]
    require_clean(database)


def test_what_may_still_change_keeps_its_detail(database: Database) -> None:
    open_one, beside = call(1, trace=1, verdict=Verdict.UNPRICED), call(2, trace=1)
    agent = call(3, trace=3)
    agent = agent._replace(usage=agent.usage._replace(summary=True))
    action = call(4, trace=4)._replace(action_floor_nanocredits=7)
    nobody, better = call(5, trace=5, response_id="r", wallet="unattributed"), call(6, trace=6, response_id="r")
    failed = call(7, trace=7, verdict=Verdict.FAILED)
    record(database, open_one, beside, agent, action, nobody, failed)
    assert record(database, better) == [Verdict.CHARGED]
    done = retire_all(database)
    assert (done.retired, done.ended) == (2, True), "the better witness and the failure"
    assert done.kept == {Kept.OPEN: 1, Kept.BESIDE_OPEN: 1, Kept.AGENT: 1, Kept.OF_ACTION: 1, Kept.CORRECTED: 1}
    require_clean(database)


def test_the_newest_record_stays_so_that_its_id_is_never_given_again(database: Database) -> None:
    record(database, call(1), call(2, trace=2))
    with database.transaction() as connection:
        done = retire(connection, 0, START_NS + 1, 10)
    assert (done.retired, done.kept) == (1, {Kept.NEWEST: 1})
    require_clean(database)


def test_a_stretch_ends_where_records_are_young(database: Database) -> None:
    record(database, *(call(n, trace=n) for n in range(1, 6)))
    record(database, call(6, trace=6), at_ns=START_NS + 10)
    done = retire_all(database, limit=3)
    assert (done.retired, done.ended) == (3, False)
    with database.transaction() as connection:
        done = retire(connection, done.last_id, START_NS + 1, 3)
    assert (done.retired, done.ended) == (2, True)
    require_clean(database)


@pytest.mark.parametrize(
    ("statement", "checks"),
    [
        ("UPDATE retired_totals SET cost_nanousd = cost_nanousd + 1", {"totals"}),
        ("UPDATE retired_totals SET requests = requests + 1", {"totals", "intake", "retired"}),
        ("UPDATE retired_legs SET amount_nano = amount_nano - 1", {"charges", "costs"}),
        ("UPDATE retired_legs SET records = records + 1", {"charges", "costs"}),
        ("UPDATE retired_days SET requests = requests + 1", {"days", "wallet days"}),
        ("UPDATE retired_days SET charge_nanocredits = 5 WHERE kind = 'dept'", {"spending days"}),
        ("DELETE FROM retired_spans", {"retired"}),
        ("UPDATE usage_days SET cost_nanousd = cost_nanousd + 1", {"days", "cost days"}),
        ("UPDATE wallet_days SET requests = requests + 1", {"wallet days"}),
        ("UPDATE usage_totals SET requests = requests + 1", {"totals"}),
        ("UPDATE postings SET amount_nano = 2 * amount_nano WHERE transaction_id = 1", {"charges", "costs"}),
    ],
)
def test_what_was_tampered_with_is_found(database: Database, statement: str, checks: set[str]) -> None:
    tagged = call(1)._replace(usage=call(1).usage._replace(dept="d", project="p", user_id="u", units=(("images", 2),)))
    record(database, tagged, call(2, trace=2, wallet="bob", response_id="r"))
    assert retire_all(database).retired == 2
    require_clean(database)
    with database.transaction() as connection:
        assert connection.execute(text(statement)).rowcount
    with database.reading() as connection:
        assert {mismatch.check for mismatch in audit(connection)} >= checks
