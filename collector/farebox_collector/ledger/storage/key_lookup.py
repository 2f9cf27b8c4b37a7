"""Look many keys up in one query.

Each of the two databases has a way of its own. PostgreSQL takes a list of pairs for as many conditions: it plans longer
than it runs, or reads the whole table; it gets arrays. SQLite gives its rows out one by one, each of which queues for
Python's interpreter lock (see `bulk`): it answers with a single one.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import chain
from typing import Any, NamedTuple

from sqlalchemy import Connection

_AT_ONCE = 256
"""Keys of one statement in SQLite."""


class Lookup(NamedTuple):
    """What is asked for of the rows of a table under many keys; unique, together with a value that all rows have."""

    table: str
    key: Mapping[str, str]
    """The columns of a key, with their PostgreSQL types."""
    common: str
    """The column of that value."""
    columns: tuple[str, ...]
    """What is answered: numbers and texts."""

    def rows(self, connection: Connection, common: int, keys: Sequence[tuple[Any, ...]]) -> Iterator[Sequence[Any]]:
        """For each row that is found the place of its key, counted from 0, and the values of the columns."""
        if not keys:
            return iter(())
        answers = _of_sqlite if connection.dialect.name == "sqlite" else _of_postgresql
        return answers(self, connection, common, keys)

    def on(self, parameter: str) -> str:
        """The condition of the join."""
        return " AND ".join([f"t.{self.common} = {parameter}", *(f"t.{name} = k.{name}" for name in self.key)])

    @property
    def answer(self) -> str:
        """The columns of the answer in SQL."""
        return ", ".join(f"t.{name}" for name in self.columns)


def _of_postgresql(
    lookup: Lookup, connection: Connection, common: int, keys: Sequence[tuple[Any, ...]]
) -> Iterator[Sequence[Any]]:
    arrays = ", ".join(f"%s::{kind}[]" for kind in lookup.key.values())
    statement = (
        f"SELECT k.place - 1, {lookup.answer}"
        f" FROM unnest({arrays}) WITH ORDINALITY AS k({', '.join(lookup.key)}, place)"
        # The limit keeps the planner, whatever it believes of the table, from reading all of it to join it as a whole.
        f" CROSS JOIN LATERAL (SELECT * FROM {lookup.table} t WHERE {lookup.on('%s')} LIMIT 1) t"
    )
    with connection.exec_driver_sql(statement, (*map(list, zip(*keys, strict=True)), common)) as result:
        yield from result.cursor.fetchall() if result.cursor is not None else ()


def _of_sqlite(
    lookup: Lookup, connection: Connection, common: int, keys: Sequence[tuple[Any, ...]]
) -> Iterator[Sequence[Any]]:
    for first in range(0, len(keys), _AT_ONCE):
        some = keys[first : first + _AT_ONCE]
        statement = _sqlite_statement(lookup.table, tuple(lookup.key), lookup.answer, lookup.on("?"), len(some))
        answer = connection.exec_driver_sql(statement, (*chain.from_iterable(some), common)).scalar_one()
        for place, *found in json.loads(answer):
            yield first + place, *found


@lru_cache(maxsize=2 * _AT_ONCE)
def _sqlite_statement(table: str, key: tuple[str, ...], answer: str, on: str, keys: int) -> str:
    """A statement for so many keys; its answer is a single row, for which it looks up key after key."""
    asked = ", ".join(f"({place}{', ?' * len(key)})" for place in range(keys))
    return (
        f"WITH k(place, {', '.join(key)}) AS (VALUES {asked})"
        f" SELECT json_group_array(json_array(k.place, {answer})) FROM k CROSS JOIN {table} t ON {on}"
    )
