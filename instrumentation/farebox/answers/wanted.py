"""The keys, of all shapes, that are kept of a large answer to determine what is billed."""

from __future__ import annotations

from typing import Any, Final


def _keys(*names: str, **inside: Any) -> dict[str, Any]:
    return {**dict.fromkeys(names), **inside}


_TOOLS_RUN: Final = _keys("index", "name", "type")
WANTED: Final[dict[str, Any]] = _keys(
    "background",
    "bytes",
    "done",
    "done_reason",
    "duration",
    "error",
    "eval_count",
    "finish_reason",
    "generation_id",
    "generation_token_count",
    "id",
    "inputTextTokenCount",
    "meta",
    "model",
    "modelVersion",
    "object",
    "performanceConfig",
    "prompt_eval_count",
    "prompt_token_count",
    "responseId",
    "serviceTier",
    "service_tier",
    "status",
    "stopReason",
    "stop_reason",
    "tool_usage",
    "type",
    "usage",
    "usageMetadata",
    "usage_breakdown",
    "usage_info",
    "amazon-bedrock-invocationMetrics",
    candidates=_keys(
        "finishReason",
        groundingMetadata=_keys(
            "imageSearchQueries", "retrievalQueries", "webSearchQueries", groundingChunks=_keys("maps")
        ),
    ),
    choices=_keys(
        "finish_reason",
        "usage",
        delta=_keys(executed_tools=_TOOLS_RUN),
        message=_keys(executed_tools=_TOOLS_RUN),
    ),
    data=_keys("b64_json", "url"),
    delta=_keys("finish_reason", "stop_reason", "type", "usage"),
    message=_keys("id", "model", "stop_reason", "type", "usage"),
    metadata=_keys("billableCharacterCount"),
    output=_keys("container_id", "model", "status", "type", action=_keys("type"), environment=_keys("container_id")),
    predictions=_keys("bytesBase64Encoded", "gcsUri", embeddings=_keys("statistics")),
    results=_keys("tokenCount"),
    tools=_keys("model", "type", container=_keys("memory_limit"), environment=_keys("memory_limit")),
    x_groq=_keys("error", "id", "usage"),
)
WANTED["response"] = WANTED  # an event of a response, or an answer in an envelope
