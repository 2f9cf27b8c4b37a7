"""OpenTelemetry GenAI semantic conventions, from 1.26 (prompt_tokens) to today's keys.

Source: the registry of `gen_ai.*` attributes and its deprecation notes. Since 1.40 the input count includes cache reads
and writes; older emitters disagree, so the counts themselves decide where they can: a cache larger than the input
cannot be inside it.
"""

from farebox_collector.dialects.attribution import Origin
from farebox_collector.dialects.text import InvalidCount, first_count, first_identity, first_text
from farebox_collector.records import Attributes, Buckets, NotBillable, Rejected, Span, UsageRecord

NAME = "genai"

_PROVIDER = ("gen_ai.provider.name", "gen_ai.system")
_INPUT = ("gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens")
_OUTPUT = ("gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens")
_CACHE_READ = ("gen_ai.usage.cache_read.input_tokens", "gen_ai.usage.cache_read_input_tokens")
_CACHE_WRITE = (
    "gen_ai.usage.cache_write.input_tokens",
    "gen_ai.usage.cache_creation.input_tokens",
    "gen_ai.usage.cache_creation_input_tokens",
)
# Only the Anthropic client's own spans tell how long a cache lives; everybody else's writes are taken for the default.
_CACHE_WRITE_1H = ("anthropic.usage.cache_creation.ephemeral_1h_input_tokens",)
_REASONING = ("gen_ai.usage.reasoning.output_tokens", "gen_ai.usage.reasoning_tokens")
_INPUT_AUDIO = ("gen_ai.usage.audio.input_tokens",)
_OUTPUT_AUDIO = ("gen_ai.usage.audio.output_tokens",)
_SERVICE_TIER = (
    "openai.response.service_tier",
    "gen_ai.openai.response.service_tier",
    "anthropic.response.service_tier",
)

KEYS = frozenset(
    {
        "gen_ai.operation.name",
        "gen_ai.request.model",
        "gen_ai.response.model",
        "gen_ai.response.id",
        "gen_ai.response.time_to_first_chunk",
        "error.type",
    }
).union(
    _PROVIDER,
    _INPUT,
    _OUTPUT,
    _CACHE_READ,
    _CACHE_WRITE,
    _CACHE_WRITE_1H,
    _REASONING,
    _INPUT_AUDIO,
    _OUTPUT_AUDIO,
    _SERVICE_TIER,
)
ONCE = frozenset({"gen_ai.response.id", "gen_ai.response.time_to_first_chunk"})

MODEL_CALLS = frozenset({"chat", "text_completion", "generate_content", "embeddings"})
SUMMARIES = frozenset({"invoke_agent", "invoke_workflow"})
"""Operations whose usage repeats that of the calls inside them."""
NO_TOKENS = frozenset({"execute_tool", "create_agent", "fetch_response", "retrieval", "plan"})

_NO_ID = (b"", bytes(8), bytes(16))
_NO_TOKENS_READING = NotBillable("operation_makes_no_tokens")
_NO_MODEL_READING = NotBillable("names_no_model")


def read(span: Span, origin: Origin) -> UsageRecord | NotBillable | Rejected | None:
    """Read one span; see the package's contract."""
    attributes = span.attributes
    operation = first_text(attributes, "gen_ai.operation.name")
    provider = first_text(attributes, *_PROVIDER)
    if not operation and not provider:
        return None
    if operation in NO_TOKENS:
        return _NO_TOKENS_READING
    try:
        buckets, assumptions = _buckets(attributes)
    except InvalidCount as error:
        return Rejected(str(error))
    request_model = first_text(attributes, "gen_ai.request.model")
    response_model = first_text(attributes, "gen_ai.response.model")
    if buckets is None and not request_model and not response_model:
        return _NO_MODEL_READING
    if operation not in MODEL_CALLS and operation not in SUMMARIES:
        if buckets is None:
            return _NO_TOKENS_READING
        assumptions += ("operation_unknown",)
    if len(span.trace_id) != 16 or span.trace_id in _NO_ID or len(span.span_id) != 8 or span.span_id in _NO_ID:
        return Rejected("the trace id or span id is missing or malformed")
    return UsageRecord(
        trace_id=span.trace_id,
        span_id=span.span_id,
        parent_span_id=span.parent_span_id,
        started_at_ns=span.start_ns,
        latency_ns=max(0, span.end_ns - span.start_ns),
        wallet=origin.wallet,
        event=origin.event,
        action_id=origin.action_id,
        operation=operation,
        provider=provider,
        request_model=request_model,
        response_model=response_model,
        response_id=first_identity(attributes, "gen_ai.response.id"),
        service_tier=first_text(attributes, *_SERVICE_TIER),
        error_type=first_text(attributes, "error.type") or ("error" if span.failed else ""),
        buckets=buckets,
        summary=operation in SUMMARIES,
        time_to_first_chunk_ns=_nanoseconds(attributes.get("gen_ai.response.time_to_first_chunk")),
        dept=origin.dept,
        project=origin.project,
        task=origin.task,
        route=origin.route,
        region=origin.region,
        dialect=NAME,
        assumptions=origin.assumptions + assumptions,
        quality=origin.quality,
    )


def _buckets(attributes: Attributes) -> tuple[Buckets | None, tuple[str, ...]]:
    """Disjoint buckets and what was assumed; None without any usage. Raises InvalidCount for contradictions."""
    reported_input = first_count(attributes, *_INPUT)
    reported_output = first_count(attributes, *_OUTPUT)
    if reported_input is None and reported_output is None:
        return None, ()
    cache_read = first_count(attributes, *_CACHE_READ) or 0
    cache_write = first_count(attributes, *_CACHE_WRITE) or 0
    cache_write_1h = first_count(attributes, *_CACHE_WRITE_1H)
    reasoning = first_count(attributes, *_REASONING) or 0
    input_audio = first_count(attributes, *_INPUT_AUDIO) or 0
    output_audio = first_count(attributes, *_OUTPUT_AUDIO) or 0
    assumptions: tuple[str, ...] = ()

    remaining_input = reported_input or 0
    if reported_input is None:
        assumptions += ("input_tokens_missing",)
    if cache_read + cache_write <= remaining_input:
        remaining_input -= cache_read + cache_write
    else:
        assumptions += ("cache_outside_input",)
    if cache_write and cache_write_1h is None:
        assumptions += ("cache_write_lifetime_unknown",)
    cache_write_1h = min(cache_write_1h or 0, cache_write)
    if input_audio > remaining_input:
        raise InvalidCount("audio input tokens are more than the input tokens")
    remaining_output = reported_output or 0
    if output_audio > remaining_output:
        raise InvalidCount("audio output tokens are more than the output tokens")
    if reasoning > remaining_output - output_audio:
        reasoning = remaining_output - output_audio
        assumptions += ("reasoning_over_output",)
    return (
        Buckets(
            input=remaining_input - input_audio,
            cache_read=cache_read,
            cache_write=cache_write - cache_write_1h,
            cache_write_1h=cache_write_1h,
            input_audio=input_audio,
            output=remaining_output - output_audio,
            output_audio=output_audio,
            reasoning=reasoning,
        ),
        assumptions,
    )


def _nanoseconds(seconds: object) -> int | None:
    """A duration in seconds as nanoseconds; None for anything that is no duration of less than a day."""
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds < 86_400:
        return None
    return round(seconds * 1e9)
