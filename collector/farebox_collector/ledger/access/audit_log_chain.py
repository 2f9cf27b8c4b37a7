"""Check the chains of the audit log for gaps, changes and cuts.

An anchor is the entry up to which an audit last verified a chain. It exposes a cut of the end together with its head,
which otherwise looks like a shorter log. An attacker with full write access to the database can still forge everything:
store the heads that `farebox audit-log --heads` prints where the attacker cannot write.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, select

from farebox_collector.ledger.access.audit_log import START, content_digest, entry_digest
from farebox_collector.ledger.storage import bulk_insert
from farebox_collector.ledger.tables.access import audit_log, audit_log_anchors, audit_log_heads
from farebox_collector.model.mismatches import Mismatch

CHAIN_CHECKS = (
    ("audit log", "every entry of the audit log follows from the one before it, and none is missing or changed"),
)
_NAME = CHAIN_CHECKS[0][0]
_AT_ONCE = 1_000


class Head(NamedTuple):
    """An entry of a chain: tenant, number and hash."""

    tenant_id: int
    number: int
    sha256: bytes


Verified = Callable[[Head], None]
"""Receives the last verified entry of a chain."""


def not_noted(head: Head) -> None:
    """Ignore the verified entry; for callers that store no anchors."""


def heads(connection: Connection) -> list[Head]:
    """Return the last entries of all chains, as stored in their heads."""
    table = audit_log_heads.c
    query = select(table.tenant_id, table.last_number, table.last_sha256).order_by(table.tenant_id)
    return [Head(row[0], row[1], bytes(row[2])) for row in connection.execute(query)]


def compare_chains(
    connection: Connection, verified: Verified = not_noted, *, from_scratch: bool = True
) -> Iterator[Mismatch]:
    """Yield every break of a chain: in all of it with `from_scratch`, else since its anchor."""
    stored_heads = {row.tenant_id: row for row in connection.execute(select(audit_log_heads))}
    anchored = {row.tenant_id: row for row in connection.execute(select(audit_log_anchors))}
    table = audit_log.c
    with_entries = set(connection.execute(select(table.tenant_id).distinct()).scalars()) if from_scratch else set()
    for tenant_id in sorted({*stored_heads, *anchored, *with_entries}):
        if tenant_id not in stored_heads:
            yield Mismatch(_NAME, f"tenant {tenant_id}", "the head of a chain", "none")
            continue
        head, anchor = stored_heads[tenant_id], anchored.get(tenant_id)
        found = list(_compare(connection, head, anchor, from_scratch=from_scratch))
        yield from found
        if not found:
            verified(Head(tenant_id, head.last_number, bytes(head.last_sha256)))


def move_anchor(connection: Connection, head: Head, at_ns: int) -> None:
    """Store the last verified entry of a chain, unless the anchor is already later."""
    bulk_insert.insert(
        connection,
        "audit_log_anchors",
        ("tenant_id", "number", "sha256", "anchored_at_ns"),
        [(*head, at_ns)],
        " ON CONFLICT (tenant_id) DO UPDATE SET number = excluded.number, sha256 = excluded.sha256,"
        " anchored_at_ns = excluded.anchored_at_ns WHERE excluded.number > audit_log_anchors.number",
    )


def _compare(
    connection: Connection, head: Row[Any], anchor: Row[Any] | None, *, from_scratch: bool
) -> Iterator[Mismatch]:
    tenant_id = head.tenant_id
    number, previous = int(head.retired_number), bytes(head.retired_sha256)
    if not number and previous != START:
        yield Mismatch(_NAME, f"tenant {tenant_id}, beginning", START.hex(), previous.hex())
    if anchor is not None and anchor.number > head.last_number:
        yield Mismatch(_NAME, f"tenant {tenant_id}, end", f"entry {anchor.number}", f"entry {head.last_number}")
        return
    if not from_scratch and anchor is not None and anchor.number > number:
        number, previous = int(anchor.number), bytes(anchor.sha256)
    while rows := _after(connection, tenant_id, number):
        for row in rows:
            where = f"tenant {tenant_id}, entry {row.number}"
            if row.number != number + 1:
                yield Mismatch(_NAME, where, f"entry {number + 1} before it", f"entry {number}")
            elif bytes(row.sha256) != entry_digest(previous, row.number, row, bytes(row.content_sha256)):
                yield Mismatch(_NAME, where, "the hash of its content and of the entry before", row.sha256.hex())
            elif not _is_forgotten(row) and bytes(row.content_sha256) != content_digest(
                bytes(row.salt), row.subject, row.details
            ):
                yield Mismatch(_NAME, where, "the content that its digest is of", "other content")
            number, previous = int(row.number), bytes(row.sha256)
            if anchor is not None and number == anchor.number and previous != bytes(anchor.sha256):
                yield Mismatch(_NAME, f"{where}, as anchored", anchor.sha256.hex(), previous.hex())
    if (number, previous) != (head.last_number, bytes(head.last_sha256)):
        yield Mismatch(
            _NAME,
            f"tenant {tenant_id}, end",
            f"{head.last_number} {head.last_sha256.hex()}",
            f"{number} {previous.hex()}",
        )


def _after(connection: Connection, tenant_id: int, number: int) -> Sequence[Row[Any]]:
    table = audit_log.c
    following = select(audit_log).where(table.tenant_id == tenant_id, table.number > number)
    return connection.execute(following.order_by(table.number).limit(_AT_ONCE)).all()


def _is_forgotten(row: Row[Any]) -> bool:
    return not row.salt and not row.subject and not row.details
