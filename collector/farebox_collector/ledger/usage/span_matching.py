"""Match spans of the same call: whether two spans show one call, and which of them knows more. Pure."""

from farebox_collector.model.records import UNATTRIBUTED, PricedUsage, UsageRecord
from farebox_collector.model.verdicts import Verdict
from farebox_collector.pricing.parts import BY_ESTIMATE

Knowledge = tuple[bool, bool, bool, int, int, int, bool, bool]


def knowledge(call: PricedUsage) -> Knowledge:
    """Return the sort key by which one of two spans of a call knows more, the most significant item first.

    The span can be charged; names the wallet; is not an estimate and not known to miscount; reports searches, parts of
    other models and the provider's stated cost; has higher counts (one of them may lack the output of an interrupted
    stream); reports the cache, and its lifetime; has the response id.
    """
    usage = call.usage
    buckets = usage.buckets
    return (
        call.verdict is Verdict.CHARGED,
        usage.wallet != UNATTRIBUTED,
        BY_ESTIMATE not in call.assumptions and "output_counts_the_start_twice" not in call.assumptions,
        len(usage.units) + len(usage.other_lines) + (usage.stated_cost_nanousd is not None),
        buckets.total if buckets else 0,
        buckets.cache_read + buckets.cache_write + buckets.cache_write_1h if buckets else 0,
        "cache_write_lifetime_unknown" not in call.assumptions,
        bool(usage.response_id),
    )


def show_one_call(one: PricedUsage, other: PricedUsage) -> bool:
    """Return whether two spans of one trace, of which one has no response id, show the same call.

    Either one is nested in the other, or they overlap and come from two instrumentations: a framework's span that ended
    early or was written afterwards, and the client's span below it. Spans between them need not be in the books.
    """
    a, b = one.usage, other.usage
    if (a.response_id and b.response_id) or a.request_model != b.request_model:
        return False
    unmetered = _counts_nothing(one) or _counts_nothing(other)
    if b.parent_span_id == a.span_id:
        return (unmetered or _output(a) == _output(b)) and _is_around(a, b)
    if a.parent_span_id == b.span_id:
        return (unmetered or _output(a) == _output(b)) and _is_around(b, a)
    return (
        bool(a.scope and b.scope)
        and a.scope != b.scope
        and a.buckets is not None
        and _output(a) == _output(b)
        and _overlap(a, b)
    )


def _counts_nothing(call: PricedUsage) -> bool:
    """Return whether the counts of a call are zero, or an estimate."""
    return call.verdict in (Verdict.UNMETERED, Verdict.EXPOSED) or BY_ESTIMATE in call.assumptions


def is_outranked(one: PricedUsage, other: PricedUsage) -> bool:
    """Return whether, of two spans of one call, the other one pays."""
    known, other_known = knowledge(one), knowledge(other)
    if known != other_known:
        return known < other_known
    a, b = one.usage, other.usage
    if a.parent_span_id == b.span_id:
        return False  # the inner span is nearer to the provider
    if b.parent_span_id == a.span_id:
        return True
    return (a.started_at_ns, a.span_id) > (b.started_at_ns, b.span_id)


def likeness(usage: UsageRecord) -> tuple[str, tuple[int, int] | None]:
    """Return what two spans of one call, of which one has no response id, have in common."""
    return usage.request_model, _output(usage)


def _output(usage: UsageRecord) -> tuple[int, int] | None:
    """Return the output tokens, or without output the input tokens: equal in two spans of one call."""
    buckets = usage.buckets
    if buckets is None:
        return None
    return (buckets.output, 0 if buckets.output else buckets.inclusive_input)


def _is_around(outer: UsageRecord, inner: UsageRecord) -> bool:
    return (
        outer.started_at_ns <= inner.started_at_ns
        and outer.started_at_ns + outer.latency_ns >= inner.started_at_ns + inner.latency_ns
    )


def _overlap(a: UsageRecord, b: UsageRecord) -> bool:
    return a.started_at_ns <= b.started_at_ns + b.latency_ns and b.started_at_ns <= a.started_at_ns + a.latency_ns
