"""The outbox: outgoing messages, written in the transaction that causes them, and their delivery state.

A message has one id for all endpoints and attempts, so that a receiver recognises a repeated delivery.
"""

import json
import secrets
from collections.abc import Mapping, Sequence
from enum import StrEnum
from hashlib import blake2b
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, Select, delete, func, insert, select, update

from farebox_collector.ledger.access.audit_log import note
from farebox_collector.ledger.access.stored_secrets import WEBHOOK, open_sealed, seal
from farebox_collector.ledger.storage import bulk_insert
from farebox_collector.ledger.tables.outbox import webhook_endpoints, webhook_messages
from farebox_collector.model.moments import format_ns

MOST_ENDPOINTS = 10
"""Most endpoints per tenant."""
KEPT_NS = 30 * 86_400 * 10**9
"""How long a message is kept after it was delivered or given up."""
_LEASE_NS = 120 * 10**9
"""How long a sender may hold a message; longer than one round of sending."""
_SECRET_BYTES = 32
_COLUMNS = (
    "tenant_id",
    "endpoint_id",
    "message_id",
    "type",
    "body",
    "created_at_ns",
    "state",
    "attempts",
    "next_attempt_ns",
    "last_error",
)


class MessageState(StrEnum):
    """The delivery state of a message."""

    PENDING = "pending"
    DELIVERED = "delivered"
    GIVEN_UP = "given_up"
    """No attempt succeeded, and there is no further one unless a user retries the message."""


class Message(NamedTuple):
    """A message to send."""

    type: str
    key: str
    """Unique per cause: one message is sent for each key."""
    data: Mapping[str, Any]


class LeasedMessage(NamedTuple):
    """A message to send now, with its endpoint."""

    id: int
    message_id: str
    body: str
    attempts: int
    """The number of earlier attempts."""
    endpoint_id: int
    url: str
    secrets: tuple[bytes, ...]
    """Signing secrets; each signs the message. The newest is first."""


class TooManyEndpoints(ValueError):
    """The tenant has the maximum number of endpoints."""


def enqueue(connection: Connection, tenant_id: int, messages: Sequence[Message], at_ns: int) -> None:
    """Queue messages for every endpoint of the tenant, once for each key; for none if it has no endpoint."""
    table = webhook_endpoints.c
    endpoints = connection.execute(
        select(table.id).where(table.tenant_id == tenant_id, table.removed_at_ns.is_(None)).order_by(table.id)
    ).scalars()
    rows = [_row(tenant_id, endpoint, message, at_ns) for endpoint in endpoints.all() for message in messages]
    bulk_insert.insert_ignoring_conflicts(
        connection, "webhook_messages", _COLUMNS, rows, on=("tenant_id", "message_id", "endpoint_id")
    )


def ping(connection: Connection, tenant_id: int, endpoint_id: int, at_ns: int) -> bool:
    """Queue a test message for one endpoint; False if the endpoint does not exist."""
    if not _exists(connection, tenant_id, endpoint_id):
        return False
    message = Message("ping", f"{endpoint_id}/{at_ns}", {})
    bulk_insert.insert(connection, "webhook_messages", _COLUMNS, [_row(tenant_id, endpoint_id, message, at_ns)])
    note(connection, tenant_id, "webhook.ping", endpoint_id, at_ns)
    return True


def _row(tenant_id: int, endpoint_id: int, message: Message, at_ns: int) -> tuple[Any, ...]:
    digest = blake2b(f"{tenant_id}/{message.type}/{message.key}".encode(), digest_size=16).hexdigest()
    body = json.dumps({"type": message.type, "timestamp": format_ns(at_ns), "data": message.data}, ensure_ascii=False)
    state = MessageState.PENDING
    return tenant_id, endpoint_id, f"msg_{digest}", message.type, body, at_ns, state, 0, at_ns, ""


def take_due(connection: Connection, at_ns: int, limit: int) -> list[LeasedMessage]:
    """Lease messages that are due, the longest waiting first; no other sender gets them until the lease ends."""
    message, endpoint = webhook_messages, webhook_endpoints.c
    due = connection.execute(
        select(message, endpoint.url, endpoint.secret, endpoint.former_secret, endpoint.former_until_ns)
        .join(webhook_endpoints, endpoint.id == message.c.endpoint_id)
        .where(message.c.state == MessageState.PENDING, message.c.next_attempt_ns <= at_ns)
        .order_by(message.c.next_attempt_ns, message.c.id)
        .limit(limit)
        .with_for_update(of=message, skip_locked=True)
    ).all()
    if due:
        taken = message.c.id.in_([row.id for row in due])
        connection.execute(update(message).where(taken).values(next_attempt_ns=at_ns + _LEASE_NS))
    return [_taken(connection, row, at_ns) for row in due]


def _taken(connection: Connection, row: Row[Any], at_ns: int) -> LeasedMessage:
    keys = [open_sealed(connection, WEBHOOK, row.tenant_id, row.secret)]
    if row.former_secret is not None and (row.former_until_ns or 0) > at_ns:
        keys.append(open_sealed(connection, WEBHOOK, row.tenant_id, row.former_secret))
    return LeasedMessage(row.id, row.message_id, row.body, row.attempts, row.endpoint_id, row.url, tuple(keys))


def any_due(connection: Connection, at_ns: int) -> bool:
    """Return whether a message is due."""
    table = webhook_messages.c
    query = select(table.id).where(table.state == MessageState.PENDING, table.next_attempt_ns <= at_ns).limit(1)
    return connection.execute(query).first() is not None


def note_attempt(
    connection: Connection, message_id: int, state: MessageState, status: int | None, error: str, next_ns: int
) -> None:
    """Store the result of an attempt, and when the next is due. Without a next one, `next_ns` is when it ended."""
    table = webhook_messages.c
    ended = None if state is MessageState.PENDING else next_ns
    connection.execute(
        update(webhook_messages)
        .where(table.id == message_id)
        .values(
            state=state,
            attempts=table.attempts + 1,
            next_attempt_ns=next_ns,
            last_status=status,
            last_error=error,
            ended_at_ns=ended,
        )
    )


def release_untried(connection: Connection, ids: Sequence[int], next_ns: int) -> None:
    """Return leased messages that were not tried; they are due at the given time."""
    chosen = webhook_messages.c.id.in_(list(ids))
    connection.execute(update(webhook_messages).where(chosen).values(next_attempt_ns=next_ns))


def retry(connection: Connection, tenant_id: int, message_id: str, at_ns: int) -> int:
    """Make a message that was given up, or is not due yet, due now at the endpoints that did not get it.

    Returns the number of endpoints.
    """
    table = webhook_messages.c
    done = connection.execute(
        update(webhook_messages)
        .where(table.tenant_id == tenant_id, table.message_id == message_id, table.state != MessageState.DELIVERED)
        .values(state=MessageState.PENDING, attempts=0, next_attempt_ns=at_ns, ended_at_ns=None)
    )
    if done.rowcount:
        note(connection, tenant_id, "webhook.retry", message_id, at_ns, after={"messages": done.rowcount})
    return int(done.rowcount)


def purge_messages(connection: Connection, at_ns: int) -> None:
    """Delete messages that ended long ago."""
    connection.execute(delete(webhook_messages).where(webhook_messages.c.ended_at_ns < at_ns - KEPT_NS))


def messages_of(
    connection: Connection, tenant_id: int, state: str = "", before_id: int | None = None, limit: int = 100
) -> Sequence[Row[Any]]:
    """Return messages with their endpoints, newest first; an empty state does not filter."""
    table = webhook_messages.c
    query = (
        select(webhook_messages, webhook_endpoints.c.url)
        .join(webhook_endpoints, webhook_endpoints.c.id == table.endpoint_id)
        .where(table.tenant_id == tenant_id)
    )
    if state:
        query = query.where(table.state == state)
    if before_id is not None:
        query = query.where(table.id < before_id)
    return connection.execute(query.order_by(table.id.desc()).limit(limit)).all()


def messages_by_state(connection: Connection) -> dict[str, int]:
    """Return the number of messages in each state, of all tenants."""
    state = webhook_messages.c.state
    found = connection.execute(select(state, func.count()).group_by(state))
    return {row[0]: row[1] for row in found}


def add_endpoint(connection: Connection, tenant_id: int, url: str, at_ns: int) -> tuple[int, bytes]:
    """Add an endpoint; return its id and its signing secret. Raises TooManyEndpoints."""
    if len(endpoints_of(connection, tenant_id)) >= MOST_ENDPOINTS:
        raise TooManyEndpoints(f"a tenant can have at most {MOST_ENDPOINTS} endpoints; remove one first")
    secret = secrets.token_bytes(_SECRET_BYTES)
    sealed = seal(connection, WEBHOOK, tenant_id, secret)
    row = insert(webhook_endpoints).values(tenant_id=tenant_id, url=url, secret=sealed, created_at_ns=at_ns)
    key = connection.execute(row).inserted_primary_key
    assert key is not None
    note(connection, tenant_id, "webhook.add", key[0], at_ns, after={"url": url})
    return int(key[0]), secret


def endpoints_of(connection: Connection, tenant_id: int) -> Sequence[Row[Any]]:
    """Return the endpoints: id, url, created_at_ns. Without secrets."""
    table = webhook_endpoints.c
    query: Select[Any] = select(table.id, table.url, table.created_at_ns)
    return connection.execute(
        query.where(table.tenant_id == tenant_id, table.removed_at_ns.is_(None)).order_by(table.id)
    ).all()


def rotate_secret(
    connection: Connection, tenant_id: int, endpoint_id: int, at_ns: int, overlap_ns: int
) -> bytes | None:
    """Replace an endpoint's secret; the old one signs too until the overlap ends. None if it does not exist."""
    table, secret = webhook_endpoints.c, secrets.token_bytes(_SECRET_BYTES)
    if not _exists(connection, tenant_id, endpoint_id):
        return None
    connection.execute(
        update(webhook_endpoints)
        .where(table.id == endpoint_id)
        .values(
            former_secret=table.secret,
            former_until_ns=at_ns + overlap_ns,
            secret=seal(connection, WEBHOOK, tenant_id, secret),
        )
    )
    note(connection, tenant_id, "webhook.rotate", endpoint_id, at_ns, after={"former_until_ns": at_ns + overlap_ns})
    return secret


def remove_endpoint(connection: Connection, tenant_id: int, endpoint_id: int, at_ns: int) -> bool:
    """Remove an endpoint and give up its pending messages. False if it does not exist."""
    if not _exists(connection, tenant_id, endpoint_id):
        return False
    chosen = webhook_endpoints.c.id == endpoint_id
    connection.execute(update(webhook_endpoints).where(chosen).values(removed_at_ns=at_ns))
    table = webhook_messages.c
    connection.execute(
        update(webhook_messages)
        .where(table.endpoint_id == endpoint_id, table.state == MessageState.PENDING)
        .values(state=MessageState.GIVEN_UP, last_error="the endpoint was removed", ended_at_ns=at_ns)
    )
    note(connection, tenant_id, "webhook.remove", endpoint_id, at_ns)
    return True


def _exists(connection: Connection, tenant_id: int, endpoint_id: int) -> bool:
    table = webhook_endpoints.c
    chosen = (table.tenant_id == tenant_id, table.id == endpoint_id, table.removed_at_ns.is_(None))
    return connection.execute(select(table.id).where(*chosen).with_for_update()).first() is not None
