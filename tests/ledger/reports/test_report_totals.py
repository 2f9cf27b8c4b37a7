"""Reports agree with the ledger to the nano: after any movements, their totals equal the accounts."""

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from calls import START_NS, call
from farebox_collector.ledger.audit.books_audit import audit
from farebox_collector.ledger.credits.lots import BREAKAGE_ACCOUNT, DEFERRED_ACCOUNT, REVENUE_ACCOUNT, draw_up
from farebox_collector.ledger.credits.movements import (
    RECEIPTS_ACCOUNT,
    Kind,
    Movement,
    NotEnough,
    move,
)
from farebox_collector.ledger.journal.journal import (
    COGS_ACCOUNT,
    EARNED_ACCOUNT,
    WALLET,
    balance,
)
from farebox_collector.ledger.reports.money_reports import balance_ranges, credits_moved, summaries
from farebox_collector.ledger.reports.reports import UsageFilter, UsageGroup, usage_by, wallets_by_cost
from farebox_collector.ledger.storage.database import Database
from farebox_collector.ledger.tables.books import accounts, usage_records
from farebox_collector.ledger.tables.rollups import DAY_SUMS
from farebox_collector.ledger.usage.booking import record_usage
from farebox_collector.ledger.usage.corrections import Cause, correct, cover
from farebox_collector.ledger.usage.running_totals import TotalLabels
from farebox_collector.ledger.usage.stored_usage import stored_calls, usage_query
from farebox_collector.model.moments import DAY_NS, Days
from farebox_collector.model.records import PricedUsage
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, select

TODAY = START_NS // DAY_NS
EVER = Days(TODAY - 50, TODAY + 50)
CREDIT = 10**9

STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            ["use", "use", "deposit", "promotion", "adjust", "refund", "transfer", "correct", "draw", "day"]
        ),
        st.integers(0, 2),
        st.integers(1, 5 * CREDIT),
    ),
    min_size=4,
    max_size=14,
)


class Life:
    """What happens to the books of one tenant."""

    def __init__(self, connection: Connection, tenant_id: int) -> None:
        self.connection, self.tenant_id, self.now_ns, self.number = connection, tenant_id, START_NS, 0

    def step(self, what: str, who: int, amount: int) -> None:
        self.number += 1
        wallet, other = f"wallet-{who}", f"wallet-{(who + 1) % 3}"
        if what == "day":
            self.now_ns += DAY_NS
        elif what == "use":
            made = call(
                self.number, trace=self.number, wallet=wallet, cost_nanousd=amount // 3, start_ns=self.now_ns,
                event=f"event-{amount % 2}", model=f"model-{amount % 3}",
            )  # fmt: skip
            record_usage(self.connection, self.tenant_id, [made], self.now_ns, TotalLabels())
        elif what == "correct":
            charged = usage_records.c.verdict == "charged"
            for stored in list(stored_calls(self.connection, usage_query(self.tenant_id).where(charged).limit(1))):
                wanted = [cover(stored)]
                correct(self.connection, self.tenant_id, Cause.TWIN, wanted, self.now_ns, TotalLabels())
        elif what == "draw":
            draw_up(self.connection, self.tenant_id, wallet, self.now_ns)
        elif what in ("deposit", "promotion"):
            ends_ns = self.now_ns + DAY_NS // 2 if amount % 2 else None
            price = amount // 7 if what == "deposit" else 0
            self.move(Movement(Kind(what), wallet, amount, price, expires_at_ns=ends_ns))
        elif what == "adjust":
            self.move(Movement(Kind.ADJUSTMENT, wallet, amount if amount % 2 else -amount))
        elif what == "refund":
            self.move(Movement(Kind.WITHDRAWAL, wallet, amount))
        else:
            self.move(Movement(Kind.TRANSFER, wallet, amount, to_wallet=other))

    def move(self, movement: Movement) -> None:
        with suppress(NotEnough), self.connection.begin_nested():
            move(self.connection, self.tenant_id, movement, f"key-{self.number}", self.now_ns)


_TENANTS = iter(range(10, 10**6))


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(STEPS)
def test_every_total_is_what_the_ledger_holds(database: Database, steps: list[tuple[str, int, int]]) -> None:
    with database.transaction() as connection:
        tenant_id = next(_TENANTS)
        columns = "name, usd_per_credit, created_at_ns"
        connection.exec_driver_sql(f"INSERT INTO tenants (id, {columns}) VALUES ({tenant_id}, 't{tenant_id}', '1', 0)")
        life = Life(connection, tenant_id)
        for step in steps:
            life.step(*step)
        assert_reports_agree(connection, tenant_id)


def assert_reports_agree(connection: Connection, tenant_id: int) -> None:
    held = {
        account.kind: balance(connection, tenant_id, account)
        for account in (EARNED_ACCOUNT, COGS_ACCOUNT, REVENUE_ACCOUNT, BREAKAGE_ACCOUNT, RECEIPTS_ACCOUNT)
    }
    wallets = connection.execute(
        select(accounts.c.balance_nano).where(accounts.c.tenant_id == tenant_id, accounts.c.kind == WALLET)
    ).scalars()
    balances = list(wallets)
    everything = (held["earned"], held["cogs"])
    for groups in ((), (UsageGroup.EVENT, UsageGroup.MODEL), (UsageGroup.DAY,), tuple(UsageGroup)):
        for wanted in (UsageFilter(), UsageFilter(balance_from_nano=-(2**62))):
            rows = list(usage_by(connection, tenant_id, EVER, groups, wanted))
            sums = [sum(int(getattr(row, name) or 0) for row in rows) for name in DAY_SUMS[-2:]]
            assert (sums[1], sums[0]) == everything, (groups, wanted)
    served = list(wallets_by_cost(connection, tenant_id, EVER))
    assert (sum(int(row.charge_nanocredits) for row in served), sum(int(r.cost_nanousd) for r in served)) == everything
    (whole,) = summaries(connection, tenant_id, EVER, by_day=False)
    for parts in ([whole], summaries(connection, tenant_id, EVER, by_day=True)):
        assert sum(part.charge_nanocredits for part in parts) == held["earned"]
        assert sum(part.cost_nanousd for part in parts) == held["cogs"]
        assert sum(part.revenue_nanousd for part in parts) == -held["revenue"]
        assert sum(part.breakage_nanousd for part in parts) == -held["breakage"]
        assert sum(part.cash_in_nanousd for part in parts) == held["receipts"]
        assert sum(part.new_wallets for part in parts) == len(balances) == whole.new_wallets
        assert sum(part.new_payers for part in parts) == whole.payers
    assert held["receipts"] == -held["revenue"] - held["breakage"] - balance(connection, tenant_id, DEFERRED_ACCOUNT)
    assert whole.active_wallets == len(served)
    for by_day in (False, True):
        moved = credits_moved(connection, tenant_id, EVER, by_day=by_day)
        assert sum(row.in_nanocredits - row.out_nanocredits for row in moved) == sum(balances)
        assert sum(row.cash_in_nanousd for row in moved) == held["receipts"]
    ranges = balance_ranges(connection, tenant_id)
    assert (sum(r.wallets for r in ranges), sum(r.balance_nanocredits for r in ranges)) == (
        len(balances),
        sum(balances),
    )


@pytest.fixture
def books(database: Database) -> Iterator[Connection]:
    """Ada pays and uses, Bob gets a present and uses, Cy pays and waits: over three days."""
    with database.transaction() as connection:
        life = Life(connection, 1)
        life.move(Movement(Kind.DEPOSIT, "ada", 10 * CREDIT, 5 * CREDIT))
        record_usage(connection, 1, [one(1, "ada", 300)], life.now_ns, TotalLabels())
        life.number, life.now_ns = 1, START_NS + DAY_NS
        life.move(Movement(Kind.PROMOTION, "bob", CREDIT))
        record_usage(connection, 1, [one(2, "bob", 200, 1), one(3, "ada", 100, 1)], life.now_ns, TotalLabels())
        life.number, life.now_ns = 2, START_NS + 2 * DAY_NS
        for life.number, who in ((2, "cy"), (3, "ada")):
            life.move(Movement(Kind.DEPOSIT, who, 4 * CREDIT, CREDIT))
        draw_up(connection, 1, "ada", life.now_ns)
        yield connection
        assert list(audit(connection)) == []


def one(number: int, wallet: str, cost_nanousd: int, days: int = 0) -> PricedUsage:
    start_ns = START_NS + days * DAY_NS
    return call(number, trace=number, wallet=wallet, cost_nanousd=cost_nanousd, event=wallet, start_ns=start_ns)


def test_a_summary_tells_revenue_profit_and_who_pays(books: Connection) -> None:
    (whole,) = summaries(books, 1, Days(TODAY, TODAY + 3), by_day=False)
    # Ada's 1,200 nanocredits of usage come from ten credits that she paid five dollars for.
    assert (whole.charge_nanocredits, whole.revenue_nanousd, whole.cost_nanousd) == (1800, 600, 600)
    assert (whole.profit_nanousd, whole.cash_in_nanousd) == (0, 7 * CREDIT)
    assert (whole.active_wallets, whole.new_wallets, whole.payers, whole.new_payers) == (2, 3, 2, 2)
    first, second, third = summaries(books, 1, Days(TODAY, TODAY + 3), by_day=True)
    assert (first.payers, first.new_payers, first.active_wallets) == (1, 1, 1)
    assert (second.requests, second.payers, second.new_wallets) == (2, 0, 1)
    assert (third.payers, third.new_payers, third.revenue_nanousd, third.requests) == (2, 1, 600, 0)
    (nothing,) = summaries(books, 1, Days(0, 1), by_day=False)
    assert set(nothing[1:]) == {0}


def test_wallets_are_chosen_by_balance_and_by_when_they_came(books: Connection) -> None:
    late = Days(TODAY + 1, TODAY + 3)

    def names(days: Days, **wanted: Any) -> list[str]:
        return [row.wallet for row in wallets_by_cost(books, 1, days, UsageFilter(**wanted))]

    assert names(Days(TODAY, TODAY + 3)) == ["ada", "bob"], "the dearest first"
    assert names(late, wallets="new") == ["bob"]
    assert names(late, wallets="returning") == ["ada"]
    assert names(late, balance_from_nano=2 * CREDIT) == ["ada"]
    assert names(late, balance_below_nano=2 * CREDIT) == ["bob"]
    (row,) = usage_by(books, 1, late, (UsageGroup.VERDICT,), UsageFilter(wallets="new"))
    assert (row.verdict, int(row.requests), int(row.cost_nanousd)) == ("charged", 1, 200)
    assert list(usage_by(books, 1, late, (UsageGroup.EVENT,), UsageFilter(wallets="new", verdict="unpriced"))) == []


def test_credits_are_told_apart_by_where_they_came_from(books: Connection) -> None:
    moved = {row.source: row for row in credits_moved(books, 1, Days(TODAY, TODAY + 3), by_day=False)}
    assert (moved["deposit"].movements, moved["deposit"].in_nanocredits) == (3, 18 * CREDIT)
    assert moved["promotion"] == (None, "promotion", 1, CREDIT, 0, 0)
    assert (moved["usage"].movements, moved["usage"].out_nanocredits) == (3, 1800)
    assert [row.source for row in credits_moved(books, 1, EVER, by_day=False, source="promotion")] == ["promotion"]


def test_balances_are_spread_over_ranges(books: Connection) -> None:
    found = [(r.from_credits, r.to_credits, r.wallets) for r in balance_ranges(books, 1)]
    assert found == [
        (None, 0, 0), (0, 0, 0), (0, 1, 1), (1, 10, 1), (10, 100, 1), (100, 1000, 0), (1000, None, 0)
    ]  # fmt: skip
