"""Cohere's chat, embed and rerank, versions 1 and 2. What it bills is in ``billed_units``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from farebox import span_attributes
from farebox.answers.answer import Answer, count_in, text_in

_FINISH_REASONS: Final = {
    "complete": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "tool_call": "tool_calls",
}


class CohereAnswer(Answer):
    """One response, or the events of one."""

    # The end of the message; version 1 calls it otherwise.
    telling = re.compile(rb'"(?:message-end|stream-end|error)"')

    def _read(self, part: Mapping[str, Any]) -> None:
        self.response_id = text_in(part.get("id")) or text_in(part.get("generation_id")) or self.response_id
        end = part.get("delta") if part.get("type") == "message-end" else part.get("response")
        if isinstance(end, Mapping):
            self.response_id = text_in(end.get("generation_id")) or self.response_id
            part = end
        for key in ("usage", "meta"):
            self._merge_usage(part.get(key))
        if isinstance(reason := part.get("finish_reason"), str):
            self._finished(_FINISH_REASONS.get(reason.lower(), reason.lower()))
        self._bill("rerank_searches", count_in(self._usage, "billed_units", "search_units"))

    def _counts(self, usage: Mapping[str, Any]) -> dict[str, int | None]:
        def tokens(side: str) -> int | None:
            billed = _whole(usage.get("billed_units"), side)
            return _whole(usage.get("tokens"), side) if billed is None else billed

        return {
            span_attributes.USAGE_INPUT: tokens("input_tokens"),
            span_attributes.USAGE_OUTPUT: tokens("output_tokens"),
            span_attributes.USAGE_CACHE_READ: count_in(usage, "cached_tokens"),
        }


def _whole(counts: object, key: str) -> int | None:
    """Cohere writes its counts as 5.0 at times."""
    value = counts.get(key) if isinstance(counts, Mapping) else None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return count_in({key: value}, key)
