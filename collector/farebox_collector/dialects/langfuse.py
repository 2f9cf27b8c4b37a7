"""Langfuse's SDK: `langfuse.observation.*`, with the usage as JSON.

Source: the released package. Its usage comes in the provider's own shape (OpenAI's includes the cache, Anthropic's does
not) or as named buckets, which are disjoint. It names no provider and no response id.
"""

from farebox_collector.dialects.attribution import Origin
from farebox_collector.dialects.counts import disjoint
from farebox_collector.dialects.other_units import units_of
from farebox_collector.dialects.providers import told_provider
from farebox_collector.dialects.record import usage_record
from farebox_collector.dialects.text import InvalidCount, Reductions, first_text
from farebox_collector.dialects.usage_json import named_buckets, parsed, provider_usage, web_searches
from farebox_collector.records import Attributes, Buckets, NotBillable, Rejected, Span, UsageRecord
from farebox_collector.units import InvalidUnit

NAME = "langfuse"

TYPE = "langfuse.observation.type"
_OPERATIONS = {"generation": "chat", "embedding": "embeddings"}
_SUMMARIES = {"agent": "invoke_agent", "chain": "invoke_workflow"}
_MODEL = "langfuse.observation.model.name"
_PARAMETERS = "langfuse.observation.model.parameters"
_USAGE = "langfuse.observation.usage_details"
_LEVEL = "langfuse.observation.level"

KEYS = frozenset({TYPE, _MODEL, _PARAMETERS, _USAGE, _LEVEL})
ONCE = frozenset({_USAGE})

_PROVIDER_SHAPE = frozenset({"prompt_tokens", "completion_tokens", "input_tokens", "output_tokens"})
_NOT_A_CALL = NotBillable("operation_makes_no_tokens")
_EMPTY_SUMMARY = NotBillable("summary_without_usage")


def service_tier_of(parameters: str) -> str | None:
    """The service tier among a call's parameters; None where there is none."""
    found = parsed(parameters)
    tier = found.get("service_tier") if found else None
    return tier if isinstance(tier, str) else None


REDUCED: Reductions = {_PARAMETERS: service_tier_of}


def read(span: Span, origin: Origin) -> UsageRecord | NotBillable | Rejected | None:
    """Read one span; see the package's contract."""
    attributes = span.attributes
    kind = attributes.get(TYPE)
    if kind is None:
        return None
    operation = _OPERATIONS.get(str(kind)) or _SUMMARIES.get(str(kind))
    if operation is None:
        return _NOT_A_CALL
    summary = kind in _SUMMARIES
    try:
        buckets, assumptions, searches = _buckets(attributes)
        units = units_of(attributes, searches)
    except (InvalidCount, InvalidUnit) as error:
        return Rejected(str(error))
    if buckets is None and summary:
        return _EMPTY_SUMMARY
    model = first_text(attributes, _MODEL)
    provider, guessed = told_provider("", model)
    return usage_record(
        span,
        origin,
        dialect=NAME,
        operation=operation,
        provider=provider,
        request_model=model,
        response_model=model,
        buckets=buckets,
        assumptions=assumptions + guessed,
        service_tier=first_text(attributes, _PARAMETERS),
        error_type="error" if attributes.get(_LEVEL) == "ERROR" else "",
        summary=summary,
        units=units,
    )


def _buckets(attributes: Attributes) -> tuple[Buckets | None, tuple[str, ...], int]:
    """Disjoint buckets, what was assumed, and web searches. Raises InvalidCount."""
    if _USAGE not in attributes:
        return None, (), 0
    usage = parsed(attributes[_USAGE])
    if usage is None:
        return None, ("usage_json_unusable",), 0
    shape = provider_usage if not _PROVIDER_SHAPE.isdisjoint(usage) else named_buckets
    reported, habits = shape(usage)
    buckets, assumptions = disjoint(reported, habits)
    return buckets, assumptions, web_searches(usage)
