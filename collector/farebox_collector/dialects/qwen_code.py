"""Qwen Code: the log events of answered and failed calls.

Source: a session recorded from the tool, and its shipped source. It began as a copy of Gemini CLI, and calls any
provider by that provider's interface. It counts as the provider does: the total shows where the thoughts are. An event
has the provider's response id.
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
from farebox_collector.dialects.providers import payee_of, provider_of_model
from farebox_collector.dialects.reconcile import INSIDE, Reported
from farebox_collector.dialects.record import Named, scope_of
from farebox_collector.dialects.text import (
    InvalidCount,
    Reductions,
    first_identity,
    first_text,
)
from farebox_collector.dialects.unusual import facts_of
from farebox_collector.model.records import (
    EVENT_NAME,
    Rejected,
    Span,
    UsageRecord,
)

NAME = "qwen_code"

_CALL, _ERROR = "qwen-code.api_response", "qwen-code.api_error"
_MODEL = ("model", "model_name")
_AUTH, _SUBAGENT = "auth_type", "subagent_name"
_STATUS, _ERROR_TYPE = "status_code", "error.type"
_SESSION, _PROMPT, _RESPONSE_ID = "session.id", "prompt_id", "response_id"
_TOOK = "duration_ms"
_HOSTS = {"gemini": "gcp.gemini", "vertex-ai": "gcp.vertex_ai", "anthropic": "anthropic"}
_OWN_MODELS = ("qwen", "qwq")
_BY_LOGIN = "qwen-oauth"

_SLOTS = Slots(
    {
        "input_token_count": (Reported._fields.index("input"), 0),
        "output_token_count": (Reported._fields.index("output"), 0),
        "cached_content_token_count": (Reported._fields.index("cache_read"), 0),
        "thoughts_token_count": (Reported._fields.index("reasoning"), 0),
        "total_token_count": (Reported._fields.index("total"), 0),
    }
)

EVENTS = frozenset({_CALL, _ERROR})
NAMES = frozenset({EVENT_NAME, _AUTH, _SUBAGENT, _STATUS, _ERROR_TYPE}).union(_MODEL)
KEYS = NAMES.union(agents.KEYS, _SLOTS, {_SESSION, _PROMPT, _RESPONSE_ID, _TOOK})
ONCE = frozenset({_RESPONSE_ID, _TOOK})
REDUCED: Reductions = {}


def understand(shape: SpanShape) -> "_Call | None":
    """Read the names of a log record; see the package's contract."""
    names = shape.names
    event = names.get(EVENT_NAME)
    if event not in EVENTS:
        return None
    model = first_text(names, *_MODEL)
    auth = first_text(names, _AUTH)
    payee = payee_of(names, _HOSTS.get(auth) or _seller_of(model), model)
    failure = text_of(names.get(_STATUS)) or first_text(names, _ERROR_TYPE) or "error"
    return _Call(
        named=Named(
            dialect=NAME,
            scope=scope_of(shape.scope),
            operation="chat",
            provider=payee.provider,
            request_model=model,
            response_model=model,
            error_type=failure if event == _ERROR else "",
            facts=facts_of(shape, payee.inference_region),
        ),
        counts=Counts.of(_SLOTS, shape.keys, INSIDE),
        assumptions=payee.assumptions,
        subscription=auth == _BY_LOGIN,
        subagent=first_text(names, _SUBAGENT),
    )


def _seller_of(model: str) -> str:
    """Return who sells a model that was called by OpenAI's interface: the event does not have the address."""
    return "alibaba" if model.lower().startswith(_OWN_MODELS) else provider_of_model(model)


@dataclass(frozen=True, slots=True)
class _Call:
    """Calls of one kind."""

    named: Named
    counts: Counts
    assumptions: tuple[str, ...]
    subscription: bool
    subagent: str

    def read(self, span: Span, origin: Origin) -> UsageRecord | Rejected:
        """Read one call of this kind."""
        attributes = span.attributes
        try:
            reading = reported_usage(self.counts.reading(attributes))
        except InvalidCount as error:
            return Rejected(str(error))
        told = Told(
            session=first_identity(attributes, _SESSION),
            sequence=first_identity(attributes, _PROMPT),
            response_id=first_identity(attributes, _RESPONSE_ID),
            took_ns=nanoseconds_of_ms(attributes.get(_TOOK)),
            subscription=self.subscription,
            subagent=self.subagent,
        )
        reading = reading._replace(assumptions=reading.assumptions + self.assumptions)
        return agent_record(span, origin, self.named, reading, told)
