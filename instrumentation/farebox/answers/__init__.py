"""Reads what the providers answer: model, response id, finish reasons and usage, from bodies and from events.

The readers turn every provider's counts into OpenTelemetry's: the input includes what was read from and
written to the cache, the output includes the reasoning.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from farebox.answers.answer import LARGE_BODY_BYTES, Answer
from farebox.answers.anthropic import AnthropicAnswer
from farebox.answers.bedrock import BedrockAnswer
from farebox.answers.cohere import CohereAnswer
from farebox.answers.google import GoogleAnswer
from farebox.answers.openai import OpenAIAnswer
from farebox.endpoints import Endpoint, Shape

__all__ = ["LARGE_BODY_BYTES", "Answer", "answer_in", "worth_adding"]

_ANSWERS: Final[Mapping[Shape, type[Answer]]] = {
    Shape.OPENAI: OpenAIAnswer,
    Shape.ANTHROPIC: AnthropicAnswer,
    Shape.GOOGLE: GoogleAnswer,
    Shape.COHERE: CohereAnswer,
    Shape.BEDROCK: BedrockAnswer,
}


def answer_in(shape: Shape) -> Answer:
    """A reader for the shape."""
    return _ANSWERS[shape]()


def worth_adding(endpoint: Endpoint, body: bytes) -> bool:
    """Whether an answer tells what the instrumentations of the clients do not read."""
    if endpoint.operation == "generate_content":  # images, sound, pages: they all are billed by other units
        return True
    return endpoint.operation != "embeddings" and _ANSWERS[endpoint.shape].worth_adding(body)
