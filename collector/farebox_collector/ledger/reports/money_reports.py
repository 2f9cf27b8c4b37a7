"""Reports about money: what came in and went out, revenue and what it cost, who pays, how balances are spread.

Read from the roll-ups by day; who pays is read from the lots that were paid in, balances are the projections that the
audit checks.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Row, Select, and_, case, distinct, func, literal, or_, select

from farebox_collector.ledger.credits.late_revenue import moved as moved_between_days
from farebox_collector.ledger.credits.lots import BREAKAGE_ACCOUNT, REFUNDED_ACCOUNT, REVENUE_ACCOUNT
from farebox_collector.ledger.credits.movements import RECEIPTS_ACCOUNT, Kind
from farebox_collector.ledger.journal.journal import WALLET
from farebox_collector.ledger.payments.payment_fees import FEES_ACCOUNT
from farebox_collector.ledger.tables.books import accounts, tenants
from farebox_collector.ledger.tables.credits import lots
from farebox_collector.ledger.tables.rollups import money_days, usage_days, wallet_days, within
from farebox_collector.ledger.tables.stakes import stakes
from farebox_collector.ledger.usage.stakes import EXPOSED
from farebox_collector.model.moments import DAY_NS, Days
from farebox_collector.model.money import NANO, Commodity
from farebox_collector.model.verdicts import ONE_CALL, Verdict

USAGE = "usage"
"""The source under which what calls were charged is shown among what moved credits."""
PAID_IN = (Kind.DEPOSIT, Kind.TOPUP)
"""Origins of lots whose wallets count as payers."""
BALANCE_BOUNDS = (0, 1, 10, 100, 1_000)
"""Credits that divide balances into ranges; what is exactly nothing is a range of its own."""

_MONEY = {
    "revenue_nanousd": (REVENUE_ACCOUNT.kind, -1),
    "breakage_nanousd": (BREAKAGE_ACCOUNT.kind, -1),
    "received_nanousd": (RECEIPTS_ACCOUNT.kind, 1),
    "refunded_nanousd": (REFUNDED_ACCOUNT.kind, 1),
    "fees_nanousd": (FEES_ACCOUNT.kind, 1),
}
"""Figures of a summary that are the movement of an account, times a sign."""


class Summary(NamedTuple):
    """What a tenant did in some days, or on one."""

    day: int | None
    requests: int = 0
    """Calls, each counted once."""
    charge_nanocredits: int = 0
    cost_nanousd: int = 0
    revenue_nanousd: int = 0
    """Of what was paid for credits, what became revenue as they were used."""
    breakage_nanousd: int = 0
    """The same as they expired."""
    received_nanousd: int = 0
    """What customers paid, less what they got back."""
    refunded_nanousd: int = 0
    """What went back of the price of credits that were used or had expired."""
    fees_nanousd: int = 0
    """What payment providers kept."""
    exposure_nanousd: int = 0
    """What calls may cost whose end was not seen: an estimate, and no part of the cost."""
    from_other_days_nanousd: int = 0
    """Of the revenue, what calls of other days earned."""
    on_other_days_nanousd: int = 0
    """What calls of these days earned that is revenue of other days."""
    active_wallets: int = 0
    """Wallets that were charged."""
    new_wallets: int = 0
    payers: int = 0
    """Wallets that were paid into."""
    new_payers: int = 0
    """Those of them for the first time."""

    @property
    def profit_nanousd(self) -> int:
        """Revenue with breakage, less what of it went back, what providers charge and payment providers keep."""
        earned = self.revenue_nanousd + self.breakage_nanousd - self.refunded_nanousd
        return earned - self.cost_nanousd - self.fees_nanousd


class CreditsMoved(NamedTuple):
    """What one source moved in some days, or on one."""

    day: int | None
    source: str
    movements: int
    in_nanocredits: int
    out_nanocredits: int
    received_nanousd: int


class BalanceRange(NamedTuple):
    """The wallets whose balance is in a range."""

    from_credits: int | None
    """None for below zero."""
    to_credits: int | None
    """None for no end; the same as `from_credits` where the range is that very balance."""
    wallets: int
    balance_nanocredits: int


def usd_per_credit(connection: Connection, tenant_id: int) -> Fraction:
    """What a credit of the tenant sells for."""
    return Fraction(connection.execute(select(tenants.c.usd_per_credit).where(tenants.c.id == tenant_id)).scalar_one())


def summaries(connection: Connection, tenant_id: int, days: Days, *, by_day: bool) -> list[Summary]:
    """What a tenant did: one for all of the days, or one for each on which something was."""
    found: defaultdict[int | None, dict[str, int]] = defaultdict(dict)
    if not by_day:
        found[None] = {}
    for query in _parts(tenant_id, days, by_day=by_day):
        for row in connection.execute(query).mappings():
            figures = {name: int(figure or 0) for name, figure in row.items() if name != "day"}
            found[row.get("day")].update(figures)
    return [Summary(day, **figures) for day, figures in sorted(found.items(), key=lambda item: item[0] or 0)]


def _parts(tenant_id: int, days: Days, *, by_day: bool) -> Iterator[Select[Any]]:
    """Queries that each give some figures of a `Summary` by their names, by day or in all."""

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
    served = wallet_days.c
    yield summed(served.day, func.count(distinct(served.wallet)).label("active_wallets")).where(
        served.tenant_id == tenant_id, within(served.day, days), served.requests > 0
    )
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
    """What moved credits into wallets and out of them, by source: usage, as it was charged, among them."""
    moved = money_days.c
    of_wallets, receipts = moved.account == WALLET, moved.account == RECEIPTS_ACCOUNT.kind
    key: list[ColumnElement[Any]] = [*([moved.day] if by_day else []), moved.source]
    query = select(
        *key,
        func.sum(case((of_wallets, moved.postings), else_=0)).label("movements"),
        func.sum(case((of_wallets, moved.in_nano), else_=0)).label("came"),
        func.sum(case((of_wallets, moved.out_nano), else_=0)).label("went"),
        func.sum(case((receipts, moved.in_nano - moved.out_nano), else_=0)).label("received"),
    ).where(moved.tenant_id == tenant_id, within(moved.day, days), or_(of_wallets, receipts))
    rows = [*connection.execute(query.group_by(*key)), *_charged(connection, tenant_id, days, by_day=by_day)]
    found = [
        CreditsMoved(
            row.day if by_day else None, row.source, int(row.movements), int(row.came), int(row.went), int(row.received)
        )
        for row in rows
        if not source or row.source == source
    ]
    return sorted(found, key=lambda row: (row.day or 0, row.source))


def _charged(connection: Connection, tenant_id: int, days: Days, *, by_day: bool) -> Sequence[Row[Any]]:
    """What calls were charged, in the form of what else moved credits."""
    usage = usage_days.c
    key = [usage.day] if by_day else []
    none = literal(0)
    query = select(
        *key,
        literal(USAGE).label("source"),
        func.sum(usage.requests).label("movements"),
        none.label("came"),
        func.sum(usage.charge_nanocredits).label("went"),
        none.label("received"),
    ).where(usage.tenant_id == tenant_id, within(usage.day, days), usage.verdict == Verdict.CHARGED)
    grouped = query.group_by(*key) if by_day else query
    return list(connection.execute(grouped.having(func.sum(usage.requests) > 0)))


def balance_ranges(connection: Connection, tenant_id: int) -> list[BalanceRange]:
    """How the balances of all wallets are spread now, lowest first; ranges without a wallet are among them."""
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
