"""Reads what the providers answer: model, response id, finish reasons and usage, from bodies and from events.

The readers turn every provider's counts into OpenTelemetry's: the input includes what was read from and
written to the cache, the output includes the reasoning.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, ClassVar, Final

from farebox import span_attributes
from farebox.endpoints import Shape

AttributeValue = str | int | list[str]

LARGE_BODY_BYTES: Final = 256 * 1024
_END_BYTES: Final = 4 * 1024
_USAGE_BYTES_MAX: Final = 16 * 1024
_ID_OR_MODEL: Final = re.compile(rb'"(id|responseId|model|modelVersion)"\s*:\s*"([^"\\]{1,256})"')
_ANTHROPIC_FINISH_REASONS: Final = {
    "end_turn": "stop",
    "max_tokens": "length",
    "stop_sequence": "stop",
    "tool_use": "tool_calls",
}


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _count(counts: Mapping[str, Any], *path: str) -> int | None:
    value: Any = counts
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    # bool is an int to Python, and no count to anybody.
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


class Answer:
    """Gathers one response, from its body or event by event. A base for the three shapes."""

    usage_key: ClassVar[str] = "usage"

    def __init__(self) -> None:
        """Start with nothing known."""
        self.model: str | None = None
        self.response_id: str | None = None
        self.error: str | None = None
        self._finish_reasons: list[str] = []
        self._tiers: dict[str, str] = {}
        self._usage: dict[str, Any] = {}

    def read(self, payload: object) -> None:
        """Take in a body, or the payload of one event. Later values of a count replace earlier ones."""
        for part in payload if isinstance(payload, list) else [payload]:
            if isinstance(part, Mapping):
                self._read_error(part)
                self._read(part)

    def read_large_body(self, body: bytes) -> None:
        """Take in a body too large to parse whole in the application's time: its ends and its usage."""
        for found in _ID_OR_MODEL.finditer(body[:_END_BYTES] + body[-_END_BYTES:]):
            if found.group(1) in (b"id", b"responseId"):
                self.response_id = self.response_id or found.group(2).decode()
            else:
                self.model = self.model or found.group(2).decode()
        # Inside a JSON string a quote is escaped, so this can only be a key; the last one is the response's
        # own.
        start = body.rfind(f'"{self.usage_key}"'.encode())
        brace = body.find(b"{", start)
        if start >= 0 and brace >= 0:
            usage, _ = json.JSONDecoder().raw_decode(body[brace : brace + _USAGE_BYTES_MAX].decode(errors="replace"))
            self._merge_usage(usage)

    def attributes(self) -> dict[str, AttributeValue]:
        """What is known so far, as span attributes; what the provider did not say is left out."""
        known: dict[str, AttributeValue | None] = {
            span_attributes.RESPONSE_MODEL: self.model,
            span_attributes.RESPONSE_ID: self.response_id,
            span_attributes.FINISH_REASONS: self._finish_reasons or None,
            **self._tiers,
            **(self._counts(self._usage) if self._usage else {}),
        }
        return {key: value for key, value in known.items() if value is not None}

    def _read(self, part: Mapping[str, Any]) -> None:
        raise NotImplementedError

    def _counts(self, usage: Mapping[str, Any]) -> dict[str, int | None]:
        raise NotImplementedError

    def _read_error(self, part: Mapping[str, Any]) -> None:
        error = part.get("error")
        if isinstance(error, Mapping):
            self.error = _text(error.get("code")) or _text(error.get("type")) or _text(error.get("status"))

    def _merge_usage(self, usage: object) -> None:
        if isinstance(usage, Mapping):
            self._usage.update({key: value for key, value in usage.items() if value is not None})

    def _finished(self, reason: object) -> None:
        if text := _text(reason):
            self._finish_reasons.append(text)


class OpenAIAnswer(Answer):
    """Chat completions, completions, responses, embeddings, images: of OpenAI and all who speak like it."""

    def _read(self, part: Mapping[str, Any]) -> None:
        if isinstance(part.get("response"), Mapping):  # an event of the Responses API
            part = part["response"]
            self._read_error(part)
        self.model = _text(part.get("model")) or self.model
        self.response_id = _text(part.get("id")) or self.response_id
        if tier := _text(part.get("service_tier")):
            self._tiers[span_attributes.OPENAI_SERVICE_TIER] = tier
        self._merge_usage(part.get(self.usage_key))
        choices = part.get("choices")
        for choice in choices if isinstance(choices, list) else ():
            if isinstance(choice, Mapping):
                self._finished(choice.get("finish_reason"))
        if part.get("object") == "response" and part.get("status") in ("completed", "incomplete", "failed"):
            self._finished({"completed": "stop", "incomplete": "length", "failed": "error"}[part["status"]])

    def _counts(self, usage: Mapping[str, Any]) -> dict[str, int | None]:
        total_input = _count(usage, "prompt_tokens")
        output = _count(usage, "completion_tokens")
        details_in, details_out = "prompt_tokens_details", "completion_tokens_details"
        if total_input is None:
            total_input = _count(usage, "input_tokens")
            details_in = "input_tokens_details"
        if output is None:
            output = _count(usage, "output_tokens")
            details_out = "output_tokens_details"
        cache_read = _count(usage, details_in, "cached_tokens")
        if cache_read is None:
            cache_read = _count(usage, "prompt_cache_hit_tokens")  # DeepSeek
        reasoning = _count(usage, details_out, "reasoning_tokens")
        total = _count(usage, "total_tokens")
        # xAI leaves the reasoning out of the completion tokens; the total gives it away.
        if reasoning and output is not None and total == (total_input or 0) + output + reasoning:
            output += reasoning
        return {
            span_attributes.USAGE_INPUT: total_input,
            span_attributes.USAGE_OUTPUT: output,
            span_attributes.USAGE_CACHE_READ: cache_read,
            span_attributes.USAGE_CACHE_WRITE: _count(usage, details_in, "cache_write_tokens"),
            span_attributes.USAGE_REASONING: reasoning,
        }


class AnthropicAnswer(Answer):
    """Messages. The counts of ``message_delta`` are cumulative and replace those of ``message_start``."""

    def _read(self, part: Mapping[str, Any]) -> None:
        if isinstance(part.get("message"), Mapping):  # message_start
            part = part["message"]
        if part.get("type") == "message":
            self.model = _text(part.get("model")) or self.model
            self.response_id = _text(part.get("id")) or self.response_id
        usage = part.get(self.usage_key)
        self._merge_usage(usage)
        if isinstance(usage, Mapping) and (tier := _text(usage.get("service_tier"))):
            self._tiers[span_attributes.ANTHROPIC_SERVICE_TIER] = tier
        delta = part.get("delta")
        reason = _text((delta if isinstance(delta, Mapping) else part).get("stop_reason"))
        if reason:
            self._finished(_ANTHROPIC_FINISH_REASONS.get(reason, reason))

    def _counts(self, usage: Mapping[str, Any]) -> dict[str, int | None]:
        uncached = _count(usage, "input_tokens")
        cache_read = _count(usage, "cache_read_input_tokens")
        cache_write = _count(usage, "cache_creation_input_tokens")
        return {
            span_attributes.USAGE_INPUT: (
                None if uncached is None else uncached + (cache_read or 0) + (cache_write or 0)
            ),
            span_attributes.USAGE_OUTPUT: _count(usage, "output_tokens"),
            span_attributes.USAGE_CACHE_READ: cache_read,
            span_attributes.USAGE_CACHE_WRITE: cache_write,
            span_attributes.USAGE_REASONING: _count(usage, "output_tokens_details", "thinking_tokens"),
            span_attributes.ANTHROPIC_CACHE_WRITE_5M: _count(usage, "cache_creation", "ephemeral_5m_input_tokens"),
            span_attributes.ANTHROPIC_CACHE_WRITE_1H: _count(usage, "cache_creation", "ephemeral_1h_input_tokens"),
        }


class GoogleAnswer(Answer):
    """``generateContent``. The candidates exclude the thoughts; the prompt excludes the tools' results."""

    usage_key = "usageMetadata"

    def _read(self, part: Mapping[str, Any]) -> None:
        self.model = _text(part.get("modelVersion")) or self.model
        self.response_id = _text(part.get("responseId")) or self.response_id
        self._merge_usage(part.get(self.usage_key))
        candidates = part.get("candidates")
        for candidate in candidates if isinstance(candidates, list) else ():
            if isinstance(candidate, Mapping) and (reason := _text(candidate.get("finishReason"))):
                self._finished(reason.lower())

    def _counts(self, usage: Mapping[str, Any]) -> dict[str, int | None]:
        prompt = _count(usage, "promptTokenCount")
        candidates = _count(usage, "candidatesTokenCount")
        thoughts = _count(usage, "thoughtsTokenCount")
        produced = None if candidates is None and thoughts is None else (candidates or 0) + (thoughts or 0)
        return {
            span_attributes.USAGE_INPUT: (
                None if prompt is None else prompt + (_count(usage, "toolUsePromptTokenCount") or 0)
            ),
            span_attributes.USAGE_OUTPUT: produced,
            span_attributes.USAGE_CACHE_READ: _count(usage, "cachedContentTokenCount"),
            span_attributes.USAGE_REASONING: thoughts,
        }


_ANSWERS: Final[Mapping[Shape, type[Answer]]] = {
    Shape.OPENAI: OpenAIAnswer,
    Shape.ANTHROPIC: AnthropicAnswer,
    Shape.GOOGLE: GoogleAnswer,
}


def answer_in(shape: Shape) -> Answer:
    """A reader for the shape."""
    return _ANSWERS[shape]()
