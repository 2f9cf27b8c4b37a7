"""Actions that go on too long: an action id that never changes pays a flat charge once for all of its calls.

A walk over all actions counts them in steps of some thousands, so that it does not block the books.
"""

from typing import NamedTuple

from sqlalchemy import Connection, func, or_, select

from farebox_collector.ledger.tables.credits import charged_actions

LONGEST_NS = 24 * 3600 * 10**9
"""An action whose calls started further apart than this is too long."""
MOST_CALLS = 10_000
"""An action with more calls than this is too long."""
RECENT_NS = 7 * 24 * 3600 * 10**9
"""An action without a call for this long is over, and is not counted."""
ACTIONS_AT_ONCE = 20_000


class LongActions(NamedTuple):
    """The number of too long actions in a step, and the last action of the step; None at the end."""

    long: int
    last_id: int | None


def count_long_actions(
    connection: Connection, at_ns: int, after_id: int = 0, limit: int = ACTIONS_AT_ONCE
) -> LongActions:
    """Count actions with a floor that are too long and in progress: one step of a walk over all tenants."""
    table = charged_actions.c
    ids = select(table.id).where(table.id > after_id).order_by(table.id).limit(limit).subquery().c
    looked_at, last_id = connection.execute(select(func.count(ids.id), func.max(ids.id))).one()
    if not looked_at:
        return LongActions(0, None)
    long = or_(table.calls > MOST_CALLS, table.last_started_ns - table.first_started_ns > LONGEST_NS)
    count = connection.execute(
        select(func.count()).where(
            table.id > after_id,
            table.id <= last_id,
            table.floor_nanocredits > 0,
            # If a call other than the first decided the floor, the action has no start time.
            table.first_started_ns > 0,
            table.last_started_ns > at_ns - RECENT_NS,
            long,
        )
    ).scalar_one()
    return LongActions(int(count), int(last_id) if looked_at == limit else None)
