"""Reports on an answer that arrive after its calls, such as a review by a person.

The SDK's `report_quality` sends them as spans that name the trace they are about, and no model.
"""

from farebox_collector.dialects.answer_quality import QUALITY_KEYS
from farebox_collector.dialects.attribution import Origin
from farebox_collector.dialects.text import Reductions
from farebox_collector.records import AttributeValue, QualityReport, Rejected, Span

NAME = "quality"

_SUBJECT = "farebox.quality.trace_id"

KEYS = QUALITY_KEYS | {_SUBJECT}
ONCE = frozenset({"farebox.citation_rate", _SUBJECT})
REDUCED: Reductions = {}


def read(span: Span, origin: Origin) -> QualityReport | Rejected | None:
    """Read one span; see the package's contract."""
    attributes = span.attributes
    subject = attributes.get(_SUBJECT)
    # What names a model or a provider is a call, whatever else it says.
    if subject is None or any(key.startswith("gen_ai.") for key in attributes):
        return None
    trace_id = _trace_id(subject)
    if trace_id is None:
        return Rejected(f"{_SUBJECT} is no trace id of 32 hexadecimal digits")
    if len(span.trace_id) != 16 or len(span.span_id) != 8 or not any(span.trace_id) or not any(span.span_id):
        return Rejected("the trace id or span id is missing or malformed")
    return QualityReport(span.trace_id, span.span_id, trace_id, origin.quality)


def _trace_id(value: AttributeValue) -> bytes | None:
    if not isinstance(value, str) or len(value) != 32:
        return None
    try:
        trace_id = bytes.fromhex(value)
    except ValueError:
        return None
    return trace_id if len(trace_id) == 16 and any(trace_id) else None
