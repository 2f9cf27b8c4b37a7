"""Gemini CLI: the log events of answered and failed calls.

Source: sessions recorded from the tool, and its shipped source. The cache is inside the input; thoughts are beside the
output, and tokens of tools that Google ran beside the input. An event has no id and no number. The tool tells each
response again in the event and the span of the GenAI conventions, with fewer counts: both are left to the event here.
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
from farebox_collector.dialects.counts import Places, Slots, reported_in
from farebox_collector.dialects.memo import SpanShape
from farebox_collector.dialects.providers import payee_of
from farebox_collector.dialects.reconcile import (
    Habits,
    Reading,
    Reported,
    disjoint,
)
from farebox_collector.dialects.record import Named, scope_of
from farebox_collector.dialects.text import (
    InvalidCount,
    Reductions,
    first_count,
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

NAME = "gemini_cli"

_SCOPE = "gemini-cli"
_CALL, _ERROR = "gemini_cli.api_response", "gemini_cli.api_error"
_OF_CONVENTIONS = "gen_ai.client.inference.operation.details"
_MODEL = ("model", "model_name")
_AUTH, _ROLE = "auth_type", "role"
_STATUS, _ERROR_TYPE = "status_code", "error.type"
_SESSION, _PROMPT = "session.id", "prompt_id"
_TOOK = "duration_ms"
_TOOL_TOKENS = "tool_token_count"
_BY_SEAT = frozenset({"oauth-personal", "compute-default-credentials"})
"""Logins to Code Assist, which bills by the seat."""
_VERTEX = "vertex-ai"
_MAIN = "main"
"""The role of the main loop. Others are subagents, and helpers such as the router of models."""

_SLOTS = Slots(
    {
        "input_token_count": (Reported._fields.index("input"), 0),
        "output_token_count": (Reported._fields.index("output"), 0),
        "cached_content_token_count": (Reported._fields.index("cache_read"), 0),
        "thoughts_token_count": (Reported._fields.index("reasoning"), 0),
        "total_token_count": (Reported._fields.index("total"), 0),
    }
)
_HABITS = Habits(cache_inside=True, reasoning_inside=False)

EVENTS = frozenset({_CALL, _ERROR, _OF_CONVENTIONS})
NAMES = frozenset({EVENT_NAME, _AUTH, _ROLE, _STATUS, _ERROR_TYPE}).union(_MODEL)
KEYS = NAMES.union(agents.KEYS, _SLOTS, {_SESSION, _PROMPT, _TOOK, _TOOL_TOKENS})
ONCE = frozenset({_TOOK})
REDUCED: Reductions = {}

_RESTATED = NotBillable("restates_another_event")
_TOLD_BY_LOG = NotBillable("usage_is_told_by_a_log")


def understand(shape: SpanShape) -> "_Call | NotBillable | None":
    """Read the names of a log record or span; see the package's contract."""
    names = shape.names
    event = names.get(EVENT_NAME)
    if event not in (_CALL, _ERROR):
        if shape.scope != _SCOPE:
            return None
        return _TOLD_BY_LOG if event is None else _RESTATED
    model = first_text(names, *_MODEL)
    auth = first_text(names, _AUTH)
    payee = payee_of(names, "gcp.vertex_ai" if auth == _VERTEX else "gcp.gemini", model)
    failure = text_of(names.get(_STATUS)) or first_text(names, _ERROR_TYPE) or "error"
    role = first_text(names, _ROLE)
    return _Call(
        named=Named(
            dialect=NAME,
            scope=scope_of(shape.scope),
            operation="generate_content",
            provider=payee.provider,
            request_model=model,
            response_model=model,
            error_type=failure if event == _ERROR else "",
            facts=facts_of(shape, payee.inference_region),
        ),
        places=_SLOTS.among(shape.keys),
        subscription=auth in _BY_SEAT,
        subagent="" if role == _MAIN else role,
    )


@dataclass(frozen=True, slots=True)
class _Call:
    """Calls of one kind."""

    named: Named
    places: Places
    subscription: bool
    subagent: str

    def read(self, span: Span, origin: Origin) -> UsageRecord | Rejected:
        """Read one call of this kind."""
        attributes = span.attributes
        try:
            reading = reported_usage(self._reading(attributes))
        except InvalidCount as error:
            return Rejected(str(error))
        told = Told(
            session=first_identity(attributes, _SESSION),
            sequence=first_identity(attributes, _PROMPT),
            took_ns=nanoseconds_of_ms(attributes.get(_TOOK)),
            subscription=self.subscription,
            subagent=self.subagent,
        )
        return agent_record(span, origin, self.named, reading, told)

    def _reading(self, attributes: Attributes) -> Reading:
        """Read the counts. Raises InvalidCount."""
        reported = reported_in(attributes, self.places)
        if reported is None:
            return Reading(None)
        tools = first_count(attributes, _TOOL_TOKENS) or 0
        parts = (reported.input or 0) + (reported.output or 0) + reported.reasoning
        if tools and (not reported.total or reported.total >= parts + tools):
            reported = reported._replace(input=(reported.input or 0) + tools)
        return disjoint(reported, _HABITS)
