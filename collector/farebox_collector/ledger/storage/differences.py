"""How databases differ where the ledger has to know. Only this package names a database.

Ask for what matters, not for the product: a third database then answers here.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, Connection, cast, func, text
from sqlalchemy.dialects.postgresql import JSONB


def has_one_writer(connection: Connection) -> bool:
    """Whether write transactions run one after another, so that ids are in the order of commits."""
    return connection.dialect.name == "sqlite"


def newest_id(connection: Connection, table: str) -> int:
    """Return an id such that this transaction gives only higher ids to rows that it inserts into a table."""
    if connection.dialect.name == "sqlite":
        return int(connection.exec_driver_sql(f"SELECT coalesce(max(id), 0) FROM {table}").scalar_one())
    return int(connection.exec_driver_sql(f"SELECT nextval(pg_get_serial_sequence('{table}', 'id'))").scalar_one())


def new_ids(connection: Connection, table: str, count: int) -> list[int]:
    """Return ids, in ascending order, for rows that this transaction inserts next into a table, with their ids."""
    if connection.dialect.name == "sqlite":
        newest = newest_id(connection, table)
        return list(range(newest + 1, newest + count + 1))
    # Looking up the sequence for each id would take ten times as long.
    sequence = f"SELECT pg_get_serial_sequence('{table}', 'id')::regclass AS name OFFSET 0"
    ids = f"SELECT array_agg(nextval(s.name)) FROM ({sequence}) s, generate_series(1, {count:d})"
    return list(connection.exec_driver_sql(ids).scalar_one())


def size_in_bytes(connection: Connection) -> tuple[int, int | None]:
    """The size of the database, and how much of it is free for new rows; None where the database does not say."""
    if connection.dialect.name == "sqlite":
        pages, free, size = (
            int(connection.exec_driver_sql(f"PRAGMA {name}").scalar_one())
            for name in ("page_count", "freelist_count", "page_size")
        )
        return pages * size, free * size
    return int(connection.execute(text("SELECT pg_database_size(current_database())")).scalar_one()), None


def prepare_to_erase(connection: Connection) -> None:
    """Prepare a transaction that erases data: no time limit for its statements, no trace in free pages of a file."""
    if connection.dialect.name == "postgresql":
        # Erasing is one transaction, however many records there are.
        connection.exec_driver_sql("SET LOCAL statement_timeout TO 0")
    else:
        connection.exec_driver_sql("PRAGMA secure_delete=ON")


def json_number(connection: Connection, column: ColumnElement[str], path: Sequence[str]) -> ColumnElement[Any]:
    """Return an integer within a column of JSON texts; NULL where it is missing. The texts must not be empty."""
    if connection.dialect.name == "sqlite":
        return func.json_extract(column, f"$.{'.'.join(path)}")
    return cast(func.jsonb_extract_path_text(cast(column, JSONB), *path), BigInteger)
