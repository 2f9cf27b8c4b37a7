"""Find wrappers in the books: spans that sum up calls, found when the last of them arrives, in any order, on any
replica.

A batch reads the traces of its spans. It cannot see what another replica is about to commit: settlement reads the same
traces again, two minutes later.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from sqlalchemy import Connection, select, text

from farebox_collector.ledger.storage.differences import has_one_writer
from farebox_collector.ledger.storage.key_lookup import Lookup
from farebox_collector.ledger.storage.locks import SPANS_OF_A_TRACE, lock_stripes
from farebox_collector.ledger.tables.books import record_spans, usage_records
from farebox_collector.ledger.tables.usage_columns import TOKEN_COLUMNS
from farebox_collector.ledger.usage.corrections import are_frozen
from farebox_collector.ledger.usage.entries import Entry, SpanKey
from farebox_collector.ledger.usage.span_index import of_traces
from farebox_collector.ledger.usage.stored_usage import StoredCall, query_of_ids, stored_calls
from farebox_collector.ledger.usage.wrappers import (
    MAX_SPANS,
    Place,
    parts_of,
    place_of,
    wrappers_in,
)
from farebox_collector.model.records import Buckets
from farebox_collector.model.verdicts import Verdict

SUMMED_UP = "its calls are charged: it has the sum of their counts"
_RELATIVES = 64
"""Most spans of a trace that are compared with a new one before anything is known of them."""
_RECORD = usage_records.c
_COLUMNS = [
    *(_RECORD[name] for name in ("id", "trace_id", "span_id", "parent_span_id", "started_at_ns", "latency_ns")),
    *(_RECORD[name] for name in ("response_id", "verdict", "summary")),
    *(_RECORD[name] for name in TOKEN_COLUMNS),
]
# One statement, since each is a round trip before the acknowledgement. Two ways in which a record may be wrapped:
# - By time, in a span without a response id. Written like the partial index over such records, so that only it is read;
#   avoids the sum of start and latency, which may be out of range for senders of invalid values.
# - By parent, where the span around names a response of its own. Calls that share no more than a trace are not booked
#   individually for that. Of a very long trace some spans are compared.
_MAY_BE_WRAPPED = (
    "SELECT 1 FROM usage_records n WHERE n.transaction_id = :made AND n.id > :after AND (EXISTS ("
    "SELECT 1 FROM usage_records w WHERE w.tenant_id = n.tenant_id AND w.trace_id = n.trace_id"
    " AND w.response_id = '' AND w.verdict = 'charged'"
    " AND w.output_tokens > 0 AND n.started_at_ns - w.started_at_ns <= w.latency_ns) OR EXISTS ("
    "SELECT 1 FROM (SELECT o.id, o.span_id, o.parent_span_id, o.transaction_id FROM {} LIMIT {}) r"
    " WHERE (r.transaction_id <> :made OR r.id <= :after)"
    " AND (r.span_id = n.parent_span_id OR r.parent_span_id = n.span_id))) LIMIT 1"
)
_BY_UNIQUE_INDEX = text(
    _MAY_BE_WRAPPED.format("usage_records o WHERE o.tenant_id = n.tenant_id AND o.trace_id = n.trace_id", _RELATIVES)
)
_BY_LATE_INDEX = text(
    _MAY_BE_WRAPPED.format(
        "record_spans i CROSS JOIN usage_records o ON o.id = i.record_id"
        " WHERE i.tenant_id = n.tenant_id AND i.trace_id = n.trace_id",
        _RELATIVES,
    )
)


_OF_TRACES = Lookup(usage_records.name, {"trace_id": "bytea"}, "tenant_id", ("id",), record_spans.name)


class _Kept(NamedTuple):
    record_id: int
    place: Place


def any_trace_is_known(connection: Connection, tenant_id: int, trace_ids: Iterable[bytes]) -> bool:
    """Return whether there is a record of any of these traces; with one writer, one that is in the index by span."""
    return _OF_TRACES.any(connection, tenant_id, [(trace_id,) for trace_id in sorted(set(trace_ids))])


def may_be_wrapped(connection: Connection, transaction_id: int, after_id: int) -> bool:
    """Return whether a newer record of a transaction may be a span around recorded calls, or be within such a span."""
    statement = _BY_LATE_INDEX if has_one_writer(connection) else _BY_UNIQUE_INDEX
    return connection.execute(statement, {"made": transaction_id, "after": after_id}).first() is not None


class Found(NamedTuple):
    """The result of checking the traces of a batch."""

    displaced: list[StoredCall]
    """Records that sum up calls, and must not pay any more."""
    unnamed: frozenset[bytes]
    """Traces in which a record without a response id is charged: it may show a call of the batch."""


def cover_wrappers(connection: Connection, tenant_id: int, entries: Mapping[SpanKey, Entry]) -> Found:
    """Cover the entries that sum up calls of their trace, in this batch or in the books."""
    counting = {key: entry for key, entry in entries.items() if entry.call.usage.buckets is not None}
    traces = {trace_id for trace_id, _ in counting}
    if not traces:
        return Found([], frozenset())
    # No unique key arbitrates between two replicas that book a wrapper and its calls at the same time.
    lock_stripes(connection, SPANS_OF_A_TRACE, (trace_id[-1] for trace_id in traces))
    kept = _kept(connection, tenant_id, traces)
    found: set[int] = set()
    for trace_id, spans in _by_trace(counting, kept).items():
        if len(spans) < 3:
            continue
        for span_id in wrappers_in(spans.values()):
            if (trace_id, span_id) in kept:
                found.add(kept[trace_id, span_id].record_id)
            else:
                counting[trace_id, span_id].cover(SUMMED_UP)
    unnamed = frozenset(key[0] for key, one in kept.items() if one.place.counts and not one.place.response_id)
    return Found(_records(connection, tenant_id, found), unnamed)


def wrappers_in_the_books(connection: Connection, tenant_id: int, trace_ids: Iterable[bytes]) -> list[StoredCall]:
    """Return the charged records of some traces that sum up others."""
    kept = _kept(connection, tenant_id, trace_ids)
    found = {
        kept[trace_id, span_id].record_id
        for trace_id, spans in _by_trace({}, kept).items()
        if len(spans) > 2
        for span_id in wrappers_in(spans.values())
    }
    return _records(connection, tenant_id, found)


def _by_trace(entries: Mapping[SpanKey, Entry], kept: Mapping[SpanKey, _Kept]) -> Mapping[bytes, dict[bytes, Place]]:
    """Return trace → span → position. The books take precedence over the batch."""
    found: defaultdict[bytes, dict[bytes, Place]] = defaultdict(dict)
    for (trace_id, span_id), entry in entries.items():
        found[trace_id][span_id] = place_of(entry.call)
    for (trace_id, span_id), one in kept.items():
        found[trace_id][span_id] = one.place
    return found


def _kept(connection: Connection, tenant_id: int, trace_ids: Iterable[bytes]) -> dict[SpanKey, _Kept]:
    """Return the positions of the newest records of some traces."""
    wanted = sorted(set(trace_ids))
    if not wanted:
        return {}
    query = (
        select(*_COLUMNS)
        .where(of_traces(connection, tenant_id, wanted))
        .order_by(_RECORD.id.desc())
        .limit(MAX_SPANS * len(wanted))
    )
    found: dict[SpanKey, _Kept] = {}
    for row in connection.execute(query):
        record_id, trace_id, span_id, parent, start, latency, response_id, verdict, summary, *tokens = row
        counts = tokens[0] is not None and not summary and verdict in (Verdict.CHARGED, Verdict.UNPRICED)
        buckets = Buckets(*tokens) if tokens[0] is not None else Buckets()
        went_in = buckets.inclusive_input
        place = Place(
            *(bytes(span_id), bytes(parent), start, start + latency, response_id),
            *(went_in, buckets.total - went_in, counts and buckets.total > 0),
            *parts_of(buckets),
        )
        found[bytes(trace_id), bytes(span_id)] = _Kept(record_id, place)
    return found


def _records(connection: Connection, tenant_id: int, record_ids: Iterable[int]) -> list[StoredCall]:
    """Return records that may be corrected; none while corrections are frozen."""
    wanted = sorted(record_ids)
    if not wanted or are_frozen(connection):
        return []
    return list(stored_calls(connection, query_of_ids(tenant_id, wanted)))
