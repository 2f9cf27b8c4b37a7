"""What emitters leave out or get wrong, as recorded. Everything else must come out as the provider reported it."""

from farebox_collector.model.records import Buckets
from farebox_collector.model.units import Units
from goldens import CALLS

LIFETIME = "how long a cache write lives"
SEARCHES = "web searches"
REASONING = "reasoning"
AUDIO = "audio apart from text"
CACHE = "the cache apart from the input"
CACHE_WRITE = "cache writes apart from the input"

# Instrumentation scope, and for the Vercel AI SDK the emitter → what it does not tell of calls of a provider.
LACKS: dict[str, dict[str, set[str]]] = {
    "com.anthropic.sdk.python": {"anthropic": {SEARCHES}},
    "opentelemetry.instrumentation.genai.anthropic": {"anthropic": {LIFETIME, SEARCHES}},
    "opentelemetry.instrumentation.openai_v2": {"openai": {CACHE, REASONING, AUDIO}},
    "opentelemetry.instrumentation.openai.v1": {"openai": {CACHE_WRITE, AUDIO}},
    "opentelemetry.instrumentation.anthropic": {"anthropic": {LIFETIME, SEARCHES, REASONING}},
    "opentelemetry.instrumentation.langchain": {
        "openai": {REASONING, AUDIO},
        "anthropic": {LIFETIME, SEARCHES, REASONING},
    },
    "opentelemetry.instrumentation.google_generativeai": {"google": {REASONING}},
    "openinference.instrumentation.anthropic": {"anthropic": {LIFETIME}},
    "openinference.instrumentation.langchain": {
        "openai": {CACHE_WRITE},
        "anthropic": {LIFETIME, SEARCHES, REASONING},
    },
    "openlit.instrumentation.openai": {"openai": {AUDIO}},
    "openlit.instrumentation.anthropic": {"anthropic": {LIFETIME, SEARCHES, REASONING}},
    "vercel": {"openai": {REASONING}, "anthropic": {LIFETIME, REASONING}},
    "vercel-5": {"openai": {CACHE, REASONING}, "anthropic": {REASONING}},
}

# (emitter, scope, call) → what its spans say, and why. None: no usage.
WRONG: dict[tuple[str, str, str], tuple[Buckets | None, str]] = {
    ("openllmetry", "opentelemetry.instrumentation.anthropic", "anthropic.stream"): (
        Buckets(input=100, output=21),
        "adds the output of a stream's first event to the final count",
    ),
    ("openllmetry", "opentelemetry.instrumentation.anthropic", "anthropic.cache_stream"): (
        Buckets(input=10, cache_read=4000, cache_write=100, output=21),
        "the same",
    ),
    ("two-instrumentations", "opentelemetry.instrumentation.anthropic", "anthropic.stream"): (
        Buckets(input=100, output=21),
        "the same",
    ),
    ("two-instrumentations", "opentelemetry.instrumentation.anthropic", "anthropic.cache_stream"): (
        Buckets(input=10, cache_read=4000, cache_write=100, output=21),
        "the same",
    ),
    ("two-instrumentations", "openinference.instrumentation.anthropic", "anthropic.stream"): (
        None,
        "does not know a stream that another instrumentation has wrapped",
    ),
    ("two-instrumentations", "openinference.instrumentation.anthropic", "anthropic.cache_stream"): (None, "the same"),
    ("openllmetry-langchain", "opentelemetry.instrumentation.langchain", "anthropic.cache"): (
        Buckets(input=1100, cache_read=400, output=200),
        "reports 0 cache writes, and them in the input, unless it streams",
    ),
    ("openlit", "openlit.instrumentation.openai", "openai.reasoning"): (
        Buckets(input=50, output=200),
        "tells the reasoning of responses, and not of chat completions",
    ),
    ("openlit", "openlit.instrumentation.openai", "openai.stream_without_usage"): (
        Buckets(input=19, output=30),
        "counts the tokens of the texts itself where the provider reports none, and does not say so",
    ),
}

# (emitter, call): no span tells of it.
NOT_INSTRUMENTED = {
    ("openai-v2", "openai.responses"),
    ("openllmetry-langchain", "openai.embeddings"),
    ("openinference-langchain", "openai.embeddings"),
    # The spans of these failures name no model.
    ("openinference", "openai.error"),
    ("openlit", "anthropic.error"),
    ("openlit", "google.error"),
}


def expected_of(emitter: str, scope: str, call: str) -> tuple[Buckets | None, Units]:
    """The buckets and units of a call as far as this emitter tells of them."""
    if (emitter, scope, call) in WRONG:
        return WRONG[emitter, scope, call][0], ()
    buckets, units = CALLS[call].buckets, CALLS[call].units
    lacks = LACKS.get(emitter if emitter in LACKS else scope, {}).get(call.partition(".")[0], set())
    if buckets is None:
        return None, units
    if CACHE in lacks:
        buckets = buckets._replace(input=buckets.input + buckets.cache_read + buckets.cache_write, cache_read=0)
        buckets = buckets._replace(cache_write=0)
    if CACHE_WRITE in lacks:
        buckets = buckets._replace(input=buckets.input + buckets.cache_write, cache_write=0)
    if LIFETIME in lacks:
        buckets = buckets._replace(cache_write=buckets.cache_write + buckets.cache_write_1h, cache_write_1h=0)
    if REASONING in lacks:
        buckets = buckets._replace(reasoning=0)
    if AUDIO in lacks:
        buckets = buckets._replace(
            input=buckets.input + buckets.input_audio,
            input_audio=0,
            output=buckets.output + buckets.output_audio,
            output_audio=0,
        )
    return buckets, () if SEARCHES in lacks else units
