"""Langfuse's SDK: `langfuse.observation.*`, with the usage as JSON.

Source: the released package. Its usage has the provider's own shape (OpenAI's includes the cache, Anthropic's does not)
or named buckets, which are disjoint. It has no provider and no response id.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from farebox_collector.dialects.attribution import Origin
from farebox_collector.dialects.emitters import habits_at
from farebox_collector.dialects.memo import SpanShape
from farebox_collector.dialects.named_buckets import named_buckets
from farebox_collector.dialects.other_units import unit_keys, units_of
from farebox_collector.dialects.providers import payee_of
from farebox_collector.dialects.reconcile import Reading, disjoint
from farebox_collector.dialects.record import Named, scope_of, usage_record
from farebox_collector.dialects.text import InvalidCount, Reductions, first_text
from farebox_collector.dialects.unusual import (
    SERVICE_TIER,
    as_processed,
    conditions_in,
    facts_of,
)
from farebox_collector.dialects.usage_json import (
    other_lines,
    parsed,
    provider_usage,
    service_tier_in,
    web_searches,
)
from farebox_collector.model.records import (
    IMPLAUSIBLE,
    Attributes,
    ModelLine,
    NotBillable,
    Rejected,
    Span,
    UsageRecord,
)
from farebox_collector.model.units import InvalidUnit

NAME = "langfuse"

TYPE = "langfuse.observation.type"
_OPERATIONS = {"generation": "chat", "embedding": "embeddings"}
_SUMMARIES = {"agent": "invoke_agent", "chain": "invoke_workflow"}
_MODEL = "langfuse.observation.model.name"
_PARAMETERS = "langfuse.observation.model.parameters"
_USAGE = "langfuse.observation.usage_details"
_LEVEL = "langfuse.observation.level"

NAMES = frozenset({TYPE, _MODEL, _PARAMETERS, _LEVEL})
KEYS = NAMES | {_USAGE}
ONCE = frozenset({_USAGE})

_PROVIDER_SHAPE = frozenset({"prompt_tokens", "completion_tokens", "input_tokens", "output_tokens"})
_GOOGLE_SHAPE = frozenset({"promptTokenCount", "candidatesTokenCount"})
_PROVIDER_KEYS = _PROVIDER_SHAPE | {
    "total_tokens",
    "cache_read_input_tokens",
    "cache_creation_input_tokens",
    "cached_tokens",
    "num_cached_tokens",
    "prompt_cache_hit_tokens",
    "prompt_cache_miss_tokens",
}
"""Counts that identify a provider's own usage object; otherwise the keys are named buckets."""
_NOT_A_CALL = NotBillable("operation_makes_no_tokens")
_EMPTY_SUMMARY = NotBillable("summary_without_usage")


REDUCED: Reductions = {_PARAMETERS: service_tier_in}


def understand(shape: SpanShape) -> "_Call | NotBillable | None":
    """Read the names of a span; see the package's contract."""
    names = shape.names
    kind = names.get(TYPE)
    if kind is None:
        return None
    operation = _OPERATIONS.get(str(kind)) or _SUMMARIES.get(str(kind))
    if operation is None:
        return _NOT_A_CALL
    model = first_text(names, _MODEL)
    payee = payee_of(names, "", model, guess=True)
    service_tier = first_text(names, _PARAMETERS, SERVICE_TIER)
    return _Call(
        named=Named(
            dialect=NAME,
            scope=scope_of(shape.scope),
            operation=operation,
            provider=payee.provider,
            request_model=model,
            response_model=model,
            service_tier=service_tier,
            error_type="error" if names.get(_LEVEL) == "ERROR" else "",
            summary=kind in _SUMMARIES,
            facts=facts_of(shape, payee.inference_region),
        ),
        assumptions=payee.assumptions,
        units=unit_keys(shape.keys),
    )


@dataclass(frozen=True, slots=True)
class _Call:
    """Calls of one kind."""

    named: Named
    assumptions: tuple[str, ...]
    units: tuple[str, ...]

    def read(self, span: Span, origin: Origin) -> UsageRecord | NotBillable | Rejected:
        """Read one span of this kind."""
        attributes = span.attributes
        usage = parsed(attributes.get(_USAGE))
        try:
            reading = self._reading(attributes, usage)
            units = units_of(attributes, self.units, web_searches(usage) if usage else 0)
            lines: tuple[ModelLine, ...] = other_lines(usage, self.named.response_model) if usage else ()
        except (InvalidCount, InvalidUnit) as error:
            return Rejected(str(error))
        if reading.buckets is None and self.named.summary and IMPLAUSIBLE not in reading.assumptions:
            return _EMPTY_SUMMARY
        reading = reading._replace(assumptions=reading.assumptions + self.assumptions)
        record = usage_record(span, origin, self.named, reading, units, lines=lines)
        return as_processed(record, conditions_in(usage)) if usage else record

    def _reading(self, attributes: Attributes, usage: Mapping[str, Any] | None) -> Reading:
        """Read the usage. Raises InvalidCount."""
        if usage is None:
            return Reading(None, ("usage_json_unusable",) if _USAGE in attributes else ())
        if _is_providers(usage):
            reported, habits = provider_usage(usage, self.named.response_model)
            habits = habits_at(habits, self.named.provider, openai_shaped=True)
        else:
            reported, habits = named_buckets(usage)
        return disjoint(reported, habits._replace(embeds=self.named.operation == "embeddings"))


def _is_providers(usage: Mapping[str, Any]) -> bool:
    """Return whether a usage object is the provider's own, not named buckets."""
    if not _GOOGLE_SHAPE.isdisjoint(usage) or "iterations" in usage:
        return True
    counts = {key for key, value in usage.items() if isinstance(value, int | float | str)}
    tokens = {key for key in counts if "token" in key or "cache" in key or key in ("input", "output")}
    return not _PROVIDER_SHAPE.isdisjoint(counts) and tokens <= _PROVIDER_KEYS
