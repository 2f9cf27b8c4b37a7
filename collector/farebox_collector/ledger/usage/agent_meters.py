"""Keep what the metrics of coding agents tell, by day, tool and person. None of it is charged.

A point is added once, however often it arrives. Of a series the books have the last point: a point that is not later is
a repetition. A delta is added as it is; of a cumulative sum the difference from the last point is added, and all of it
if the sum began anew. So a sender may restart, and may use either temporality.
"""

from collections import defaultdict
from collections.abc import Sequence

from sqlalchemy import Connection, and_, bindparam, delete, func, select, update

from farebox_collector.dialects.agent_metrics import INPUT, MeterReading
from farebox_collector.ledger.storage import bulk_insert
from farebox_collector.ledger.tables.agents import agent_meters, agent_series
from farebox_collector.model.moments import DAY_NS

SERIES_DAYS = 8
"""Days after which a series without points is forgotten. A sender keeps points for some minutes at most."""
METER_DAYS = 400
"""Days for which the sums are kept."""
MAX_SERIES = 200_000
"""Most series of a tenant; points of further ones are left out until old ones are forgotten."""
_AHEAD_NS = 5 * 60 * 10**9
_SHORT_NS = 3600 * 10**9
"""A delta over a shorter time belongs to the day on which it began, as the calls in it do."""
_UPDATE = (
    update(agent_series)
    .where(agent_series.c.tenant_id == bindparam("of_tenant"), agent_series.c.series == bindparam("of_series"))
    .values(start_ns=bindparam("start"), time_ns=bindparam("time"), tokens=bindparam("sum"))
)


class _Last:
    """The last point of a series."""

    def __init__(self, start_ns: int = 0, time_ns: int = 0, tokens: int = 0) -> None:
        self.start_ns, self.time_ns, self.tokens = start_ns, time_ns, tokens

    def added_by(self, reading: MeterReading) -> int:
        """Take the next point; return by how many tokens it is more."""
        if reading.time_ns <= self.time_ns:
            return 0
        went_on = not reading.is_delta and reading.start_ns == self.start_ns and reading.tokens >= self.tokens
        more = reading.tokens - self.tokens if went_on else reading.tokens
        self.start_ns, self.time_ns, self.tokens = reading.start_ns, reading.time_ns, reading.tokens
        return more


def add_readings(connection: Connection, tenant_id: int, readings: Sequence[MeterReading], now_ns: int) -> None:
    """Add points to the sums of their days. A point whose time is out of range counts as received now."""
    last = _last_points(connection, tenant_id, sorted({reading.series for reading in readings}))
    sums: defaultdict[tuple[int, str, str], list[int]] = defaultdict(lambda: [0, 0])
    for reading in sorted(readings, key=lambda one: (one.series, one.time_ns)):
        if reading.series not in last:
            continue
        usable = now_ns - SERIES_DAYS * DAY_NS <= reading.time_ns <= now_ns + _AHEAD_NS
        more = last[reading.series].added_by(reading if usable else reading._replace(time_ns=now_ns))
        if more:
            day = _day_of(reading, usable=usable, now_ns=now_ns)
            sums[day, reading.tool, reading.person][reading.kind != INPUT] += more
    changed = [
        {"of_tenant": tenant_id, "of_series": series, "start": one.start_ns, "time": one.time_ns, "sum": one.tokens}
        for series, one in last.items()
    ]
    if changed:
        connection.execute(_UPDATE, changed)
    rows = [(tenant_id, *key, *tokens) for key, tokens in sorted(sums.items())]
    if rows:
        key = ("tenant_id", "day", "tool", "person")
        bulk_insert.insert_adding(connection, agent_meters.name, key, ("input_tokens", "output_tokens"), rows)


def _last_points(connection: Connection, tenant_id: int, series: Sequence[bytes]) -> dict[bytes, _Last]:
    """Return the last points of some series, locked, and of new ones an empty one while there is room."""
    table = agent_series.c
    own = table.tenant_id == tenant_id
    among = and_(own, table.series.in_(series))
    known = {bytes(one) for one in connection.execute(select(table.series).where(among)).scalars()}
    new = [one for one in series if one not in known]
    # Counted for new ones only: nearly all points are of series that are known.
    kept = connection.execute(select(func.count()).select_from(agent_series).where(own)).scalar_one() if new else 0
    if new and kept + len(new) <= MAX_SERIES:
        columns = ("tenant_id", "series", "start_ns", "time_ns", "tokens")
        rows = [(tenant_id, one, 0, 0, 0) for one in new]
        bulk_insert.insert_ignoring_conflicts(connection, agent_series.name, columns, rows, on=("tenant_id", "series"))
    query = select(table.series, table.start_ns, table.time_ns, table.tokens)
    found = connection.execute(query.where(among).order_by(table.series).with_for_update())
    return {bytes(row.series): _Last(row.start_ns, row.time_ns, row.tokens) for row in found}


def _day_of(reading: MeterReading, *, usable: bool, now_ns: int) -> int:
    if not usable:
        return now_ns // DAY_NS
    began = reading.is_delta and 0 <= reading.time_ns - reading.start_ns < _SHORT_NS
    return (reading.start_ns if began else reading.time_ns) // DAY_NS


def forget_old(connection: Connection, now_ns: int) -> None:
    """Delete series and sums that are past their time, of all tenants."""
    connection.execute(delete(agent_series).where(agent_series.c.time_ns < now_ns - SERIES_DAYS * DAY_NS))
    connection.execute(delete(agent_meters).where(agent_meters.c.day < now_ns // DAY_NS - METER_DAYS))
