"""The Vercel AI SDK's own spans, `ai.*`: its versions 3 to 6, and 7 with `LegacyOpenTelemetry`.

Source: the released packages. `ai.generateText` and its like sum up the calls inside them, which end in `.doGenerate`,
`.doStream` and `.doEmbed`. Up to version 5 the cache is outside Anthropic's input, and `generateText` does not report
it but in the provider's metadata; from version 6 on, which tells the parts of the input apart, it is inside.
"""

from dataclasses import dataclass

from farebox_collector.dialects.attribution import Origin
from farebox_collector.dialects.counts import Habits, Places, Reported, disjoint, reported_in
from farebox_collector.dialects.emitters import Keys, slots_of
from farebox_collector.dialects.other_units import unit_keys, units_of
from farebox_collector.dialects.record import Named, nanoseconds, scope_of, usage_record
from farebox_collector.dialects.remembered import Said
from farebox_collector.dialects.text import InvalidCount, Reductions, first_identity, first_text
from farebox_collector.dialects.usage_json import numbers_in, parsed, provider_usage
from farebox_collector.records import Attributes, Buckets, NotBillable, Rejected, Span, UsageRecord
from farebox_collector.units import InvalidUnit

NAME = "vercel"

OPERATION = "ai.operationId"
_CALLS = {".doGenerate": "chat", ".doStream": "chat", ".doEmbed": "embeddings"}
_SUMMARIES = frozenset(
    {"ai.generateText", "ai.streamText", "ai.generateObject", "ai.streamObject", "ai.embed", "ai.embedMany"}
)
_PROVIDER = ("gen_ai.system", "ai.model.provider")
_REQUEST_MODEL = ("gen_ai.request.model", "ai.model.id")
_RESPONSE_MODEL = ("gen_ai.response.model", "ai.response.model")
_RESPONSE_ID = ("gen_ai.response.id", "ai.response.id")
_FIRST_CHUNK = "ai.response.msToFirstChunk"
_METADATA = "ai.response.providerMetadata"
_PARTS_OF_INPUT = "ai.usage.inputTokenDetails.noCacheTokens"
_SLOTS = slots_of(
    Keys(
        input=("ai.usage.inputTokens", "ai.usage.promptTokens", "ai.usage.tokens", "gen_ai.usage.input_tokens"),
        output=("ai.usage.outputTokens", "ai.usage.completionTokens", "gen_ai.usage.output_tokens"),
        total=("ai.usage.totalTokens",),
        cache_read=("ai.usage.inputTokenDetails.cacheReadTokens", "ai.usage.cachedInputTokens"),
        cache_write=("ai.usage.inputTokenDetails.cacheWriteTokens",),
        reasoning=("ai.usage.outputTokenDetails.reasoningTokens", "ai.usage.reasoningTokens"),
    )
)

NAMES = frozenset({OPERATION}).union(_PROVIDER, _REQUEST_MODEL, _RESPONSE_MODEL)
KEYS = NAMES.union({_FIRST_CHUNK, _METADATA, _PARTS_OF_INPUT}, _RESPONSE_ID, _SLOTS)
ONCE = frozenset({*_RESPONSE_ID, _FIRST_CHUNK, _METADATA})
REDUCED: Reductions = {_METADATA: numbers_in}

_NOT_A_CALL = NotBillable("operation_makes_no_tokens")
_EMPTY_SUMMARY = NotBillable("summary_without_usage")


def understand(said: Said) -> "_Call | NotBillable | None":
    """What the names on a span say of its call; see the package's contract."""
    names = said.names
    name = names.get(OPERATION)
    if not isinstance(name, str):
        return None
    summary = name in _SUMMARIES
    operation = "invoke_workflow" if summary else _CALLS.get(name[name.rfind(".") :])
    if operation is None:
        return _NOT_A_CALL
    # "anthropic.messages", "openai.chat": the provider and its interface.
    provider = first_text(names, *_PROVIDER).partition(".")[0]
    version_6 = _PARTS_OF_INPUT in said.keys
    return _Call(
        named=Named(
            dialect=NAME,
            scope=scope_of(said.scope),
            operation=operation,
            provider=provider,
            request_model=first_text(names, *_REQUEST_MODEL),
            response_model=first_text(names, *_RESPONSE_MODEL),
            summary=summary,
        ),
        counts=_SLOTS.among(said.keys),
        habits=Habits(cache_inside=version_6 or provider != "anthropic"),
        assumptions=("cache_not_reported",) if "ai.usage.promptTokens" in said.keys else (),
        units=unit_keys(said.keys),
    )


@dataclass(frozen=True, slots=True)
class _Call:
    """Calls of one kind."""

    named: Named
    counts: Places
    habits: Habits
    assumptions: tuple[str, ...]
    """Of those without a cache."""
    units: tuple[str, ...]

    def read(self, span: Span, origin: Origin) -> UsageRecord | NotBillable | Rejected:
        """Read one of their spans."""
        attributes = span.attributes
        try:
            buckets, assumptions = self._buckets(attributes)
            units = units_of(attributes, self.units)
        except (InvalidCount, InvalidUnit) as error:
            return Rejected(str(error))
        if buckets is None and self.named.summary:
            return _EMPTY_SUMMARY
        milliseconds = attributes.get(_FIRST_CHUNK)
        return usage_record(
            span,
            origin,
            self.named,
            buckets,
            assumptions,
            units,
            first_identity(attributes, *_RESPONSE_ID),
            nanoseconds(milliseconds / 1000 if isinstance(milliseconds, int | float) else None),
        )

    def _buckets(self, attributes: Attributes) -> tuple[Buckets | None, tuple[str, ...]]:
        """Disjoint buckets and what was assumed. Raises InvalidCount."""
        reported = reported_in(attributes, self.counts)
        if reported is None:
            return None, ()
        told = _told_by_the_provider(attributes, self.named.provider)
        if told is not None:
            reported = reported._replace(
                cache_read=reported.cache_read or told.cache_read,
                cache_write=reported.cache_write or told.cache_write,
                cache_write_1h=told.cache_write_1h,
            )
        buckets, assumptions = disjoint(reported, self.habits)
        if self.assumptions and buckets is not None and not buckets.cache_read:
            assumptions += self.assumptions
        return buckets, assumptions


def _told_by_the_provider(attributes: Attributes, provider: str) -> Reported | None:
    """The cache as Anthropic's own usage object has it; None where the metadata has none."""
    metadata = parsed(attributes.get(_METADATA))
    own = metadata.get(provider) if metadata else None
    usage = own.get("usage") if isinstance(own, dict) else None
    return provider_usage(usage)[0] if isinstance(usage, dict) and provider == "anthropic" else None
