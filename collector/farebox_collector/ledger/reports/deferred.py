"""Deferred revenue: how the price of paid and unused credits rolled forward, by month, by pack and by age.

The age of credits is the UTC month in which their lot was made. A transfer makes a lot of its own.
"""

from collections import defaultdict
from collections.abc import Sequence
from enum import StrEnum
from operator import add
from typing import NamedTuple

from sqlalchemy import Connection, case, func, select

from farebox_collector.ledger.tables.rollups import LOT_SUMS, lot_days
from farebox_collector.model.moments import Days, months_of


class DeferredGroup(StrEnum):
    """What deferred revenue can be grouped by."""

    MONTH = "month"
    PACK = "pack"
    SOLD = "sold"
    """The month in which the credits were sold."""


class Amounts(NamedTuple):
    """What happened to paid credits, in nanocredits and in nano-USD of their price."""

    sold_nano: int = 0
    sold_nanousd: int = 0
    transferred_nano: int = 0
    transferred_nanousd: int = 0
    used_nano: int = 0
    used_nanousd: int = 0
    expired_nano: int = 0
    expired_nanousd: int = 0
    returned_nano: int = 0
    returned_nanousd: int = 0

    @property
    def left(self) -> tuple[int, int]:
        """Return what is left of what came: nanocredits and nano-USD."""
        return (
            self.sold_nano + self.transferred_nano - self.used_nano - self.expired_nano - self.returned_nano,
            self.sold_nanousd
            + self.transferred_nanousd
            - self.used_nanousd
            - self.expired_nanousd
            - self.returned_nanousd,
        )


class RollForward(NamedTuple):
    """Deferred revenue of a group, from the beginning of a period to its end."""

    month: int | None
    """Months since year 0; None unless grouped by month. The first and the last month may be in part."""
    pack: str | None
    """The pack, or the kind of movement of lots without one; None unless grouped by pack."""
    sold_month: int | None
    opening_nano: int
    opening_nanousd: int
    amounts: Amounts

    @property
    def closing_nano(self) -> int:
        """Credits that are paid for and not used, at the end."""
        return self.opening_nano + self.amounts.left[0]

    @property
    def closing_nanousd(self) -> int:
        """Deferred revenue at the end."""
        return self.opening_nanousd + self.amounts.left[1]


assert Amounts._fields == LOT_SUMS


def deferred(connection: Connection, tenant_id: int, days: Days, by: Sequence[DeferredGroup] = ()) -> list[RollForward]:
    """Return how deferred revenue rolled forward over some days, by these groups; one row without groups."""
    periods = list(months_of(days)) if DeferredGroup.MONTH in by else [(None, days)]
    sums = _sums(connection, tenant_id, [period for _, period in periods], by)
    rows = []
    for (pack, sold_month), parts in sums.items():
        left = parts[0].left
        for (month, _), amounts in zip(periods, parts[1:], strict=True):
            rows.append(RollForward(month, pack, sold_month, *left, amounts))
            left = (rows[-1].closing_nano, rows[-1].closing_nanousd)
    if not by:
        return rows or [RollForward(None, None, None, 0, 0, Amounts())]
    known = [row for row in rows if any(row.amounts) or row.opening_nano or row.opening_nanousd]
    return sorted(known, key=lambda row: (row.month or 0, row.pack or "", row.sold_month or 0))


def _sums(
    connection: Connection, tenant_id: int, periods: Sequence[Days], by: Sequence[DeferredGroup]
) -> dict[tuple[str | None, int | None], list[Amounts]]:
    """Return by (pack, month of sale) the amounts before the periods and in each of them."""
    lot = lot_days.c
    ends = [periods[0].first, *(days.end for days in periods[:-1])]
    place = case(*((lot.day < end, number) for number, end in enumerate(ends)), else_=len(periods))
    names = [lot.origin, lot.pack] if DeferredGroup.PACK in by else []
    months = [lot.sold_month] if DeferredGroup.SOLD in by else []
    key = [place.label("place"), *names, *months]
    query = select(*key, *(func.sum(lot[name]).label(name) for name in LOT_SUMS)).where(
        lot.tenant_id == tenant_id, lot.paid == 1, lot.day < periods[-1].end
    )
    found: defaultdict[tuple[str | None, int | None], list[Amounts]] = defaultdict(
        lambda: [Amounts()] * (len(periods) + 1)
    )
    for row in connection.execute(query.group_by(*key)):
        group = (row.pack or row.origin) if names else None, row.sold_month if months else None
        added = map(int, row[-len(LOT_SUMS) :])
        found[group][row.place] = Amounts(*map(add, found[group][row.place], added))
    return found
