"""Watermarks: the progress of incremental jobs through the books, shared by all replicas."""

from sqlalchemy import Connection, delete, select

from farebox_collector.ledger.storage import bulk_insert
from farebox_collector.ledger.tables.corrections import watermarks


def watermark(connection: Connection, name: str) -> int:
    """Return the progress of a job; 0 if it has not begun."""
    return int(connection.execute(select(watermarks.c.value).where(watermarks.c.name == name)).scalar() or 0)


def set_watermark(connection: Connection, name: str, value: int) -> None:
    """Store the progress of a job."""
    tail = " ON CONFLICT (name) DO UPDATE SET value = excluded.value"
    bulk_insert.insert(connection, "watermarks", ("name", "value"), [(name, value)], tail)


def delete_watermarks(connection: Connection, beginning: str) -> None:
    """Delete all watermarks with this prefix."""
    connection.execute(delete(watermarks).where(watermarks.c.name.startswith(beginning, autoescape=True)))
