"""Read Google's ``generateContent`` and ``predict``.

Candidates exclude thoughts; the prompt excludes tool results and includes the cache. Enumerations are names, or numbers
if the client asks for them (``$alt=json;enum-encoding=int``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from farebox import span_attributes
from farebox.answers.answer import Answer
from farebox.answers.counts import count_in, mapping_in, mappings_in, text_in, whole

_MODALITIES: Final = {1: "TEXT", 2: "IMAGE", 3: "VIDEO", 4: "AUDIO", 5: "DOCUMENT"}
_FINISH_REASONS: Final = {1: "stop", 2: "max_tokens", 3: "safety", 4: "recitation", 5: "other"}
_TIERS: Final = {
    "ON_DEMAND_FLEX": "flex",
    "ON_DEMAND_PRIORITY": "priority",
    "PROVISIONED_THROUGHPUT": "provisioned_throughput",
}
_NUMBERED_TIERS: Final = {2: "PROVISIONED_THROUGHPUT", 3: "ON_DEMAND_PRIORITY", 4: "ON_DEMAND_FLEX"}
_STANDARD: Final = frozenset({"", "standard", "default", "unspecified", "service_tier_unspecified"})
_COUNTED: Final = ("promptTokenCount", "toolUsePromptTokenCount", "candidatesTokenCount", "thoughtsTokenCount")
"""The counts that add up to the total: the cache is part of the prompt."""
_GENERATION: Final = re.compile(r"gemini-(\d+)")
_A_PROMPT_A_FEE: Final = 2
"""The last generation billed per grounded prompt; later ones are billed per query."""
_QUERIES_MAX: Final = 1_000


class GoogleAnswer(Answer):
    """A response or its chunks."""

    usage_key = "usageMetadata"

    def __init__(self, provider: str = "") -> None:
        """Start without facts."""
        super().__init__(provider)
        self._queries: set[str] = set()
        self._map_queries: set[str] = set()
        self._requested_model: str | None = None

    def asked(self, model: str | None) -> None:
        """Use the request's model if the answer names none."""
        self._requested_model = model

    def read_headers(self, headers: Mapping[bytes, bytes]) -> None:
        """Read the tier from a header."""
        self._read_tier(headers.get(b"x-gemini-service-tier", b"").decode("latin-1"))

    def _read(self, part: Mapping[str, Any]) -> None:
        if isinstance(part.get("response"), dict):  # an envelope, such as Code Assist's
            part = part["response"]
        self.model = text_in(part.get("modelVersion")) or self.model
        self.response_id = text_in(part.get("responseId")) or self.response_id
        self._take_usage(mapping_in(part.get(self.usage_key)))
        self._read_tier(part.get("serviceTier"))
        self._read_tier(self._usage.get("serviceTier"))
        self._read_traffic(self._usage.get("trafficType"))
        for candidate in mappings_in(part.get("candidates")):
            reason = candidate.get("finishReason")
            self._finished(_FINISH_REASONS.get(reason) if isinstance(reason, int) else str(reason or "").lower())
            if isinstance(grounding := candidate.get("groundingMetadata"), dict):
                self._read_queries(grounding)
                self._read_maps(grounding)
        if isinstance(predictions := part.get("predictions"), list):
            self._read_predictions(mappings_in(predictions))
            self._read_characters(mapping_in(part.get("metadata")))

    def _take_usage(self, usage: Mapping[str, Any]) -> None:
        """Read the cumulative counts of a chunk.

        A chunk omits counts of zero, and some omit earlier counts. A chunk whose counts add up to its total, and to no
        less than before, is complete and replaces all earlier ones.
        """
        total = count_in(usage, "totalTokenCount")
        if total and self._usage and total >= (count_in(self._usage, "totalTokenCount") or 0):
            stated = sum(count_in(usage, key) or 0 for key in _COUNTED)
            if stated == total:
                self._usage = {key: value for key, value in self._usage.items() if "oken" not in key}
        self._merge_usage(usage)

    def _read_tier(self, tier: object) -> None:
        name = str(tier or "").lower().removeprefix("service_tier_")
        if name not in _STANDARD:
            self._tiers[span_attributes.USAGE_SERVICE_TIER] = name

    def _read_traffic(self, traffic: object) -> None:
        name = _NUMBERED_TIERS.get(traffic, "") if isinstance(traffic, int) else str(traffic or "")
        if tier := _TIERS.get(name.upper()):
            self._tiers[span_attributes.USAGE_SERVICE_TIER] = tier

    def _read_queries(self, grounding: Mapping[str, Any]) -> None:
        for key in ("webSearchQueries", "imageSearchQueries"):
            queries = grounding.get(key)
            for query in queries if isinstance(queries, list) else ():
                if isinstance(query, str) and query.strip() and len(self._queries) < _QUERIES_MAX:
                    self._queries.add(query.strip())
        if self._queries:
            self._bill("web_searches", 1 if self._billed_by_prompt() else len(self._queries))

    def _read_maps(self, grounding: Mapping[str, Any]) -> None:
        """Read Google Maps results: billed per prompt, in later generations per query."""
        queries = grounding.get("retrievalQueries")
        for query in queries if isinstance(queries, list) else ():
            if isinstance(query, str) and query.strip() and len(self._map_queries) < _QUERIES_MAX:
                self._map_queries.add(query.strip())
        if any(isinstance(chunk.get("maps"), dict) for chunk in mappings_in(grounding.get("groundingChunks"))):
            # The answer may omit the queries; there was at least one.
            self._bill("map_searches", 1 if self._billed_by_prompt() else max(1, len(self._map_queries)))

    def _billed_by_prompt(self) -> bool:
        found = _GENERATION.search(self.model or self._requested_model or "")
        return found is not None and int(found[1]) <= _A_PROMPT_A_FEE

    def _read_predictions(self, predictions: list[Mapping[str, Any]]) -> None:
        """Read an answer of Vertex's ``predict``: embeddings with their tokens, or images."""
        statistics = [
            mapping_in(mapping_in(prediction.get("embeddings")).get("statistics")) for prediction in predictions
        ]
        tokens = [count for part in statistics if (count := count_in(part, "token_count")) is not None]
        if tokens:
            self._merge_usage({"promptTokenCount": sum(tokens)})
        images = [part for part in predictions if "bytesBase64Encoded" in part or "gcsUri" in part]
        self._bill("images", len(images))

    def _read_characters(self, metadata: Mapping[str, Any]) -> None:
        """Read characters: Vertex bills its own embeddings per character, and those of Gemini per token."""
        if not (self.model or self._requested_model or "").startswith("gemini"):
            self._bill("input_characters", count_in(metadata, "billableCharacterCount"))

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
            span_attributes.USAGE_TOTAL: count_in(usage, "totalTokenCount"),
            span_attributes.USAGE_CACHE_READ: count_in(usage, "cachedContentTokenCount"),
            span_attributes.USAGE_CACHE_READ_AUDIO: _of_modality(usage, "cacheTokensDetails", "AUDIO"),
            span_attributes.USAGE_CACHE_READ_IMAGE: _of_modality(usage, "cacheTokensDetails", "IMAGE"),
            span_attributes.USAGE_CACHE_READ_VIDEO: _of_modality(usage, "cacheTokensDetails", "VIDEO"),
            span_attributes.USAGE_REASONING: thoughts,
            span_attributes.USAGE_INPUT_AUDIO: _of_modality(
                usage, "promptTokensDetails", "AUDIO", "toolUsePromptTokensDetails"
            ),
            span_attributes.USAGE_OUTPUT_AUDIO: _of_modality(usage, "candidatesTokensDetails", "AUDIO"),
            span_attributes.USAGE_INPUT_IMAGE: _of_modality(
                usage, "promptTokensDetails", "IMAGE", "toolUsePromptTokensDetails"
            ),
            span_attributes.USAGE_OUTPUT_IMAGE: _of_modality(usage, "candidatesTokensDetails", "IMAGE"),
        }


def _of_modality(usage: Mapping[str, Any], details: str, modality: str, more: str = "") -> int | None:
    parts = [
        part
        for key in filter(None, (details, more))
        for part in mappings_in(usage.get(key))
        if _modality(part.get("modality")) == modality
    ]
    return sum(count_in(part, "tokenCount") or 0 for part in parts) or None


def _modality(value: object) -> str:
    number = whole(value)
    return _MODALITIES.get(number, "") if number is not None else str(value).upper()
