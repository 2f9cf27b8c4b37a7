"""The table of signed links."""

from sqlalchemy import Index

from farebox_collector.ledger.tables.columns import (
    identity,
    number,
    table,
    words,
)

# Issued links, so that each can be revoked, alone or with the key that created it.
wallet_links = table(
    "wallet_links",
    identity(),
    number("tenant_id"),
    number("secret_id"),
    words("wallet"),
    # The public part of the key; empty for links from before keys existed.
    words("minted_by"),
    number("created_at_ns"),
    number("expires_at_ns"),
    number("revoked_at_ns", nullable=True),
)
Index("ix_wallet_links_minted_by", wallet_links.c.tenant_id, wallet_links.c.minted_by, wallet_links.c.id)
Index("ix_wallet_links_expires_at", wallet_links.c.tenant_id, wallet_links.c.expires_at_ns)
