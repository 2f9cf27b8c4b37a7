"""Insert many rows with one statement.

SQLite releases Python's interpreter lock at every step of a statement. Inserting row by row next to busy threads waits
for the lock thousands of times per batch. One statement with many rows steps once. Statements come in a few sizes only,
so that the driver's cache of prepared statements always hits.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import chain
from typing import Any
from zlib import crc32

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, IntegrityError

from farebox_collector.ledger.storage.copy_text import copy_text

_SIZES = (256, 128, 64, 32, 16, 8, 4, 2, 1)
_COPIED = 16
"""From this many rows on PostgreSQL uses COPY, which takes a tenth of the time of as many parameters."""
_CAREFUL_TURNS = 50
"""For this many inserts after a conflict on a connection, further conflicts are expected there."""


def insert_ignoring_conflicts(
    connection: Connection,
    table: str,
    columns: tuple[str, ...],
    rows: Sequence[tuple[Any, ...]],
    same: tuple[Any, ...] = (),
    *,
    on: tuple[str, ...] = (),
) -> int:
    """Insert rows, skipping those that violate the unique key `on`. Returns the number of inserted rows.

    Violating another key raises IntegrityError: the existing row is not the same row. An empty `on` means any key, for
    tables that have several.
    `same` holds the values of the first columns if they are equal in all rows; then the rows omit them.
    """
    tail = f" ON CONFLICT ({', '.join(on)}) DO NOTHING" if on else " ON CONFLICT DO NOTHING"
    if connection.dialect.name == "sqlite":
        return _in_chunks(connection, table, columns, tail, rows, same)
    if _takes_copy(connection, rows) and _copied_whole(connection, table, columns, rows, same):
        return len(rows)
    return _in_chunks(connection, table, columns, tail, rows, same)


def skip_taken_ids(connection: Connection, table: str) -> None:
    """Advance a table's id sequence past the existing ids, after a row was inserted with an explicit id.

    PostgreSQL's sequence does not see such a row. Call it while no other process inserts.
    """
    if connection.dialect.name == "postgresql":
        sequence = connection.exec_driver_sql(f"SELECT pg_get_serial_sequence('{table}', 'id')").scalar_one()
        connection.exec_driver_sql(
            f"SELECT setval('{sequence}', greatest((SELECT max(id) FROM {table}), (SELECT last_value FROM {sequence})))"
        )


def insert(
    connection: Connection,
    table: str,
    columns: tuple[str, ...],
    rows: Sequence[tuple[Any, ...]],
    tail: str = "",
    same: tuple[Any, ...] = (),
) -> None:
    """Insert rows, all of them or an error; `tail` may handle conflicts.

    `same` holds the values of the first columns if they are equal in all rows; then the rows omit them.
    """
    if not tail and _takes_copy(connection, rows):
        _copy(connection, table, columns, rows, same)
    else:
        _in_chunks(connection, table, columns, tail, rows, same)


def load(connection: Connection, table: str, columns: tuple[str, ...], rows: Sequence[tuple[Any, ...]]) -> None:
    """Insert thousands of rows, all of them or an IntegrityError; in PostgreSQL with one COPY."""
    if connection.dialect.name == "postgresql":
        _copy(connection, table, columns, rows)
    else:
        insert(connection, table, columns, rows)


def insert_adding(
    connection: Connection,
    table: str,
    key: tuple[str, ...],
    sums: tuple[str, ...],
    rows: Sequence[tuple[Any, ...]],
) -> None:
    """Insert rows of key and sums; if the key exists, add the sums to the existing row."""
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
    """Insert rows with an ON CONFLICT … RETURNING clause; return its rows, in no particular order."""
    returned: list[tuple[Any, ...]] = []
    for statement, parameters in _chunks(connection, table, columns, tail, rows):
        with connection.exec_driver_sql(statement, parameters) as result:
            # The driver's rows: SQLAlchemy would wrap them one by one.
            returned += result.cursor.fetchall() if result.cursor is not None else ()
    return returned


def additions(table: str, sums: tuple[str, ...]) -> str:
    """Return the SET clause that adds the new row's figures to the existing ones."""
    return ", ".join(f"{name} = {table}.{name} + excluded.{name}" for name in sums)


def _in_chunks(
    connection: Connection,
    table: str,
    columns: tuple[str, ...],
    tail: str,
    rows: Sequence[tuple[Any, ...]],
    same: tuple[Any, ...] = (),
) -> int:
    return sum(
        connection.exec_driver_sql(statement, parameters).rowcount
        for statement, parameters in _chunks(connection, table, columns, tail, rows, same)
    )


def _chunks(
    connection: Connection,
    table: str,
    columns: tuple[str, ...],
    tail: str,
    rows: Sequence[tuple[Any, ...]],
    same: tuple[Any, ...] = (),
) -> Iterator[tuple[str, tuple[Any, ...]]]:
    if _takes_copy(connection, rows):
        yield _copied(connection, table, columns, rows, same) + tail, ()
        return
    placeholder = "?" if connection.dialect.paramstyle == "qmark" else "%s"
    if placeholder != "?":
        rows, same = [(*same, *row) for row in rows] if same else rows, ()
    done = 0
    while done < len(rows):
        size = next(size for size in _SIZES if size <= len(rows) - done)
        parameters = (*same, *chain.from_iterable(rows[done : done + size]))
        yield _statement(table, columns, size, tail, placeholder, len(same)), parameters
        done += size


@lru_cache(maxsize=256)
def _statement(table: str, columns: tuple[str, ...], rows: int, tail: str, placeholder: str, same: int = 0) -> str:
    """Return an INSERT of this many rows. The first `same` parameters apply to all; numbered, only SQLite can."""
    shared = [f"?{number}" for number in range(1, same + 1)]
    values = ", ".join(["(" + ", ".join(shared + [placeholder] * (len(columns) - same)) + ")"] * rows)
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES {values}{tail}"


def _takes_copy(connection: Connection, rows: Sequence[tuple[Any, ...]]) -> bool:
    """Return whether rows go by COPY: not if each statement is its own transaction, because a temporary table would
    end with it."""
    if connection.dialect.name != "postgresql" or len(rows) < _COPIED:
        return False
    return not getattr(connection.connection.driver_connection, "autocommit", False)


def _copied_whole(
    connection: Connection,
    table: str,
    columns: tuple[str, ...],
    rows: Sequence[tuple[Any, ...]],
    same: tuple[Any, ...],
) -> bool:
    """Copy rows directly into their table; False, with none inserted, if one violates a unique key.

    This avoids a temporary table as long as there are no duplicates; duplicates come in bursts, after failures.
    """
    careful = connection.info.get("careful", 0)
    if careful:
        connection.info["careful"] = careful - 1
        return False
    attempt = connection.begin_nested()
    try:
        _copy(connection, table, columns, rows, same)
    except IntegrityError:
        attempt.rollback()
        connection.info["careful"] = _CAREFUL_TURNS
        return False
    attempt.commit()
    return True


def _copied(
    connection: Connection,
    table: str,
    columns: tuple[str, ...],
    rows: Sequence[tuple[Any, ...]],
    same: tuple[Any, ...],
) -> str:
    """Copy rows into a temporary table; return the statement that moves them on, to which a tail can be appended."""
    names = ", ".join(columns)
    incoming = f"incoming_{table}_{crc32(names.encode()):08x}"
    connection.exec_driver_sql(
        f"CREATE TEMPORARY TABLE IF NOT EXISTS {incoming} ON COMMIT DELETE ROWS AS"
        f" SELECT {names} FROM {table} WITH NO DATA"
    )
    _copy(connection, incoming, columns, rows, same)
    return (
        f"WITH moved AS (DELETE FROM {incoming} RETURNING {names})"
        f" INSERT INTO {table} ({names}) SELECT {names} FROM moved"
    )


def _copy(
    connection: Connection,
    table: str,
    columns: tuple[str, ...],
    rows: Sequence[tuple[Any, ...]],
    same: tuple[Any, ...] = (),
) -> None:
    """COPY rows into a table. Raises SQLAlchemy's exceptions, although SQLAlchemy does not support COPY."""
    statement = f"COPY {table} ({', '.join(columns)}) FROM STDIN"
    driver: Any = connection.connection.driver_connection
    text = copy_text(rows, same)
    try:
        with driver.cursor() as cursor, cursor.copy(statement) as copy:
            copy.write(text)
    except connection.dialect.loaded_dbapi.Error as error:
        raise _as_of_sqlalchemy(connection, statement, error) from error


def _as_of_sqlalchemy(connection: Connection, statement: str, error: Any) -> BaseException:
    dialect = connection.dialect
    lost = dialect.is_disconnect(error, connection.connection.driver_connection, None)
    if lost:
        connection.invalidate(error)
    wrapped: BaseException = DBAPIError.instance(
        statement, None, error, dialect.loaded_dbapi.Error, connection_invalidated=lost, dialect=dialect
    )
    return wrapped
