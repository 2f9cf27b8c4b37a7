"""Report the quality of an answer, possibly long after the call: checked citations and human reviews."""

from __future__ import annotations

from opentelemetry import trace
from opentelemetry.trace import Span, TracerProvider

from farebox import span_attributes
from farebox.guard import guarded, report
from farebox.version import __version__

SPAN_NAME = "farebox.quality"


def report_quality(
    *,
    citation_rate: float | None = None,
    human_reviewed: bool | None = None,
    approved: bool | None = None,
    trace_id: str | int | None = None,
) -> bool:
    """Report the quality of a call's answer, during the call's trace or any time later.

        farebox.report_quality(citation_rate=0.8, trace_id=reply_trace_id)

    If a GenAI span is open in this context, the report is added to it. Otherwise, or for another trace, it is sent as a
    separate span with the current wallet, event, action and tags.

    Args:
        citation_rate: share of statements backed by sources, 0 to 1.
        human_reviewed: whether a person reviewed the answer.
        approved: whether the review approved it.
        trace_id: the call's trace: 32 hex digits, or OpenTelemetry's integer. None is the current one.

    Returns:
        Whether there was something to report and a trace to report on.
    """
    with guarded("reporting quality"):
        attributes: dict[str, float | bool | str] = {}
        if citation_rate is not None:
            if not 0 <= citation_rate <= 1:
                report("quality", f"citation_rate must be from 0 to 1, not {citation_rate!r}; it is ignored")
            else:
                attributes[span_attributes.CITATION_RATE] = float(citation_rate)
        if human_reviewed is not None:
            attributes[span_attributes.HUMAN_REVIEWED] = bool(human_reviewed)
        if approved is not None:
            attributes[span_attributes.REVIEW_APPROVED] = bool(approved)
        span = trace.get_current_span()
        about = _hex(trace_id) if trace_id is not None else _trace_of(span)
        if not attributes or about is None:
            return False
        if _takes_notes(span) and about == _trace_of(span):
            span.set_attributes(attributes)
            return True
        attributes[span_attributes.QUALITY_TRACE_ID] = about
        tracer = trace.get_tracer("farebox", __version__, _provider)
        tracer.start_span(SPAN_NAME, attributes=attributes).end()
        return True
    return False


_provider: TracerProvider | None = None


def use_provider(provider: TracerProvider | None) -> None:
    """Set the tracer provider of report spans; None for the global one."""
    global _provider
    _provider = provider


def _takes_notes(span: Span) -> bool:
    return span.is_recording() and span_attributes.is_genai(getattr(span, "attributes", None))


def _trace_of(span: Span) -> str | None:
    context = span.get_span_context()
    return f"{context.trace_id:032x}" if context.is_valid else None


def _hex(trace_id: str | int) -> str | None:
    try:
        number = int(trace_id, 16) if isinstance(trace_id, str) else int(trace_id)
    except ValueError:
        number = 0
    if 0 < number < 1 << 128:
        return f"{number:032x}"
    report("quality", f"{trace_id!r} is not a trace id; pass 32 hex digits or OpenTelemetry's integer")
    return None
