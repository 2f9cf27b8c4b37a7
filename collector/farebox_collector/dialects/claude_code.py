"""Claude Code: the log event of a model call, and the span of the same call under its beta tracing.

Source: sessions recorded from the tool, and its documentation of monitoring. Cache reads and writes are beside the
input. Log and span have the provider's request id, in place of the response id too, so that both are one call.
"""

from dataclasses import dataclass

from farebox_collector.dialects import agents
from farebox_collector.dialects.agents import (
    PlainCounts,
    Told,
    agent_record,
    nanoseconds_of_ms,
    reported_usage,
    text_of,
)
from farebox_collector.dialects.attribution import Origin
from farebox_collector.dialects.counts import Counts, Slots
from farebox_collector.dialects.memo import SpanShape
from farebox_collector.dialects.providers import payee_of
from farebox_collector.dialects.reconcile import Habits, Reported
from farebox_collector.dialects.record import Named, scope_of
from farebox_collector.dialects.text import (
    InvalidCount,
    Reductions,
    first_identity,
    first_text,
)
from farebox_collector.dialects.unusual import (
    Conditions,
    as_processed,
    conditions_in,
    facts_of,
)
from farebox_collector.model.records import (
    EVENT_NAME,
    NotBillable,
    Rejected,
    Span,
    UsageRecord,
)

NAME = "claude_code"

_SCOPE = "com.anthropic.claude_code"
"""The beginning of the names of its scopes."""
_CALL, _ERROR = "claude_code.api_request", "claude_code.api_error"
_SPAN_TYPE, _CALLING = "span.type", "llm_request"
_MODEL = ("model", "gen_ai.request.model")
_SPEED = "speed"
_SOURCE, _AGENT = "query_source", "agent.name"
_STATUS, _SUCCESS = "status_code", "success"
_SESSION, _SEQUENCE = "session.id", "event.sequence"
_REQUEST_ID = "request_id"
_TOOK, _FIRST_TOKEN = "duration_ms", "ttft_ms"
_LONG_CONTEXT = "[1m]"
"""What the tool adds to a model's name to ask for the long context."""

_SLOTS = Slots(
    {
        "input_tokens": (Reported._fields.index("input"), 0),
        "output_tokens": (Reported._fields.index("output"), 0),
        "cache_read_tokens": (Reported._fields.index("cache_read"), 0),
        "cache_creation_tokens": (Reported._fields.index("cache_write"), 0),
    }
)
_HABITS = Habits(cache_inside=False)
_PLAIN = PlainCounts("input_tokens", "cache_read_tokens", "cache_creation_tokens", "output_tokens")

EVENTS = frozenset({_CALL, _ERROR})
NAMES = frozenset({EVENT_NAME, _SPAN_TYPE, _SPEED, _SOURCE, _AGENT, _STATUS, _SUCCESS}).union(_MODEL)
KEYS = NAMES.union(agents.KEYS, _SLOTS, {_SESSION, _SEQUENCE, _REQUEST_ID, _TOOK, _FIRST_TOKEN})
ONCE = frozenset({_REQUEST_ID, _SEQUENCE, _TOOK, _FIRST_TOKEN})
REDUCED: Reductions = {}

_NO_CALL = NotBillable("operation_makes_no_tokens")
_TOLD_BY_LOG = NotBillable("failure_is_told_by_a_log")


def understand(shape: SpanShape) -> "_Call | NotBillable | None":
    """Read the names of a log record or span; see the package's contract."""
    if not shape.scope.startswith(_SCOPE):
        return None
    names = shape.names
    event = names.get(EVENT_NAME)
    is_call = event in EVENTS if event is not None else names.get(_SPAN_TYPE) == _CALLING
    if not is_call:
        return _NO_CALL
    failed = event == _ERROR or names.get(_SUCCESS) is False
    model = first_text(names, *_MODEL).removesuffix(_LONG_CONTEXT)
    payee = payee_of(names, _host_of(model), model)
    return _Call(
        named=Named(
            dialect=NAME,
            scope=scope_of(shape.scope),
            operation="chat",
            provider=payee.provider,
            request_model=model,
            response_model=model,
            error_type=(text_of(names.get(_STATUS)) or "error") if failed else "",
            facts=facts_of(shape, payee.inference_region),
        ),
        counts=Counts.of(_SLOTS, shape.keys, _HABITS),
        processed=conditions_in({"speed": names.get(_SPEED)}),
        subagent=_subagent(first_text(names, _AGENT), first_text(names, _SOURCE)),
        is_span=event is None,
    )


def _host_of(model: str) -> str:
    """Return who serves a model with this id: each cloud has a form of its own for them."""
    if "anthropic." in model or model.startswith("arn:aws"):
        return "aws.bedrock"
    return "gcp.vertex_ai" if "@" in model else "anthropic"


def _subagent(agent: str, source: str) -> str:
    """Return the name of the subagent that called; empty for the main loop."""
    return agent or (source if source.startswith("agent:") else "")


@dataclass(frozen=True, slots=True)
class _Call:
    """Calls of one kind."""

    named: Named
    counts: Counts
    processed: Conditions
    subagent: str
    is_span: bool

    def read(self, span: Span, origin: Origin) -> UsageRecord | NotBillable | Rejected:
        """Read one call of this kind."""
        attributes = span.attributes
        try:
            reading = reported_usage(_PLAIN.reading(attributes) or self.counts.reading(attributes))
        except InvalidCount as error:
            return Rejected(str(error))
        if self.is_span and reading.buckets is None and self.named.error_type:
            return _TOLD_BY_LOG
        told = Told(
            first_identity(attributes, _SESSION),
            text_of(attributes.get(_SEQUENCE)),
            first_identity(attributes, _REQUEST_ID),
            "",
            nanoseconds_of_ms(attributes.get(_TOOK)),
            nanoseconds_of_ms(attributes.get(_FIRST_TOKEN)),
            subagent=self.subagent,
        )
        return as_processed(agent_record(span, origin, self.named, reading, told), self.processed)
