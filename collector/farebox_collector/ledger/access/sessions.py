"""Sessions of people: created at login, stored as SHA-256, ended by time, by their person, or by an admin.

The token is `fbs_<tenant>_<16 hex digits>_<secret>`: tenant and digits locate it; the secret has 256 bits.
"""

import hmac
import re
import secrets
from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, delete, insert, select, update

from farebox_collector.ledger.access.audit_log import note
from farebox_collector.ledger.tables.access import people, sessions
from farebox_collector.model.credentials import (
    MAX_TOKEN,
    SCOPES_OF,
    Caller,
    Role,
    fingerprint,
)

MAX_USER_AGENT = 200
TOUCH_NS = 60 * 10**9
"""Shortest interval between updates of a session's last use."""
KEPT_NS = 90 * 86_400 * 10**9
"""How long ended sessions are kept for review."""
_TOKEN = re.compile(r"fbs_([1-9][0-9]{0,17})_([0-9a-f]{16})_[A-Za-z0-9_-]{43}")


class Origin(NamedTuple):
    """Origin of a session, shown to its person in the list."""

    method: str
    """`password` or `oidc`."""
    address: str
    user_agent: str


class Lifetime(NamedTuple):
    """How long sessions last, in nanoseconds."""

    idle_ns: int
    """A session ends after so long without a request."""
    absolute_ns: int
    """A session ends after so long in any case."""


class SessionOver(Exception):
    """The token belongs to no active session."""


class NoSuchSession(Exception):
    """The tenant has no such session."""


class Found(NamedTuple):
    """An active session."""

    caller: Caller
    name: str
    """The person's name, or the login."""
    role: Role
    expires_at_ns: int
    """When it ends in any case."""
    last_used_at_ns: int


def is_session_token(token: str) -> bool:
    """Return whether a text has the form of a session's token."""
    return len(token) <= MAX_TOKEN and _TOKEN.fullmatch(token) is not None


def csrf_token(token: str) -> str:
    """Return the CSRF token of a session's forms; the session's token cannot be derived from it."""
    return hmac.digest(token.encode(), b"csrf", "sha256").hex()


def start_session(
    connection: Connection, tenant_id: int, person: int, origin: Origin, at_ns: int, absolute_ns: int
) -> str:
    """Start a session; returns its token, which the books do not store."""
    session_id = secrets.token_hex(8)
    token = f"fbs_{tenant_id}_{session_id}_{secrets.token_urlsafe(32)}"
    row = insert(sessions).values(
        tenant_id=tenant_id,
        session_id=session_id,
        person=person,
        token_sha256=fingerprint(token),
        method=origin.method,
        address=origin.address,
        user_agent=_printable(origin.user_agent)[:MAX_USER_AGENT],
        created_at_ns=at_ns,
        last_used_at_ns=at_ns,
        expires_at_ns=at_ns + absolute_ns,
    )
    connection.execute(row)
    after = {"session": session_id, "method": origin.method}
    note(connection, tenant_id, "session.start", f"person:{person}", at_ns, after=after)
    return token


def find_session(connection: Connection, token: str, idle_ns: int, at_ns: int) -> Found:
    """Return the active session of a token. Raises SessionOver."""
    parts = _TOKEN.fullmatch(token) if len(token) <= MAX_TOKEN else None
    if parts is None:
        raise SessionOver
    tenant_id, session_id = int(parts[1]), parts[2]
    if tenant_id >= 2**62:
        raise SessionOver
    session, person = sessions.c, people.c
    row = connection.execute(
        select(sessions, person.login, person.name, person.role, person.disabled_at_ns)
        .join(people, (person.tenant_id == session.tenant_id) & (person.number == session.person))
        .where(session.tenant_id == tenant_id, session.session_id == session_id)
    ).first()
    if row is None or not hmac.compare_digest(bytes(row.token_sha256), fingerprint(token)):
        raise SessionOver
    over = row.ended_at_ns is not None or row.disabled_at_ns is not None or row.expires_at_ns <= at_ns
    if over or row.last_used_at_ns + idle_ns <= at_ns:
        raise SessionOver
    role = Role(row.role)
    caller = Caller(tenant_id, SCOPES_OF[role], "", "", row.person, row.login, session_id)
    return Found(caller, row.name or row.login, role, row.expires_at_ns, row.last_used_at_ns)


def touch(connection: Connection, tenant_id: int, session_id: str, at_ns: int) -> None:
    """Store the last use of a session."""
    table = sessions.c
    chosen = (table.tenant_id == tenant_id, table.session_id == session_id, table.last_used_at_ns < at_ns)
    connection.execute(update(sessions).where(*chosen).values(last_used_at_ns=at_ns))


def end_session(
    connection: Connection, tenant_id: int, session_id: str, at_ns: int, *, of_person: int | None = None
) -> None:
    """End a session now; with `of_person` only if it is that person's. Raises NoSuchSession."""
    table = sessions.c
    chosen = (table.tenant_id == tenant_id, table.session_id == session_id)
    row = connection.execute(select(table.person, table.ended_at_ns).where(*chosen)).first()
    if row is None or (of_person is not None and row.person != of_person):
        raise NoSuchSession
    if row.ended_at_ns is None:
        connection.execute(update(sessions).where(*chosen).values(ended_at_ns=at_ns))
        after = {"session": session_id}
        note(connection, tenant_id, "session.end", f"person:{row.person}", at_ns, after=after)


def end_sessions_of(connection: Connection, tenant_id: int, person: int, at_ns: int) -> int:
    """End all sessions of a person; returns how many were active."""
    table = sessions.c
    active = (table.tenant_id == tenant_id, table.person == person, table.ended_at_ns.is_(None))
    ended = connection.execute(update(sessions).where(*active).values(ended_at_ns=at_ns)).rowcount
    if ended:
        note(connection, tenant_id, "session.end", f"person:{person}", at_ns, after={"sessions": ended})
    return ended


def sessions_of(
    connection: Connection, tenant_id: int, idle_ns: int, at_ns: int, person: int | None = None, limit: int = 1_000
) -> Sequence[Row[Any]]:
    """Return active sessions of one person or all, with their logins, newest first."""
    session, who = sessions.c, people.c
    query = (
        select(sessions, who.login)
        .join(people, (who.tenant_id == session.tenant_id) & (who.number == session.person))
        .where(
            session.tenant_id == tenant_id,
            session.ended_at_ns.is_(None),
            session.expires_at_ns > at_ns,
            session.last_used_at_ns > at_ns - idle_ns,
        )
    )
    if person is not None:
        query = query.where(session.person == person)
    order = (session.created_at_ns.desc(), session.session_id)
    return connection.execute(query.order_by(*order).limit(limit)).all()


def purge_sessions(connection: Connection, at_ns: int) -> None:
    """Delete sessions that ended longer ago than `KEPT_NS`."""
    connection.execute(delete(sessions).where(sessions.c.expires_at_ns < at_ns - KEPT_NS))


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else " " for char in text)
