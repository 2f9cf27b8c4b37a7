"""Locks for conflicts that no unique key prevents. SQLite needs none: it has one writer."""

from collections.abc import Iterable

from sqlalchemy import Connection, text

STRIPES = 64
"""The number of locks of one kind, independent of what they guard: PostgreSQL's lock table is small."""

SPANS_OF_A_TRACE = 0x66610000
"""Kind: finding, and then recording, spans of one call within a trace."""
NEW_LABELS = 0x66620000
"""Kind: counting, and then adding, labels of the running totals."""

SETTLING = 0x66630000
"""Kind: settling the open records of a tenant."""

AUDITING = 0x66640000
"""Kind: auditing the books; it has one stripe."""

PAYMENTS = 0x66650000
"""Kind: events of one payment from a payment provider: each transaction sees what was booked before."""
TOPPING_UP = 0x66660000
"""Kind: paying automatic top-ups; it has one stripe."""
RETIRING = 0x66670000
"""Kind: retiring old records; it has one stripe."""

PEOPLE = 0x66680000
"""Kind: assigning numbers to a tenant's people, approvals and approval policies."""


def lock_stripes(connection: Connection, kind: int, stripes: Iterable[int]) -> None:
    """Hold these stripes of a kind until the end of the transaction; all transactions lock them in one order."""
    if connection.dialect.name != "postgresql":
        return
    for stripe in sorted({stripe % STRIPES for stripe in stripes}):
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": kind + stripe})


def try_lock_stripe(connection: Connection, kind: int, stripe: int) -> bool:
    """Hold a stripe until the end of the transaction; return False, without waiting, if another one holds it."""
    if connection.dialect.name != "postgresql":
        return True
    key = {"key": kind + stripe % STRIPES}
    return bool(connection.execute(text("SELECT pg_try_advisory_xact_lock(:key)"), key).scalar_one())
