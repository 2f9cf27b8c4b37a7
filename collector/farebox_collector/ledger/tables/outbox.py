"""Tables of outgoing messages: low-balance thresholds, endpoints, and messages in delivery."""

from sqlalchemy import Column, Index, LargeBinary, UniqueConstraint

from farebox_collector.ledger.tables.columns import (
    identity,
    number,
    table,
    words,
)

# Append-only versions: the newest of a wallet is in force. See `low_balances`.
balance_thresholds = table(
    "balance_thresholds",
    identity(),
    number("tenant_id"),
    words("wallet"),
    # JSON list of nanocredits, descending; empty is none.
    words("bounds"),
    words("author"),
    words("reason"),
    number("recorded_at_ns"),
)
Index(
    "ix_balance_thresholds_wallet",
    balance_thresholds.c.tenant_id,
    balance_thresholds.c.wallet,
    balance_thresholds.c.id,
)

webhook_endpoints = table(
    "webhook_endpoints",
    identity(),
    number("tenant_id"),
    words("url"),
    Column("secret", LargeBinary, nullable=False),
    # The secret before the last rotation, which signs too until it expires.
    Column("former_secret", LargeBinary, nullable=True),
    number("former_until_ns", nullable=True),
    number("created_at_ns"),
    number("removed_at_ns", nullable=True),
)
Index("ix_webhook_endpoints_tenant_id", webhook_endpoints.c.tenant_id, webhook_endpoints.c.id)

# Written in the transaction of their cause, and sent afterwards: one row for each endpoint.
webhook_messages = table(
    "webhook_messages",
    identity(),
    number("tenant_id"),
    number("endpoint_id"),
    words("message_id"),
    words("type"),
    words("body"),
    number("created_at_ns"),
    words("state"),
    number("attempts"),
    # When it is due; while it is being sent, when the lease ends.
    number("next_attempt_ns"),
    number("last_status", nullable=True),
    words("last_error"),
    number("ended_at_ns", nullable=True),
    UniqueConstraint("tenant_id", "message_id", "endpoint_id"),
)
_PENDING = webhook_messages.c.state == "pending"
Index("ix_webhook_messages_due", webhook_messages.c.next_attempt_ns, sqlite_where=_PENDING, postgresql_where=_PENDING)
