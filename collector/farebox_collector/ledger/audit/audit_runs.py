"""Runs of the audit: what each found and when. The rows outlive restarts and are shared by all replicas."""

from typing import NamedTuple

from sqlalchemy import Connection, delete, insert, select

from farebox_collector.ledger.tables.corrections import audits

FULL = "full"
"""All of the books."""
RECENT = "recent"
"""What came since the last one."""
SCOPES = (RECENT, FULL)

_KEPT_NS = 30 * 86_400 * 10**9


class Audited(NamedTuple):
    """An audit that came to its end."""

    scope: str
    ended_at_ns: int
    upto_transaction: int
    mismatches: int


def last_audit(connection: Connection, scope: str) -> Audited | None:
    """The newest audit of a scope; None before the first."""
    columns = [audits.c[name] for name in Audited._fields]
    newest = select(*columns).where(audits.c.scope == scope).order_by(audits.c.id.desc()).limit(1)
    found = connection.execute(newest).first()
    return None if found is None else Audited(*found)


def note_audit(connection: Connection, audited: Audited) -> None:
    """Keep what an audit found. Recent ones that found nothing are let go of after a month: there is one a minute."""
    connection.execute(insert(audits).values(audited._asdict()))
    column = audits.c
    old = column.ended_at_ns < audited.ended_at_ns - _KEPT_NS
    connection.execute(delete(audits).where(column.scope == RECENT, column.mismatches == 0, old))
