"""Codex CLI: the log event of a completed response, and those of requests and streams that failed.

Source: sessions recorded from the tool, and its published source. The cache is inside the input, the reasoning inside
the output; `tool_token_count` is the total. Each completed response has two events: one for the end of the stream, and
one with the counts. An event has no id and no number. The spans have counts without a model, and are no calls.
"""

from dataclasses import dataclass

from farebox_collector.dialects import agents
from farebox_collector.dialects.agents import (
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
    count_of,
    first_identity,
    first_text,
)
from farebox_collector.dialects.unusual import facts_of
from farebox_collector.model.records import (
    EVENT_NAME,
    Attributes,
    NotBillable,
    Rejected,
    Span,
    UsageRecord,
)

NAME = "codex_cli"

_STREAM, _REQUEST = "codex.sse_event", "codex.api_request"
_KIND, _COMPLETED = "event.kind", "response.completed"
_STATUS, _ENDPOINT = "http.response.status_code", "endpoint"
_ERROR = "error.message"
_MODEL = ("model", "slug")
_AUTH = "auth_mode"
_SESSION = "conversation.id"
_REQUEST_ID = "auth.request_id"
_TOOK, _FIRST_TOKEN = "duration_ms", "ttft_ms"
_MODEL_ENDPOINTS = ("/responses", "/chat/completions")
_REFUSED = 400
"""The first status code of a refused request."""

_SLOTS = Slots(
    {
        "input_token_count": (Reported._fields.index("input"), 0),
        "output_token_count": (Reported._fields.index("output"), 0),
        "cached_token_count": (Reported._fields.index("cache_read"), 0),
        "cache_write_token_count": (Reported._fields.index("cache_write"), 0),
        "reasoning_token_count": (Reported._fields.index("reasoning"), 0),
    }
)
_HABITS = Habits(cache_inside=True)

EVENTS = frozenset({_STREAM, _REQUEST})
NAMES = frozenset({EVENT_NAME, _KIND, _STATUS, _ENDPOINT, _ERROR, _AUTH}).union(_MODEL)
KEYS = NAMES.union(agents.KEYS, _SLOTS, {_SESSION, _REQUEST_ID, _TOOK, _FIRST_TOKEN})
ONCE = frozenset({_REQUEST_ID, _TOOK, _FIRST_TOKEN})
REDUCED: Reductions = {_ERROR: lambda text: "error"}

_RESTATED = NotBillable("restates_another_event")


def understand(shape: SpanShape) -> "_Call | NotBillable | None":
    """Read the names of a log record; see the package's contract."""
    names = shape.names
    if names.get(EVENT_NAME) not in EVENTS:
        return None
    counted = not shape.keys.isdisjoint(_SLOTS)
    error_type = "" if counted else _failure(names)
    if not counted and not error_type:
        return _RESTATED
    model = first_text(names, *_MODEL)
    payee = payee_of(names, "openai", model)
    return _Call(
        named=Named(
            dialect=NAME,
            scope=scope_of(shape.scope),
            operation="chat",
            provider=payee.provider,
            request_model=model,
            response_model=model,
            error_type=error_type,
            facts=facts_of(shape, payee.inference_region),
        ),
        counts=Counts.of(_SLOTS, shape.keys, _HABITS),
        assumptions=payee.assumptions,
        subscription=first_text(names, _AUTH).lower().startswith("chatgpt"),
    )


def _failure(names: Attributes) -> str:
    """Return how a call failed, by an event without counts; empty if the event does not tell of a failed call."""
    if names.get(EVENT_NAME) == _STREAM:
        return first_text(names, _KIND) or "stream" if _ERROR in names else ""
    endpoint = first_text(names, _ENDPOINT)
    if endpoint and not endpoint.endswith(_MODEL_ENDPOINTS):
        return ""  # a list of models, or an upload
    try:
        status = count_of(_STATUS, names.get(_STATUS))
    except InvalidCount:
        status = None
    if status is None:
        return "error" if _ERROR in names else ""
    return str(status) if status >= _REFUSED else ""


@dataclass(frozen=True, slots=True)
class _Call:
    """Calls of one kind."""

    named: Named
    counts: Counts
    assumptions: tuple[str, ...]
    subscription: bool

    def read(self, span: Span, origin: Origin) -> UsageRecord | Rejected:
        """Read one call of this kind."""
        attributes = span.attributes
        try:
            reading = reported_usage(self.counts.reading(attributes))
        except InvalidCount as error:
            return Rejected(str(error))
        told = Told(
            session=first_identity(attributes, _SESSION),
            # Attempts of one request may fail within the same millisecond.
            sequence=text_of(attributes.get(_REQUEST_ID)),
            took_ns=nanoseconds_of_ms(attributes.get(_TOOK)),
            first_chunk_ns=nanoseconds_of_ms(attributes.get(_FIRST_TOKEN)),
            subscription=self.subscription,
        )
        reading = reading._replace(assumptions=reading.assumptions + self.assumptions)
        return agent_record(span, origin, self.named, reading, told)
