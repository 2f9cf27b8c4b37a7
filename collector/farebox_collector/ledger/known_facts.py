"""What the books have of some spans, asked for in one go: after an outage whole batches come again.

Each of the two databases has a way of its own in which thousands of keys are neither a statement that takes longer to
plan than to run (PostgreSQL), nor rows of an answer that queue one by one for Python's interpreter lock (SQLite).
"""

import json
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import chain
from typing import Any

from sqlalchemy import Connection

from farebox_collector.ledger.entries import FACT_COLUMNS, SpanKey

Known = tuple[int, tuple[Any, ...]]
"""The transaction that recorded a span, and the values of `FACT_COLUMNS`."""

_AT_ONCE = 256
_COLUMNS = ", ".join(f"u.{name}" for name in ("transaction_id", *FACT_COLUMNS))
_ON = "u.trace_id = k.trace_id AND u.span_id = k.span_id"
_POSTGRESQL = (
    f"SELECT k.place - 1, {_COLUMNS}"
    " FROM unnest(%s::bytea[], %s::bytea[]) WITH ORDINALITY AS k(trace_id, span_id, place)"
    f" JOIN usage_records u ON u.tenant_id = %s AND {_ON}"
)


def known_facts(connection: Connection, tenant_id: int, keys: Sequence[SpanKey]) -> dict[SpanKey, Known]:
    """Transaction and facts of those of some spans, (trace id, span id), that are in a tenant's books."""
    if not keys:
        return {}
    answers = _of_sqlite if connection.dialect.name == "sqlite" else _of_postgresql
    return {keys[place]: (made_by, tuple(facts)) for place, made_by, *facts in answers(connection, tenant_id, keys)}


def _of_postgresql(connection: Connection, tenant_id: int, keys: Sequence[SpanKey]) -> Iterator[Sequence[Any]]:
    traces, spans = map(list, zip(*keys, strict=True))
    with connection.exec_driver_sql(_POSTGRESQL, (traces, spans, tenant_id)) as result:
        yield from result.cursor.fetchall()


def _of_sqlite(connection: Connection, tenant_id: int, keys: Sequence[SpanKey]) -> Iterator[Sequence[Any]]:
    for first in range(0, len(keys), _AT_ONCE):
        some = keys[first : first + _AT_ONCE]
        parameters = (*chain.from_iterable(some), tenant_id)
        answer = connection.exec_driver_sql(_sqlite_statement(len(some)), parameters).scalar_one()
        for place, *found in json.loads(answer):
            yield first + place, *found


@lru_cache(maxsize=_AT_ONCE)
def _sqlite_statement(keys: int) -> str:
    """A statement for so many keys; its answer is a single row."""
    asked = ", ".join(f"({place}, ?, ?)" for place in range(keys))
    return (
        f"WITH k(place, trace_id, span_id) AS (VALUES {asked})"
        f" SELECT json_group_array(json_array(k.place, {_COLUMNS})) FROM k"
        f" CROSS JOIN usage_records u ON u.tenant_id = ? AND {_ON}"
    )
