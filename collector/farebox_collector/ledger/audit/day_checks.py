"""Verify the daily roll-ups against their records, one tenant's day at a time: no statement reads more than that.
Retired records count through their stored sums.

One statement over all records would sort every one of them; the records of a day are a range of an index.
"""

from collections.abc import Iterator, Sequence

from sqlalchemy import Connection, TextClause, func, select, text, union

from farebox_collector.ledger.tables.books import tenants, usage_records
from farebox_collector.ledger.tables.limits import spending_days
from farebox_collector.ledger.tables.rollups import DAY_SUMS, usage_days, wallet_days
from farebox_collector.ledger.tables.tombstones import retired_days
from farebox_collector.model.mismatches import Mismatch
from farebox_collector.model.moments import DAY_NS

DAY_CHECKS = (
    ("days", "the daily usage is the sum of the records"),
    ("wallet days", "the daily usage of every wallet is the sum of its charged records"),
    ("spending days", "the daily spending of users, departments and projects is the sum of their charged records"),
)

_OF_RECORD = {
    "requests": "1",
    "errors": "CASE WHEN error_type <> '' THEN 1 ELSE 0 END",
    "input_tokens": "coalesce(input_tokens, 0) + coalesce(cache_read_tokens, 0) + coalesce(cache_write_tokens, 0)"
    " + coalesce(cache_write_1h_tokens, 0) + coalesce(input_audio_tokens, 0) + coalesce(input_image_tokens, 0)",
    "output_tokens": "coalesce(output_tokens, 0) + coalesce(output_audio_tokens, 0) + coalesce(output_image_tokens, 0)",
    "cost_nanousd": "coalesce(cost_nanousd, 0)",
    "charge_nanocredits": "coalesce(charge_nanocredits, 0)",
}
"""The SQL for each of `DAY_SUMS` over a usage record."""


def _records_against_day(table: str, name: str, condition: str = "") -> TextClause:
    """Compare one day of a roll-up with the records of that day; both are grouped by `name`."""
    return text(f"""
        SELECT {name},
               sum(CASE WHEN side = 1 THEN requests ELSE 0 END), sum(CASE WHEN side = -1 THEN requests ELSE 0 END),
               {", ".join(f"sum(-side * {figure})" for figure in DAY_SUMS)}
        FROM (
            SELECT 1 AS side, {name}, {", ".join(f"{_OF_RECORD[figure]} AS {figure}" for figure in DAY_SUMS)}
            FROM usage_records
            WHERE tenant_id = :tenant_id AND priced_at_ns >= :from_ns AND priced_at_ns < :to_ns {condition}
            UNION ALL
            SELECT 1, name, {", ".join(DAY_SUMS)} FROM retired_days
            WHERE tenant_id = :tenant_id AND day = :day AND kind = '{name}'
            UNION ALL
            SELECT -1, {name}, {", ".join(DAY_SUMS)} FROM {table} WHERE tenant_id = :tenant_id AND day = :day
        ) both_sides
        GROUP BY {name} HAVING {" OR ".join(f"sum(side * {figure}) <> 0" for figure in DAY_SUMS)}
        ORDER BY {name}
    """)


_CHARGED = (
    "FROM usage_records WHERE tenant_id = :tenant_id AND priced_at_ns >= :from_ns AND priced_at_ns < :to_ns"
    " AND verdict = 'charged'"
)
_SPENDING = text(f"""
    SELECT scope, name, user_id, sum(recorded), sum(summed)
    FROM (
        SELECT 'dept' AS scope, dept AS name, '' AS user_id, charge_nanocredits AS recorded, 0 AS summed
        {_CHARGED} AND dept <> ''
        UNION ALL
        SELECT 'project', project, '', charge_nanocredits, 0 {_CHARGED} AND project <> ''
        UNION ALL
        SELECT 'user', wallet, user_id, charge_nanocredits, 0 {_CHARGED} AND user_id <> ''
        UNION ALL
        SELECT kind, name, user_id, charge_nanocredits, 0 FROM retired_days
        WHERE tenant_id = :tenant_id AND day = :day AND kind IN ('dept', 'project', 'user')
        UNION ALL
        SELECT scope, name, user_id, 0, charge_nanocredits FROM spending_days
        WHERE tenant_id = :tenant_id AND day = :day
    ) both_sides
    GROUP BY scope, name, user_id HAVING sum(recorded) <> sum(summed)
    ORDER BY scope, name, user_id
""")

_COMPARISONS = (
    ("days", _records_against_day(usage_days.name, "verdict")),
    ("wallet days", _records_against_day(wallet_days.name, "wallet", "AND verdict = 'charged'")),
)


def days_of(connection: Connection) -> list[tuple[int, int]]:
    """Return every (tenant, day) that has records or is in a roll-up, in order."""
    tables = (usage_days, wallet_days, spending_days, retired_days)
    parts = [select(table.c.tenant_id, table.c.day).distinct() for table in tables]
    found = {(row.tenant_id, row.day) for row in connection.execute(union(*parts))}
    for tenant_id in connection.execute(select(tenants.c.id)).scalars().all():
        day = _next_day(connection, tenant_id, 0)
        while day is not None:
            found.add((tenant_id, day))
            day = _next_day(connection, tenant_id, day + 1)
    return sorted(found)


def _next_day(connection: Connection, tenant_id: int, day: int) -> int | None:
    """Return the first day with records from a day on: one index look-up, regardless of their number."""
    table = usage_records.c
    first = select(func.min(table.priced_at_ns)).where(table.tenant_id == tenant_id, table.priced_at_ns >= day * DAY_NS)
    at_ns = connection.execute(first).scalar()
    return None if at_ns is None else int(at_ns) // DAY_NS


def compare_day(connection: Connection, tenant_id: int, day: int) -> Iterator[Mismatch]:
    """Yield mismatches between one day of a roll-up and the sum of its records."""
    bounds = {"tenant_id": tenant_id, "day": day, "from_ns": day * DAY_NS, "to_ns": (day + 1) * DAY_NS}
    for check, statement in _COMPARISONS:
        for name, records, requests, *off in connection.execute(statement, bounds):
            what = f"tenant {tenant_id}, day {day}, {name}"
            yield Mismatch(check, what, f"{records} records", f"{requests} requests, off by {_off_by(off)}")
    for scope, name, user_id, recorded, summed in connection.execute(_SPENDING, bounds):
        what = f"tenant {tenant_id}, day {day}, {scope} {name}{user_id and f', user {user_id}'}"
        yield Mismatch("spending days", what, str(recorded), str(summed))


def _off_by(figures: Sequence[int]) -> str:
    return ", ".join(f"{name} {int(off):+}" for name, off in zip(DAY_SUMS, figures, strict=True) if off)
