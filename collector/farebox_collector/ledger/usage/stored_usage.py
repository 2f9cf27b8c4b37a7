"""Read usage records from the books: the same facts that pricing produced."""

from collections.abc import Iterable, Iterator, Sequence
from operator import attrgetter
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Row, Select, and_, select

from farebox_collector.ledger.storage.key_lookup import Lookup
from farebox_collector.ledger.tables.books import UNSETTLED, UNSETTLED_VERDICTS, record_spans, usage_records
from farebox_collector.ledger.usage.columns import (
    CALL_COLUMNS,
    FACT_COLUMNS,
    call_of_row,
    facts_of_row,
)
from farebox_collector.ledger.usage.entries import SpanKey
from farebox_collector.ledger.usage.span_index import complete
from farebox_collector.model.records import PricedUsage

_FACTS = Lookup(
    usage_records.name,
    {"trace_id": "bytea", "span_id": "bytea"},
    "tenant_id",
    ("transaction_id", *FACT_COLUMNS),
    record_spans.name,
)

_call_row = attrgetter(*CALL_COLUMNS)


class StoredCall(NamedTuple):
    """One usage record as the books have it now."""

    record_id: int
    corrections: int
    """The number of its corrections."""
    received_at_ns: int
    call: PricedUsage
    action_share_nanocredits: int | None = None
    """The charge of the call alone if it is charged as part of its action; see `action_pricing`."""
    call_key: bytes | None = None


def stored_calls(connection: Connection, query: Select[Any]) -> Iterator[StoredCall]:
    """Return the records of a query made by `usage_query`."""
    for row in connection.execute(query):
        yield stored_call(row)


def known_facts(
    connection: Connection, tenant_id: int, keys: Sequence[SpanKey]
) -> dict[SpanKey, tuple[int, tuple[Any, ...]]]:
    """Return (trace id, span id) → (transaction, values of `FACT_COLUMNS`) of the spans that are in the books."""
    complete(connection)
    found = _FACTS.rows(connection, tenant_id, keys)
    return {keys[place]: (made_by, facts_of_row(facts)) for place, made_by, *facts in found}


def usage_query(tenant_id: int) -> Select[Any]:
    """Select all columns of a tenant's usage records; the caller adds conditions."""
    return select(usage_records).where(usage_records.c.tenant_id == tenant_id)


def in_order(tenant_id: int) -> ColumnElement[bool]:
    """Select a tenant's records in a query that finds few of them by another condition, or in the order of their ids.

    Without statistics SQLite assumes that a tenant has few records, and scans all of them in an index.
    """
    return usage_records.c.tenant_id + 0 == tenant_id


def query_of_ids(tenant_id: int, record_ids: Iterable[int]) -> Select[Any]:
    """Select all columns of some of a tenant's usage records."""
    return select(usage_records).where(in_order(tenant_id), usage_records.c.id.in_(sorted(record_ids)))


def of_verdict(verdict: str) -> ColumnElement[bool]:
    """Select records of a verdict; records that wait are found by the partial index over them."""
    records = usage_records.c.verdict == verdict
    return and_(records, UNSETTLED) if verdict in UNSETTLED_VERDICTS else records


def stored_call(row: Row[Any]) -> StoredCall:
    """Return the priced call of a row of `usage_records`."""
    call = call_of_row(_call_row(row))
    return StoredCall(row.id, row.corrections, row.received_at_ns, call, row.action_share_nanocredits, row.call_key)
