"""Names of the span attributes that the SDK writes or reads, and the detection of GenAI spans."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

# Farebox's own attributes, where no convention exists.
ACTION_ID: Final = "farebox.action.id"
CACHE_HIT: Final = "farebox.cache_hit"
CITATION_RATE: Final = "farebox.citation_rate"
COST_ACTUAL: Final = "farebox.cost_actual"
COST_PER_1K: Final = "farebox.cost_per_1k"
CURRENCY: Final = "farebox.currency"
DEPT: Final = "farebox.dept"
EVENT: Final = "farebox.event"
EXPOSURE: Final = "farebox.exposure"
"""Why a call without an observed end may be billed: ``timeout``, ``client_closed``, ``connection_lost``."""
EXPOSURE_INPUT: Final = "farebox.exposure.input_tokens"
EXPOSURE_OUTPUT: Final = "farebox.exposure.output_tokens"
COST_STATED: Final = "farebox.cost.stated_usd"
"""Text, a decimal: the charge for the call as stated by the provider."""
PROVIDER_BY_ADDRESS: Final = "farebox.provider"
"""The billing provider, from the call's address; overrides another instrumentation's name."""
HUMAN_REVIEWED: Final = "farebox.human_reviewed"
PROJECT: Final = "farebox.project"
QUALITY_TRACE_ID: Final = "farebox.quality.trace_id"
REVIEW_APPROVED: Final = "farebox.review.approved"
ROUTE: Final = "farebox.route"
TASK: Final = "farebox.task"
UNITS: Final = "farebox.units."
"""Prefix of a billable unit's name, such as ``farebox.units.web_searches``, a count."""
UNITS_WRITTEN: Final = {
    "advanced_web_searches": "web searches at a higher fee",
    "audio_seconds": "seconds of audio",
    "browser_automations": "browser sessions run by the provider",
    "code_executions": "runs of the provider's code interpreter",
    "container_sessions": "container sessions of code execution, times their gigabytes",
    "document_searches": "searches of attached files",
    "images": "generated images",
    "input_characters": "spoken or embedded characters",
    "input_document_pages": "document pages read",
    "map_searches": "searches of maps",
    "preview_web_searches": "web searches with OpenAI's preview tool",
    "rerank_searches": "reranked searches",
    "social_searches": "searches of a social network",
    "storage_searches": "searches of files",
    "web_searches": "searches of the web",
    "web_visits": "web pages opened by a tool",
}
"""The units read from answers, with their meaning; the collector uses the same names."""
USAGE_CACHE_READ_AUDIO: Final = "farebox.usage.cache_read_audio_tokens"
USAGE_CACHE_READ_IMAGE: Final = "farebox.usage.cache_read_image_tokens"
USAGE_CACHE_READ_VIDEO: Final = "farebox.usage.cache_read_video_tokens"
USAGE_INFERENCE_REGION: Final = "farebox.usage.inference_region"
"""The region, if the provider bills by it: ``us``, ``eu``."""
USAGE_INPUT_IMAGE: Final = "farebox.usage.input_image_tokens"
USAGE_LINES: Final = "farebox.usage.lines"
"""Text, a JSON list: other models' work within the same answer, each with its tokens and units."""
USAGE_MISSING: Final = "farebox.usage.missing"
"""Why there is no usage: ``stream``, ``background``, ``impossible_counts``."""
IN_BACKGROUND: Final = "background"
USAGE_OUTPUT_IMAGE: Final = "farebox.usage.output_image_tokens"
USAGE_SERVICE_TIER: Final = "farebox.usage.service_tier"
"""The service tier of the answer, for providers whose tier has no separate attribute."""
USAGE_OWN: Final = "farebox.usage.own"
"""Text, a JSON object: the named model's counts, if another instrumentation has the sum of two models.
They replace the sum in the sent span; the attribute itself is not sent."""
USAGE_SPEED: Final = "farebox.usage.speed"
WALLET: Final = "farebox.wallet"

# OpenTelemetry's. The cache and reasoning keys are those of the official GenAI instrumentations 1.3b0.
CLOUD_REGION: Final = "cloud.region"
ERROR_TYPE: Final = "error.type"
FINISH_REASONS: Final = "gen_ai.response.finish_reasons"
HTTP_STATUS_CODE: Final = "http.response.status_code"
OPERATION_NAME: Final = "gen_ai.operation.name"
PROVIDER_NAME: Final = "gen_ai.provider.name"
REQUEST_MODEL: Final = "gen_ai.request.model"
REQUEST_STREAM: Final = "gen_ai.request.stream"
RESPONSE_ID: Final = "gen_ai.response.id"
RESPONSE_MODEL: Final = "gen_ai.response.model"
SERVER_ADDRESS: Final = "server.address"
SERVER_PORT: Final = "server.port"
TIME_TO_FIRST_CHUNK: Final = "gen_ai.response.time_to_first_chunk"
USAGE_CACHE_READ: Final = "gen_ai.usage.cache_read.input_tokens"
USAGE_CACHE_WRITE: Final = "gen_ai.usage.cache_write.input_tokens"
USAGE_CACHE_WRITE_BEFORE_1_42: Final = "gen_ai.usage.cache_creation.input_tokens"
USAGE_INPUT: Final = "gen_ai.usage.input_tokens"
USAGE_INPUT_AUDIO: Final = "gen_ai.usage.audio.input_tokens"
USAGE_OUTPUT: Final = "gen_ai.usage.output_tokens"
USAGE_OUTPUT_AUDIO: Final = "gen_ai.usage.audio.output_tokens"
USAGE_REASONING: Final = "gen_ai.usage.reasoning.output_tokens"
USAGE_TOTAL: Final = "gen_ai.usage.total_tokens"

# The providers' own. The Anthropic client writes these names on its own spans.
ANTHROPIC_CACHE_WRITE_1H: Final = "anthropic.usage.cache_creation.ephemeral_1h_input_tokens"
ANTHROPIC_CACHE_WRITE_5M: Final = "anthropic.usage.cache_creation.ephemeral_5m_input_tokens"
ANTHROPIC_SERVICE_TIER: Final = "anthropic.response.service_tier"
OPENAI_SERVICE_TIER: Final = "openai.response.service_tier"

INFERENCE_OPERATIONS: Final = frozenset({"chat", "text_completion", "generate_content", "embeddings"})
"""Values of ``gen_ai.operation.name`` that use tokens."""

_GENAI_PREFIXES: Final = ("gen_ai.", "farebox.", "openinference.", "llm.", "traceloop.", "langfuse.")
_INFERENCE_KINDS: Final = frozenset({"LLM", "EMBEDDING"})


def is_genai(attributes: Mapping[str, Any] | None) -> bool:
    """Return whether a span with these attributes is a GenAI span in any dialect that the collector reads."""
    for key in attributes or ():  # noqa: SIM110, a generator costs more than all else here
        if key.startswith(_GENAI_PREFIXES):
            return True
    return False


def is_inference(attributes: Mapping[str, Any] | None) -> bool:
    """Return whether a span with these attributes is a single model call."""
    if not attributes:
        return False
    return (
        attributes.get(OPERATION_NAME) in INFERENCE_OPERATIONS
        or attributes.get("openinference.span.kind") in _INFERENCE_KINDS
        or "llm.request.type" in attributes
    )


def copied(attributes: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """Return a span's attributes as a plain dictionary, which has several times faster look-ups."""
    if attributes is None:
        return {}
    try:
        copy: Mapping[str, Any] = attributes.copy()  # type: ignore[attr-defined]
    except AttributeError:
        copy = dict(attributes)
    return copy
