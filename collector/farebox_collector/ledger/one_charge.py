"""One call, one charge: several spans may show the same call, and one of them pays.

Two instrumentations of one client, a client that emits spans itself, or both: the ordinary case. Spans of one call
share its response id; where there is none (a failure, an embedding) one is nested in the other. The better witness
pays, also when it comes last: then what the other paid is given back by a correction.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from sqlalchemy import Connection

from farebox_collector.ledger.corrections import are_frozen
from farebox_collector.ledger.entries import Entry, SpanKey, call_key
from farebox_collector.ledger.locks import SPANS_OF_A_TRACE, wait_in_turn
from farebox_collector.ledger.stored_usage import StoredCall, stored_calls, usage_query
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
        payer = max(group, key=lambda entry: _knowledge(entry.call))
        for entry in group:
            if entry is payer:
                continue
            if _same_call(entry.call, payer.call.usage.started_at_ns, payer.call.usage.latency_ns):
                entry.cover()
            elif entry.charged:
                entry.charge_apart()


def charge_nested_spans_once(
    connection: Connection, tenant_id: int, entries: Mapping[SpanKey, Entry]
) -> list[StoredCall]:
    """Where there is no response id: of two nested spans of one call the one that knows more pays, else the inner one
    of a batch, else the one that is in the books. Returns the records that are not to pay any more."""
    without_id = {key: entry for key, entry in entries.items() if not entry.call.usage.response_id}
    if not without_id:
        return []
    # No key of the database stands between two replicas that bring the two spans at the same moment.
    wait_in_turn(connection, SPANS_OF_A_TRACE, (trace_id[-1] for trace_id, _ in without_id))
    for (trace_id, _), inner in without_id.items():
        outer = without_id.get((trace_id, inner.call.usage.parent_span_id))
        if outer is not None and _is_around(_shape(outer.call), _shape(inner.call)):
            (outer if _knowledge(outer.call) <= _knowledge(inner.call) else inner).cover()
    displaced = []
    for entry, stored in _nested_in_the_books(connection, tenant_id, without_id):
        if entry.charged and _knows_more(connection, entry, stored):
            displaced.append(stored)
        else:
            entry.cover()
    return displaced


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


def _nested_in_the_books(
    connection: Connection, tenant_id: int, entries: Mapping[SpanKey, Entry]
) -> Iterator[tuple[Entry, StoredCall]]:
    """Each entry with the record around it or within it that shows the same call."""
    by_trace: defaultdict[bytes, list[Entry]] = defaultdict(list)
    for (trace_id, _), entry in entries.items():
        by_trace[trace_id].append(entry)
    table = usage_records.c
    query = usage_query(tenant_id).where(
        table.trace_id.in_(list(by_trace)),
        table.response_id == "",
        table.verdict.not_in((Verdict.COVERED, Verdict.DEFERRED)),
    )
    for stored in stored_calls(connection, query):
        other, around = stored.call.usage, _shape(stored.call)
        for entry in by_trace[other.trace_id]:
            usage, shape = entry.call.usage, _shape(entry.call)
            nested_in_stored = usage.parent_span_id == other.span_id and _is_around(around, shape)
            if nested_in_stored or (other.parent_span_id == usage.span_id and _is_around(shape, around)):
                yield entry, stored


def _knows_more(connection: Connection, entry: Entry, stored: StoredCall) -> bool:
    """Whether an entry is to pay in a record's place; never while the books are under suspicion."""
    return _knowledge(entry.call) > _knowledge(stored.call) and not are_frozen(connection)


def _knowledge(call: PricedUsage) -> tuple[bool, bool, int, bool]:
    """What makes one of two spans of a call the better witness: that it can be charged, names the wallet, counts more
    (one of them may miss the output of a stream that broke off), and tells how long a cache write lives."""
    usage = call.usage
    return (
        call.verdict is Verdict.CHARGED,
        usage.wallet != UNATTRIBUTED,
        usage.buckets.total if usage.buckets else 0,
        "cache_write_lifetime_unknown" not in call.assumptions,
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
    charged = charged_calls(connection, tenant_id, waiting)
    for entry in waiting:
        other = charged.get(call_key(entry.call.usage.response_id) or b"")
        if other is not None and is_same_call(entry, other):
            entry.cover()


def settle_kept_out(connection: Connection, tenant_id: int, entries: Iterable[Entry]) -> list[StoredCall]:
    """Entries that a call key kept out of the books: a call of their own, covered by the record that holds the key, or
    in its place, where they know more. Returns the records that are not to pay any more."""
    holders = charged_calls(connection, tenant_id, entries)
    displaced = []
    for entry in entries:
        holder = holders.get(entry.call_key or b"")
        if holder is None or not is_same_call(entry, holder):
            entry.charge_apart()
        elif _knows_more(connection, entry, holder):
            displaced.append(holder)
        else:
            entry.cover()
    return displaced


def charged_calls(connection: Connection, tenant_id: int, entries: Iterable[Entry]) -> dict[bytes, StoredCall]:
    """call key → the record that was charged for it, among the calls of these entries."""
    keys = {key for entry in entries if (key := call_key(entry.call.usage.response_id))}
    if not keys:
        return {}
    found = stored_calls(connection, usage_query(tenant_id).where(usage_records.c.call_key.in_(sorted(keys))))
    return {call_key(stored.call.usage.response_id) or b"": stored for stored in found}


def is_same_call(entry: Entry, stored: StoredCall) -> bool:
    """Whether an entry and a record of one response id are of one call, rather than of a server that repeats ids."""
    return _same_call(entry.call, stored.call.usage.started_at_ns, stored.call.usage.latency_ns)
