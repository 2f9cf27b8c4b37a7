"""One call, one charge: several spans may show the same call, and one of them pays.

This is common: two instrumentations of one client, a client that emits spans itself, or both. Spans of one call share
its response id; if one of them has none (a failure, an embedding, a framework's stream), their position in the trace
decides (`span_matching`). The span that knows more pays, even if it arrives last: then a correction gives back what the
other paid.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping

from sqlalchemy import ColumnElement, Connection, and_, or_, select

from farebox_collector.ledger.storage.locks import SPANS_OF_A_TRACE, lock_stripes
from farebox_collector.ledger.tables.books import usage_records
from farebox_collector.ledger.usage.claims import held
from farebox_collector.ledger.usage.corrections import are_frozen
from farebox_collector.ledger.usage.entries import Entry, SpanKey
from farebox_collector.ledger.usage.response_ids import Uniqueness, call_key, uniqueness
from farebox_collector.ledger.usage.span_index import of_traces
from farebox_collector.ledger.usage.span_matching import is_outranked, knowledge, show_one_call
from farebox_collector.ledger.usage.stored_usage import StoredCall, query_of_ids, stored_calls
from farebox_collector.ledger.usage.tombstones import RETIRED_REASON, has_retired_spans, retired_in_traces
from farebox_collector.model.records import PricedUsage, UsageRecord
from farebox_collector.model.verdicts import Verdict

MAX_RELATIVES = 64
"""Most spans under one parent that are compared: a call has two or three."""


def charge_each_response_once(entries: Iterable[Entry]) -> None:
    """Among the spans of one response in this batch, charge the one that knows most: the wallet, then the cache."""
    with_id = [entry for entry in entries if entry.call.usage.response_id]
    if len({entry.call.usage.response_id for entry in with_id}) == len(with_id):
        return
    by_response: defaultdict[str, list[Entry]] = defaultdict(list)
    for entry in with_id:
        by_response[entry.call.usage.response_id].append(entry)
    for group in by_response.values():
        if len(group) == 1 or not any(entry.charged for entry in group):
            continue
        payer = max(group, key=lambda entry: knowledge(entry.call))
        for entry in group:
            if entry is payer:
                continue
            if same_call(entry.call, payer.call):
                entry.cover()
            elif entry.charged:
                entry.charge_apart()


def charge_related_spans_once(
    connection: Connection, tenant_id: int, entries: Mapping[SpanKey, Entry], unnamed: frozenset[bytes] = frozenset()
) -> list[StoredCall]:
    """Charge one of the spans that show the same call, without a response id in common: the one that knows more;
    between equals the inner one of a batch, or the one in the books. Returns the records that must not pay any more.

    `unnamed` are traces in which the books have a charge without a response id.
    """
    without_id = [key for key, entry in entries.items() if not entry.call.usage.response_id]
    if not (without_id or unnamed):
        return []
    # No unique key arbitrates between two replicas that book the two spans at the same time.
    lock_stripes(connection, SPANS_OF_A_TRACE, (trace_id[-1] for trace_id, _ in without_id))
    relations = _Relations(entries, {trace_id for trace_id, _ in without_id} | unnamed)
    for key in without_id:
        entry = entries[key]
        for other in relations.of(entry.call):
            if show_one_call(entry.call, other.call):
                (entry if is_outranked(entry.call, other.call) else other).cover()
    displaced = []
    for stored in _related_in_the_books(connection, tenant_id, relations):
        for entry in relations.of(stored.call):
            if not show_one_call(entry.call, stored.call):
                continue
            if entry.charged and _knows_more(connection, entry, stored):
                displaced.append(stored)
            else:
                entry.cover()
    if has_retired_spans(connection):
        for retired in retired_in_traces(connection, tenant_id, {trace_id for trace_id, _ in without_id}):
            for entry in (entries[key] for key in without_id if key[0] == retired.trace_id):
                # A retired span stays charged, even if the later span knows more.
                if entry.charged and retired.shows_call_of(entry.call.usage):
                    entry.cover(RETIRED_REASON)
    return displaced


class _Relations:
    """The entries of some traces, by their position and by what they show."""

    def __init__(self, entries: Mapping[SpanKey, Entry], traces: set[bytes]) -> None:
        self.spans = {key: entry for key, entry in entries.items() if key[0] in traces}
        self._children: defaultdict[SpanKey, list[Entry]] = defaultdict(list)
        self._alike: defaultdict[tuple[bytes, str, int | None], list[Entry]] = defaultdict(list)
        for (trace_id, _), entry in self.spans.items():
            usage = entry.call.usage
            for relatives in (self._children[trace_id, usage.parent_span_id], self._alike[signature_of(usage)]):
                if len(relatives) < MAX_RELATIVES:
                    relatives.append(entry)

    def of(self, call: PricedUsage) -> list[Entry]:
        """Return the entries that may show the same call."""
        usage = call.usage
        parent = self.spans.get((usage.trace_id, usage.parent_span_id))
        found = [parent] if parent else []
        found += self._children.get((usage.trace_id, usage.span_id), [])
        alike = self._alike.get(signature_of(usage), [])
        return found + [entry for entry in alike if entry.call.usage.span_id != usage.span_id]


def signature_of(usage: UsageRecord) -> tuple[bytes, str, int | None]:
    """Return what two spans of one call have in common: trace, model and output tokens."""
    return usage.trace_id, usage.request_model, usage.buckets.output if usage.buckets else None


def _related_in_the_books(connection: Connection, tenant_id: int, relations: _Relations) -> Iterator[StoredCall]:
    """Yield the records that enclose or are within some of the entries, or show the same output."""
    looks = {signature_of(entry.call.usage) for entry in relations.spans.values()}
    parents = {entry.call.usage.parent_span_id for entry in relations.spans.values()}
    query = select(usage_records).where(
        related_to(connection, tenant_id, relations.spans, parents, looks),
        usage_records.c.verdict.not_in((Verdict.COVERED, Verdict.DEFERRED)),
    )
    for stored in stored_calls(connection, query):
        if (stored.call.usage.trace_id, stored.call.usage.span_id) not in relations.spans:
            yield stored


def related_to(
    connection: Connection,
    tenant_id: int,
    keys: Iterable[SpanKey],
    parents: Iterable[bytes],
    looks: Iterable[tuple[bytes, str, int | None]],
) -> ColumnElement[bool]:
    """Select records of the same traces that enclose or are within some spans, or show as many tokens of their
    model."""
    keys, looks = list(keys), list(looks)
    table = usage_records.c
    return and_(
        of_traces(connection, tenant_id, (trace_id for trace_id, _ in keys)),
        or_(
            table.span_id.in_(sorted({*parents} - {b""})),
            table.parent_span_id.in_(sorted({span_id for _, span_id in keys})),
            table.request_model.in_(sorted({model for _, model, _ in looks}))
            & table.output_tokens.in_(sorted({output for _, _, output in looks if output is not None})),
        ),
    )


def _knows_more(connection: Connection, entry: Entry, stored: StoredCall) -> bool:
    """Return whether an entry replaces a record as the payer; never while corrections are frozen."""
    return knowledge(entry.call) > knowledge(stored.call) and not are_frozen(connection)


def same_call(call: PricedUsage, other: PricedUsage) -> bool:
    """Return whether two spans with one response id show one call: always if the id is unique, else if they overlap.

    Overlap or equal counts distinguish the calls of servers that reuse ids.
    """
    a, b = call.usage, other.usage
    if _overlap(call, b.started_at_ns, b.latency_ns):
        return True
    unique = uniqueness(a.response_id)
    if unique is Uniqueness.WITH_EQUAL_COUNTS:
        return a.request_model == b.request_model and (None in (a.buckets, b.buckets) or a.buckets == b.buckets)
    return unique is Uniqueness.FOREVER


def _overlap(call: PricedUsage, other_start_ns: int, other_latency_ns: int) -> bool:
    start = call.usage.started_at_ns
    return start <= other_start_ns + other_latency_ns and other_start_ns <= start + call.usage.latency_ns


def cover_unpriced_twins(connection: Connection, tenant_id: int, entries: Iterable[Entry]) -> None:
    """Cover spans without a price whose call another span has paid for, instead of leaving them open."""
    waiting = [
        entry
        for entry in entries
        if entry.verdict in (Verdict.UNPRICED, Verdict.UNMETERED, Verdict.EXPOSED) and entry.call.usage.response_id
    ]
    if not waiting:
        return
    payers = Payers(connection, tenant_id, waiting)
    for entry in waiting:
        if payers.paid(entry.call):
            entry.cover()


def settle_claimed_elsewhere(connection: Connection, tenant_id: int, entries: Iterable[Entry]) -> list[StoredCall]:
    """Settle entries whose call another record has claimed: each is a call of its own, or covered by that record, or
    replaces it if it knows more. Returns the records that must not pay any more."""
    payers = Payers(connection, tenant_id, entries)
    displaced = []
    for entry in entries:
        payer = payers.of(entry.call)
        if not payers.paid(entry.call):
            entry.charge_apart()
        elif payer is not None and _knows_more(connection, entry, payer):
            displaced.append(payer)
        else:
            entry.cover()
    return displaced


class Payers:
    """The records that have claimed the calls of some entries, or other calls with their response id at about that
    time."""

    def __init__(self, connection: Connection, tenant_id: int, entries: Iterable[Entry]) -> None:
        calls = [
            (key, entry.call.usage.started_at_ns, entry.call.usage.latency_ns)
            for entry in entries
            if (key := call_key(entry.call.usage.response_id))
        ]
        self._by_response: defaultdict[str, list[StoredCall]] = defaultdict(list)
        self._retired: defaultdict[bytes, list[tuple[int, int]]] = defaultdict(list)
        holders = []
        for one in held(connection, tenant_id, calls):
            if one.started_at_ns is None or one.latency_ns is None:
                holders.append(one.record_id)
            else:
                self._retired[one.call_key].append((one.started_at_ns, one.latency_ns))
        query = query_of_ids(tenant_id, holders)
        for stored in stored_calls(connection, query) if holders else ():
            self._by_response[stored.call.usage.response_id].append(stored)

    def of(self, call: PricedUsage) -> StoredCall | None:
        """Return the record that has claimed a call; None if there is none, or if its detail is retired."""
        if not call.usage.response_id:
            return None
        others = self._by_response.get(call.usage.response_id, ())
        return next((other for other in others if same_call(other.call, call)), None)

    def paid(self, call: PricedUsage) -> bool:
        """Return whether a record has claimed a call, retired or not."""
        retired = self._retired.get(call_key(call.usage.response_id) or b"", ())
        if self.of(call) is not None:
            return True
        if not retired:
            return False
        # Retired spans have no counts.
        return uniqueness(call.usage.response_id) is not Uniqueness.OVERLAPPING or any(
            _overlap(call, *times) for times in retired
        )

    def repeated(self, call: PricedUsage) -> bool:
        """Return whether a record of another call with this response id prevents claiming this one."""
        key = call_key(call.usage.response_id)
        return key is not None and bool(self._by_response.get(call.usage.response_id) or key in self._retired)
