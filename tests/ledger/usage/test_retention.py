"""Retired records: their detail is gone, and every promise about them is kept."""

import threading
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import pytest
from calls import SECOND_NS, START_NS, call
from farebox_collector.background.replay import Replay
from farebox_collector.background.retention_job import AlreadyRunning, retire_all, retire_some
from farebox_collector.background.upkeep import Upkeep
from farebox_collector.ledger.audit.books_audit import audit
from farebox_collector.ledger.reports.costs import Grouping, Period, costs
from farebox_collector.ledger.reports.reports import UsageFilter, UsageGroup, usage_by
from farebox_collector.ledger.reports.simulation import simulate
from farebox_collector.ledger.reports.statements import UsageFilter as RecordFilter
from farebox_collector.ledger.reports.statements import ledger, usage
from farebox_collector.ledger.storage.database import Database
from farebox_collector.ledger.storage.locks import RETIRING
from farebox_collector.ledger.storage.postgresql import PostgresqlDatabase
from farebox_collector.ledger.usage.booking import record_usage
from farebox_collector.ledger.usage.replay_candidates import ReplayScope
from farebox_collector.ledger.usage.retention import (
    Kept,
    RetentionBatch,
    RetentionFrozen,
    preview_retention,
    retire,
)
from farebox_collector.ledger.usage.running_totals import TotalLabels
from farebox_collector.ledger.usage.tombstones import DetailRetired
from farebox_collector.model.moments import DAY_NS, Days
from farebox_collector.model.records import PricedUsage
from farebox_collector.model.verdicts import Verdict
from farebox_collector.pricing.rules import RuleTerms
from farebox_collector.settings import Settings
from sqlalchemy import Engine, event, text

LATER_NS = START_NS + 100 * 86_400 * 10**9
NEWEST = call(999, trace=999, start_ns=LATER_NS)


def record(database: Database, *calls: PricedUsage, at_ns: int = START_NS) -> list[Verdict]:
    with database.transaction() as connection:
        return record_usage(connection, 1, calls, at_ns, TotalLabels())


def retire_old(database: Database, before_ns: int = START_NS + 1, limit: int = 1_000) -> RetentionBatch:
    """Retire what is old enough, beside one record that is not."""
    record(database, NEWEST, at_ns=LATER_NS)
    with database.reading() as connection:
        foreseen = preview_retention(connection, 0, before_ns, limit)
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
    assert retire_old(database).retired == 2
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
    unattributed = call(1, response_id="r", wallet="unattributed")
    assert record(database, unattributed, call(2, trace=2, parent=9)) == [Verdict.CHARGED, Verdict.CHARGED]
    assert retire_old(database).retired == 2
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
    action = call(4, trace=4)._replace(action_floor_nanocredits=0)
    unattributed, better = call(5, trace=5, response_id="r", wallet="unattributed"), call(6, trace=6, response_id="r")
    failed = call(7, trace=7, verdict=Verdict.FAILED)
    record(database, open_one, beside, agent, action, unattributed, failed)
    assert record(database, better) == [Verdict.CHARGED]
    done = retire_old(database)
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
    done = retire_old(database, limit=3)
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
    assert retire_old(database).retired == 2
    require_clean(database)
    with database.transaction() as connection:
        assert connection.execute(text(statement)).rowcount
    with database.reading() as connection:
        assert {mismatch.check for mismatch in audit(connection)} >= checks


def test_a_span_that_comes_while_it_is_retired_is_known(database: Database) -> None:
    first = call(1, response_id="r")
    record(database, first)
    record(database, NEWEST, at_ns=LATER_NS)
    waiting = threading.Event()

    def come_again() -> Any:
        waiting.set()
        return record(database, first, call(2, trace=2))

    with ThreadPoolExecutor(1) as pool:
        with database.transaction() as connection:
            assert retire(connection, 0, START_NS + 1, 10).retired == 1
            again = pool.submit(come_again)
            waiting.wait()
            while connection.dialect.name == "postgresql":
                # Nothing but the end of this transaction lets the other one go on.
                if connection.execute(text("SELECT count(*) FROM pg_locks WHERE NOT granted")).scalar_one():
                    break
            assert not again.done()
        assert again.result(30) == [Verdict.DUPLICATE, Verdict.CHARGED]
    require_clean(database)


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)  # SQLite has one writer
@pytest.mark.parametrize("response_id", ["", "s"])  # looked at one by one, and prepared
def test_a_span_that_is_retired_while_it_comes_again_is_known(database: Database, response_id: str) -> None:
    first, second = call(1, response_id="r"), call(2, response_id=response_id)
    record(database, first, second)
    record(database, NEWEST, at_ns=LATER_NS)
    retired: list[int] = []

    def retire_between(_connection: object, _cursor: object, statement: str, *_others: object) -> None:
        # The next question after the insert that found them in the books.
        if not retired and "FROM unnest" in statement:
            with database.transaction() as connection:
                retired.append(-1)
                retired[0] = retire(connection, 0, START_NS + 1, 10).retired

    event.listen(Engine, "before_cursor_execute", retire_between)
    try:
        other = second._replace(usage=second.usage._replace(wallet="mallory"))
        verdicts = record(database, first, other, call(3, trace=3, response_id=response_id and "t"))
    finally:
        event.remove(Engine, "before_cursor_execute", retire_between)
    assert (verdicts, retired) == ([Verdict.DUPLICATE, Verdict.CONFLICT, Verdict.CHARGED], [2])
    require_clean(database)


def test_reports_say_the_same_and_what_needs_the_detail_refuses(database: Database) -> None:
    calls = [call(n, trace=n, start_ns=START_NS + n * 3_600_000 * 10**6, cost_nanousd=n) for n in range(1, 60)]
    record(database, *calls)
    day = START_NS // DAY_NS
    terms = RuleTerms(kind="cost_plus", multiplier=Decimal(3))

    def reports() -> list[object]:
        with database.reading() as connection:
            whole = Period(day * DAY_NS, (day + 4) * DAY_NS)
            return [
                *(list(usage_by(connection, 1, Days(day, day + 4), [by], UsageFilter())) for by in UsageGroup),
                *(costs(connection, 1, whole, by, LATER_NS) for by in Grouping),
            ]

    before = reports()
    assert retire_old(database).retired == 59
    assert reports() == before
    part = Period(START_NS, START_NS + 3 * DAY_NS)
    with database.reading() as connection:
        with pytest.raises(DetailRetired, match="by whole days"):
            costs(connection, 1, part, Grouping.MODEL, LATER_NS)
        with pytest.raises(DetailRetired, match="can be tried"):
            simulate(connection, 1, "chat", terms, *part)
        assert simulate(connection, 1, "chat", terms, LATER_NS, LATER_NS + 1).by_event["chat"].calls == 1
        assert [row.span_id for row in usage(connection, 1, RecordFilter("ada"))] == [NEWEST.usage.span_id]
        assert [row.span_id for row in ledger(connection, 1, "ada", "charge")] == [NEWEST.usage.span_id]
    for to_ns in (START_NS + DAY_NS, LATER_NS + 1):
        replay = Replay(database, 1, ReplayScope(START_NS, to_ns), lambda: LATER_NS)
        for refusing in (replay.compare, replay.post):
            with pytest.raises(DetailRetired, match=r"can be replayed from 2026-01-\d\d"):
                refusing()
    assert Replay(database, 1, ReplayScope(LATER_NS, LATER_NS + 1), lambda: LATER_NS).compare().looked_at == 1


def test_the_rounds_of_a_collector_retire_what_is_old_and_take_turns(database: Database) -> None:
    record(database, *(call(n, trace=n) for n in range(1, 6)))
    record(database, NEWEST, at_ns=LATER_NS)

    def round_at(now_ns: int, days: int) -> int:
        settings = Settings(database_url="sqlite:///unused.db", retention_days=days)
        Upkeep(settings, database, lambda: now_ns).round()
        ((left,),) = rows(database, "SELECT count(*) FROM usage_records")
        return int(left)

    assert round_at(LATER_NS, 0) == 6
    assert round_at(START_NS + 40 * DAY_NS, 40) == 6, "not a moment too early"
    with database.turn(RETIRING):
        if isinstance(database, PostgresqlDatabase):
            assert round_at(LATER_NS, 40) == 6
            with pytest.raises(AlreadyRunning):
                retire_all(database, START_NS + 1, lambda done, total: None)
    assert round_at(LATER_NS, 40) == 1
    assert rows(database, "SELECT value FROM watermarks WHERE name = 'retired'") == [(5,)]
    assert retire_some(database, START_NS + 1, 1, lambda: None).retired == 0
    require_clean(database)


def test_nothing_is_let_go_of_while_the_books_are_under_suspicion(database: Database) -> None:
    record(database, call(1))
    record(database, NEWEST, at_ns=LATER_NS)
    found = "INSERT INTO audits (scope, ended_at_ns, upto_transaction, mismatches) VALUES ('full', 1, 1, {})"
    with database.transaction() as connection:
        connection.execute(text(found.format(1)))
    with pytest.raises(RetentionFrozen):
        retire_all(database, START_NS + 1, lambda done, total: None)
    with database.transaction() as connection:
        connection.execute(text(found.format(0)))
    assert retire_all(database, START_NS + 1, lambda done, total: None).retired == 1
