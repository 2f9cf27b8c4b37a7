"""Many rows in one statement.

SQLite lets go of Python's interpreter lock at every step of a statement, so that row after row beside busy threads
queues for it thousands of times a batch. One statement with many rows steps once. Statements come in a few sizes only,
so that the driver's cache of prepared statements always hits.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import chain
from typing import Any

import psycopg
from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

_SIZES = (256, 64, 16, 4, 1)


def insert_ignoring_conflicts(
    connection: Connection, table: str, columns: tuple[str, ...], rows: Sequence[tuple[Any, ...]]
) -> int:
    """Insert rows; one that breaks any unique key is left out. Returns how many were inserted."""
    return _in_chunks(connection, table, columns, " ON CONFLICT DO NOTHING", rows)


def insert(
    connection: Connection,
    table: str,
    columns: tuple[str, ...],
    rows: Sequence[tuple[Any, ...]],
    tail: str = "",
) -> None:
    """Insert rows, all of them or an error; `tail` may say what to do on a conflict."""
    _in_chunks(connection, table, columns, tail, rows)


def load(connection: Connection, table: str, columns: tuple[str, ...], rows: Sequence[tuple[Any, ...]]) -> None:
    """Insert thousands of rows, all of them or an IntegrityError; in PostgreSQL with COPY, in one go."""
    if connection.dialect.name != "postgresql":
        insert(connection, table, columns, rows)
        return
    driver: Any = connection.connection.driver_connection
    try:
        with driver.cursor() as cursor, cursor.copy(f"COPY {table} ({', '.join(columns)}) FROM STDIN") as copy:
            for row in rows:
                copy.write_row(row)
    except psycopg.IntegrityError as error:
        raise IntegrityError(f"COPY {table}", None, error) from error


def insert_adding(
    connection: Connection,
    table: str,
    key: tuple[str, ...],
    sums: tuple[str, ...],
    rows: Sequence[tuple[Any, ...]],
) -> None:
    """Insert rows of key and sums; where the key exists, add the sums to what is there."""
    _in_chunks(
        connection,
        table,
        key + sums,
        f" ON CONFLICT ({', '.join(key)}) DO UPDATE SET {additions(table, sums)}",
        rows,
    )


def upsert_returning(
    connection: Connection,
    table: str,
    columns: tuple[str, ...],
    tail: str,
    rows: Sequence[tuple[Any, ...]],
) -> list[tuple[Any, ...]]:
    """Insert rows with an ON CONFLICT … RETURNING clause; returns what it returns, in no particular order."""
    returned: list[tuple[Any, ...]] = []
    for statement, parameters in _chunks(connection, table, columns, tail, rows):
        with connection.exec_driver_sql(statement, parameters) as result:
            # The driver's rows as they are: SQLAlchemy's would be made of them one by one.
            returned += result.cursor.fetchall() if result.cursor is not None else ()
    return returned


def additions(table: str, sums: tuple[str, ...]) -> str:
    """The SET clause that adds the new row's figures to those that are there."""
    return ", ".join(f"{name} = {table}.{name} + excluded.{name}" for name in sums)


def _in_chunks(
    connection: Connection, table: str, columns: tuple[str, ...], tail: str, rows: Sequence[tuple[Any, ...]]
) -> int:
    return sum(
        connection.exec_driver_sql(statement, parameters).rowcount
        for statement, parameters in _chunks(connection, table, columns, tail, rows)
    )


def _chunks(
    connection: Connection, table: str, columns: tuple[str, ...], tail: str, rows: Sequence[tuple[Any, ...]]
) -> Iterator[tuple[str, tuple[Any, ...]]]:
    placeholder = "?" if connection.dialect.paramstyle == "qmark" else "%s"
    done = 0
    while done < len(rows):
        size = next(size for size in _SIZES if size <= len(rows) - done)
        parameters = tuple(chain.from_iterable(rows[done : done + size]))
        yield _statement(table, columns, size, tail, placeholder), parameters
        done += size


@lru_cache(maxsize=256)
def _statement(table: str, columns: tuple[str, ...], rows: int, tail: str, placeholder: str) -> str:
    values = ", ".join(["(" + ", ".join([placeholder] * len(columns)) + ")"] * rows)
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES {values}{tail}"
