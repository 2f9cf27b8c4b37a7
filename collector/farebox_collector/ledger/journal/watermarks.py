"""Watermarks: how far something has come that goes through the books bit by bit, whoever takes it up next."""

from sqlalchemy import Connection, delete, select

from farebox_collector.ledger.storage import bulk_insert
from farebox_collector.ledger.tables.corrections import watermarks


def watermark(connection: Connection, name: str) -> int:
    """How far it has come; 0 for something that has not begun."""
    return int(connection.execute(select(watermarks.c.value).where(watermarks.c.name == name)).scalar() or 0)


def set_watermark(connection: Connection, name: str, value: int) -> None:
    """Remember how far it has come."""
    tail = " ON CONFLICT (name) DO UPDATE SET value = excluded.value"
    bulk_insert.insert(connection, "watermarks", ("name", "value"), [(name, value)], tail)


def forget_watermark(connection: Connection, name: str) -> None:
    """It has come to its end."""
    connection.execute(delete(watermarks).where(watermarks.c.name == name))


def forget_watermarks(connection: Connection, beginning: str) -> None:
    """All whose names begin like this have come to their end."""
    connection.execute(delete(watermarks).where(watermarks.c.name.startswith(beginning, autoescape=True)))
