"""Look up many keys in one query.

The databases need different statements. PostgreSQL treats a list of pairs as many conditions: planning takes longer
than running, or it reads the whole table. It gets arrays. SQLite returns rows one by one, each of which waits for
Python's interpreter lock (see `bulk_insert`). It returns a single row.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import chain
from typing import Any, NamedTuple

from sqlalchemy import Connection

_AT_ONCE = 256
"""Keys per statement in SQLite."""


class Lookup(NamedTuple):
    """A lookup of rows of a table by many keys; a key is unique together with one value that all rows share."""

    table: str
    key: Mapping[str, str]
    """The columns of a key, with their PostgreSQL types."""
    common: str
    """The column of the shared value."""
    columns: tuple[str, ...]
    """The columns to return: numbers and texts."""
    late_index: str = ""
    """The table that has the keys with one writer (`late_index`), with the `record_id` of each row."""

    def rows(self, connection: Connection, common: int, keys: Sequence[tuple[Any, ...]]) -> Iterator[Sequence[Any]]:
        """Yield the index of the key, counted from 0, and the column values for each row found."""
        if not keys:
            return iter(())
        answers = _of_sqlite if connection.dialect.name == "sqlite" else _of_postgresql
        return answers(self, connection, common, keys)

    def any(self, connection: Connection, common: int, keys: Sequence[tuple[Any, ...]]) -> bool:
        """Return whether there is a row for any of the keys."""
        if connection.dialect.name != "sqlite":
            statement = f"SELECT EXISTS ({_from_arrays(self, '1')})"
            return bool(connection.exec_driver_sql(statement, (*_arrays(keys), common)).scalar_one())
        for first in range(0, len(keys), _AT_ONCE):
            some = keys[first : first + _AT_ONCE]
            statement = _sqlite_any(self.late_index or self.table, tuple(self.key), self.on("?"), len(some))
            if connection.exec_driver_sql(statement, (*chain.from_iterable(some), common)).scalar_one():
                return True
        return False

    def on(self, parameter: str) -> str:
        """Return the condition of the join."""
        return " AND ".join([f"t.{self.common} = {parameter}", *(f"t.{name} = k.{name}" for name in self.key)])


def _of_postgresql(
    lookup: Lookup, connection: Connection, common: int, keys: Sequence[tuple[Any, ...]]
) -> Iterator[Sequence[Any]]:
    answer = ", ".join(f"t.{name}" for name in lookup.columns)
    statement = _from_arrays(lookup, f"k.place - 1, {answer}")
    with connection.exec_driver_sql(statement, (*_arrays(keys), common)) as result:
        yield from result.cursor.fetchall() if result.cursor is not None else ()


def _arrays(keys: Sequence[tuple[Any, ...]]) -> Iterator[Any]:
    return map(_array, zip(*keys, strict=True))


def _array(values: Sequence[Any]) -> Any:
    """Return numbers or bytes as the literal of an array: the driver would escape each value by itself."""
    types = set(map(type, values))
    if types == {int}:
        return f"{{{','.join(map(str, values))}}}"
    if types == {bytes}:
        quoted = '","'.join([f"\\\\x{value.hex()}" for value in values])
        return f'{{"{quoted}"}}'
    return list(values)


def _from_arrays(lookup: Lookup, answer: str) -> str:
    arrays = ", ".join(f"%s::{kind}[]" for kind in lookup.key.values())
    return (
        f"SELECT {answer} FROM unnest({arrays}) WITH ORDINALITY AS k({', '.join(lookup.key)}, place)"
        # LIMIT keeps the planner from reading the whole table for a hash join, regardless of its statistics.
        f" CROSS JOIN LATERAL (SELECT * FROM {lookup.table} t WHERE {lookup.on('%s')} LIMIT 1) t"
    )


def _of_sqlite(
    lookup: Lookup, connection: Connection, common: int, keys: Sequence[tuple[Any, ...]]
) -> Iterator[Sequence[Any]]:
    for first in range(0, len(keys), _AT_ONCE):
        some = keys[first : first + _AT_ONCE]
        names = lookup.table, lookup.late_index, tuple(lookup.key)
        statement = _sqlite_rows(*names, lookup.on("?"), lookup.columns, len(some))
        answer = connection.exec_driver_sql(statement, (*chain.from_iterable(some), common)).scalar_one()
        for place, *found in json.loads(answer):
            yield first + place, *found


@lru_cache(maxsize=2 * _AT_ONCE)
def _sqlite_rows(
    table: str, late_index: str, key: tuple[str, ...], on: str, columns: tuple[str, ...], keys: int
) -> str:
    """Return a statement for this many keys; it returns a single row, for which it looks up each key."""
    asked = ", ".join(f"({place}{', ?' * len(key)})" for place in range(keys))
    found, row = f"{table} t ON {on}", "t"
    if late_index:
        found, row = f"{late_index} t ON {on} CROSS JOIN {table} r ON r.id = t.record_id", "r"
    answer = ", ".join(f"{row}.{name}" for name in columns)
    return (
        f"WITH k(place, {', '.join(key)}) AS (VALUES {asked})"
        f" SELECT json_group_array(json_array(k.place, {answer})) FROM k CROSS JOIN {found}"
    )


@lru_cache(maxsize=2 * _AT_ONCE)
def _sqlite_any(table: str, key: tuple[str, ...], on: str, keys: int) -> str:
    """Return a statement for this many keys; it stops at the first that is found."""
    values = ", ".join([f"({', '.join('?' * len(key))})"] * keys)
    return f"WITH k({', '.join(key)}) AS (VALUES {values}) SELECT EXISTS (SELECT 1 FROM k CROSS JOIN {table} t ON {on})"
