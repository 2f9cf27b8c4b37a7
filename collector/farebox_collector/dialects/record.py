"""Build the usage record of a span after a dialect has read its names and usage."""

from typing import NamedTuple, Protocol

from farebox_collector.dialects.answer_quality import quality_of
from farebox_collector.dialects.attribution import ACTION_ID, Origin
from farebox_collector.dialects.reconcile import Reading
from farebox_collector.dialects.text import clean, first_identity
from farebox_collector.dialects.unusual import (
    ORDINARY,
    Facts,
    call_facts,
    estimated,
    plausible,
)
from farebox_collector.model.records import (
    IMPLAUSIBLE,
    NO_QUALITY,
    AttributeValue,
    Buckets,
    ModelLine,
    NotBillable,
    QualityReport,
    Rejected,
    Span,
    UsageRecord,
)
from farebox_collector.model.units import Units

_NO_TRACE, _NO_SPAN = bytes(16), bytes(8)
_MAX_TIME_NS = 2**63 - 1
"""The largest value of a column: nonsense is cut to it, and flagged by pricing."""
_named = tuple.__new__


class Call(Protocol):
    """The result of reading a span's names; reads all spans of the same shape."""

    def read(self, span: Span, origin: Origin) -> UsageRecord | QualityReport | NotBillable | Rejected:
        """Read one span of this shape."""


class Named(NamedTuple):
    """The part of a usage record that a span's names determine."""

    dialect: str
    scope: str
    operation: str
    provider: str
    request_model: str
    response_model: str
    service_tier: str = ""
    error_type: str = ""
    summary: bool = False
    facts: Facts = ORDINARY


def usage_record(
    span: Span,
    origin: Origin,
    named: Named,
    reading: Reading,
    units: Units = (),
    response_id: str = "",
    time_to_first_chunk_ns: int | None = None,
    lines: tuple[ModelLine, ...] = (),
    action_id: str = "",
) -> UsageRecord | Rejected:
    """Build the record of a call from a dialect's reading, or return why there is none; a span's own action counts."""
    trace_id, span_id, parent_span_id, start_ns, end_ns, failed, attributes, _, _, _ = span
    if len(trace_id) != 16 or trace_id == _NO_TRACE or len(span_id) != 8 or span_id == _NO_SPAN:
        return Rejected("the trace id or span id is missing or malformed")
    latency_ns = end_ns - start_ns
    if not (0 <= start_ns <= _MAX_TIME_NS and 0 <= latency_ns <= _MAX_TIME_NS):
        start_ns, latency_ns = (min(max(0, moment), _MAX_TIME_NS) for moment in (start_ns, latency_ns))
    wallet, event, dept, project, task, route, region, about_origin, user_id, has_action, has_quality, _ = origin
    dialect, scope, operation, provider, asked, answered, service_tier, error_type, summary, facts = named
    speed, inference_region, exposure, more, about_facts = facts
    stated = None
    if more:
        own_facts = call_facts(attributes)
        lines, stated = lines + own_facts.lines, own_facts.stated_cost_nanousd
        about_facts += own_facts.assumptions
        if exposure:
            reading = estimated(reading, attributes)
    buckets, assumptions, cached, other = reading
    if units or cached:
        units, buckets, assumptions = _all_units(dict(units), reading)
    if about_facts:
        assumptions += about_facts
    # A plain tuple in field order: thirty keyword arguments would double the time of this function.
    return _named(
        UsageRecord,
        (
            trace_id,
            span_id,
            parent_span_id,
            start_ns,
            latency_ns,
            wallet,
            event,
            (first_identity(attributes, ACTION_ID) if has_action else "") or action_id,
            operation,
            provider,
            asked,
            answered,
            response_id,
            service_tier,
            error_type or ("error" if failed else ""),
            buckets,
            summary,
            time_to_first_chunk_ns,
            dept,
            project,
            task,
            route,
            region,
            dialect,
            about_origin + assumptions,
            units,
            quality_of(attributes) if has_quality else NO_QUALITY,
            scope,
            user_id,
            speed,
            inference_region,
            lines,
            stated,
            other,
            exposure,
        ),
    )


def _all_units(together: dict[str, int], reading: Reading) -> tuple[Units, Buckets | None, tuple[str, ...]]:
    """Return all units of a call. If one exceeds what a call can use, drop the units and the counts."""
    for name, count in reading.units:
        together[name] = together.get(name, 0) + count
    units = tuple(sorted(together.items()))
    if plausible(units) and IMPLAUSIBLE not in reading.assumptions:
        return units, reading.buckets, reading.assumptions
    return (), None, tuple(dict.fromkeys((*reading.assumptions, IMPLAUSIBLE)))


def scope_of(name: str) -> str:
    """Return the name of a scope as a record stores it."""
    return clean(name)


def nanoseconds(seconds: AttributeValue | None) -> int | None:
    """Convert a duration in seconds to nanoseconds; None unless it is a duration of less than a day."""
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds < 86_400:
        return None
    return round(seconds * 1e9)
