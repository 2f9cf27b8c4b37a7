"""Quality reports on an answer that arrive after its calls, such as a review by a person.

The SDK's `report_quality` sends them as spans that name the trace they describe, and no model.
"""

from farebox_collector.dialects.answer_quality import QUALITY_KEYS, quality_of
from farebox_collector.dialects.attribution import Origin
from farebox_collector.dialects.memo import SpanShape
from farebox_collector.dialects.text import Reductions
from farebox_collector.model.records import (
    NO_QUALITY,
    AttributeValue,
    QualityReport,
    Rejected,
    Span,
)

NAME = "quality"

_SUBJECT = "farebox.quality.trace_id"

NAMES: frozenset[str] = frozenset()
KEYS = QUALITY_KEYS | {_SUBJECT}
ONCE = frozenset({"farebox.citation_rate", _SUBJECT})
REDUCED: Reductions = {}


def understand(shape: SpanShape) -> "_Report | None":
    """Return a reader if the span is a report; see the package's contract."""
    # A span that names a model or a provider is a call, even if it also names a trace.
    if _SUBJECT not in shape.keys or any(key.startswith("gen_ai.") for key in shape.keys):
        return None
    return _Report()


class _Report:
    """Spans that report on other spans."""

    def read(self, span: Span, origin: Origin) -> QualityReport | Rejected:
        """Read one report."""
        trace_id = _trace_id(span.attributes[_SUBJECT])
        if trace_id is None:
            return Rejected(f"{_SUBJECT} is not a trace id of 32 hexadecimal digits")
        if len(span.trace_id) != 16 or len(span.span_id) != 8 or not any(span.trace_id) or not any(span.span_id):
            return Rejected("the trace id or span id is missing or malformed")
        quality = quality_of(span.attributes) if origin.has_quality else NO_QUALITY
        return QualityReport(span.trace_id, span.span_id, trace_id, quality)


def _trace_id(value: AttributeValue) -> bytes | None:
    if not isinstance(value, str) or len(value) != 32:
        return None
    try:
        trace_id = bytes.fromhex(value)
    except ValueError:
        return None
    return trace_id if len(trace_id) == 16 and any(trace_id) else None
