"""Particulars of each emitter of `gen_ai.*` attributes: additional keys, and how it counts.

An emitter is identified by its instrumentation scope. The facts were read from spans of the released packages
(`tests/dialects/golden`); docs/reference/dialects.md lists the versions.
"""

from typing import NamedTuple

from farebox_collector.dialects.counts import Slots
from farebox_collector.dialects.hosts import family
from farebox_collector.dialects.reconcile import INSIDE, UNKNOWN, Habits


class Keys(NamedTuple):
    """The attributes of each count; the first alias present counts."""

    input: tuple[str, ...] = ("gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens")
    output: tuple[str, ...] = ("gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens")
    total: tuple[str, ...] = ("gen_ai.usage.total_tokens", "llm.usage.total_tokens")
    cache_read: tuple[str, ...] = ("gen_ai.usage.cache_read.input_tokens", "gen_ai.usage.cache_read_input_tokens")
    cache_write: tuple[str, ...] = (
        "gen_ai.usage.cache_write.input_tokens",
        "gen_ai.usage.cache_creation.input_tokens",
        "gen_ai.usage.cache_creation_input_tokens",
    )
    cache_write_1h: tuple[str, ...] = ("anthropic.usage.cache_creation.ephemeral_1h_input_tokens",)
    """Only the Anthropic client's own spans and pydantic-ai report how long a cache lives."""
    reasoning: tuple[str, ...] = ("gen_ai.usage.reasoning.output_tokens", "gen_ai.usage.reasoning_tokens")
    input_audio: tuple[str, ...] = ("gen_ai.usage.audio.input_tokens",)
    output_audio: tuple[str, ...] = ("gen_ai.usage.audio.output_tokens",)
    input_image: tuple[str, ...] = ("farebox.usage.input_image_tokens",)
    output_image: tuple[str, ...] = ("farebox.usage.output_image_tokens",)
    cached_audio: tuple[str, ...] = ("farebox.usage.cache_read_audio_tokens",)
    cached_image: tuple[str, ...] = ("farebox.usage.cache_read_image_tokens",)
    cached_video: tuple[str, ...] = ("farebox.usage.cache_read_video_tokens",)


def slots_of(keys: Keys) -> Slots:
    """Locate the counts, for reading all of them in one pass."""
    return Slots({key: (field, rank) for field, aliases in enumerate(keys) for rank, key in enumerate(aliases)})


class Emitter(NamedTuple):
    """How one emitter uses the vocabulary."""

    dialect: str
    habits: Habits
    slots: Slots
    """The positions of its counts."""
    flags: tuple[str, ...] = ()
    """Assumed about each of its calls."""
    searches: str = ""
    """Its own attribute for web searches, if it has one."""
    usage_json: bool = False
    """Whether `RAW_USAGE` has the provider's usage object."""


RAW_USAGE = "gen_ai.usage.raw"
"""Logfire's attribute for the provider's usage object, as JSON."""
GOOGLE = frozenset({"gemini", "google", "vertex_ai", "gcp.gen_ai", "gcp.gemini", "gcp.vertex_ai", "vertexai"})

_GENAI = Keys()
# Numbers that pydantic-ai copies from the provider's usage object; some repeat counts that have a key of their own.
_PYDANTIC_AI = Keys(
    cache_read=(
        *_GENAI.cache_read,
        "gen_ai.usage.details.cache_read_tokens",
        "gen_ai.usage.details.cached_content_tokens",
    ),
    cache_write=(*_GENAI.cache_write, "gen_ai.usage.details.cache_write_tokens"),
    cache_write_1h=("gen_ai.usage.details.ephemeral_1h_input_tokens",),
    reasoning=(
        *_GENAI.reasoning,
        "gen_ai.usage.details.reasoning_tokens",
        "gen_ai.usage.details.thinking_tokens",
        "gen_ai.usage.details.thoughts_tokens",
    ),
    input_audio=(
        *_GENAI.input_audio,
        "gen_ai.usage.details.input_audio_tokens",
        "gen_ai.usage.details.audio_prompt_tokens",
    ),
    output_audio=(
        *_GENAI.output_audio,
        "gen_ai.usage.details.output_audio_tokens",
        "gen_ai.usage.details.audio_candidates_tokens",
    ),
    input_image=(*_GENAI.input_image, "gen_ai.usage.details.image_prompt_tokens"),
    output_image=(*_GENAI.output_image, "gen_ai.usage.details.image_candidates_tokens"),
    cached_audio=(
        *_GENAI.cached_audio,
        "gen_ai.usage.details.cache_audio_read_tokens",
        "gen_ai.usage.details.audio_cache_tokens",
    ),
    cached_image=(*_GENAI.cached_image, "gen_ai.usage.details.image_cache_tokens"),
    cached_video=(*_GENAI.cached_video, "gen_ai.usage.details.video_cache_tokens"),
)
_TRACELOOP = Keys(reasoning=(*_GENAI.reasoning, "llm.usage.reasoning_tokens"))
_OPENLIT = Keys(output_audio=(*_GENAI.output_audio, "gen_ai.usage.completion_tokens_details.audio_tokens"))

_PLAIN_SLOTS, _PYDANTIC_AI_SLOTS, _TRACELOOP_SLOTS, _OPENLIT_SLOTS = (
    slots_of(keys) for keys in (_GENAI, _PYDANTIC_AI, _TRACELOOP, _OPENLIT)
)
_PYDANTIC_AI_SEARCHES = "gen_ai.usage.details.web_search_requests"
COUNT_KEYS = frozenset({_PYDANTIC_AI_SEARCHES}).union(
    _PLAIN_SLOTS, _PYDANTIC_AI_SLOTS, _TRACELOOP_SLOTS, _OPENLIT_SLOTS
)

_OFFICIAL = (
    "com.anthropic.sdk.",
    "farebox",
    "mistralai_sdk",
    "opentelemetry.instrumentation.genai.",
    "opentelemetry.instrumentation.google_genai",
    "opentelemetry.util.genai",
)
_TRACELOOP_SCOPES = tuple(
    f"opentelemetry.instrumentation.{name}"
    for name in (
        "openai.v",
        "openai_agents",
        "anthropic",
        "langchain",
        "llamaindex",
        "llama_index",
        "bedrock",
        "google_generativeai",
        "vertexai",
        "mistralai",
        "cohere",
        "groq",
        "ollama",
        "together",
        "replicate",
        "watsonx",
        "writer",
        "crewai",
        "agno",
        "sagemaker",
        "alephalpha",
        "haystack",
        "transformers",
    )
)


def emitter_of(scope: str, provider: str, payee: str) -> Emitter:
    """Return how the emitter with this scope counts calls with provider name `provider` that `payee` bills."""
    emitter = _emitter_of(scope, provider)
    return emitter._replace(habits=habits_at(emitter.habits, payee, "openai" in scope))


def habits_at(habits: Habits, payee: str, openai_shaped: bool = False) -> Habits:
    """Adjust an emitter's habits to the provider that bills; `openai_shaped` if the client is OpenAI's.

    Documented by the providers: xAI's completion tokens exclude the reasoning, and so do those of Google's
    OpenAI-compatible endpoint, which reports reasoning only within the total. Anthropic has no hidden output.
    """
    who = family(payee)
    if who in _SUMS_ARE_TOTALS and habits.rest_is_output is None:
        return habits._replace(rest_is_output=False)
    if who not in _HIDE_REASONING:
        return habits
    beside = habits.reasoning_inside is True and (openai_shaped or who == "x-ai")
    return habits._replace(rest_is_output=True, reasoning_inside=None if beside else habits.reasoning_inside)


_HIDE_REASONING = frozenset({"google", "x-ai"})
_SUMS_ARE_TOTALS = frozenset({"anthropic", "aws"})


def _emitter_of(scope: str, provider: str) -> Emitter:
    if scope.startswith(_OFFICIAL):
        return Emitter("genai", INSIDE, _PLAIN_SLOTS)
    if scope.startswith("openlit"):
        outside = provider == "anthropic" or scope.endswith("anthropic")
        reasoning_inside = not (provider in GOOGLE or "google" in scope or "vertexai" in scope)
        return Emitter("openlit", Habits(not outside, reasoning_inside), _OPENLIT_SLOTS)
    if scope == "pydantic-ai":
        return Emitter("pydantic_ai", INSIDE, _PYDANTIC_AI_SLOTS, searches=_PYDANTIC_AI_SEARCHES)
    if scope.startswith("logfire"):
        return Emitter("logfire", INSIDE, _PYDANTIC_AI_SLOTS, searches=RAW_USAGE, usage_json=True)
    if scope == "gen_ai":  # the Vercel AI SDK from version 7 on
        return Emitter("genai", INSIDE, _PLAIN_SLOTS)
    if scope.startswith("opentelemetry.instrumentation.openai_v2"):
        # 2.4b0, its last release, sets no cache attribute on chat completions.
        return Emitter("genai", INSIDE, _PLAIN_SLOTS, flags=("cache_not_reported",))
    if scope.startswith(_TRACELOOP_SCOPES):
        return _traceloop(scope, provider)
    return Emitter("genai", UNKNOWN, _PLAIN_SLOTS)


def _traceloop(scope: str, provider: str) -> Emitter:
    if "bedrock" in scope:
        return Emitter("traceloop", Habits(cache_inside=False), _TRACELOOP_SLOTS)
    if "google_generativeai" in scope or "vertexai" in scope or provider in GOOGLE:
        return Emitter("traceloop", Habits(cache_inside=True, rest_is_output=True), _TRACELOOP_SLOTS)
    return Emitter("traceloop", INSIDE, _TRACELOOP_SLOTS)
