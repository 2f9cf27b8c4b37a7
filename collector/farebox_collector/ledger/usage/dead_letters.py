"""Dead letters: spans that cannot be booked as they are, kept for a while for review.

They hold what the decoder kept: ids, times, and the attributes that some dialect reads. Prompts are dropped before.
"""

import json
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

from sqlalchemy import Connection, Row, delete, func, select

from farebox_collector.ledger.storage import bulk_insert
from farebox_collector.ledger.tables.service import dead_letters
from farebox_collector.model.records import AttributeValue, DeadLetter, Span

MAX_VALUE = 1_000
"""Longest stored attribute value, in characters."""

_COLUMNS = ("tenant_id", "digest", "received_at_ns", "expires_at_ns", "trace_id", "span_id", "reason", "span")


def keep(
    connection: Connection, tenant_id: int, letters: Sequence[DeadLetter], received_at_ns: int, lifetime_ns: int
) -> None:
    """Store dead letters; one that is sent again is stored once."""
    rows = []
    for span, reason in letters:
        document = _document(span)
        digest = blake2b(document.encode(), digest_size=16).digest()
        expires_at_ns = received_at_ns + lifetime_ns
        ids = (span.trace_id, span.span_id)
        rows.append((tenant_id, digest, received_at_ns, expires_at_ns, *ids, reason, document))
    bulk_insert.insert_ignoring_conflicts(connection, "dead_letters", _COLUMNS, rows, on=("tenant_id", "digest"))


def letters(connection: Connection, tenant_id: int, after_id: int = 0, limit: int = 100) -> Sequence[Row[Any]]:
    """Return dead letters in the order in which they were stored."""
    table = dead_letters.c
    return connection.execute(
        select(dead_letters).where(table.tenant_id == tenant_id, table.id > after_id).order_by(table.id).limit(limit)
    ).all()


def letter(connection: Connection, tenant_id: int, letter_id: int) -> Row[Any] | None:
    """Return one dead letter; None if it does not exist or has expired."""
    table = dead_letters.c
    return connection.execute(select(dead_letters).where(table.tenant_id == tenant_id, table.id == letter_id)).first()


def span_of(row: Row[Any]) -> Span:
    """Return the span of a dead letter."""
    kept = json.loads(row.span)
    return Span(
        trace_id=bytes.fromhex(kept["trace_id"]),
        span_id=bytes.fromhex(kept["span_id"]),
        parent_span_id=bytes.fromhex(kept["parent_span_id"]),
        start_ns=kept["start_ns"],
        end_ns=kept["end_ns"],
        failed=kept["failed"],
        attributes=_restored(kept["attributes"]),
        resource=_restored(kept["resource"]),
        scope_name=kept["scope_name"],
        scope_version=kept["scope_version"],
    )


def remove(connection: Connection, letter_id: int) -> None:
    """Delete a dead letter that was handled."""
    connection.execute(delete(dead_letters).where(dead_letters.c.id == letter_id))


def purge(connection: Connection, expired_before_ns: int | None = None) -> int:
    """Delete the letters that expired before a time, or all letters. Returns their number."""
    condition = [] if expired_before_ns is None else [dead_letters.c.expires_at_ns <= expired_before_ns]
    return connection.execute(delete(dead_letters).where(*condition)).rowcount


def count(connection: Connection) -> int:
    """Return the number of dead letters of all tenants."""
    return int(connection.execute(select(func.count()).select_from(dead_letters)).scalar_one())


def _document(span: Span) -> str:
    values = {
        **span._asdict(),
        "trace_id": span.trace_id.hex(),
        "span_id": span.span_id.hex(),
        "parent_span_id": span.parent_span_id.hex(),
        "attributes": _bounded(span.attributes),
        "resource": _bounded(span.resource),
        "scope_name": _text(span.scope_name),
        "scope_version": _text(span.scope_version),
    }
    # NaN is allowed here and nowhere else in JSON: some of these spans are dead letters because of it.
    return json.dumps(values)


def _bounded(attributes: Any) -> dict[str, AttributeValue]:
    return {key: _text(value) if isinstance(value, str) else value for key, value in attributes.items()}


def _text(value: str) -> str:
    # PostgreSQL texts cannot contain NUL; some of its JSON functions reject it even if escaped.
    return value[:MAX_VALUE].replace("\x00", "\ufffd").encode(errors="replace").decode()


def _restored(attributes: dict[str, Any]) -> dict[str, AttributeValue]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in attributes.items()}
