"""Add calls to their action that were recorded before their event had any rule with a floor.

Until then an action is the sum of its calls, and has no row. When the first rule with a floor is set, calls of actions
that may still be in progress are added once: their charge becomes their share, and the floor of the action is 0.
"""

from sqlalchemy import Connection, bindparam, select, update

from farebox_collector.ledger.tables.books import usage_records
from farebox_collector.ledger.usage.action_pricing import Change, FirstCall, move_actions
from farebox_collector.model.verdicts import Verdict
from farebox_collector.pricing.rules import EVERY_OTHER_EVENT

LONGEST_NS = 24 * 3600 * 10**9
"""The greatest age of a call whose action may still be in progress."""
MOST_CALLS = 100_000
"""Most calls that are added, the newest first."""
_JOIN = (
    update(usage_records)
    .where(usage_records.c.id == bindparam("record"))
    .values(action_share_nanocredits=usage_records.c.charge_nanocredits)
)


def join_recorded_calls(connection: Connection, tenant_id: int, event: str, at_ns: int) -> int:
    """Add the calls of an event, or of all events for `*`, that belong to an action; return their number."""
    table = usage_records.c
    query = select(
        table.id, table.wallet, table.event, table.action_id, table.charge_nanocredits, table.priced_at_ns
    ).add_columns(table.trace_id, table.span_id)
    query = query.where(
        table.tenant_id == tenant_id,
        table.priced_at_ns >= at_ns - LONGEST_NS,
        table.action_id != "",
        table.action_share_nanocredits.is_(None),
        table.verdict == Verdict.CHARGED,
    )
    if event != EVERY_OTHER_EVENT:
        query = query.where(table.event == event)
    rows = connection.execute(query.order_by(table.priced_at_ns.desc()).limit(MOST_CALLS).with_for_update()).all()
    changes = [
        Change(
            (row.wallet, row.event, row.action_id),
            1,
            row.charge_nanocredits,
            0,
            FirstCall(row.priced_at_ns, (row.trace_id + row.span_id).hex()),
        )
        for row in rows
    ]
    move_actions(connection, tenant_id, changes)
    if rows:
        connection.execute(_JOIN, [{"record": row.id} for row in rows])
    return len(rows)
