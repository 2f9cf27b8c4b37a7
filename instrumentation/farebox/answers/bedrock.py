"""Amazon Bedrock's Converse, and InvokeModel, whose body is whatever the model's maker writes."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any, Final

from farebox import span_attributes
from farebox.answers.answer import Answer, AttributeValue, count_in, mappings_in, text_in
from farebox.answers.anthropic import AnthropicAnswer

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
}
_METRICS: Final = "amazon-bedrock-invocationMetrics"


class BedrockAnswer(Answer):
    """One response, or the events of one. Anthropic's models answer InvokeModel in Anthropic's own words."""

    def __init__(self) -> None:
        """Start with nothing known."""
        super().__init__()
        self._anthropic = AnthropicAnswer()

    def read_headers(self, headers: Mapping[bytes, bytes]) -> None:
        """InvokeModel counts the tokens of any model in its headers."""
        counts = {name: headers.get(header, b"") for header, name in _HEADERS.items()}
        self._merge_usage({name: int(count) for name, count in counts.items() if count.isdigit()})
        self.response_id = headers.get(b"x-amzn-requestid", b"").decode("latin-1") or self.response_id

    def attributes(self) -> dict[str, AttributeValue]:
        """What is known so far; what Anthropic's model says itself is richer than the headers."""
        own, inner = super().attributes(), self._anthropic.attributes()
        return {**own, **inner} if span_attributes.USAGE_INPUT in inner else {**inner, **own}

    def _read(self, part: Mapping[str, Any]) -> None:
        if isinstance(packed := part.get("bytes"), str):  # an event of InvokeModelWithResponseStream
            part = json.loads(base64.b64decode(packed))
        self._merge_usage(part.get(_METRICS))
        usage = part.get(self.usage_key)
        if isinstance(usage, Mapping) and "inputTokens" in usage:
            self._merge_usage(usage)
        else:
            self._anthropic.read(part)
        if reason := text_in(part.get("stopReason")):
            self._finished(_FINISH_REASONS.get(reason, reason))

    def _counts(self, usage: Mapping[str, Any]) -> dict[str, int | None]:
        uncached, output = count_in(usage, "inputTokens"), count_in(usage, "outputTokens")
        cache_read = count_in(usage, "cacheReadInputTokens") or count_in(usage, "cacheReadInputTokenCount")
        cache_write = count_in(usage, "cacheWriteInputTokens") or count_in(usage, "cacheWriteInputTokenCount")
        if uncached is None:
            uncached = count_in(usage, "inputTokenCount")
        written_1h = [part for part in mappings_in(usage.get("cacheDetails")) if part.get("ttl") == "1h"]
        return {
            span_attributes.USAGE_INPUT: (
                None if uncached is None else uncached + (cache_read or 0) + (cache_write or 0)
            ),
            span_attributes.USAGE_OUTPUT: count_in(usage, "outputTokenCount") if output is None else output,
            span_attributes.USAGE_CACHE_READ: cache_read,
            span_attributes.USAGE_CACHE_WRITE: cache_write,
            span_attributes.ANTHROPIC_CACHE_WRITE_1H: (
                sum(count_in(part, "inputTokens") or 0 for part in written_1h) or None
            ),
        }
