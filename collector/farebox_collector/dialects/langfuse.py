"""Langfuse's SDK: `langfuse.observation.*`, with the usage as JSON.

Source: the released package. Its usage comes in the provider's own shape (OpenAI's includes the cache, Anthropic's does
not) or as named buckets, which are disjoint. It names no provider and no response id.
"""

from dataclasses import dataclass

from farebox_collector.dialects.attribution import Origin
from farebox_collector.dialects.counts import disjoint
from farebox_collector.dialects.other_units import unit_keys, units_of
from farebox_collector.dialects.providers import told_provider
from farebox_collector.dialects.record import Named, scope_of, usage_record
from farebox_collector.dialects.remembered import Said
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

NAMES = frozenset({TYPE, _MODEL, _PARAMETERS, _LEVEL})
KEYS = NAMES | {_USAGE}
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


def understand(said: Said) -> "_Call | NotBillable | None":
    """What the names on a span say of its call; see the package's contract."""
    names = said.names
    kind = names.get(TYPE)
    if kind is None:
        return None
    operation = _OPERATIONS.get(str(kind)) or _SUMMARIES.get(str(kind))
    if operation is None:
        return _NOT_A_CALL
    model = first_text(names, _MODEL)
    provider, guessed = told_provider("", model)
    return _Call(
        named=Named(
            dialect=NAME,
            scope=scope_of(said.scope),
            operation=operation,
            provider=provider,
            request_model=model,
            response_model=model,
            service_tier=first_text(names, _PARAMETERS),
            error_type="error" if names.get(_LEVEL) == "ERROR" else "",
            summary=kind in _SUMMARIES,
        ),
        assumptions=guessed,
        units=unit_keys(said.keys),
    )


@dataclass(frozen=True, slots=True)
class _Call:
    """Calls of one kind."""

    named: Named
    assumptions: tuple[str, ...]
    units: tuple[str, ...]

    def read(self, span: Span, origin: Origin) -> UsageRecord | NotBillable | Rejected:
        """Read one of their spans."""
        attributes = span.attributes
        try:
            buckets, assumptions, searches = _buckets(attributes)
            units = units_of(attributes, self.units, searches)
        except (InvalidCount, InvalidUnit) as error:
            return Rejected(str(error))
        if buckets is None and self.named.summary:
            return _EMPTY_SUMMARY
        return usage_record(span, origin, self.named, buckets, assumptions + self.assumptions, units)


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
