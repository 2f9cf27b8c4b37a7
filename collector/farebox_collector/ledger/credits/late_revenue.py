"""Revenue posted on a UTC day other than that of its calls; reports show what moved between days.

Costs belong to the day on which a call started, however late it is reported. Revenue is posted when lots are drawn up;
revenue of overdraft when a lot pays it. This table holds the part that belongs to calls of other days.

Overdraft is the newest usage of a wallet. Its oldest part is paid first.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from sqlalchemy import Connection, Select, func, select

from farebox_collector.ledger.storage import bulk_insert
from farebox_collector.ledger.tables.rollups import late_revenue, wallet_days, within
from farebox_collector.model.moments import DAY_NS, Days, day_of
from farebox_collector.model.money import round_half_even

OVERDRAFT_DAYS = 62
"""Days over which overdraft is split; older overdraft counts on the first of them."""
_KEY, _SUMS = ("tenant_id", "day", "calls_day"), ("revenue_nanousd",)


class RevenueOfCalls:
    """Revenue by the day of its calls, collected while lots are drawn up."""

    def __init__(self) -> None:
        self._by_day: Counter[int] = Counter()

    def add(self, at_ns: int, revenue_nanousd: int) -> None:
        """Add revenue of calls that started at a moment."""
        self._by_day[day_of(at_ns)] += revenue_nanousd

    def add_overdraft(
        self, connection: Connection, tenant_id: int, wallet: str, owed: tuple[int, int], revenue: int, at_ns: int
    ) -> None:
        """Add revenue of paid overdraft; `owed` is (overdraft, paid part of it)."""
        overdraft, paid = owed
        today, since = day_of(at_ns), 0
        for day, used in _used_by_day(connection, tenant_id, wallet, today):
            # Overdraft of later days is paid after that of this day.
            after = min(overdraft, since + used) if day > today - OVERDRAFT_DAYS else overdraft
            parts = [round_half_even(revenue * max(paid - (overdraft - end), 0), paid) for end in (since, after)]
            self._by_day[day] += parts[1] - parts[0]
            since = after

    def keep(self, connection: Connection, tenant_id: int, at_ns: int) -> None:
        """Store the revenue that belongs to other days than that of the posting."""
        rows = late_rows(tenant_id, day_of(at_ns), self._by_day)
        if rows:
            bulk_insert.insert_adding(connection, late_revenue.name, _KEY, _SUMS, rows)


def late_rows(tenant_id: int, day: int, by_day: Mapping[int, int]) -> list[tuple[int, int, int, int]]:
    """Return rows of a day's revenue of calls of other days, sorted, so that all writers lock in one order."""
    return [(tenant_id, day, of_day, figure) for of_day, figure in sorted(by_day.items()) if figure and of_day != day]


def day_ends(first_ns: int, last_ns: int) -> list[int]:
    """Return the last nanosecond of each UTC day that ends between two moments."""
    return [day * DAY_NS - 1 for day in range(day_of(first_ns) + 1, day_of(last_ns) + 1)]


def _used_by_day(connection: Connection, tenant_id: int, wallet: str, today: int) -> list[tuple[int, int]]:
    """Return a wallet's charges by day, newest first."""
    used, days = wallet_days.c, range(today, today - OVERDRAFT_DAYS - 1, -1)
    query = select(used.day, func.sum(used.charge_nanocredits)).where(
        used.tenant_id == tenant_id, used.wallet == wallet, used.day.in_(days)
    )
    found = {day: int(charge) for day, charge in connection.execute(query.group_by(used.day))}
    return [(day, found.get(day, 0)) for day in days]


def moved(tenant_id: int, days: Days, *, by_day: bool) -> Iterator[Select[Any]]:
    """Yield queries of revenue that moved into and out of some days, by day or in total.

    For the total, only calls from outside these days count as calls of other days.
    """
    table = late_revenue.c
    posted, called = within(table.day, days), within(table.calls_day, days)
    sides = (
        ("from_other_days_nanousd", table.day, posted, ~called),
        ("on_other_days_nanousd", table.calls_day, called, ~posted),
    )
    for name, day, chosen, apart in sides:
        query = select(func.sum(table.revenue_nanousd).label(name)).where(table.tenant_id == tenant_id, chosen)
        # The two days of a row always differ.
        yield query.add_columns(day.label("day")).group_by(day) if by_day else query.where(apart)
