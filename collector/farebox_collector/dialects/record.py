"""The usage record of a span, once a dialect knows what the call was and what it used."""

from farebox_collector.dialects.attribution import Origin
from farebox_collector.dialects.text import clean
from farebox_collector.records import AttributeValue, Buckets, Rejected, Span, UsageRecord
from farebox_collector.units import Units

_NO_ID = (b"", bytes(8), bytes(16))
_MAX_TIME_NS = 2**63 - 1
"""As much as a column holds: nonsense is cut to that, and flagged by pricing."""


def usage_record(
    span: Span,
    origin: Origin,
    *,
    dialect: str,
    operation: str,
    provider: str,
    request_model: str,
    response_model: str,
    buckets: Buckets | None,
    assumptions: tuple[str, ...],
    response_id: str = "",
    service_tier: str = "",
    error_type: str = "",
    summary: bool = False,
    time_to_first_chunk_ns: int | None = None,
    units: Units = (),
) -> UsageRecord | Rejected:
    """The record of a call as a dialect understood it, or why there cannot be one."""
    if len(span.trace_id) != 16 or span.trace_id in _NO_ID or len(span.span_id) != 8 or span.span_id in _NO_ID:
        return Rejected("the trace id or span id is missing or malformed")
    start_ns, latency_ns = span.start_ns, span.end_ns - span.start_ns
    if not (0 <= start_ns <= _MAX_TIME_NS and 0 <= latency_ns <= _MAX_TIME_NS):
        start_ns, latency_ns = (min(max(0, moment), _MAX_TIME_NS) for moment in (start_ns, latency_ns))
    # By position, in the order of the fields: naming thirty of them takes as long as all the rest of this function.
    return UsageRecord(
        span.trace_id,
        span.span_id,
        span.parent_span_id,
        start_ns,
        latency_ns,
        origin.wallet,
        origin.event,
        origin.action_id,
        operation,
        provider,
        request_model,
        response_model,
        response_id,
        service_tier,
        error_type or ("error" if span.failed else ""),
        buckets,
        summary,
        time_to_first_chunk_ns,
        origin.dept,
        origin.project,
        origin.task,
        origin.route,
        origin.region,
        dialect,
        origin.assumptions + assumptions,
        units,
        origin.quality,
        clean(span.scope_name),
        origin.user_id,
    )


def nanoseconds(seconds: AttributeValue | None) -> int | None:
    """A duration in seconds as nanoseconds; None for anything that is no duration of less than a day."""
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds < 86_400:
        return None
    return round(seconds * 1e9)
