"""Read Amazon Bedrock's Converse, and InvokeModel, whose body has the format of the model's maker."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

from farebox import span_attributes
from farebox.answers.answer import Answer, AttributeValue
from farebox.answers.anthropic import AnthropicAnswer
from farebox.answers.counts import count_in, first_count, mapping_in, mappings_in, text_in
from farebox.answers.openai import OpenAIAnswer

_FINISH_REASONS: Final = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "tool_use": "tool_calls",
    "guardrail_intervened": "content_filter",
    "content_filtered": "content_filter",
}
_HEADERS: Final = {
    b"x-amzn-bedrock-input-token-count": "inputTokenCount",
    b"x-amzn-bedrock-output-token-count": "outputTokenCount",
    b"x-amzn-bedrock-cache-read-input-token-count": "cacheReadInputTokenCount",
    b"x-amzn-bedrock-cache-write-input-token-count": "cacheWriteInputTokenCount",
}
_METRICS: Final = "amazon-bedrock-invocationMetrics"
_STANDARD: Final = frozenset({"", "default", "standard"})
_OPENAI_COUNTS: Final = ("prompt_tokens", "completion_tokens")


class BedrockAnswer(Answer):
    """A response or its events. Anthropic's and OpenAI's models answer InvokeModel in their makers' formats."""

    def __init__(self, provider: str = "") -> None:
        """Start without facts."""
        super().__init__(provider)
        self._anthropic = AnthropicAnswer(provider)
        self._openai = OpenAIAnswer(provider)

    def not_alone(self) -> None:
        """As in the base class, also for the readers of the makers' formats."""
        super().not_alone()
        self._anthropic.not_alone()
        self._openai.not_alone()

    @property
    def impossible(self) -> bool:
        """As in the base class, in any maker's format."""
        return super().impossible or self._anthropic.impossible or self._openai.impossible

    @classmethod
    def worth_adding(cls, body: bytes, provider: str = "") -> bool:
        """Return whether the body has tiers, cache-write lifetimes or what Anthropic's models report."""
        named = (b'"serviceTier"', b'"performanceConfig"', b'"cacheDetails"')
        return any(key in body for key in named) or AnthropicAnswer.worth_adding(body)

    def read_headers(self, headers: Mapping[bytes, bytes]) -> None:
        """Read token counts and tier from InvokeModel's headers, which have them for any model."""
        counts = {name: headers.get(header, b"") for header, name in _HEADERS.items()}
        self._merge_usage({name: int(count) for name, count in counts.items() if count.isdigit() and len(count) < 20})
        self.response_id = headers.get(b"x-amzn-requestid", b"").decode("latin-1") or self.response_id
        self._read_latency(headers.get(b"x-amzn-bedrock-performanceconfig-latency", b"").decode("latin-1"))
        self._read_tier(headers.get(b"x-amzn-bedrock-service-tier", b"").decode("latin-1"))

    def attributes(self) -> dict[str, AttributeValue]:
        """Return the facts so far; the body of the maker's model has more than the headers."""
        own = super().attributes()
        for inner in (self._anthropic.attributes(), self._openai.attributes()):
            own = {**own, **inner} if span_attributes.USAGE_INPUT in inner else {**inner, **own}
        return own

    def _read(self, part: Mapping[str, Any]) -> None:
        if isinstance(packed := part.get("bytes"), str):  # an event of InvokeModelWithResponseStream
            part = {}
            with suppress(ValueError, RecursionError):
                part = mapping_in(json.loads(base64.b64decode(packed)))
        self._merge_usage(part.get(_METRICS))
        self._read_tier(mapping_in(part.get("serviceTier")).get("type"))
        self._read_latency(mapping_in(part.get("performanceConfig")).get("latency"))
        usage = mapping_in(part.get(self.usage_key))
        if "inputTokens" in usage or "outputTokens" in usage:
            self._merge_usage(usage)
        elif any(key in usage for key in _OPENAI_COUNTS):
            self._openai.read(part)
        else:
            self._anthropic.read(part)
        if reason := text_in(part.get("stopReason")):
            self._finished(_FINISH_REASONS.get(reason, reason))
        self._read_counts_of_makers(part)

    def _read_counts_of_makers(self, part: Mapping[str, Any]) -> None:
        """Read the top-level counts of Titan and Llama; the headers, if any, have the same."""
        counts = {
            "inputTokenCount": first_count(part, "inputTextTokenCount", "prompt_token_count"),
            "outputTokenCount": first_count(part, "generation_token_count"),
        }
        results = [count_in(result, "tokenCount") for result in mappings_in(part.get("results"))]
        if any(results):
            counts["outputTokenCount"] = sum(count or 0 for count in results)
        self._merge_usage({name: count for name, count in counts.items() if count is not None})

    def _read_tier(self, tier: object) -> None:
        if (name := str(tier or "").lower()) not in _STANDARD:
            self._tiers[span_attributes.USAGE_SERVICE_TIER] = name

    def _read_latency(self, latency: object) -> None:
        if (name := str(latency or "").lower()) not in _STANDARD:
            self._tiers.setdefault(span_attributes.USAGE_SERVICE_TIER, name)

    def _counts(self, usage: Mapping[str, Any]) -> dict[str, int | None]:
        uncached = first_count(usage, "inputTokens", "inputTokenCount")
        cache_read = first_count(usage, "cacheReadInputTokens", "cacheReadInputTokenCount")
        cache_write = first_count(usage, "cacheWriteInputTokens", "cacheWriteInputTokenCount")
        written_1h = [part for part in mappings_in(usage.get("cacheDetails")) if part.get("ttl") == "1h"]
        return {
            span_attributes.USAGE_INPUT: (
                None if uncached is None else uncached + (cache_read or 0) + (cache_write or 0)
            ),
            span_attributes.USAGE_OUTPUT: first_count(usage, "outputTokens", "outputTokenCount"),
            span_attributes.USAGE_TOTAL: count_in(usage, "totalTokens"),
            span_attributes.USAGE_CACHE_READ: cache_read,
            span_attributes.USAGE_CACHE_WRITE: cache_write,
            span_attributes.ANTHROPIC_CACHE_WRITE_1H: (
                sum(count_in(part, "inputTokens") or 0 for part in written_1h) or None
            ),
        }
