"""The bridge: from charge value to profit, and from profit to cash, for any days, to the nano-dollar.

Charge and cost are on the day of the call. Everything else is on the day of its posting. The line `timing` is the
difference between the two: calls that drew their credits on a day outside of the period, less calls from outside that
drew theirs within it.
"""

from typing import Any, NamedTuple

from sqlalchemy import Connection, case, func, select

from farebox_collector.ledger.credits.lots import BREAKAGE_ACCOUNT, REFUNDED_ACCOUNT, REVENUE_ACCOUNT
from farebox_collector.ledger.credits.movements import RECEIPTS_ACCOUNT, Kind
from farebox_collector.ledger.journal.journal import WALLET
from farebox_collector.ledger.payments.payment_fees import FEES_ACCOUNT
from farebox_collector.ledger.reports.terms import ListPrice, profit
from farebox_collector.ledger.tables.rollups import lot_days, money_days, overdraft_days, usage_days, within
from farebox_collector.model.moments import Days
from farebox_collector.model.verdicts import ONE_CALL

_RETURNED = "returned"
"""Origin of lots for credits that a correction gave back and that no lot had paid."""
_ACCOUNTS = {
    "revenue": (REVENUE_ACCOUNT.kind, -1),
    "breakage": (BREAKAGE_ACCOUNT.kind, -1),
    "refunds": (REFUNDED_ACCOUNT.kind, 1),
    "fees": (FEES_ACCOUNT.kind, 1),
    "cash_in": (RECEIPTS_ACCOUNT.kind, 1),
}
"""Figure → the account whose movement it is, and its sign."""


class Drawn(NamedTuple):
    """Where the charge of some days came from, in nanocredits. The fields add up to the charge."""

    promotional: int
    """From lots without a price."""
    unpaid: int
    """Overdraft of usage, less what was paid of it."""
    timing: int
    """In other periods, less what calls of other periods drew in this one."""
    adjustments: int
    """Less credits that adjustments took, which draw on lots without a charge."""
    paid: int
    """From lots with a price."""


class Bridge(NamedTuple):
    """The lines of a bridge, in nano-USD."""

    charge_value: int
    promotional: int
    discounts: int
    """What paid credits sell for at list, less the price paid for them; negative if they were dearer."""
    unpaid: int
    timing: int
    adjustments: int
    """Less than zero: adjustments took credits at list without a charge."""
    revenue: int
    breakage: int
    refunds: int
    cost: int
    fees: int
    cash_in: int
    deferred_opening: int
    deferred_closing: int
    charge_nanocredits: int
    drawn: Drawn

    @property
    def given_away(self) -> int:
        """Charge value less revenue."""
        return self.charge_value - self.revenue

    @property
    def profit(self) -> int:
        """Revenue and breakage, less refunds of used credits, cost and fees."""
        return profit(self.revenue, self.breakage, self.refunds, self.cost, self.fees)

    @property
    def deferred_change(self) -> int:
        """The change of deferred revenue. Profit, cost, fees and this add up to cash in."""
        return self.deferred_closing - self.deferred_opening


def bridge(connection: Connection, tenant_id: int, days: Days, price: ListPrice) -> Bridge:
    """Return the bridge of a tenant for some days."""
    charge, cost = _charged(connection, tenant_id, days)
    money, adjusted = _moved(connection, tenant_id, days)
    lots_moved = _lots(connection, tenant_id, days)
    unpaid = _unpaid(connection, tenant_id, days)
    promotional = int(lots_moved.free) - int(lots_moved.given_back)
    paid = int(lots_moved.paid)
    timing = charge + adjusted - promotional - paid - unpaid
    drawn = Drawn(promotional, unpaid, timing, -adjusted, paid)
    *given, at_list = price.parts(*drawn)
    return Bridge(
        charge_value=price.nanousd(charge),
        promotional=given[0],
        discounts=at_list - money["revenue"],
        unpaid=given[1],
        timing=given[2],
        adjustments=given[3],
        cost=cost,
        deferred_opening=int(lots_moved.opening),
        deferred_closing=int(lots_moved.closing),
        charge_nanocredits=charge,
        drawn=drawn,
        **money,
    )


def _charged(connection: Connection, tenant_id: int, days: Days) -> tuple[int, int]:
    """Return charge and cost of the calls."""
    usage = usage_days.c
    query = select(func.sum(usage.charge_nanocredits), func.sum(usage.cost_nanousd))
    row = connection.execute(
        query.where(usage.tenant_id == tenant_id, within(usage.day, days), usage.verdict.in_(sorted(ONE_CALL)))
    ).one()
    return int(row[0] or 0), int(row[1] or 0)


def _moved(connection: Connection, tenant_id: int, days: Days) -> tuple[dict[str, int], int]:
    """Return the figures of `_ACCOUNTS`, and the credits that adjustments took."""
    moved = money_days.c
    figures = [
        func.sum(case((moved.account == kind, sign * (moved.in_nano - moved.out_nano)), else_=0))
        for kind, sign in _ACCOUNTS.values()
    ]
    taken = case(((moved.source == Kind.ADJUSTMENT) & (moved.account == WALLET), moved.out_nano), else_=0)
    query = select(*figures, func.sum(taken)).where(moved.tenant_id == tenant_id, within(moved.day, days))
    *money, adjusted = (int(figure or 0) for figure in connection.execute(query).one())
    return dict(zip(_ACCOUNTS, money, strict=True)), adjusted


def _lots(connection: Connection, tenant_id: int, days: Days) -> Any:
    """Return credits used in these days, free and paid, those given back to no lot; deferred revenue at both ends."""
    lot = lot_days.c
    now = within(lot.day, days)
    left = lot.sold_nanousd + lot.transferred_nanousd - lot.used_nanousd - lot.expired_nanousd - lot.returned_nanousd
    query = select(
        func.coalesce(func.sum(case((now & (lot.paid == 0), lot.used_nano), else_=0)), 0).label("free"),
        func.coalesce(func.sum(case((now & (lot.paid == 1), lot.used_nano), else_=0)), 0).label("paid"),
        func.coalesce(func.sum(case((now & (lot.origin == _RETURNED), lot.sold_nano), else_=0)), 0).label("given_back"),
        func.coalesce(func.sum(case((lot.day < days.first, left), else_=0)), 0).label("opening"),
        func.coalesce(func.sum(left), 0).label("closing"),
    )
    return connection.execute(query.where(lot.tenant_id == tenant_id, lot.day < days.end)).one()


def _unpaid(connection: Connection, tenant_id: int, days: Days) -> int:
    owed = overdraft_days.c
    query = select(func.sum(owed.unpaid_nano)).where(owed.tenant_id == tenant_id, within(owed.day, days))
    return int(connection.execute(query).scalar() or 0)
