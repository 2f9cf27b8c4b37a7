"""Money reports: credits in and out, revenue and cost, payers, and the distribution of balances.

Read from the daily roll-ups; payers come from paid lots, balances from the projections that the audit checks.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Row, Select, and_, case, distinct, func, literal, or_, select

from farebox_collector.ledger.credits.late_revenue import moved as moved_between_days
from farebox_collector.ledger.credits.lots import BREAKAGE_ACCOUNT, REFUNDED_ACCOUNT, REVENUE_ACCOUNT
from farebox_collector.ledger.credits.movements import PAID_IN, RECEIPTS_ACCOUNT
from farebox_collector.ledger.journal.journal import WALLET
from farebox_collector.ledger.payments.payment_fees import FEES_ACCOUNT
from farebox_collector.ledger.reports.terms import profit
from farebox_collector.ledger.reports.wallet_blocks import active_wallets, active_wallets_by_day
from farebox_collector.ledger.tables.books import accounts
from farebox_collector.ledger.tables.credits import lots
from farebox_collector.ledger.tables.rollups import money_days, usage_days, within
from farebox_collector.ledger.tables.stakes import stakes
from farebox_collector.ledger.usage.stakes import EXPOSED
from farebox_collector.model.moments import DAY_NS, Days
from farebox_collector.model.money import NANO, Commodity
from farebox_collector.model.verdicts import ONE_CALL, Verdict

USAGE = "usage"
"""Source of charges among the movements of credits."""
BALANCE_BOUNDS = (0, 1, 10, 100, 1_000)
"""Bounds of balance ranges in credits; exactly 0 is a separate range."""

_MONEY = {
    "revenue_nanousd": (REVENUE_ACCOUNT.kind, -1),
    "breakage_nanousd": (BREAKAGE_ACCOUNT.kind, -1),
    "cash_in_nanousd": (RECEIPTS_ACCOUNT.kind, 1),
    "refunds_nanousd": (REFUNDED_ACCOUNT.kind, 1),
    "fees_nanousd": (FEES_ACCOUNT.kind, 1),
}
"""Figure of a summary → the account whose movement it is, and its sign."""


class Summary(NamedTuple):
    """Figures of a tenant for some days, or for one."""

    day: int | None
    requests: int = 0
    """Calls, each counted once."""
    charge_nanocredits: int = 0
    cost_nanousd: int = 0
    revenue_nanousd: int = 0
    """Deferred revenue recognised as credits were used."""
    breakage_nanousd: int = 0
    """Deferred revenue recognised as credits expired."""
    cash_in_nanousd: int = 0
    """Payments less refunds and lost disputes."""
    refunds_nanousd: int = 0
    """Refunds of the price of used or expired credits."""
    fees_nanousd: int = 0
    """Fees of payment providers."""
    exposure_nanousd: int = 0
    """Estimated cost of calls whose end was not seen; no part of the cost."""
    from_other_days_nanousd: int = 0
    """Part of the revenue from calls of other days."""
    on_other_days_nanousd: int = 0
    """Revenue of other days from calls of these days."""
    active_wallets: int = 0
    """Wallets that were charged."""
    new_wallets: int = 0
    payers: int = 0
    """Wallets with a payment."""
    new_payers: int = 0
    """Payers who paid for the first time."""

    @property
    def profit_nanousd(self) -> int:
        """Revenue and breakage, less refunds of them, cost of providers and payment fees."""
        return profit(
            self.revenue_nanousd, self.breakage_nanousd, self.refunds_nanousd, self.cost_nanousd, self.fees_nanousd
        )


class CreditsMoved(NamedTuple):
    """Movements of one source in some days, or on one."""

    day: int | None
    source: str
    movements: int
    in_nanocredits: int
    out_nanocredits: int
    cash_in_nanousd: int


class BalanceRange(NamedTuple):
    """The wallets whose balance is in a range."""

    from_credits: int | None
    """None for below zero."""
    to_credits: int | None
    """None for no end; equal to `from_credits` if the range is that exact balance."""
    wallets: int
    balance_nanocredits: int


def summaries(connection: Connection, tenant_id: int, days: Days, *, by_day: bool) -> list[Summary]:
    """Return summaries of a tenant: one for all days, or one for each day with activity."""
    found: defaultdict[int | None, dict[str, int]] = defaultdict(dict)
    if not by_day:
        found[None] = {}
    for query in _parts(tenant_id, days, by_day=by_day):
        for row in connection.execute(query).mappings():
            figures = {name: int(figure or 0) for name, figure in row.items() if name != "day"}
            found[row.get("day")].update(figures)
    if by_day:
        for day, wallets in active_wallets_by_day(connection, tenant_id, days).items():
            found[day]["active_wallets"] = wallets
    else:
        found[None]["active_wallets"] = active_wallets(connection, tenant_id, days)
    return [Summary(day, **figures) for day, figures in sorted(found.items(), key=lambda item: item[0] or 0)]


def _parts(tenant_id: int, days: Days, *, by_day: bool) -> Iterator[Select[Any]]:
    """Yield queries of the figures of a `Summary`, except active wallets, by day or in total."""

    def summed(day: ColumnElement[int], *figures: ColumnElement[Any]) -> Select[Any]:
        return select(day.label("day"), *figures).group_by(day) if by_day else select(*figures)

    usage, moved = usage_days.c, money_days.c
    yield summed(
        usage.day,
        func.sum(usage.requests).label("requests"),
        func.sum(usage.charge_nanocredits).label("charge_nanocredits"),
        func.sum(usage.cost_nanousd).label("cost_nanousd"),
    ).where(usage.tenant_id == tenant_id, within(usage.day, days), usage.verdict.in_(sorted(ONE_CALL)))
    yield summed(
        moved.day,
        *(
            func.sum(case((moved.account == kind, sign * (moved.in_nano - moved.out_nano)), else_=0)).label(name)
            for name, (kind, sign) in _MONEY.items()
        ),
    ).where(moved.tenant_id == tenant_id, within(moved.day, days))
    exposed = stakes.c
    yield summed(exposed.priced_at_ns // DAY_NS, func.sum(exposed.amount_nanousd).label("exposure_nanousd")).where(
        exposed.tenant_id == tenant_id, _during(exposed.priced_at_ns, days), exposed.flag == EXPOSED
    )
    yield from moved_between_days(tenant_id, days, by_day=by_day)
    account = accounts.c
    yield summed(account.created_at_ns // DAY_NS, func.count().label("new_wallets")).where(
        account.tenant_id == tenant_id, account.kind == WALLET, _during(account.created_at_ns, days)
    )
    paid, earlier = lots.c, lots.alias("earlier")
    first = ~(
        select(earlier.c.id)
        .where(
            earlier.c.tenant_id == tenant_id,
            earlier.c.wallet == paid.wallet,
            earlier.c.id < paid.id,
            earlier.c.origin.in_(PAID_IN),
        )
        .exists()
    )
    yield summed(
        paid.created_at_ns // DAY_NS,
        func.count(distinct(paid.wallet)).label("payers"),
        func.sum(case((first, 1), else_=0)).label("new_payers"),
    ).where(paid.tenant_id == tenant_id, _during(paid.created_at_ns, days), paid.origin.in_(PAID_IN))


def credits_moved(
    connection: Connection, tenant_id: int, days: Days, *, by_day: bool, source: str = ""
) -> list[CreditsMoved]:
    """Return credits moved into and out of wallets, by source, including charged usage."""
    moved = money_days.c
    of_wallets, receipts = moved.account == WALLET, moved.account == RECEIPTS_ACCOUNT.kind
    key: list[ColumnElement[Any]] = [*([moved.day] if by_day else []), moved.source]
    query = select(
        *key,
        func.sum(case((of_wallets, moved.postings), else_=0)).label("movements"),
        func.sum(case((of_wallets, moved.in_nano), else_=0)).label("entered"),
        func.sum(case((of_wallets, moved.out_nano), else_=0)).label("left"),
        func.sum(case((receipts, moved.in_nano - moved.out_nano), else_=0)).label("received"),
    ).where(moved.tenant_id == tenant_id, within(moved.day, days), or_(of_wallets, receipts))
    rows = [*connection.execute(query.group_by(*key)), *_charged(connection, tenant_id, days, by_day=by_day)]
    found = [
        CreditsMoved(
            row.day if by_day else None,
            row.source,
            int(row.movements),
            int(row.entered),
            int(row.left),
            int(row.received),
        )
        for row in rows
        if not source or row.source == source
    ]
    return sorted(found, key=lambda row: (row.day or 0, row.source))


def _charged(connection: Connection, tenant_id: int, days: Days, *, by_day: bool) -> Sequence[Row[Any]]:
    """Return charges in the columns of the other movements."""
    usage = usage_days.c
    key = [usage.day] if by_day else []
    none = literal(0)
    query = select(
        *key,
        literal(USAGE).label("source"),
        func.sum(usage.requests).label("movements"),
        none.label("entered"),
        func.sum(usage.charge_nanocredits).label("left"),
        none.label("received"),
    ).where(usage.tenant_id == tenant_id, within(usage.day, days), usage.verdict == Verdict.CHARGED)
    grouped = query.group_by(*key) if by_day else query
    return list(connection.execute(grouped.having(func.sum(usage.requests) > 0)))


def balance_ranges(connection: Connection, tenant_id: int) -> list[BalanceRange]:
    """Return the distribution of wallet balances, lowest range first, including empty ranges."""
    account = accounts.c
    bounds = [credits * NANO for credits in BALANCE_BOUNDS]
    place = case(
        (account.balance_nano < 0, 0),
        (account.balance_nano == 0, 1),
        *((account.balance_nano <= bound, number) for number, bound in enumerate(bounds[1:], start=2)),
        else_=len(bounds) + 1,
    ).label("place")
    rows = connection.execute(
        select(place, func.count().label("wallets"), func.sum(account.balance_nano).label("balance"))
        .where(account.tenant_id == tenant_id, account.kind == WALLET, account.commodity == Commodity.CREDIT)
        .group_by(place)
    )
    found = {row.place: (int(row.wallets), int(row.balance)) for row in rows}
    ends: list[tuple[int | None, int | None]] = [(None, 0), (0, 0)]
    ends += zip(BALANCE_BOUNDS, (*BALANCE_BOUNDS[1:], None), strict=True)
    return [BalanceRange(*end, *found.get(number, (0, 0))) for number, end in enumerate(ends)]


def _during(moment: ColumnElement[int], days: Days) -> ColumnElement[bool]:
    return and_(moment >= days.first * DAY_NS, moment < days.end * DAY_NS)
