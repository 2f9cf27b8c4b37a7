"""Results of audit runs. The rows survive restarts and are shared by all replicas."""

from typing import NamedTuple

from sqlalchemy import Connection, delete, insert, select

from farebox_collector.ledger.tables.corrections import audits

FULL = "full"
"""All of the books."""
RECENT = "recent"
"""The transactions since the last audit."""
SCOPES = (RECENT, FULL)

_KEPT_NS = 30 * 86_400 * 10**9


class Audited(NamedTuple):
    """A finished audit."""

    scope: str
    ended_at_ns: int
    upto_transaction: int
    mismatches: int


def last_audit(connection: Connection, scope: str) -> Audited | None:
    """Return the newest audit of a scope; None before the first."""
    columns = [audits.c[name] for name in Audited._fields]
    newest = select(*columns).where(audits.c.scope == scope).order_by(audits.c.id.desc()).limit(1)
    found = connection.execute(newest).first()
    return None if found is None else Audited(*found)


def note_audit(connection: Connection, audited: Audited) -> None:
    """Store the result of an audit. Clean recent audits are deleted after a month: there is one per minute."""
    connection.execute(insert(audits).values(audited._asdict()))
    column = audits.c
    old = column.ended_at_ns < audited.ended_at_ns - _KEPT_NS
    connection.execute(delete(audits).where(column.scope == RECENT, column.mismatches == 0, old))
