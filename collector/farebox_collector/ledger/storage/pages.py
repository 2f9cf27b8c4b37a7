"""Read lists page by page: newest first, each page from where the last one ended."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Column, ColumnElement, Connection, Row, Table, select


def newest_first(
    connection: Connection,
    table: Table,
    number: Column[int],
    *chosen: ColumnElement[bool],
    before: int | None,
    limit: int,
) -> Sequence[Row[Any]]:
    """Return the chosen rows by an increasing number, the largest first; only those below `before`, if given."""
    query = select(table).where(*chosen).order_by(number.desc()).limit(limit)
    return connection.execute(query if before is None else query.where(number < before)).all()
