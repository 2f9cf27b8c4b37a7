"""Dead letters: spans that can never be booked as they are, kept for people to look at, for a while.

They hold what got past the door: ids, times, and the attributes that some dialect reads. Prompts never got that far.
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
"""Longest attribute value that is kept, in characters."""

_COLUMNS = ("tenant_id", "digest", "received_at_ns", "expires_at_ns", "trace_id", "span_id", "reason", "span")


def keep(
    connection: Connection, tenant_id: int, letters: Sequence[DeadLetter], received_at_ns: int, lifetime_ns: int
) -> None:
    """Keep dead letters; one that is sent again is kept once."""
    rows = []
    for span, reason in letters:
        document = _document(span)
        digest = blake2b(document.encode(), digest_size=16).digest()
        expires_at_ns = received_at_ns + lifetime_ns
        ids = (span.trace_id, span.span_id)
        rows.append((tenant_id, digest, received_at_ns, expires_at_ns, *ids, reason, document))
    bulk_insert.insert_ignoring_conflicts(connection, "dead_letters", _COLUMNS, rows, on=("tenant_id", "digest"))


def letters(connection: Connection, tenant_id: int, after_id: int = 0, limit: int = 100) -> Sequence[Row[Any]]:
    """Dead letters in the order in which they were kept."""
    table = dead_letters.c
    return connection.execute(
        select(dead_letters).where(table.tenant_id == tenant_id, table.id > after_id).order_by(table.id).limit(limit)
    ).all()


def letter(connection: Connection, tenant_id: int, letter_id: int) -> Row[Any] | None:
    """One dead letter; None if it is not there (any more)."""
    table = dead_letters.c
    return connection.execute(select(dead_letters).where(table.tenant_id == tenant_id, table.id == letter_id)).first()


def span_of(row: Row[Any]) -> Span:
    """The span that a dead letter keeps."""
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
    """Take out a dead letter that has been dealt with."""
    connection.execute(delete(dead_letters).where(dead_letters.c.id == letter_id))


def purge(connection: Connection, expired_before_ns: int | None = None) -> int:
    """Take out those whose time is up at a moment, or all of them. Returns how many."""
    condition = [] if expired_before_ns is None else [dead_letters.c.expires_at_ns <= expired_before_ns]
    return connection.execute(delete(dead_letters).where(*condition)).rowcount


def count(connection: Connection) -> int:
    """How many there are, of all tenants."""
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
    # NaN is legal here, and nowhere else in JSON: it is what some of these spans died of.
    return json.dumps(values)


def _bounded(attributes: Any) -> dict[str, AttributeValue]:
    return {key: _text(value) if isinstance(value, str) else value for key, value in attributes.items()}


def _text(value: str) -> str:
    # PostgreSQL's texts take no NUL, not even escaped by JSON in every function.
    return value[:MAX_VALUE].replace("\x00", "\ufffd").encode(errors="replace").decode()


def _restored(attributes: dict[str, Any]) -> dict[str, AttributeValue]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in attributes.items()}
