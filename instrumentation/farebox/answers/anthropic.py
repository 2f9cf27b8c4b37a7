"""Anthropic's messages. The counts of ``message_delta`` are cumulative and replace those of ``message_start``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from farebox import span_attributes
from farebox.answers.answer import Answer, count_in, text_in, told

_FINISH_REASONS: Final = {
    "end_turn": "stop",
    "max_tokens": "length",
    "stop_sequence": "stop",
    "tool_use": "tool_calls",
}


class AnthropicAnswer(Answer):
    """One message."""

    telling = re.compile(rb'"(?:message_|error")')  # everything but the content blocks

    @classmethod
    def worth_adding(cls, body: bytes) -> bool:
        """Searches, and how long a cache write is kept."""
        return any(
            told(body, key)
            for key in (b'"web_search_requests"', b'"web_fetch_requests"', b'"ephemeral_1h_input_tokens"')
        )

    def _read(self, part: Mapping[str, Any]) -> None:
        if isinstance(part.get("message"), Mapping):  # message_start
            part = part["message"]
        if part.get("type") == "message":
            self.model = text_in(part.get("model")) or self.model
            self.response_id = text_in(part.get("id")) or self.response_id
        usage = part.get(self.usage_key)
        self._merge_usage(usage)
        if isinstance(usage, Mapping):
            if tier := text_in(usage.get("service_tier")):
                self._tiers[span_attributes.ANTHROPIC_SERVICE_TIER] = tier
            self._bill("web_searches", count_in(usage, "server_tool_use", "web_search_requests"))
        delta = part.get("delta")
        reason = text_in((delta if isinstance(delta, Mapping) else part).get("stop_reason"))
        if reason:
            self._finished(_FINISH_REASONS.get(reason, reason))

    def _counts(self, usage: Mapping[str, Any]) -> dict[str, int | None]:
        uncached = count_in(usage, "input_tokens")
        cache_read = count_in(usage, "cache_read_input_tokens")
        cache_write = count_in(usage, "cache_creation_input_tokens")
        return {
            span_attributes.USAGE_INPUT: (
                None if uncached is None else uncached + (cache_read or 0) + (cache_write or 0)
            ),
            span_attributes.USAGE_OUTPUT: count_in(usage, "output_tokens"),
            span_attributes.USAGE_CACHE_READ: cache_read,
            span_attributes.USAGE_CACHE_WRITE: cache_write,
            span_attributes.USAGE_REASONING: count_in(usage, "output_tokens_details", "thinking_tokens"),
            span_attributes.ANTHROPIC_CACHE_WRITE_5M: count_in(usage, "cache_creation", "ephemeral_5m_input_tokens"),
            span_attributes.ANTHROPIC_CACHE_WRITE_1H: count_in(usage, "cache_creation", "ephemeral_1h_input_tokens"),
        }
