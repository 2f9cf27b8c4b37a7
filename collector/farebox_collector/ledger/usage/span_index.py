"""Find the records of spans and traces.

PostgreSQL has a unique index, (tenant, trace, span). Trace ids are random: in SQLite a commit would write a page of
such an index for nearly each of its traces, more than everything else together. The table `record_spans` is a late
index instead. A transaction that writes completes it before it looks anything up; `appending` remembers the traces of
what is not in it yet.
"""

from collections import defaultdict, deque
from collections.abc import Callable, Collection, Iterable
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, and_, bindparam, select, tuple_, union_all
from sqlalchemy.sql.base import ReadOnlyColumnCollection

from farebox_collector.ledger.journal.late_index import LateIndex
from farebox_collector.ledger.storage.database import is_writing
from farebox_collector.ledger.storage.differences import has_one_writer
from farebox_collector.ledger.tables.books import record_spans, usage_records
from farebox_collector.ledger.usage.entries import SpanKey

SPAN_INDEX = LateIndex(
    "records by span",
    record_spans.name,
    usage_records.name,
    {"tenant_id": "tenant_id", "trace_id": "trace_id", "span_id": "span_id", "record_id": "id"},
    key=3,
)
_GENERATION = 8_192
"""Traces in one generation."""
_NONE: frozenset[bytes] = frozenset()
_COME_TO = f"(SELECT coalesce(max(value), 0) FROM watermarks WHERE name = '{SPAN_INDEX.name}')"
SPAN_INDEX_CHECKS = (
    (
        "span index",
        "the index by span has every record up to its watermark",
        "SELECT 'record ' || r.id, 'in the index by span', 'not there, or another record of the same span'"
        " FROM usage_records r LEFT JOIN record_spans i ON i.tenant_id = r.tenant_id"
        " AND i.trace_id = r.trace_id AND i.span_id = r.span_id AND i.record_id = r.id"
        f" WHERE r.id <= {_COME_TO} AND i.record_id IS NULL AND [[r.transaction_id]]",
    ),
    (
        "span index size",
        "the index by span has only records that are there",
        "SELECT 'the index of records by span', there, found"
        f" FROM (SELECT (SELECT count(*) FROM usage_records WHERE id <= {_COME_TO}) AS there,"
        f" (SELECT count(*) FROM record_spans WHERE record_id <= {_COME_TO}) AS found) both_sides"
        " WHERE there <> found",
    ),
)
"""The audit's checks of this index; see `books_audit` for how a check is written."""


def complete(connection: Connection) -> None:
    """Bring the index up to date, if it is a late one, in a writing transaction."""
    if has_one_writer(connection):
        SPAN_INDEX.complete(connection)


class _Generation(NamedTuple):
    """Traces that are forgotten together."""

    number: int
    upto: int
    """The id of a record that is not older than theirs."""
    traces: dict[int, set[bytes]]
    """By tenant."""


class TailTraces:
    """The traces of records that a late index may lack. For one committing thread; `indexed` may come from another.

    Traces of transactions that were rolled back stay too: a trace too many costs a look-up.
    """

    def __init__(self) -> None:
        self._complete = False
        self._filling: defaultdict[int, set[bytes]] = defaultdict(set)
        """By tenant."""
        self._size = 0
        self.closed = 0
        """The number of generations that were ever full."""
        self._full: deque[_Generation] = deque()
        self._indexed = (0, 0)

    def indexed(self, upto: int, closed: int) -> None:
        """Note that the index has all records up to this one, durably; `closed` is from before that was looked up.

        The newest ids are given again after their records are deleted, so an earlier look-up says nothing of records
        that came later.
        """
        self._indexed = upto, closed

    def has_any(self, connection: Connection, tenant_id: int, trace_ids: Collection[bytes]) -> bool:
        """Return whether one of these traces may have a record that the index lacks."""
        if not has_one_writer(connection):
            return False
        if not self._complete:
            # What an earlier process left.
            complete(connection)
            self._complete = True
        known = (self._filling, *(one.traces for one in self._full))
        return not all(by_tenant.get(tenant_id, _NONE).isdisjoint(trace_ids) for by_tenant in known)

    def add(self, connection: Connection, tenant_id: int, trace_ids: Collection[bytes], after_id: int) -> None:
        """Add the traces of records that were just inserted after a record."""
        if not has_one_writer(connection):
            return
        upto, closed = self._indexed
        while self._full and self._full[0].number < closed and self._full[0].upto <= upto:
            self._full.popleft()
        if self._size >= _GENERATION:
            self._full.append(_Generation(self.closed, after_id, self._filling))
            self.closed += 1
            self._filling, self._size = defaultdict(set), 0
        self._filling[tenant_id].update(trace_ids)
        self._size += len(trace_ids)


def of_traces(connection: Connection, tenant_id: int, trace_ids: Iterable[bytes]) -> ColumnElement[bool]:
    """Select the records of some traces of a tenant.

    Do not name the tenant beside it: without statistics SQLite would rather read all of the tenant's records.
    """
    wanted = sorted(set(trace_ids))
    return _found(connection, tenant_id, lambda table: table.trace_id.in_(wanted))


def of_spans(connection: Connection, tenant_id: int, keys: Collection[SpanKey]) -> ColumnElement[bool]:
    """Select the records of some spans of a tenant; see `of_traces`."""
    wanted = sorted(keys)
    return _found(connection, tenant_id, lambda table: tuple_(table.trace_id, table.span_id).in_(wanted))


def beside(connection: Connection, other: ReadOnlyColumnCollection[str, Any]) -> ColumnElement[bool]:
    """Select other records, columns of an alias, of the trace of each record that a writing transaction queries."""
    record, entry = usage_records.c, record_spans.c
    not_itself = other.id != record.id
    if not has_one_writer(connection):
        return and_(other.tenant_id == record.tenant_id, other.trace_id == record.trace_id, not_itself)
    complete(connection)
    of_trace = select(entry.record_id).where(entry.tenant_id == record.tenant_id, entry.trace_id == record.trace_id)
    return and_(other.id.in_(of_trace.correlate(usage_records)), not_itself)


def of_bound_span(connection: Connection) -> ColumnElement[bool]:
    """Select the record of the span with the parameters `tenant`, `trace` and `span`."""
    table = record_spans if has_one_writer(connection) else usage_records
    own = (table.c[f"{name}_id"] == bindparam(name) for name in ("tenant", "trace", "span"))
    if not has_one_writer(connection):
        return and_(*own)
    complete(connection)
    return usage_records.c.id == select(record_spans.c.record_id).where(*own).scalar_subquery()


def _found(
    connection: Connection,
    tenant_id: int,
    wanted: Callable[[ReadOnlyColumnCollection[str, Any]], ColumnElement[bool]],
) -> ColumnElement[bool]:
    """Select records by their spans; `wanted` makes the condition for the columns of a table."""
    record, entry = usage_records.c, record_spans.c
    if not has_one_writer(connection):
        return and_(record.tenant_id == tenant_id, wanted(record))
    indexed = select(entry.record_id).where(entry.tenant_id == tenant_id, wanted(entry))
    if is_writing(connection):
        complete(connection)
        return record.id.in_(indexed)
    newer = record.id > SPAN_INDEX.mark(connection)
    # The sum keeps SQLite from reading all of the tenant's records by an index.
    return record.id.in_(
        union_all(indexed, select(record.id).where(newer, record.tenant_id + 0 == tenant_id, wanted(record)))
    )
