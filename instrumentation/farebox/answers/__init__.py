"""Read providers' answers: model, response id, finish reasons and usage, from bodies and events.

The readers convert every provider's counts to OpenTelemetry's: input includes cache reads and writes, output includes
reasoning.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from farebox.answers.answer import Answer
from farebox.answers.anthropic import AnthropicAnswer
from farebox.answers.bedrock import BedrockAnswer
from farebox.answers.cohere import CohereAnswer
from farebox.answers.counts import mapping_in
from farebox.answers.google import GoogleAnswer
from farebox.answers.ollama import OllamaAnswer
from farebox.answers.openai import OpenAIAnswer
from farebox.answers.wanted import WANTED
from farebox.endpoints import Endpoint
from farebox.model_paths import Shape

__all__ = ["WANTED", "Answer", "answer_in", "shape_of", "total_in", "worth_adding"]

_ANSWERS: Final[Mapping[Shape, type[Answer]]] = {
    Shape.OPENAI: OpenAIAnswer,
    Shape.ANTHROPIC: AnthropicAnswer,
    Shape.GOOGLE: GoogleAnswer,
    Shape.COHERE: CohereAnswer,
    Shape.BEDROCK: BedrockAnswer,
    Shape.OLLAMA: OllamaAnswer,
}
_ANTHROPIC_TYPES: Final = frozenset({"message", "message_start", "message_delta", "completion"})
_TOTAL: Final = re.compile(rb'"total_tokens"\s*:\s*(\d{1,18})(?!\d)')


def answer_in(shape: Shape, provider: str = "") -> Answer:
    """Return a reader of the provider's answers of this shape."""
    return _ANSWERS[shape](provider)


def shape_of(payload: object) -> Shape | None:
    """Return the shape of an answer or event; None if unknown."""
    if isinstance(payload, list):
        payload = payload[0] if payload else None
    part = mapping_in(payload)
    if "choices" in part:
        return Shape.OPENAI
    usage = mapping_in(part.get("usage"))
    if part.get("type") in _ANTHROPIC_TYPES:
        return Shape.ANTHROPIC
    if "usageMetadata" in part or "candidates" in part or "usageMetadata" in mapping_in(part.get("response")):
        return Shape.GOOGLE
    if "inputTokens" in usage or "outputTokens" in usage or "amazon-bedrock-invocationMetrics" in part:
        return Shape.BEDROCK
    ends = (usage, mapping_in(part.get("meta")), mapping_in(mapping_in(part.get("delta")).get("usage")))
    if any("billed_units" in end for end in ends) or "event_type" in part or part.get("type") == "message-start":
        return Shape.COHERE
    if "prompt_eval_count" in part or "eval_count" in part:
        return Shape.OLLAMA
    if "prompt_tokens" in usage or part.get("object") in ("response", "chat.completion"):
        return Shape.OPENAI
    return None


def total_in(body: bytes) -> int | None:
    """Return the last token total in a body, which client instrumentations omit."""
    at = body.rfind(b'"total_tokens"')
    found = _TOTAL.match(body, at) if at >= 0 else None
    return int(found[1]) if found else None


def worth_adding(endpoint: Endpoint, body: bytes) -> bool:
    """Return whether an answer has usage that client instrumentations do not read."""
    if endpoint.operation == "generate_content":  # images, sound and pages are billed by other units
        return True
    return endpoint.operation != "embeddings" and _ANSWERS[endpoint.shape].worth_adding(body, endpoint.provider)


def read_request(answer: Answer, fields: Mapping[str, Any], model: str | None) -> None:
    """Pass the request's fields to a reader."""
    answer.read_request(fields)
    if isinstance(answer, GoogleAnswer):
        answer.asked(model)
