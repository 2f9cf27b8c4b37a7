"""Google's ``generateContent``. The candidates exclude the thoughts; the prompt excludes the tools' results."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from farebox import span_attributes
from farebox.answers.answer import Answer, count_in, mappings_in, text_in


class GoogleAnswer(Answer):
    """One response, or the chunks of one."""

    usage_key = "usageMetadata"

    def _read(self, part: Mapping[str, Any]) -> None:
        self.model = text_in(part.get("modelVersion")) or self.model
        self.response_id = text_in(part.get("responseId")) or self.response_id
        self._merge_usage(part.get(self.usage_key))
        for candidate in mappings_in(part.get("candidates")):
            if reason := text_in(candidate.get("finishReason")):
                self._finished(reason.lower())
            grounding = candidate.get("groundingMetadata")
            queries = grounding.get("webSearchQueries") if isinstance(grounding, Mapping) else None
            if isinstance(queries, list):
                self._bill("web_searches", max(len(queries), self._units.get("web_searches", 0)))

    def _counts(self, usage: Mapping[str, Any]) -> dict[str, int | None]:
        prompt = count_in(usage, "promptTokenCount")
        candidates = count_in(usage, "candidatesTokenCount")
        thoughts = count_in(usage, "thoughtsTokenCount")
        produced = None if candidates is None and thoughts is None else (candidates or 0) + (thoughts or 0)
        return {
            span_attributes.USAGE_INPUT: (
                None if prompt is None else prompt + (count_in(usage, "toolUsePromptTokenCount") or 0)
            ),
            span_attributes.USAGE_OUTPUT: produced,
            span_attributes.USAGE_CACHE_READ: count_in(usage, "cachedContentTokenCount"),
            span_attributes.USAGE_REASONING: thoughts,
            span_attributes.USAGE_INPUT_AUDIO: _of_modality(usage, "promptTokensDetails", "AUDIO"),
            span_attributes.USAGE_OUTPUT_AUDIO: _of_modality(usage, "candidatesTokensDetails", "AUDIO"),
            span_attributes.USAGE_INPUT_IMAGE: _of_modality(usage, "promptTokensDetails", "IMAGE"),
            span_attributes.USAGE_OUTPUT_IMAGE: _of_modality(usage, "candidatesTokensDetails", "IMAGE"),
        }


def _of_modality(usage: Mapping[str, Any], details: str, modality: str) -> int | None:
    parts = [part for part in mappings_in(usage.get(details)) if part.get("modality") == modality]
    return sum(count_in(part, "tokenCount") or 0 for part in parts) or None
