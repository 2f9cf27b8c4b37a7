"""OpenTelemetry GenAI semantic conventions, from 1.26 (prompt_tokens) to today's keys, and those who speak them.

Source: the registry of `gen_ai.*` attributes and its deprecation notes. OpenLLMetry, OpenLIT, pydantic-ai and Logfire
write the same keys with habits of their own; `emitters.py` knows them by their scope and gives the record its dialect.
"""

from functools import lru_cache
from typing import NamedTuple

from farebox_collector.dialects.attribution import Origin
from farebox_collector.dialects.counts import disjoint, reported_in
from farebox_collector.dialects.emitters import COUNT_KEYS, RAW_USAGE, Emitter, emitter_of
from farebox_collector.dialects.other_units import units_of
from farebox_collector.dialects.record import nanoseconds, usage_record
from farebox_collector.dialects.text import InvalidCount, Reductions, first_count, first_identity, first_text
from farebox_collector.dialects.usage_json import numbers_in, parsed, provider_usage, web_searches
from farebox_collector.records import Attributes, AttributeValue, Buckets, NotBillable, Rejected, Span, UsageRecord
from farebox_collector.units import InvalidUnit

NAME = "genai"

_PROVIDER = ("gen_ai.provider.name", "gen_ai.system")
_SERVICE_TIER = (
    "openai.response.service_tier",
    "gen_ai.openai.response.service_tier",
    "anthropic.response.service_tier",
)
_FIRST_CHUNK = (
    "gen_ai.response.time_to_first_chunk",
    "gen_ai.client.operation.time_to_first_chunk",
    "gen_ai.server.time_to_first_token",
)
_PARTIAL = ("gen_ai.usage.partial.input_tokens", "gen_ai.usage.partial.output_tokens")
_OLD_OPERATION = "llm.request.type"
_OLD_OPERATIONS = {"chat": "chat", "completion": "text_completion", "embedding": "embeddings", "rerank": "rerank"}
"""What OpenLLMetry wrote before the conventions had a name for it."""
_SPAN_KIND = "traceloop.span.kind"
_SUMMARY_KINDS = frozenset({"workflow", "agent", "task"})
_SPAN_TYPE = "logfire.span_type"
_TOOK = "duration"
"""Logfire's, in seconds."""
_MISSING = "farebox.usage.missing"

KEYS = frozenset(
    {
        "gen_ai.operation.name",
        "gen_ai.request.model",
        "gen_ai.response.model",
        "gen_ai.response.id",
        "gen_ai.is_streaming",
        "error.type",
        _SPAN_TYPE,
        _TOOK,
        _OLD_OPERATION,
        _SPAN_KIND,
        RAW_USAGE,
        _MISSING,
    }
).union(_PROVIDER, _SERVICE_TIER, _FIRST_CHUNK, _PARTIAL, COUNT_KEYS)
ONCE = frozenset({"gen_ai.response.id", *_FIRST_CHUNK, RAW_USAGE})
REDUCED: Reductions = {RAW_USAGE: numbers_in}

MODEL_CALLS = frozenset(
    {
        "chat",
        "text_completion",
        "generate_content",
        "embeddings",
        # Not in the conventions. A model works for these too: without usage they are unmetered, not free.
        "audio",
        "image",
        "image_generation",
        "model_request",
        "realtime",
        "rerank",
        "speech_to_text",
        "text_to_speech",
        "transcription",
        "video",
    }
)
SUMMARIES = frozenset({"invoke_agent", "invoke_workflow"})
"""Operations whose usage repeats that of the calls inside them."""
NO_TOKENS = frozenset(
    {"execute_tool", "create_agent", "fetch_response", "retrieval", "plan", "agent_step", "execute_task"}
)

_NO_TOKENS_READING = NotBillable("operation_makes_no_tokens")
_NO_MODEL_READING = NotBillable("names_no_model")
_EMPTY_SUMMARY = NotBillable("summary_without_usage")
_PARTIAL_READING = NotBillable("usage_is_on_the_parent")
_OPENED_STREAM = NotBillable("usage_comes_with_the_stream")


def read(span: Span, origin: Origin) -> UsageRecord | NotBillable | Rejected | None:
    """Read one span; see the package's contract."""
    attributes = span.attributes
    call = _call(*map(attributes.get, _TEXTS))
    operation, provider = call.operation, call.provider
    if not operation and not provider:
        return None
    if operation in NO_TOKENS:
        return _NO_TOKENS_READING
    emitter = emitter_of(span.scope_name, span.scope_version, provider)
    try:
        buckets, assumptions = _buckets(attributes, emitter)
        units = units_of(attributes, _searches(attributes, emitter) if emitter.searches else 0)
    except (InvalidCount, InvalidUnit) as error:
        return Rejected(str(error))
    if buckets is None and units and _MISSING not in attributes:
        buckets = Buckets()  # billed by those units alone
    summary = operation in SUMMARIES or attributes.get(_SPAN_KIND) in _SUMMARY_KINDS
    if buckets is None and _MISSING not in attributes:
        reading = _without_usage(span, emitter, operation, summary)
        if reading is not None:
            return reading
    elif operation not in MODEL_CALLS and not summary:
        assumptions += ("operation_unknown",)
    return usage_record(
        _whole(span) if emitter.usage_json else span,
        origin,
        dialect=emitter.dialect,
        operation=operation,
        provider=provider,
        request_model=call.request_model,
        response_model=call.response_model,
        response_id=first_identity(attributes, "gen_ai.response.id"),
        service_tier=call.service_tier,
        error_type=call.error_type,
        buckets=buckets,
        summary=summary,
        time_to_first_chunk_ns=_first_chunk(attributes),
        assumptions=assumptions,
        units=units,
    )


class _Call(NamedTuple):
    """What the names on a span say of its call."""

    operation: str
    provider: str
    request_model: str
    response_model: str
    service_tier: str
    error_type: str


_TEXTS = (
    "gen_ai.operation.name",
    _OLD_OPERATION,
    *_PROVIDER,
    "gen_ai.request.model",
    "gen_ai.response.model",
    *_SERVICE_TIER,
    "error.type",
)


# The calls of one place in a program have the same names. Typed, since 1 and True are equal and not the same name.
@lru_cache(maxsize=4096, typed=True)
def _call(*values: AttributeValue | None) -> _Call:
    """The values of `_TEXTS` understood."""
    named = {name: value for name, value in zip(_TEXTS, values, strict=True) if value is not None}
    operation = first_text(named, "gen_ai.operation.name")
    if not operation and _OLD_OPERATION in named:
        operation = _OLD_OPERATIONS.get(str(named[_OLD_OPERATION]), "")
    return _Call(
        operation,
        first_text(named, *_PROVIDER),
        first_text(named, "gen_ai.request.model"),
        first_text(named, "gen_ai.response.model"),
        first_text(named, *_SERVICE_TIER),
        first_text(named, "error.type"),
    )


def _whole(span: Span) -> Span:
    """The span with the time that it tells of: Logfire's of a stream is made at the end, and says how long it took."""
    took_ns = nanoseconds(span.attributes.get(_TOOK)) if span.attributes.get(_SPAN_TYPE) == "log" else None
    return span if took_ns is None else span._replace(start_ns=max(0, span.start_ns - took_ns))


def _without_usage(span: Span, emitter: Emitter, operation: str, summary: bool) -> NotBillable | None:
    """Why a span without usage is no model call; None if it is one."""
    attributes = span.attributes
    if not first_text(attributes, "gen_ai.request.model", "gen_ai.response.model"):
        return _NO_MODEL_READING
    if summary:
        return _EMPTY_SUMMARY
    if operation not in MODEL_CALLS:
        return _NO_TOKENS_READING
    if any(key in attributes for key in _PARTIAL):
        return _PARTIAL_READING
    opens = emitter.usage_json and attributes.get(_SPAN_TYPE) == "span"
    if opens and not span.failed and "gen_ai.response.id" not in attributes:
        # Logfire tells of a stream twice: when it opens, and in a span of its own when it is over.
        return _OPENED_STREAM
    return None


def _buckets(attributes: Attributes, emitter: Emitter) -> tuple[Buckets | None, tuple[str, ...]]:
    """Disjoint buckets and what was assumed; None without any usage. Raises InvalidCount for contradictions."""
    assumptions: tuple[str, ...] = ()
    if emitter.usage_json and RAW_USAGE in attributes:
        raw = parsed(attributes[RAW_USAGE])
        if raw is not None:
            reported, habits = provider_usage(raw)
            if reported.input is not None or reported.output is not None:
                return disjoint(reported, habits)
        assumptions = ("usage_json_unusable",)
    found = reported_in(attributes, emitter.slots)
    if found is None:
        return None, ()
    buckets, more = disjoint(found, emitter.habits)
    if buckets is None:
        return None, ()
    if emitter.flags and not buckets.cache_read and not buckets.cache_write:
        more += emitter.flags
    if emitter.dialect == "traceloop" and attributes.get("gen_ai.is_streaming") is True:
        more += _TWICE.get(first_text(attributes, *_PROVIDER), ())
    return buckets, assumptions + more


_TWICE = {"anthropic": ("output_counts_the_start_twice",)}


def _searches(attributes: Attributes, emitter: Emitter) -> int:
    """Web searches, where the emitter has a place of its own for them."""
    if emitter.usage_json:
        raw = parsed(attributes.get(RAW_USAGE))
        return web_searches(raw) if raw else 0
    return first_count(attributes, emitter.searches) or 0


def _first_chunk(attributes: Attributes) -> int | None:
    for key in _FIRST_CHUNK:
        if key in attributes:
            return nanoseconds(attributes[key])
    return None
