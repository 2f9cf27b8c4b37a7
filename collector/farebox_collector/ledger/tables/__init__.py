"""The tables of the books, by subject. `metadata` holds all of them."""

from farebox_collector.ledger.tables import (
    access,
    agents,
    books,
    corrections,
    credits,
    limits,
    links,
    outbox,
    payments,
    personal,
    prices,
    rollups,
    service,
    stakes,
    tombstones,
)
from farebox_collector.ledger.tables.columns import metadata

__all__ = [
    "access",
    "agents",
    "books",
    "corrections",
    "credits",
    "limits",
    "links",
    "metadata",
    "outbox",
    "payments",
    "personal",
    "prices",
    "rollups",
    "service",
    "stakes",
    "tombstones",
]
