"""The Vercel AI SDK's own spans, `ai.*`: its versions 3 to 6, and 7 with `LegacyOpenTelemetry`.

Source: the released packages. `ai.generateText` and similar spans sum up the calls inside them, whose names end in
`.doGenerate`, `.doStream` and `.doEmbed`. Up to version 5 the counts are the provider's own: the cache is outside
Claude's input on every host, and outside the input of all models on Bedrock; Google's and xAI's output excludes the
reasoning. `generateText` reports the cache only in the provider's metadata. From version 6 on, which reports the parts
of input and output separately, everything is inside.
"""

from dataclasses import dataclass

from farebox_collector.dialects.attribution import Origin
from farebox_collector.dialects.counts import Places, reported_in
from farebox_collector.dialects.emitters import Keys, slots_of
from farebox_collector.dialects.hosts import family
from farebox_collector.dialects.memo import SpanShape
from farebox_collector.dialects.other_units import unit_keys, units_of
from farebox_collector.dialects.providers import payee_of
from farebox_collector.dialects.reconcile import (
    Habits,
    Reading,
    Reported,
    disjoint,
)
from farebox_collector.dialects.record import (
    Named,
    nanoseconds,
    scope_of,
    usage_record,
)
from farebox_collector.dialects.text import (
    InvalidCount,
    Reductions,
    first_identity,
    first_text,
)
from farebox_collector.dialects.unusual import SERVICE_TIER, facts_of
from farebox_collector.dialects.usage_json import (
    count_in,
    numbers_in,
    object_in,
    parsed,
    provider_usage,
)
from farebox_collector.dialects.vercel_metadata import with_metadata
from farebox_collector.model.records import (
    IMPLAUSIBLE,
    Attributes,
    NotBillable,
    Rejected,
    Span,
    UsageRecord,
)
from farebox_collector.model.units import InvalidUnit

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
_PARTS = frozenset(
    f"ai.usage.{part}"
    for part in (
        "inputTokenDetails.noCacheTokens",
        "inputTokenDetails.cacheReadTokens",
        "inputTokenDetails.cacheWriteTokens",
        "outputTokenDetails.textTokens",
        "outputTokenDetails.reasoningTokens",
    )
)
"""Keys that only version 6 and later write."""
_ALIASES = {"googleVertex": "google-vertex"}
_HOSTS_OF_CLAUDE = frozenset({"anthropic", "aws", "google", "azure", "gateway", "vercel"})
"""Providers whose packages use Anthropic's interface with Claude; all others, such as OpenRouter's, use OpenAI's."""
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
KEYS = NAMES.union({_FIRST_CHUNK, _METADATA}, _PARTS, _RESPONSE_ID, _SLOTS)
ONCE = frozenset({*_RESPONSE_ID, _FIRST_CHUNK, _METADATA})
REDUCED: Reductions = {_METADATA: numbers_in}

_NOT_A_CALL = NotBillable("operation_makes_no_tokens")
_EMPTY_SUMMARY = NotBillable("summary_without_usage")


def understand(shape: SpanShape) -> "_Call | NotBillable | None":
    """Read the names of a span; see the package's contract."""
    names = shape.names
    name = names.get(OPERATION)
    if not isinstance(name, str):
        return None
    summary = name in _SUMMARIES
    operation = "invoke_workflow" if summary else _CALLS.get(name[name.rfind(".") :])
    if operation is None:
        return _NOT_A_CALL
    # "anthropic.messages", "openai.chat": the provider and its interface.
    interface = first_text(names, *_PROVIDER)
    provider = interface.partition(".")[0]
    provider = _ALIASES.get(provider, provider)
    request_model, response_model = first_text(names, *_REQUEST_MODEL), first_text(names, *_RESPONSE_MODEL)
    payee = payee_of(names, provider, response_model, request_model)
    is_claude = "anthropic" in interface or "claude" in (request_model or response_model).lower()
    return _Call(
        named=Named(
            dialect=NAME,
            scope=scope_of(shape.scope),
            operation=operation,
            provider=payee.provider,
            request_model=request_model,
            response_model=response_model,
            service_tier=first_text(names, SERVICE_TIER),
            summary=summary,
            facts=facts_of(shape, payee.inference_region),
        ),
        counts=_SLOTS.among(shape.keys),
        spare=_SLOTS.spare(shape.keys),
        habits=_habits(
            not _PARTS.isdisjoint(shape.keys), interface.lower(), provider, payee.provider, is_claude
        )._replace(embeds=operation == "embeddings"),
        assumptions=("cache_not_reported",) if "ai.usage.promptTokens" in shape.keys else (),
        about_payee=payee.assumptions,
        units=unit_keys(shape.keys),
    )


def _habits(version_6: bool, interface: str, provider: str, payee: str, is_claude: bool) -> Habits:
    """Return how a version counts what a provider reports."""
    who = family(payee)
    hides_reasoning = who == "x-ai" or (who == "google" and not is_claude)
    rest_is_output = True if hides_reasoning else False if is_claude else None
    if version_6:
        return Habits(cache_inside=True, rest_is_output=rest_is_output)
    speaks_anthropic = is_claude and ("anthropic" in interface or {who, family(provider)} & _HOSTS_OF_CLAUDE)
    outside = bool(speaks_anthropic) or "aws" in (who, family(provider))
    return Habits(not outside, None if hides_reasoning else True, rest_is_output)


@dataclass(frozen=True, slots=True)
class _Call:
    """Calls of one kind."""

    named: Named
    counts: Places
    spare: Places
    habits: Habits
    assumptions: tuple[str, ...]
    """Assumptions about calls without a cache."""
    about_payee: tuple[str, ...]
    units: tuple[str, ...]

    def read(self, span: Span, origin: Origin) -> UsageRecord | NotBillable | Rejected:
        """Read one span of this kind."""
        attributes = span.attributes
        try:
            reading = self._reading(attributes)
            units = units_of(attributes, self.units)
        except (InvalidCount, InvalidUnit) as error:
            return Rejected(str(error))
        if reading.buckets is None and self.named.summary and IMPLAUSIBLE not in reading.assumptions:
            return _EMPTY_SUMMARY
        milliseconds = attributes.get(_FIRST_CHUNK)
        record = usage_record(
            span,
            origin,
            self.named,
            reading,
            units,
            first_identity(attributes, *_RESPONSE_ID),
            nanoseconds(milliseconds / 1000 if isinstance(milliseconds, int | float) else None),
        )
        metadata = parsed(attributes[_METADATA]) if _METADATA in attributes else None
        return with_metadata(record, metadata) if metadata else record

    def _reading(self, attributes: Attributes) -> Reading:
        """Read the counts. Raises InvalidCount."""
        reported = reported_in(attributes, self.counts, self.spare)
        if reported is None:
            return Reading(None, self.about_payee)
        cache = _provider_cache(attributes)
        if cache is not None:
            reported = reported._replace(
                cache_read=reported.cache_read or cache.cache_read,
                cache_write=reported.cache_write or cache.cache_write,
                cache_write_1h=cache.cache_write_1h,
            )
        reading = disjoint(reported, self.habits)
        flags = self.about_payee
        if self.assumptions and reading.buckets is not None and not reading.buckets.cache_read:
            flags += self.assumptions
        return reading._replace(assumptions=reading.assumptions + flags) if flags else reading


def _provider_cache(attributes: Attributes) -> Reported | None:
    """Return the cache counts in the provider's metadata, on every host; None if there are none.

    Anthropic's package writes under its own name on Vertex and on Bedrock's Anthropic interface too; version 4 omits
    the usage object. Bedrock's own package has the counts of Converse.
    """
    metadata = parsed(attributes.get(_METADATA))
    if not metadata:
        return None
    anthropic, bedrock = object_in(metadata, "anthropic"), object_in(metadata, "bedrock")
    if usage := object_in(anthropic, "usage"):
        return provider_usage(usage)[0]
    if anthropic:
        return Reported(
            cache_read=count_in(anthropic, "cacheReadInputTokens") or 0,
            cache_write=count_in(anthropic, "cacheCreationInputTokens") or 0,
        )
    usage = object_in(bedrock, "usage")
    if not usage:
        return None
    return Reported(
        cache_read=count_in(usage, "cacheReadInputTokens") or 0,
        cache_write=count_in(usage, "cacheWriteInputTokens", "cacheCreationInputTokens") or 0,
    )
