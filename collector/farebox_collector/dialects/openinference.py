"""OpenInference: `openinference.span.kind` and `llm.*`, as Arize's instrumentations write them.

Source: the OpenInference specification and its released instrumentations. The prompt count includes the cache. No
attribute has the response's id; where `output.value` is the provider's answer as JSON the id is found in it, and
nothing else of that answer is kept.
"""

from functools import lru_cache
from typing import NamedTuple

from farebox_collector.dialects.attribution import Origin
from farebox_collector.dialects.counts import INSIDE, disjoint, reported_in
from farebox_collector.dialects.emitters import Keys, slots_of
from farebox_collector.dialects.other_units import units_of
from farebox_collector.dialects.providers import told_provider
from farebox_collector.dialects.record import usage_record
from farebox_collector.dialects.text import InvalidCount, Reductions, first_identity, first_text
from farebox_collector.dialects.usage_json import numbers_in, parsed, web_searches
from farebox_collector.records import AttributeValue, NotBillable, Rejected, Span, UsageRecord
from farebox_collector.units import InvalidUnit

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
_OUTPUT = "output.value"
_METADATA = "metadata"
# An instrumentation may write the conventions' keys on the same span: other names of the same counts.
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

KEYS = frozenset({KIND, _OUTPUT, _METADATA, "gen_ai.response.id", _TIER}).union(
    _PROVIDER, _REQUEST_MODEL, _RESPONSE_MODEL, _SLOTS
)
ONCE = frozenset({_OUTPUT, _METADATA})

_NOT_A_CALL = NotBillable("operation_makes_no_tokens")
_NO_MODEL = NotBillable("names_no_model")
_EMPTY_SUMMARY = NotBillable("summary_without_usage")

_ID_STARTS = ("resp_", "chatcmpl-", "msg_", "gen-")
"""How ids of responses begin at the providers that give them; `msg_` last, since parts of a response have such ids."""
_ID_MAX = 100
_SEARCHED_MAX = 200_000


def response_id_of(answer: str) -> str | None:
    """The response's id out of a provider's answer in JSON; None for any other text.

    Within the strings of a JSON text quotes are escaped, so that nothing that a model wrote can look like the key.
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


REDUCED: Reductions = {_OUTPUT: response_id_of, _METADATA: numbers_in}


def read(span: Span, origin: Origin) -> UsageRecord | NotBillable | Rejected | None:
    """Read one span; see the package's contract."""
    attributes = span.attributes
    if KIND not in attributes:
        return None
    call = _call(*map(attributes.get, _TEXTS))
    if call is None:
        return _NOT_A_CALL
    try:
        found = reported_in(attributes, _SLOTS)
        buckets, assumptions = disjoint(found, INSIDE) if found else (None, ())
        units = units_of(attributes, web_searches(parsed(attributes.get(_METADATA)) or {}))
    except (InvalidCount, InvalidUnit) as error:
        return Rejected(str(error))
    if buckets is None and call.summary:
        return _EMPTY_SUMMARY
    if buckets is None and not call.request_model and not call.response_model:
        return _NO_MODEL
    return usage_record(
        span,
        origin,
        dialect=NAME,
        operation=call.operation,
        provider=call.provider,
        request_model=call.request_model,
        response_model=call.response_model,
        buckets=buckets,
        assumptions=assumptions + call.assumptions,
        response_id=first_identity(attributes, "gen_ai.response.id", _OUTPUT),
        service_tier=call.service_tier,
        summary=call.summary,
        units=units,
    )


class _Call(NamedTuple):
    """What the names on a span say of its call."""

    operation: str
    summary: bool
    provider: str
    request_model: str
    response_model: str
    service_tier: str
    assumptions: tuple[str, ...]


_TEXTS = tuple(dict.fromkeys((KIND, *_PROVIDER, *_REQUEST_MODEL, *_RESPONSE_MODEL, _TIER)))


# The calls of one place in a program have the same names. Typed, since 1 and True are equal and not the same name.
@lru_cache(maxsize=4096, typed=True)
def _call(*values: AttributeValue | None) -> _Call | None:
    """The values of `_TEXTS` understood; None for a span that is no model call."""
    named = {name: value for name, value in zip(_TEXTS, values, strict=True) if value is not None}
    kind = str(named[KIND]).upper()
    operation = _OPERATIONS.get(kind)
    if operation is None:
        return None
    request_model, response_model = first_text(named, *_REQUEST_MODEL), first_text(named, *_RESPONSE_MODEL)
    provider, guessed = told_provider(first_text(named, *_PROVIDER), response_model or request_model)
    tier = first_text(named, _TIER)
    return _Call(operation, kind in _SUMMARIES, provider, request_model, response_model, tier, guessed)
