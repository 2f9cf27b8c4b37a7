"""OpenTelemetry GenAI semantic conventions, from 1.26 (prompt_tokens) to the current keys, and their emitters.

Source: the registry of `gen_ai.*` attributes and its deprecation notes. OpenLLMetry, OpenLIT, pydantic-ai and Logfire
write the same keys but count differently; `emitters.py` identifies them by scope and sets the record's dialect.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from farebox_collector.dialects.attribution import Origin
from farebox_collector.dialects.counts import Counts
from farebox_collector.dialects.emitters import (
    COUNT_KEYS,
    RAW_USAGE,
    Emitter,
    emitter_of,
    habits_at,
)
from farebox_collector.dialects.memo import SpanShape
from farebox_collector.dialects.other_units import unit_keys, units_of
from farebox_collector.dialects.providers import payee_of
from farebox_collector.dialects.reconcile import Reading, disjoint
from farebox_collector.dialects.record import (
    Named,
    nanoseconds,
    scope_of,
    usage_record,
)
from farebox_collector.dialects.text import (
    InvalidCount,
    Reductions,
    first_count,
    first_identity,
    first_text,
)
from farebox_collector.dialects.unusual import (
    SERVICE_TIER,
    as_processed,
    conditions_in,
    facts_of,
)
from farebox_collector.dialects.usage_json import (
    numbers_in,
    other_lines,
    parsed,
    provider_usage,
    web_searches,
)
from farebox_collector.model.records import (
    IMPLAUSIBLE,
    Attributes,
    Buckets,
    ModelLine,
    NotBillable,
    Rejected,
    Span,
    UsageRecord,
)
from farebox_collector.model.units import InvalidUnit, Units

NAME = "genai"

_OPERATION = "gen_ai.operation.name"
_REQUEST_MODEL = "gen_ai.request.model"
_RESPONSE_MODEL = "gen_ai.response.model"
_RESPONSE_ID = "gen_ai.response.id"
_STREAMING = "gen_ai.is_streaming"
_ERROR = "error.type"
_PROVIDER = ("gen_ai.provider.name", "gen_ai.system")
_SERVICE_TIER = (
    "openai.response.service_tier",
    "gen_ai.openai.response.service_tier",
    "anthropic.response.service_tier",
    SERVICE_TIER,
    # The requested model, if the span does not name the model that answered.
    "openai.request.service_tier",
    "gen_ai.openai.request.service_tier",
)
_FIRST_CHUNK = (
    "gen_ai.response.time_to_first_chunk",
    "gen_ai.client.operation.time_to_first_chunk",
    "gen_ai.server.time_to_first_token",
)
_PARTIAL = ("gen_ai.usage.partial.input_tokens", "gen_ai.usage.partial.output_tokens")
_OLD_OPERATION = "llm.request.type"
_OLD_OPERATIONS = {"chat": "chat", "completion": "text_completion", "embedding": "embeddings", "rerank": "rerank"}
"""OpenLLMetry's keys from before the conventions had names for them."""
_SPAN_KIND = "traceloop.span.kind"
_SUMMARY_KINDS = frozenset({"workflow", "agent", "task"})
_SPAN_TYPE = "logfire.span_type"
_TOOK = "duration"
"""Logfire's, in seconds."""
_MISSING = "farebox.usage.missing"

NAMES = frozenset(
    {
        _OPERATION,
        _OLD_OPERATION,
        _REQUEST_MODEL,
        _RESPONSE_MODEL,
        _STREAMING,
        _ERROR,
        _SPAN_TYPE,
        _SPAN_KIND,
    }
).union(_PROVIDER, _SERVICE_TIER)
KEYS = NAMES.union({_RESPONSE_ID, _TOOK, RAW_USAGE, _MISSING}, _FIRST_CHUNK, _PARTIAL, COUNT_KEYS)
ONCE = frozenset({_RESPONSE_ID, *_FIRST_CHUNK, RAW_USAGE})
REDUCED: Reductions = {RAW_USAGE: numbers_in}

MODEL_CALLS = frozenset(
    {
        "chat",
        "text_completion",
        "generate_content",
        "embeddings",
        # Not in the conventions. These also call a model: without usage they are unmetered, not free.
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
_EMBEDS = frozenset({"embeddings", "rerank"})
"""Operations without output."""
SUMMARIES = frozenset({"invoke_agent", "invoke_workflow"})
"""Operations whose usage repeats the usage of the calls inside them."""
NO_TOKENS = frozenset(
    {"execute_tool", "create_agent", "fetch_response", "retrieval", "plan", "agent_step", "execute_task"}
)

_NO_TOKENS_READING = NotBillable("operation_makes_no_tokens")
_NO_MODEL_READING = NotBillable("names_no_model")
_EMPTY_SUMMARY = NotBillable("summary_without_usage")
_PARTIAL_READING = NotBillable("usage_is_on_the_parent")
_OPENED_STREAM = NotBillable("usage_comes_with_the_stream")


def understand(shape: SpanShape) -> "_Call | NotBillable | None":
    """Read the names of a span; see the package's contract."""
    names = shape.names
    operation = first_text(names, _OPERATION)
    if not operation and _OLD_OPERATION in names:
        operation = _OLD_OPERATIONS.get(str(names[_OLD_OPERATION]), "")
    provider = first_text(names, *_PROVIDER)
    if not operation and not provider:
        return None
    if operation in NO_TOKENS:
        return _NO_TOKENS_READING
    request_model, response_model = first_text(names, _REQUEST_MODEL), first_text(names, _RESPONSE_MODEL)
    payee = payee_of(names, provider, response_model, request_model)
    emitter = emitter_of(shape.scope, provider, payee.provider)
    summary = operation in SUMMARIES or names.get(_SPAN_KIND) in _SUMMARY_KINDS
    started_twice = emitter.dialect == "traceloop" and names.get(_STREAMING) is True and provider in _START_COUNTS_TWICE
    assumptions = payee.assumptions + (("output_counts_the_start_twice",) if started_twice else ())
    units = unit_keys(shape.keys)
    return _Call(
        named=Named(
            dialect=emitter.dialect,
            scope=scope_of(shape.scope),
            operation=operation,
            provider=payee.provider,
            request_model=request_model,
            response_model=response_model,
            service_tier=first_text(names, *_SERVICE_TIER),
            error_type=first_text(names, _ERROR),
            summary=summary,
            facts=facts_of(shape, payee.inference_region),
        ),
        emitter=emitter,
        counts=Counts.of(emitter.slots, shape.keys, emitter.habits._replace(embeds=operation in _EMBEDS)),
        units=units,
        tells_units=bool(units or emitter.usage_json or emitter.searches),
        plain=not (units or emitter.usage_json or emitter.searches or emitter.flags or assumptions),
        first_chunk=next((key for key in _FIRST_CHUNK if key in shape.keys), None),
        assumptions=assumptions,
        known=operation in MODEL_CALLS or summary,
        usage_missing=_MISSING in shape.keys,
        without_usage=_without_usage(shape, emitter, operation, summary),
        ends=emitter.usage_json and names.get(_SPAN_TYPE) == "log",
        opens=emitter.usage_json and names.get(_SPAN_TYPE) == "span" and _RESPONSE_ID not in shape.keys,
    )


_START_COUNTS_TWICE = frozenset({"anthropic"})
"""Providers whose streams begin with a few tokens that OpenLLMetry adds to the final count, which includes them."""


def _without_usage(shape: SpanShape, emitter: Emitter, operation: str, summary: bool) -> NotBillable | None:
    """Return why a span of this shape is not a model call if it has no usage; None if it is a call."""
    if not first_text(shape.names, _REQUEST_MODEL, _RESPONSE_MODEL):
        return _NO_MODEL_READING
    if summary:
        return _EMPTY_SUMMARY
    if operation not in MODEL_CALLS:
        return _NO_TOKENS_READING
    if any(key in shape.keys for key in _PARTIAL):
        return _PARTIAL_READING
    return None


@dataclass(frozen=True, slots=True)
class _Call:
    """Calls of one kind, from one emitter."""

    named: Named
    emitter: Emitter
    counts: Counts
    units: tuple[str, ...]
    tells_units: bool
    """Whether the spans can have units other than tokens."""
    plain: bool
    """Whether only counts have to be read."""
    first_chunk: str | None
    """The attribute with the time to first token."""
    assumptions: tuple[str, ...]
    """Assumptions about calls with usage."""
    known: bool
    """Whether the operation is in the conventions."""
    usage_missing: bool
    """Whether the span states that its usage is missing."""
    without_usage: NotBillable | None
    """What a span without usage is, unless it states that usage is missing; None: a call."""
    ends: bool
    opens: bool
    """Logfire sends two spans for a stream: one when it opens, and one when it is over."""

    def read(self, span: Span, origin: Origin) -> UsageRecord | NotBillable | Rejected:
        """Read one span of this kind."""
        attributes = span.attributes
        lines: tuple[ModelLine, ...] = ()
        raw: Mapping[str, Any] | None = None
        try:
            if self.plain:
                reading = self.counts.reading(attributes)
                units: Units = ()
            else:
                raw = parsed(attributes.get(RAW_USAGE)) if self.emitter.usage_json else None
                reading = self._reading(attributes, raw)
                units = self._units(attributes, raw) if self.tells_units else ()
                if raw is not None:
                    lines = other_lines(raw, self.named.response_model or self.named.request_model)
        except (InvalidCount, InvalidUnit) as error:
            return Rejected(str(error))
        buckets = reading[0]
        if buckets is None and not self.usage_missing and IMPLAUSIBLE not in reading.assumptions:
            if units:
                buckets = Buckets()
                reading = reading._replace(buckets=buckets)  # billed by units alone
            elif self.named.facts.exposure:
                pass  # a call whose end was not seen
            elif self.without_usage is not None:
                return self.without_usage
            elif self.opens and not span.failed:
                return _OPENED_STREAM
        if not self.known and (buckets is not None or self.usage_missing):
            reading = reading._replace(assumptions=(*reading.assumptions, "operation_unknown"))
        record = usage_record(
            _whole(span) if self.ends else span,
            origin,
            self.named,
            reading,
            units,
            first_identity(attributes, _RESPONSE_ID),
            None if self.first_chunk is None else nanoseconds(attributes[self.first_chunk]),
            lines,
        )
        return record if raw is None else as_processed(record, conditions_in(raw))

    def _reading(self, attributes: Attributes, raw: Mapping[str, Any] | None) -> Reading:
        """Read the counts; `raw` is the provider's usage object, if there is one. Raises InvalidCount."""
        assumptions = self.assumptions
        if self.emitter.usage_json and RAW_USAGE in attributes:
            if raw is not None:
                reported, habits = provider_usage(raw, self.named.response_model or self.named.request_model)
                if reported.input is not None or reported.output is not None:
                    return disjoint(reported, habits_at(habits, self.named.provider, openai_shaped=True))
            assumptions += ("usage_json_unusable",)
        reading = self.counts.reading(attributes)
        buckets = reading.buckets
        if buckets is None:
            return reading
        if self.emitter.flags and not buckets.cache_read and not buckets.cache_write:
            assumptions += self.emitter.flags
        return reading._replace(assumptions=reading.assumptions + assumptions) if assumptions else reading

    def _units(self, attributes: Attributes, raw: Mapping[str, Any] | None) -> Units:
        """Read the other units that the call is billed by. Raises InvalidCount and InvalidUnit."""
        searches = 0
        if self.emitter.usage_json:
            searches = web_searches(raw) if raw else 0
        elif self.emitter.searches:
            searches = first_count(attributes, self.emitter.searches) or 0
        return units_of(attributes, self.units, searches)


def _whole(span: Span) -> Span:
    """Return the span with the duration that it states: Logfire creates a stream's span at the end of the stream."""
    took_ns = nanoseconds(span.attributes.get(_TOOK))
    return span if took_ns is None else span._replace(start_ns=max(0, span.start_ns - took_ns))
