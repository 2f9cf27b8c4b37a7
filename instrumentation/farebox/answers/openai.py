"""Chat completions, responses, embeddings, images and audio: of OpenAI and of all who speak like it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, Final

from farebox import span_attributes
from farebox.answers.answer import Answer, AttributeValue, count_in, mappings_in, text_in, told

# Calls of tools that OpenAI bills by the call, by the type of the item in a response.
_BILLED_CALLS: Final = {
    "web_search_call": "web_searches",
    "file_search_call": "storage_searches",
    "code_interpreter_call": "code_executions",
}
_STATUS_REASONS: Final = {"completed": "stop", "incomplete": "length", "failed": "error"}


class OpenAIAnswer(Answer):
    """One response of any endpoint of OpenAI's."""

    # Text deltas tell nothing; chat's carry both keys all the same, mostly null. One search for all is faster than
    # one for each key.
    telling = re.compile(rb'"(?:(?:usage|finish_reason)"\s*:\s*[^n0\s]|error"|response")')

    @classmethod
    def worth_adding(cls, body: bytes) -> bool:
        """Calls of tools, and tokens that are no text."""
        return b'_call"' in body or any(
            told(body, key) for key in (b'"audio_tokens"', b'"image_tokens"', b'"num_search_queries"')
        )

    def read_request(self, request: Mapping[str, Any]) -> None:
        """Speech is billed by the characters that are spoken; the answer is nothing but sound."""
        if isinstance(text := request.get("input"), str) and "voice" in request:
            self._bill("input_characters", len(text))

    def read_large_body(self, body: bytes) -> None:
        """As of all, and pictures, which is what makes most bodies large."""
        super().read_large_body(body)
        self._bill("images", body.count(b'"b64_json":"') + body.count(b'"b64_json": "'))

    def attributes(self) -> dict[str, AttributeValue]:
        """What is known so far. Pictures whose tokens are counted are billed by these, not by the piece."""
        known = super().attributes()
        if span_attributes.USAGE_INPUT in known:
            known.pop(span_attributes.UNITS + "images", None)
        return known

    def _read(self, part: Mapping[str, Any]) -> None:
        if isinstance(part.get("response"), Mapping):  # an event of the Responses API
            part = part["response"]
            self._read_error(part)
        self.model = text_in(part.get("model")) or self.model
        self.response_id = text_in(part.get("id")) or self.response_id
        if tier := text_in(part.get("service_tier")):
            self._tiers[span_attributes.OPENAI_SERVICE_TIER] = tier
        self._merge_usage(part.get(self.usage_key))
        for choice in mappings_in(part.get("choices")):
            self._finished(choice.get("finish_reason"))
        if part.get("object") == "response" and part.get("status") in _STATUS_REASONS:
            self._finished(_STATUS_REASONS[part["status"]])
            self._read_tool_calls(part)
        self._read_other_goods(part)

    def _read_tool_calls(self, response: Mapping[str, Any]) -> None:
        calls: dict[str, int] = {}
        for item in mappings_in(response.get("output")):
            action = item.get("action")
            # Opening a page that a search found is not billed as a search.
            opened = isinstance(action, Mapping) and action.get("type") in ("open_page", "find", "find_in_page")
            if (unit := _BILLED_CALLS.get(str(item.get("type")))) and not opened:
                calls[unit] = calls.get(unit, 0) + 1
        for unit, count in calls.items():
            self._bill(unit, count)

    def _read_other_goods(self, part: Mapping[str, Any]) -> None:
        images = [item for item in mappings_in(part.get("data")) if "b64_json" in item or "url" in item]
        self._bill("images", len(images))
        kind = str(part.get("type", ""))
        if kind.startswith("image_") and kind.endswith(".completed"):
            self._bill("images", self._units.get("images", 0) + 1)
        seconds = self._usage.get("seconds") if self._usage.get("type") == "duration" else part.get("duration")
        if isinstance(seconds, int | float) and not isinstance(seconds, bool) and seconds >= 0:
            self._bill("audio_seconds", math.ceil(seconds))
        pages = part.get("usage_info")  # Mistral's OCR
        self._bill("input_document_pages", count_in(pages, "pages_processed") if isinstance(pages, Mapping) else None)
        self._bill("web_searches", count_in(self._usage, "num_search_queries"))  # Perplexity

    def _counts(self, usage: Mapping[str, Any]) -> dict[str, int | None]:
        total_input = count_in(usage, "prompt_tokens")
        output = count_in(usage, "completion_tokens")
        inside, outside = "prompt_tokens_details", "completion_tokens_details"
        if total_input is None:
            total_input = count_in(usage, "input_tokens")
            inside = "input_tokens_details" if "input_tokens_details" in usage else "input_token_details"
        if output is None:
            output = count_in(usage, "output_tokens")
            outside = "output_tokens_details" if "output_tokens_details" in usage else "output_token_details"
        cache_read = count_in(usage, inside, "cached_tokens")
        if cache_read is None:
            cache_read = count_in(usage, "prompt_cache_hit_tokens")  # DeepSeek
        reasoning = count_in(usage, outside, "reasoning_tokens")
        total = count_in(usage, "total_tokens")
        # xAI leaves the reasoning out of the completion tokens; the total gives it away.
        if reasoning and output is not None and total == (total_input or 0) + output + reasoning:
            output += reasoning
        return {
            span_attributes.USAGE_INPUT: total_input,
            span_attributes.USAGE_OUTPUT: output,
            span_attributes.USAGE_CACHE_READ: cache_read,
            span_attributes.USAGE_CACHE_WRITE: count_in(usage, inside, "cache_write_tokens"),
            span_attributes.USAGE_REASONING: reasoning,
            span_attributes.USAGE_INPUT_AUDIO: count_in(usage, inside, "audio_tokens") or None,
            span_attributes.USAGE_OUTPUT_AUDIO: count_in(usage, outside, "audio_tokens") or None,
            span_attributes.USAGE_INPUT_IMAGE: count_in(usage, inside, "image_tokens") or None,
            span_attributes.USAGE_OUTPUT_IMAGE: self._image_output(usage, output, outside),
        }

    def _image_output(self, usage: Mapping[str, Any], output: int | None, details: str) -> int | None:
        said = count_in(usage, details, "image_tokens")
        # The images endpoint does not always split its output, which then is nothing but pictures.
        return said or (output if "images" in self._units and details not in usage else None) or None
