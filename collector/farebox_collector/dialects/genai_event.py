"""The event of the OpenTelemetry GenAI conventions that tells a call by a log record, with the attributes of its span.

An instrumentation writes it beside the span or in its place. It is within the span and has the same response id, so
that both are one call.
"""

from dataclasses import dataclass

from farebox_collector.dialects import genai
from farebox_collector.dialects.attribution import Origin
from farebox_collector.dialects.event_identity import identified
from farebox_collector.dialects.memo import SpanShape
from farebox_collector.dialects.record import Call
from farebox_collector.dialects.text import Reductions, first_identity
from farebox_collector.model.records import (
    EVENT_NAME,
    NotBillable,
    QualityReport,
    Rejected,
    Span,
    UsageRecord,
)

NAME = "genai_event"

_EVENT = "gen_ai.client.inference.operation.details"
_CONVERSATION = "gen_ai.conversation.id"
_RESPONSE_ID = "gen_ai.response.id"
_COUNTS = ("gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens")

EVENTS = frozenset({_EVENT})
NAMES = genai.NAMES | {EVENT_NAME}
KEYS = genai.KEYS.union(NAMES, {_CONVERSATION})
ONCE = genai.ONCE
REDUCED: Reductions = genai.REDUCED


def understand(shape: SpanShape) -> "_Call | NotBillable | None":
    """Read the names of a log record; see the package's contract."""
    if shape.names.get(EVENT_NAME) != _EVENT:
        return None
    call = genai.understand(shape)
    return call if call is None or isinstance(call, NotBillable) else _Call(call)


@dataclass(frozen=True, slots=True)
class _Call:
    """Events with the attributes of one kind of span."""

    span: Call
    """Reads the attributes of such a span."""

    def read(self, span: Span, origin: Origin) -> UsageRecord | QualityReport | NotBillable | Rejected:
        """Read one event of this kind."""
        attributes = span.attributes
        event = identified(
            span,
            NAME,
            request_id=first_identity(attributes, _RESPONSE_ID),
            session=first_identity(attributes, _CONVERSATION),
            counts=[str(attributes.get(key, "")) for key in _COUNTS],
        )
        record = self.span.read(event, origin)
        return record._replace(dialect=NAME) if isinstance(record, UsageRecord) else record
