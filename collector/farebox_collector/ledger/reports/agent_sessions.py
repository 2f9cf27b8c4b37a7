"""What each session of a coding agent cost, from ranges of records: small steps instead of a report on an hour."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, CursorResult, Row, func, select

from farebox_collector.dialects.agents import TOOLS
from farebox_collector.ledger.tables.books import usage_records
from farebox_collector.model.verdicts import Verdict

MINUTE_NS = 60 * 10**9


def session_costs(connection: Connection, after_id: int, upto_id: int, from_ns: int) -> Sequence[Row[Any]]:
    """Return cost_nanousd by tenant_id, tool, session and minute: charged calls of a range of records, all tenants.

    Calls that began before `from_ns` and calls without a session are left out. The minute is the one of the call's
    start, counted from the epoch. Calls that a subscription pays cost nothing, and are left out too.
    """
    table = usage_records.c
    minute = (table.priced_at_ns // MINUTE_NS).label("minute")
    key = (table.tenant_id, table.dialect.label("tool"), table.action_id.label("session"), minute)
    query = select(*key, func.sum(table.cost_nanousd).label("cost_nanousd")).where(
        table.id > after_id,
        table.id <= upto_id,
        table.dialect.in_(TOOLS),
        table.verdict == Verdict.CHARGED,
        table.action_id != "",
        table.cost_nanousd > 0,
        table.priced_at_ns >= from_ns,
    )
    found: CursorResult[Any] = connection.execute(query.group_by(*key))
    return found.all()


def last_record(connection: Connection) -> int:
    """Return the number of the newest record; 0 if there is none."""
    return int(connection.execute(select(func.coalesce(func.max(usage_records.c.id), 0))).scalar_one())


def last_record_before(connection: Connection, received_ns: int) -> int:
    """Return a record after which all records came that were received since; 0 if all of them did.

    Records are numbered in the order of their arrival, so halving finds it, and no index of times is needed.
    """
    table = usage_records.c
    low, high = 0, last_record(connection)
    while low < high:
        middle = (low + high + 1) // 2
        at_or_before = select(table.received_at_ns).where(table.id <= middle).order_by(table.id.desc()).limit(1)
        received = connection.execute(at_or_before).scalar()
        if received is None or received < received_ns:
            low = middle
        else:
            high = middle - 1
    return low
