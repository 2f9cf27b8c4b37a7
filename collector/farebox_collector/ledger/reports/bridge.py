"""The bridge: from charge value to profit, and from profit to cash, for any days, to the nano-dollar.

Charge and cost are on the day of the call. Everything else is on the day of its posting. The line `timing` is the
difference between the two: calls that drew their credits on a day outside of the period, less calls from outside that
drew theirs within it.
"""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Table, case, func, select

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
    return bridges(connection, tenant_id, [days], price)[0]


def bridges(connection: Connection, tenant_id: int, periods: Sequence[Days], price: ListPrice) -> list[Bridge]:
    """Return the bridge of each period; each period begins where the one before ends."""
    charged = _summed(connection, tenant_id, periods, usage_days, _CHARGED, usage_days.c.verdict.in_(sorted(ONE_CALL)))
    money = _summed(connection, tenant_id, periods, money_days, _MONEY)
    owed = _summed(connection, tenant_id, periods, overdraft_days, {"unpaid": overdraft_days.c.unpaid_nano})
    # Deferred revenue at the beginning is what all days before have left.
    before = Days(0, periods[0].first)
    earlier, *lots_moved = _summed(connection, tenant_id, [before, *periods], lot_days, _LOTS)
    opening, made = earlier["left"], []
    for sums in zip(charged, money, owed, lots_moved, strict=True):
        made.append(_bridge({name: figure for part in sums for name, figure in part.items()}, opening, price))
        opening = made[-1].deferred_closing
    return made


def _bridge(sums: Mapping[str, int], opening: int, price: ListPrice) -> Bridge:
    charge, adjusted, unpaid, paid = sums["charge"], sums["adjusted"], sums["unpaid"], sums["paid"]
    promotional = sums["free"] - sums["given_back"]
    timing = charge + adjusted - promotional - paid - unpaid
    drawn = Drawn(promotional, unpaid, timing, -adjusted, paid)
    *given, at_list = price.parts(*drawn)
    return Bridge(
        charge_value=price.nanousd(charge),
        promotional=given[0],
        discounts=at_list - sums["revenue"],
        unpaid=given[1],
        timing=given[2],
        adjustments=given[3],
        cost=sums["cost"],
        deferred_opening=opening,
        deferred_closing=opening + sums["left"],
        charge_nanocredits=charge,
        drawn=drawn,
        **{name: sums[name] for name in _ACCOUNTS},
    )


_CHARGED = {"charge": usage_days.c.charge_nanocredits, "cost": usage_days.c.cost_nanousd}
_moved, _lot = money_days.c, lot_days.c
_ADJUSTED = (_moved.source == Kind.ADJUSTMENT) & (_moved.account == WALLET)
_MONEY: dict[str, ColumnElement[Any]] = {
    name: case((_moved.account == kind, sign * (_moved.in_nano - _moved.out_nano)), else_=0)
    for name, (kind, sign) in _ACCOUNTS.items()
} | {"adjusted": case((_ADJUSTED, _moved.out_nano), else_=0)}
_LOTS: dict[str, ColumnElement[Any]] = {
    "free": case((_lot.paid == 0, _lot.used_nano), else_=0),
    "paid": case((_lot.paid == 1, _lot.used_nano), else_=0),
    "given_back": case((_lot.origin == _RETURNED, _lot.sold_nano), else_=0),
    "left": _lot.sold_nanousd
    + _lot.transferred_nanousd
    - _lot.used_nanousd
    - _lot.expired_nanousd
    - _lot.returned_nanousd,
}


def _summed(
    connection: Connection,
    tenant_id: int,
    periods: Sequence[Days],
    table: Table,
    figures: Mapping[str, ColumnElement[Any]],
    *conditions: ColumnElement[bool],
) -> list[dict[str, int]]:
    """Return the sums of figures in each period."""
    day = table.c.day
    # By day, in the order of the key: grouping by period would sort all rows.
    query = select(day, *(func.sum(figure).label(name) for name, figure in figures.items())).where(
        table.c.tenant_id == tenant_id, within(day, Days(periods[0].first, periods[-1].end)), *conditions
    )
    ends = [period.end for period in periods]
    found = [dict.fromkeys(figures, 0) for _ in periods]
    for of_day, *sums in connection.execute(query.group_by(day)):
        into = found[bisect_right(ends, of_day)]
        for name, figure in zip(figures, sums, strict=True):
            into[name] += int(figure or 0)
    return found
