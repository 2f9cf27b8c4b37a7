"""Find spans that sum up the calls within them, by their structure and not by a name. Pure.

A framework puts a span around its calls (a workflow, a chain, a graph, a model span around model spans) and gives it
the sum of their counts. Such a span is not a call: the calls within it are charged, and it is covered. Only sums of two
calls or more are detected here; a span with the counts of one call within it is its twin (`span_matching`).
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from farebox_collector.ledger.tables.usage_columns import Tokens, token_columns
from farebox_collector.ledger.usage.columns import Columns
from farebox_collector.model.records import Buckets, PricedUsage
from farebox_collector.model.verdicts import Verdict

MAX_SPANS = 256
"""Most records of one trace that are compared."""
_COUNTING = frozenset({Verdict.CHARGED, Verdict.UNPRICED})
_CACHED = ("cache_read_tokens", "cache_write_tokens", "cache_write_1h_tokens")
_SLACK_NS = 10**9
"""How far a call may appear to extend beyond the span around it: two clocks, two exporters."""


class Place(NamedTuple):
    """A span's position in its trace, and its counts."""

    span_id: bytes
    parent_span_id: bytes
    started_at_ns: int
    ended_at_ns: int
    response_id: str
    went_in: int
    came_out: int
    counts: bool
    """Whether it is charged, or would be if it had a price."""
    cached: int = 0
    """The part of the input that was read from or written to a cache."""
    reasoning: int = 0
    """The part of the output that is reasoning."""


def place_of(call: PricedUsage) -> Place:
    """Return the position of a call's span."""
    usage, buckets = call.usage, call.usage.buckets
    went_in = buckets.inclusive_input if buckets else 0
    return Place(
        usage.span_id,
        usage.parent_span_id,
        usage.started_at_ns,
        usage.started_at_ns + usage.latency_ns,
        usage.response_id,
        went_in,
        buckets.total - went_in if buckets else 0,
        call.verdict in _COUNTING and not usage.summary and buckets is not None and buckets.total > 0,
        *(parts_of(buckets) if buckets else ()),
    )


def parts_of(buckets: Buckets) -> tuple[int, int]:
    """Return the counts that some frameworks leave out of their sums: the cache, and the reasoning."""
    return buckets.cache_read + buckets.cache_write + buckets.cache_write_1h, buckets.reasoning


def sums_up_calls(calls: Sequence[PricedUsage], columns: Columns) -> bool:
    """Return whether a charged call sums up others of these. `columns` are the calls as columns."""
    unsettled = _traces_to_compare(columns)
    if not unsettled:
        return False
    traces: defaultdict[bytes, list[PricedUsage]] = defaultdict(list)
    for call in calls:
        if call.usage.trace_id in unsettled:
            traces[call.usage.trace_id].append(call)
    return any(len(trace) > 2 and wrappers_in(map(place_of, trace)) for trace in traces.values())


def _traces_to_compare(columns: Columns) -> set[bytes]:
    """Return the traces with a call within another, except those in which the inputs alone tell that none is a sum."""
    trace_of = dict(columns.rows("span_id", "trace_id"))
    nested = {trace for trace, parent in columns.rows("trace_id", "parent_span_id") if parent in trace_of}
    if not nested or len(trace_of) < columns.size:
        return nested
    parent_of = dict(columns.rows("span_id", "parent_span_id"))
    inputs = columns.total(token_columns(Tokens.INPUT))
    within: defaultdict[bytes, list[int]] = defaultdict(list)
    found = set()
    names = (columns.values[name] for name in ("trace_id", "parent_span_id", "summary"))
    others = columns.total(_CACHED), columns.total(token_columns(Tokens.OUTPUT))
    for trace, parent, summary, went_in, cached, came_out in columns.zipped(*names, inputs, *others):
        if trace not in nested:
            continue
        # Not settled by the input: by time, without the cache, without calls that have no output or no usage.
        if summary or cached or not came_out or (parent and trace_of.get(parent) != trace):
            found.add(trace)
            continue
        for _ in range(len(parent_of)):
            if parent not in parent_of:
                break
            within[parent].append(went_in)
            parent = parent_of[parent]
        else:
            found.add(trace)  # the parents form a circle
    # With the sum it is a wrapper; with the count of one, its twin, which changes the sums further out.
    for trace, span, own in columns.zipped(columns.values["trace_id"], columns.values["span_id"], inputs):
        if span in within and (own == sum(within[span]) or own in within[span]):
            found.add(trace)
    return found


def wrappers_in(spans: Iterable[Place]) -> set[bytes]:
    """Return the ids of the spans of one trace that sum up two or more calls within them."""
    trace = _Trace(list(spans)[:MAX_SPANS])
    found: set[bytes] = set()
    repeated: set[bytes] = set()
    for span in trace.innermost_first():
        known, others = trace.within(span)
        leaves = [one for one in known if one.span_id not in repeated]
        groups = [[one for one in group if one.span_id not in repeated] for group in others]
        if any(_sums_up(span, calls) for calls in _sets(leaves, groups)):
            found.add(span.span_id)
            repeated.add(span.span_id)
        elif any(_counts_of(calls) == (span.went_in, span.came_out) for calls in _sets(leaves, groups) if calls):
            repeated.add(span.span_id)  # the twin of one call: only one of the two counts further out
    return found


def _sets(known: Sequence[Place], groups: Sequence[Sequence[Place]]) -> Iterator[Sequence[Place]]:
    """Yield sets of calls that a span may sum up: those known to be within it, with none, all or one of the groups."""
    yield known
    if groups:
        yield [*known, *(one for group in groups for one in group)]
    if len(groups) > 1:
        for group in groups:
            yield [*known, *group]


def _sums_up(span: Place, calls: Sequence[Place]) -> bool:
    """Return whether a span has the summed counts of two or more calls; embeddings may be left out."""
    for counted in (calls, [one for one in calls if one.came_out]):
        apart = _apart(counted)
        if len(apart) > 1 and _may_be_sum(span, apart):
            return True
    return False


def _may_be_sum(span: Place, calls: Sequence[Place]) -> bool:
    """Return whether a span has the sum of some calls, with or without their cache and their reasoning."""
    went_in, came_out = _counts_of(calls)
    cached, reasoning = sum(one.cached for one in calls), sum(one.reasoning for one in calls)
    return span.went_in in (went_in, went_in - cached) and span.came_out in (came_out, came_out - reasoning)


def _apart(calls: Sequence[Place]) -> Sequence[Place]:
    """Return the calls without those that show the response of another one."""
    by_response = {one.response_id: one for one in calls if one.response_id}
    return [one for one in calls if not one.response_id or by_response[one.response_id] is one]


def _counts_of(calls: Sequence[Place]) -> tuple[int, int]:
    return sum(one.went_in for one in calls), sum(one.came_out for one in calls)


class _Trace:
    """The spans of one trace by their positions."""

    def __init__(self, spans: Sequence[Place]) -> None:
        self._spans = spans
        self._by_id: Mapping[bytes, Place] = {span.span_id: span for span in spans}
        self._ancestors = {span.span_id: self._chain(span) for span in spans}

    def innermost_first(self) -> list[Place]:
        """Return the counting spans, inner ones before outer ones."""
        counting = [span for span in self._spans if span.counts]
        return sorted(
            counting, key=lambda span: (span.ended_at_ns - span.started_at_ns, -len(self._ancestors[span.span_id][0]))
        )

    def within(self, outer: Place) -> tuple[list[Place], list[list[Place]]]:
        """Return the counting spans known to be within another, and those that may be, grouped by their common parent.

        If a span's parents are not all in the books, time decides; spans of one unknown parent belong together.
        """
        known: list[Place] = []
        others: defaultdict[bytes, list[Place]] = defaultdict(list)
        for span in self._spans:
            if not span.counts or span.span_id == outer.span_id:
                continue
            ancestors, unknown = self._ancestors[span.span_id]
            if outer.span_id in ancestors:
                known.append(span)
            elif unknown and self._may_hold(outer, span, unknown):
                others[unknown].append(span)
        return known, list(others.values())

    def _may_hold(self, outer: Place, span: Place, unknown: bytes) -> bool:
        """Return whether a span may be within another, judged by time. Siblings are not."""
        own, own_unknown = self._ancestors[outer.span_id]
        return (
            span.span_id not in own
            and unknown not in (outer.parent_span_id, own_unknown)
            and outer.started_at_ns <= span.started_at_ns
            and span.ended_at_ns <= outer.ended_at_ns + _SLACK_NS
        )

    def _chain(self, span: Place) -> tuple[frozenset[bytes], bytes]:
        """Return the known spans around a span, and the first unknown parent id; empty if the outermost has no
        parent."""
        seen: set[bytes] = {span.span_id}
        parent = span.parent_span_id
        while parent in self._by_id and parent not in seen:
            seen.add(parent)
            parent = self._by_id[parent].parent_span_id
        return frozenset(seen - {span.span_id}), b"" if parent in seen else parent
