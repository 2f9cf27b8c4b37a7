"""Read Cohere's chat, generate, embed and rerank, versions 1 and 2. ``billed_units`` has what is billed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from farebox import span_attributes
from farebox.answers.answer import Answer
from farebox.answers.counts import count_in, mapping_in, text_in

_FINISH_REASONS: Final = {
    "complete": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "tool_call": "tool_calls",
}


class CohereAnswer(Answer):
    """A response or its events."""

    # The end of the message; version 1 names it differently.
    fact_pattern = re.compile(rb'"(?:message-end|stream-end|error|billed_units)"')

    def _read(self, part: Mapping[str, Any]) -> None:
        self.response_id = text_in(part.get("id")) or text_in(part.get("generation_id")) or self.response_id
        end = part.get("delta") if part.get("type") == "message-end" else part.get("response")
        if isinstance(end, dict):
            self.response_id = text_in(end.get("generation_id")) or self.response_id
            part = end
        for key in ("usage", "meta"):
            self._merge_usage(part.get(key))
        if isinstance(reason := part.get("finish_reason"), str):
            self._finished(_FINISH_REASONS.get(reason.lower(), reason.lower()))
        self._bill("rerank_searches", count_in(self._usage, "billed_units", "search_units"))

    def _counts(self, usage: Mapping[str, Any]) -> dict[str, int | None]:
        billed, counted = mapping_in(usage.get("billed_units")), mapping_in(usage.get("tokens"))

        def tokens(side: str) -> int | None:
            count = count_in(billed, side)
            return count_in(counted, side) if count is None else count

        bills = "input_tokens" in billed
        return {
            span_attributes.USAGE_INPUT: tokens("input_tokens"),
            span_attributes.USAGE_OUTPUT: tokens("output_tokens"),
            # The cache is counted in the raw prompt, which is not billed.
            span_attributes.USAGE_CACHE_READ: None if bills else count_in(usage, "cached_tokens"),
        }
