"""The audit log: every change by a person or key and every refused attempt, in one hash chain for each tenant.

An entry is written at the end of the transaction of its change. Its hash covers the entry before, which exposes gaps,
changes and cuts; `chain` checks for them. The chain covers a salted digest of an entry's content, so that `forget` can
erase the content without breaking the chain.
"""

import hashlib
import json
import secrets
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, delete, insert, or_, select, update

from farebox_collector.ledger.access.actors import Actor, acting
from farebox_collector.ledger.storage import bulk_insert
from farebox_collector.ledger.storage.database import before_commit
from farebox_collector.ledger.tables.access import audit_log, audit_log_heads

DONE = "done"
REFUSED = "refused"
START = bytes(32)
"""The hash before the first entry."""
MAX_PART = 4_000
"""Longest JSON of `before` or `after`, in characters; a longer one is cut and marked."""
MAX_SUBJECT = 500

_SALT_BYTES = 16
_HEAD_COLUMNS = ("tenant_id", "last_number", "last_sha256", "retired_number", "retired_sha256")
_AT_ONCE = 500

Facts = Mapping[str, Any]


class Entry(NamedTuple):
    """An entry to append to the chain."""

    tenant_id: int
    at_ns: int
    actor: str
    address: str
    action: str
    outcome: str
    subject: str
    details: str


class LogFilter(NamedTuple):
    """Filter of entries; an empty field does not filter."""

    actor: str = ""
    action: str = ""
    """An action, or the part before its dot: `key` is every action on keys."""
    subject: str = ""
    outcome: str = ""
    from_ns: int | None = None
    to_ns: int | None = None


def note(
    connection: Connection,
    tenant_id: int,
    action: str,
    subject: object,
    at_ns: int,
    *,
    before: Facts | None = None,
    after: Facts | None = None,
    outcome: str = DONE,
    actor: Actor | None = None,
) -> None:
    """Note a change of this transaction in the audit log; the actor is `acting()` by default.

    `action` is a noun, a dot and a verb, such as `key.revoke`. `before` and `after` are JSON, cut at `MAX_PART`
    characters. Never put secrets there.
    """
    who = actor or acting()
    parts = {name: _bounded(facts) for name, facts in (("before", before), ("after", after)) if facts is not None}
    details = json.dumps(parts, ensure_ascii=False, separators=(",", ":"), default=str) if parts else ""
    text = _storable(str(subject))[:MAX_SUBJECT]
    entry = Entry(tenant_id, at_ns, who.name, who.address, action, outcome, text, _storable(details))
    before_commit(connection, append, entry)


def append(connection: Connection, entries: Iterable[Entry]) -> None:
    """Append entries to their tenants' chains."""
    by_tenant = sorted(entries, key=lambda entry: entry.tenant_id)
    for tenant_id, of_tenant in groupby(by_tenant, lambda entry: entry.tenant_id):
        number, previous = _lock_head(connection, tenant_id)
        rows = []
        for entry in of_tenant:
            number += 1
            salt = secrets.token_bytes(_SALT_BYTES)
            content = content_digest(salt, entry.subject, entry.details)
            previous = entry_digest(previous, number, entry, content)
            rows.append({**entry._asdict(), "number": number, "salt": salt, "content_sha256": content})
            rows[-1]["sha256"] = previous
        connection.execute(insert(audit_log), rows)
        head = update(audit_log_heads).where(audit_log_heads.c.tenant_id == tenant_id)
        connection.execute(head.values(last_number=number, last_sha256=previous))


def content_digest(salt: bytes, subject: str, details: str) -> bytes:
    """Return the digest of an entry's content; the salt prevents guessing the content."""
    return hashlib.sha256(salt + _canonical([subject, details])).digest()


def entry_digest(previous: bytes, number: int, entry: Entry | Row[Any], content_sha256: bytes) -> bytes:
    """Return the hash of an entry, which covers the hash of the entry before it."""
    facts = [entry.tenant_id, number, entry.at_ns, entry.actor, entry.address, entry.action, entry.outcome]
    return hashlib.sha256(previous + content_sha256 + _canonical(facts)).digest()


def entries_of(
    connection: Connection, tenant_id: int, wanted: LogFilter, before_number: int | None = None, limit: int = 100
) -> Sequence[Row[Any]]:
    """Return entries of a tenant, newest first."""
    table = audit_log.c
    query = select(audit_log).where(table.tenant_id == tenant_id)
    for column in (table.actor, table.subject, table.outcome):
        if value := getattr(wanted, column.name):
            query = query.where(column == value)
    if wanted.action:
        whole = wanted.action.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
        query = query.where(or_(table.action == wanted.action, table.action.like(f"{whole}.%", escape="\\")))
    if wanted.from_ns is not None:
        query = query.where(table.at_ns >= wanted.from_ns)
    if wanted.to_ns is not None:
        query = query.where(table.at_ns < wanted.to_ns)
    if before_number is not None:
        query = query.where(table.number < before_number)
    return connection.execute(query.order_by(table.number.desc()).limit(limit)).all()


def forget(connection: Connection, tenant_id: int, subject: str, at_ns: int) -> int:
    """Erase the content of all entries about a subject; returns how many. The chain stays valid.

    The entry about the erasure names no subject.
    """
    table = audit_log.c
    chosen = (table.tenant_id == tenant_id, table.subject == subject)
    emptied = update(audit_log).where(*chosen).values(subject="", details="", salt=b"")
    count = connection.execute(emptied).rowcount
    if count:
        note(connection, tenant_id, "audit_log.forget", "", at_ns, after={"entries": count})
    return count


def retire_entries(connection: Connection, tenant_id: int, before_ns: int, at_ns: int) -> int:
    """Delete the oldest entries from before a moment, at most 500 in one call; returns how many.

    The head stores the number and hash of the last deleted entry, from which the chain goes on.
    """
    table = audit_log.c
    _lock_head(connection, tenant_id)
    oldest = connection.execute(
        select(table.number, table.at_ns, table.sha256)
        .where(table.tenant_id == tenant_id)
        .order_by(table.number)
        .limit(_AT_ONCE)
    ).all()
    last: Any = None
    for row in oldest:
        if row.at_ns >= before_ns:
            break
        last = row
    if last is None:
        return 0
    done = connection.execute(delete(audit_log).where(table.tenant_id == tenant_id, table.number <= last.number))
    head = update(audit_log_heads).where(audit_log_heads.c.tenant_id == tenant_id)
    connection.execute(head.values(retired_number=last.number, retired_sha256=last.sha256))
    note(connection, tenant_id, "audit_log.retire", "", at_ns, after={"up_to_number": last.number})
    return done.rowcount


def _lock_head(connection: Connection, tenant_id: int) -> tuple[int, bytes]:
    """Lock a chain until the end of the transaction; returns the number and hash of its last entry."""
    head = audit_log_heads.c
    query = select(head.last_number, head.last_sha256).where(head.tenant_id == tenant_id).with_for_update()
    found = connection.execute(query).first()
    if found is None:
        bulk_insert.insert_ignoring_conflicts(
            connection, "audit_log_heads", _HEAD_COLUMNS, [(tenant_id, 0, START, 0, START)], on=("tenant_id",)
        )
        found = connection.execute(query).one()
    return int(found.last_number), bytes(found.last_sha256)


def _bounded(facts: Facts) -> Any:
    text = json.dumps(facts, ensure_ascii=False, separators=(",", ":"), default=str)
    if len(text) <= MAX_PART:
        return facts
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return {"cut": text[: MAX_PART // 2], "characters": len(text), "sha256": digest}


def _storable(text: str) -> str:
    # PostgreSQL stores neither NUL nor lone surrogates.
    return text.replace("\x00", "\ufffd").encode(errors="replace").decode()


def _canonical(facts: Sequence[object]) -> bytes:
    return json.dumps(facts, ensure_ascii=False, separators=(",", ":")).encode()
