"""OpenInference: `openinference.span.kind` and `llm.*`, as Arize's instrumentations write them.

Source: the OpenInference specification and its released instrumentations. The prompt count includes the cache. No
attribute has the response's id. If `output.value` is the provider's answer as JSON, the id is taken from it, and the
rest of the answer is dropped.
"""

from dataclasses import dataclass

from farebox_collector.dialects.attribution import Origin
from farebox_collector.dialects.counts import Counts
from farebox_collector.dialects.emitters import Keys, habits_at, slots_of
from farebox_collector.dialects.memo import SpanShape
from farebox_collector.dialects.other_units import unit_keys, units_of
from farebox_collector.dialects.providers import payee_of
from farebox_collector.dialects.reconcile import INSIDE
from farebox_collector.dialects.record import Named, scope_of, usage_record
from farebox_collector.dialects.text import (
    InvalidCount,
    Reductions,
    first_identity,
    first_text,
)
from farebox_collector.dialects.unusual import SERVICE_TIER, facts_of
from farebox_collector.dialects.usage_json import (
    numbers_in,
    parsed,
    service_tier_in,
    web_searches,
)
from farebox_collector.model.records import (
    IMPLAUSIBLE,
    NotBillable,
    Rejected,
    Span,
    UsageRecord,
)
from farebox_collector.model.units import InvalidUnit

NAME = "openinference"

KIND = "openinference.span.kind"
_OPERATIONS = {
    "LLM": "chat",
    "EMBEDDING": "embeddings",
    "AGENT": "invoke_agent",
    "CHAIN": "invoke_workflow",
}
_SUMMARIES = frozenset({"AGENT", "CHAIN"})
_PROVIDER = ("llm.provider", "llm.system", "embedding.provider", "gen_ai.provider.name")
_REQUEST_MODEL = ("llm.request.model_name", "llm.model_name", "embedding.model_name", "gen_ai.request.model")
_RESPONSE_MODEL = ("llm.response.model_name", "llm.model_name", "gen_ai.response.model")
_TIER = "openai.response.service_tier"
_RESPONSE_ID = "gen_ai.response.id"
_OUTPUT = "output.value"
_METADATA = "metadata"
_PARAMETERS = "llm.invocation_parameters"
# An instrumentation may write the conventions' keys on the same span: aliases of the same counts.
_SLOTS = slots_of(
    Keys(
        input=("llm.token_count.prompt", "gen_ai.usage.input_tokens"),
        output=("llm.token_count.completion", "gen_ai.usage.output_tokens"),
        total=("llm.token_count.total",),
        cache_read=("llm.token_count.prompt_details.cache_read", "gen_ai.usage.cache_read.input_tokens"),
        cache_write=("llm.token_count.prompt_details.cache_write", "gen_ai.usage.cache_write.input_tokens"),
        reasoning=("llm.token_count.completion_details.reasoning", "gen_ai.usage.reasoning.output_tokens"),
        input_audio=("llm.token_count.prompt_details.audio",),
        output_audio=("llm.token_count.completion_details.audio",),
    )
)

NAMES = frozenset({KIND, _TIER, _PARAMETERS}).union(_PROVIDER, _REQUEST_MODEL, _RESPONSE_MODEL)
KEYS = NAMES.union({_OUTPUT, _METADATA, _RESPONSE_ID}, _SLOTS)
ONCE = frozenset({_OUTPUT, _METADATA})

_NOT_A_CALL = NotBillable("operation_makes_no_tokens")
_NO_MODEL = NotBillable("names_no_model")
_EMPTY_SUMMARY = NotBillable("summary_without_usage")

_ID_STARTS = ("resp_", "chatcmpl-", "msg_", "gen-")
"""Prefixes of providers' response ids; `msg_` is last, because parts of a response have such ids too."""
_ID_MAX = 100
_SEARCHED_MAX = 200_000


def response_id_of(answer: str) -> str | None:
    """Find the response's id in a provider's JSON answer; None for any other text.

    Quotes within JSON strings are escaped, so text written by a model cannot look like the key.
    """
    if not answer.startswith(("{", "[")):
        return None
    for colon in (":", ": "):
        head = f'{{"id"{colon}"'
        if answer.startswith(head):
            return _until_quote(answer, len(head))
    for start in _ID_STARTS:
        for colon in (": ", ":"):
            key = f'"id"{colon}"'
            found = answer.find(key + start, 0, _SEARCHED_MAX)
            if found >= 0:
                return _until_quote(answer, found + len(key))
    return None


def _until_quote(text: str, start: int) -> str | None:
    identity, quote, _ = text[start : start + _ID_MAX].partition('"')
    return identity if quote and identity.isprintable() and "\\" not in identity else None


REDUCED: Reductions = {_OUTPUT: response_id_of, _METADATA: numbers_in, _PARAMETERS: service_tier_in}


def understand(shape: SpanShape) -> "_Call | NotBillable | None":
    """Read the names of a span; see the package's contract."""
    names = shape.names
    if KIND not in names:
        return None
    kind = str(names[KIND]).upper()
    operation = _OPERATIONS.get(kind)
    if operation is None:
        return _NOT_A_CALL
    request_model, response_model = first_text(names, *_REQUEST_MODEL), first_text(names, *_RESPONSE_MODEL)
    payee = payee_of(names, first_text(names, *_PROVIDER), response_model, request_model, guess=True)
    habits = habits_at(INSIDE, payee.provider, "openai" in shape.scope)
    return _Call(
        named=Named(
            dialect=NAME,
            scope=scope_of(shape.scope),
            operation=operation,
            provider=payee.provider,
            request_model=request_model,
            response_model=response_model,
            service_tier=first_text(names, _TIER, SERVICE_TIER, _PARAMETERS),
            summary=kind in _SUMMARIES,
            facts=facts_of(shape, payee.inference_region),
        ),
        assumptions=payee.assumptions,
        counts=Counts.of(_SLOTS, shape.keys, habits._replace(embeds=operation == "embeddings")),
        units=unit_keys(shape.keys),
        has_metadata=_METADATA in shape.keys,
    )


@dataclass(frozen=True, slots=True)
class _Call:
    """Calls of one kind."""

    named: Named
    assumptions: tuple[str, ...]
    counts: Counts
    units: tuple[str, ...]
    has_metadata: bool

    def read(self, span: Span, origin: Origin) -> UsageRecord | NotBillable | Rejected:
        """Read one span of this kind."""
        attributes, named = span.attributes, self.named
        try:
            reading = self.counts.reading(attributes)
            searches = web_searches(parsed(attributes[_METADATA]) or {}) if self.has_metadata else 0
            units = units_of(attributes, self.units, searches) if searches or self.units else ()
        except (InvalidCount, InvalidUnit) as error:
            return Rejected(str(error))
        if reading.buckets is None and IMPLAUSIBLE not in reading.assumptions:
            if named.summary:
                return _EMPTY_SUMMARY
            if not named.request_model and not named.response_model:
                return _NO_MODEL
        if self.assumptions:
            reading = reading._replace(assumptions=reading.assumptions + self.assumptions)
        response_id = first_identity(attributes, _RESPONSE_ID, _OUTPUT)
        return usage_record(span, origin, named, reading, units, response_id)
