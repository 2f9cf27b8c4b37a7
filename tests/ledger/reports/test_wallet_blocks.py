"""Reports from blocks of days are what plain SQL over the days of wallets says, row by row and in the same order."""

from collections.abc import Sequence
from typing import Any

import pytest
from calls import START_NS, call
from farebox_collector.ledger.audit.books_audit import audit
from farebox_collector.ledger.credits.movements import Kind, Movement, move
from farebox_collector.ledger.reports.charges import ChargedBy, charges_by
from farebox_collector.ledger.reports.money_reports import summaries
from farebox_collector.ledger.reports.reports import UsageFilter, usage_by, wallets_by_cost
from farebox_collector.ledger.storage.database import Database
from farebox_collector.ledger.tables.books import usage_records
from farebox_collector.ledger.tables.rollups import BLOCK_DAYS, DAY_SUMS
from farebox_collector.ledger.usage.booking import record_usage
from farebox_collector.ledger.usage.corrections import Cause, correct, cover
from farebox_collector.ledger.usage.running_totals import TotalLabels
from farebox_collector.ledger.usage.stored_usage import stored_calls, usage_query
from farebox_collector.model.moments import DAY_NS, Days
from farebox_collector.model.records import PricedUsage
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, text

FIRST = START_NS // DAY_NS // BLOCK_DAYS * BLOCK_DAYS
"""The first day of a block."""
CREDIT = 10**9
WALLETS = ("ada", "Bob", "cy-2", "cy-10", "Émile", "éva")
SUMS = ", ".join(f"sum({name}) AS {name}" for name in DAY_SUMS)
OF_DAYS = "FROM wallet_days d WHERE d.tenant_id = :tenant AND d.day >= :first AND d.day < :end"
ACCOUNT = "a.tenant_id = :tenant AND a.kind = 'wallet' AND a.commodity = 'CREDIT'"
FILTERS: tuple[tuple[UsageFilter, str], ...] = (
    (UsageFilter(), "1 = 1"),
    (UsageFilter(wallets="new"), f"a.created_at_ns >= :first * {DAY_NS} AND a.created_at_ns < :end * {DAY_NS}"),
    (UsageFilter(wallets="returning"), f"a.created_at_ns < :first * {DAY_NS}"),
    (UsageFilter(balance_from_nano=0), "a.balance_nano >= 0"),
    (
        UsageFilter(wallets="returning", balance_below_nano=0),
        f"a.created_at_ns < :first * {DAY_NS} AND a.balance_nano < 0",
    ),
)

DAY = st.integers(0, 4 * BLOCK_DAYS)
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["use", "use", "use", "pay", "take back", "take back all of a day"]),
        st.sampled_from(WALLETS),
        DAY,
        st.integers(0, 5),
    ),
    min_size=5,
    max_size=25,
)
PERIODS = st.lists(st.tuples(DAY, st.integers(1, 3 * BLOCK_DAYS)), min_size=3, max_size=8)
_TENANTS = iter(range(10, 10**6))


def live(connection: Connection, tenant_id: int, steps: Sequence[tuple[str, str, int, int]]) -> None:
    """Book what happens; each step is recorded a day after the one before, whatever day its calls are of."""
    for number, (what, wallet, day, amount) in enumerate(steps, start=1):
        now_ns = (FIRST + number) * DAY_NS
        if what == "use":
            at_ns = (FIRST + day) * DAY_NS + amount
            calls = [one(2 * number, wallet, amount, at_ns), one(2 * number + 1, WALLETS[amount], 1, at_ns + DAY_NS)]
            record_usage(connection, tenant_id, calls, now_ns, TotalLabels())
        elif what == "pay":
            paid = Movement(Kind.GRANT, wallet, amount * 5 + 1)
            move(connection, tenant_id, paid, f"key-{number}", now_ns)
        else:
            chosen = usage_query(tenant_id).where(
                usage_records.c.verdict == "charged", usage_records.c.wallet == wallet
            )
            stored = list(stored_calls(connection, chosen))
            first = stored[0].call.priced_at_ns // DAY_NS if stored else 0
            wanted = [each for each in stored if each.call.priced_at_ns // DAY_NS == first]
            covered = [cover(each) for each in (wanted if what.endswith("day") else wanted[:1])]
            correct(connection, tenant_id, Cause.TWIN, covered, now_ns, TotalLabels())


def one(number: int, wallet: str, cost_nanousd: int, at_ns: int) -> PricedUsage:
    error = "timeout" if number % 3 == 0 else ""
    return call(
        number, trace=number, wallet=wallet, cost_nanousd=cost_nanousd, event=f"event-{number % 2}", start_ns=at_ns,
        error_type=error,
    )  # fmt: skip


def rows(connection: Connection, statement: str, tenant_id: int, days: Days) -> list[tuple[Any, ...]]:
    bounds = {"tenant": tenant_id, "first": days.first, "end": days.end}
    return [tuple(row) for row in connection.execute(text(statement), bounds)]


def assert_reports_are_plain_sums(connection: Connection, tenant_id: int, days: Days) -> None:
    count = f"count(DISTINCT d.wallet) {OF_DAYS} AND d.requests > 0"
    (whole,) = summaries(connection, tenant_id, days, by_day=False)
    assert rows(connection, f"SELECT {count}", tenant_id, days) == [(whole.active_wallets,)]
    by_day = [(s.day, s.active_wallets) for s in summaries(connection, tenant_id, days, by_day=True)]
    expected = rows(connection, f"SELECT d.day, {count} GROUP BY d.day ORDER BY d.day", tenant_id, days)
    assert [row for row in by_day if row[1]] == expected
    for wanted, condition in FILTERS:
        served = f"SELECT d.wallet, {SUMS} {OF_DAYS} GROUP BY d.wallet HAVING sum(d.requests) > 0"
        ranked = rows(
            connection,
            f"SELECT s.*, a.balance_nano, a.created_at_ns FROM ({served}) s JOIN accounts a ON a.name = s.wallet"
            f" WHERE {ACCOUNT} AND {condition} ORDER BY s.cost_nanousd DESC, s.wallet",
            tenant_id,
            days,
        )
        found = [tuple(row) for row in wallets_by_cost(connection, tenant_id, days, wanted)]
        assert found == ranked, (days, wanted)
        assert [tuple(row) for row in wallets_by_cost(connection, tenant_id, days, wanted, 2)] == ranked[:2]
        chosen = f"d.wallet IN (SELECT a.name FROM accounts a WHERE {ACCOUNT} AND {condition})"
        (total,) = rows(connection, f"SELECT {SUMS} {OF_DAYS} AND {chosen}", tenant_id, days)
        for verdict in ("", "charged"):
            asked = wanted._replace(charged_of_wallets=True, verdict=verdict)
            (sums,) = usage_by(connection, tenant_id, days, (), asked)
            assert [int(figure or 0) for figure in sums] == [int(figure or 0) for figure in total], (days, asked)
        (nothing,) = usage_by(
            connection, tenant_id, days, (), wanted._replace(charged_of_wallets=True, verdict="failed")
        )
        assert set(nothing) == {None}
    figures = "sum(d.requests), sum(d.charge_nanocredits), sum(d.cost_nanousd)"
    charged = f"SELECT d.wallet, {figures} {OF_DAYS} GROUP BY d.wallet HAVING sum(d.requests) > 0 ORDER BY 3 DESC, 1"
    found = [tuple(row) for row in charges_by(connection, tenant_id, ChargedBy.WALLET, days, 4)]
    assert found == rows(connection, charged, tenant_id, days)[:4]


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(STEPS, PERIODS)
def test_reports_of_any_days_are_plain_sums(
    database: Database, steps: list[tuple[str, str, int, int]], periods: list[tuple[int, int]]
) -> None:
    with database.transaction() as connection:
        tenant_id = next(_TENANTS)
        columns = "name, usd_per_credit, created_at_ns"
        connection.exec_driver_sql(f"INSERT INTO tenants (id, {columns}) VALUES ({tenant_id}, 't{tenant_id}', '1', 0)")
        live(connection, tenant_id, steps)
        for first, length in periods:
            assert_reports_are_plain_sums(connection, tenant_id, Days(FIRST + first, FIRST + first + length))
    with database.reading() as connection:
        assert [mismatch for mismatch in audit(connection) if mismatch.check.startswith("wallet")] == []


def test_a_ranking_of_more_wallets_than_are_fetched_at_once(database: Database) -> None:
    made = [
        one(number, f"wallet-{number % 1500}", number * 7919 % 50, (FIRST + number % 20) * DAY_NS)
        for number in range(1, 2200)
    ]
    with database.transaction() as connection:
        record_usage(connection, 1, made, START_NS, TotalLabels())
        # The plain SQL takes seconds on PostgreSQL without statistics.
        connection.execute(text("ANALYZE"))
    with database.reading() as connection:
        for days in (Days(FIRST, FIRST + 20), Days(FIRST + 3, FIRST + 14), Days(FIRST + 5, FIRST + 7)):
            assert_reports_are_plain_sums(connection, 1, days)


@pytest.mark.parametrize("first", range(BLOCK_DAYS))
def test_every_length_of_days(database: Database, first: int) -> None:
    """A wallet for each day, with calls on that day alone: any day too many or too few is seen."""
    made = [one(day + 1, f"wallet-{day}", 3, (FIRST + day) * DAY_NS) for day in range(4 * BLOCK_DAYS)]
    with database.transaction() as connection:
        record_usage(connection, 1, made, START_NS, TotalLabels())
    with database.reading() as connection:
        for end in range(first + 1, 3 * BLOCK_DAYS + 1):
            days = Days(FIRST + first, FIRST + end)
            names = [f"wallet-{day}" for day in range(first, end)]
            (whole,) = summaries(connection, 1, days, by_day=False)
            ranked = list(wallets_by_cost(connection, 1, days))
            (total,) = usage_by(connection, 1, days, (), UsageFilter(charged_of_wallets=True))
            assert whole.active_wallets == int(total.requests) == len(names)
            assert sorted(row.wallet for row in ranked) == sorted(names)
            assert {row.requests for row in ranked} == {1}
