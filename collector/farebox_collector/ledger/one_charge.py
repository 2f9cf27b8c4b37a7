"""One call, one charge: several spans may show the same call, and one of them pays.

Two instrumentations of one client, a client that emits spans itself, or both: the ordinary case. Spans of one call
share its response id; where there is none (a failure, an embedding) one is nested in the other.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from sqlalchemy import Connection, select

from farebox_collector.ledger.entries import Entry, SpanKey, call_key
from farebox_collector.ledger.locks import SPANS_OF_A_TRACE, wait_in_turn
from farebox_collector.ledger.tables import usage_records
from farebox_collector.records import UNATTRIBUTED, PricedUsage
from farebox_collector.verdicts import Verdict


def charge_each_response_once(entries: Iterable[Entry]) -> None:
    """Among the spans of one response in this batch let the one pay that knows most: the wallet, then the cache."""
    by_response: defaultdict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        if entry.call.usage.response_id:
            by_response[entry.call.usage.response_id].append(entry)
    for group in by_response.values():
        if len(group) == 1 or not any(entry.charged for entry in group):
            continue
        payer = max(group, key=_knowledge)
        for entry in group:
            if entry is payer:
                continue
            if _same_call(entry.call, payer.call.usage.started_at_ns, payer.call.usage.latency_ns):
                entry.cover()
            elif entry.charged:
                entry.charge_apart()


def charge_nested_spans_once(connection: Connection, tenant_id: int, entries: Mapping[SpanKey, Entry]) -> None:
    """Where there is no response id: of two nested spans of one call the inner one stands for it, or the first come."""
    without_id = {key: entry for key, entry in entries.items() if not entry.call.usage.response_id}
    if not without_id:
        return
    # No key of the database stands between two replicas that bring the two spans at the same moment.
    wait_in_turn(connection, SPANS_OF_A_TRACE, (trace_id[-1] for trace_id, _ in without_id))
    for (trace_id, _), inner in without_id.items():
        outer = without_id.get((trace_id, inner.call.usage.parent_span_id))
        if outer is not None and _is_around(_shape(outer.call), _shape(inner.call)):
            (outer if _knowledge(outer) <= _knowledge(inner) else inner).cover()
    for key, stored_id, parent_id, stored in _shapes_in_traces(connection, tenant_id, without_id):
        entry = without_id[key]
        shape = _shape(entry.call)
        nested_in_stored = entry.call.usage.parent_span_id == stored_id and _is_around(stored, shape)
        if nested_in_stored or (parent_id == key[1] and _is_around(shape, stored)):
            entry.cover()


class _Shape(NamedTuple):
    """What two spans of one call have in common."""

    start_ns: int
    latency_ns: int
    request_model: str
    output_tokens: int | None


def _shape(call: PricedUsage) -> _Shape:
    usage = call.usage
    output = usage.buckets.output if usage.buckets else None
    return _Shape(usage.started_at_ns, usage.latency_ns, usage.request_model, output)


def _is_around(outer: _Shape, inner: _Shape) -> bool:
    """Whether one span contains the other in time and shows the same model and as many tokens out."""
    return (
        outer.start_ns <= inner.start_ns
        and outer.start_ns + outer.latency_ns >= inner.start_ns + inner.latency_ns
        and outer.request_model == inner.request_model
        and outer.output_tokens == inner.output_tokens
    )


def _shapes_in_traces(
    connection: Connection, tenant_id: int, entries: Mapping[SpanKey, Entry]
) -> Iterator[tuple[SpanKey, bytes, bytes, _Shape]]:
    """For each entry the records of its trace that have no response id either: (entry, span, parent, shape)."""
    by_trace: defaultdict[bytes, list[SpanKey]] = defaultdict(list)
    for key in entries:
        by_trace[key[0]].append(key)
    table = usage_records.c
    columns = (table.started_at_ns, table.latency_ns, table.request_model, table.output_tokens)
    found = connection.execute(
        select(table.trace_id, table.span_id, table.parent_span_id, *columns).where(
            table.tenant_id == tenant_id,
            table.trace_id.in_(list(by_trace)),
            table.response_id == "",
            table.verdict.not_in((Verdict.COVERED, Verdict.DEFERRED)),
        )
    )
    for trace_id, span_id, parent_id, *shape in found:
        for key in by_trace[trace_id]:
            yield key, span_id, parent_id, _Shape(*shape)


def _knowledge(entry: Entry) -> tuple[bool, bool, int, bool]:
    """What makes one of two spans of a call the better witness: that it can be charged, names the wallet, counts more
    (one of them may miss the output of a stream that broke off), and tells how long a cache write lives."""
    usage = entry.call.usage
    return (
        entry.charged,
        usage.wallet != UNATTRIBUTED,
        usage.buckets.total if usage.buckets else 0,
        "cache_write_lifetime_unknown" not in entry.call.assumptions,
    )


def _same_call(call: PricedUsage, other_start_ns: int, other_latency_ns: int) -> bool:
    """Two spans of one call overlap in time; servers that hand out one id again and again are told apart by that."""
    start = call.usage.started_at_ns
    return start <= other_start_ns + other_latency_ns and other_start_ns <= start + call.usage.latency_ns


def cover_the_unsettled(connection: Connection, tenant_id: int, entries: Iterable[Entry]) -> None:
    """Spans that nobody can price, of calls that another span has paid for, are covered rather than open."""
    waiting = [
        entry
        for entry in entries
        if entry.verdict in (Verdict.UNPRICED, Verdict.UNMETERED) and entry.call.usage.response_id
    ]
    charged = _charged_calls(connection, tenant_id, waiting)
    for entry in waiting:
        other = charged.get(call_key(entry.call.usage.response_id) or b"")
        if other is not None and _same_call(entry.call, *other):
            entry.cover()


def settle_kept_out(connection: Connection, tenant_id: int, entries: Iterable[Entry]) -> None:
    """Entries that a call key kept out of the books: covered by the record that holds it, or a call of their own."""
    charged = _charged_calls(connection, tenant_id, entries)
    for entry in entries:
        other = charged.get(entry.call_key or b"")
        if other is not None and _same_call(entry.call, *other):
            entry.cover()
        else:
            entry.charge_apart()


def _charged_calls(connection: Connection, tenant_id: int, entries: Iterable[Entry]) -> dict[bytes, tuple[int, int]]:
    """call key → (start, latency) of the record that was charged for it."""
    keys = [key for entry in entries if (key := call_key(entry.call.usage.response_id))]
    if not keys:
        return {}
    table = usage_records.c
    found = connection.execute(
        select(table.call_key, table.started_at_ns, table.latency_ns).where(
            table.tenant_id == tenant_id, table.call_key.in_(keys)
        )
    )
    return {key: (start, latency) for key, start, latency in found}
