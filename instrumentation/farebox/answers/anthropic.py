"""Read Anthropic's messages. The counts of ``message_delta`` are cumulative and replace those of ``message_start``.

Source: the API's reference of ``usage``. Its counts omit compactions and advisors; ``iterations`` has them, each with
its counts, and its model if different.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from farebox import span_attributes
from farebox.answers.answer import Answer, AttributeValue
from farebox.answers.counts import count_in, is_stated, mapping_in, mappings_in, text_in
from farebox.answers.lines import Line

_FINISH_REASONS: Final = {
    "end_turn": "stop",
    "max_tokens": "length",
    "stop_sequence": "stop",
    "tool_use": "tool_calls",
}
_NO_REGION: Final = frozenset({"global", "not_available"})
_CONDITIONS: Final = (b'"speed"', b'"inference_geo"', b'"iterations"')
_WORTH_ADDING: Final = re.compile(
    rb'"speed"\s*:\s*"(?!standard")|"inference_geo"\s*:\s*"(?!global"|not_available")|"iterations"\s*:\s*\[\s*\{'
)
_MESSAGES: Final = ("message", "fallback_message")
_CORRECTED: Final = (
    span_attributes.USAGE_INPUT,
    span_attributes.USAGE_OUTPUT,
    span_attributes.USAGE_CACHE_READ,
    span_attributes.USAGE_CACHE_WRITE,
    span_attributes.ANTHROPIC_CACHE_WRITE_5M,
    span_attributes.ANTHROPIC_CACHE_WRITE_1H,
)
_BUCKETS: Final = ("input", "cache_read", "cache_write", "cache_write_1h", "output")


class AnthropicAnswer(Answer):
    """One message."""

    fact_pattern = re.compile(rb'"(?:message_|error")')  # everything but the content blocks

    @classmethod
    def worth_adding(cls, body: bytes, provider: str = "") -> bool:
        """Return whether the body has searches, cache-write lifetimes, speed, region or other models' work."""
        return (
            is_stated(body, b'"web_search_requests"')
            or is_stated(body, b'"ephemeral_1h_input_tokens"')
            or (any(key in body for key in _CONDITIONS) and _WORTH_ADDING.search(body) is not None)
        )

    def _read(self, part: Mapping[str, Any]) -> None:
        if isinstance(part.get("message"), dict):  # message_start
            part = part["message"]
        if part.get("type") in ("message", "completion"):
            self.model = text_in(part.get("model")) or self.model
            self.response_id = text_in(part.get("id")) or self.response_id
        self._merge_usage(part.get(self.usage_key))
        self._searched("server_tool_use", "web_search_requests")
        self._read_conditions()
        delta = part.get("delta")
        reason = text_in((delta if isinstance(delta, dict) else part).get("stop_reason"))
        if reason:
            self._finished(_FINISH_REASONS.get(reason, reason))

    def _read_conditions(self) -> None:
        """Read tier, speed and region, which the price depends on."""
        usage = self._usage
        if tier := text_in(usage.get("service_tier")):
            self._tiers[span_attributes.ANTHROPIC_SERVICE_TIER] = tier
        if (speed := text_in(usage.get("speed"))) and speed.lower() != "standard":
            self._tiers[span_attributes.USAGE_SPEED] = speed.lower()
        if (region := text_in(usage.get("inference_geo"))) and region.lower() not in _NO_REGION:
            self._tiers[span_attributes.USAGE_INFERENCE_REGION] = region.lower()

    def _counts(self, usage: Mapping[str, Any]) -> dict[str, int | None]:
        if "iterations" in usage:
            usage = self._own_usage(usage)
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
            span_attributes.USAGE_TOTAL: count_in(usage, "total_tokens"),
            span_attributes.ANTHROPIC_CACHE_WRITE_5M: count_in(usage, "cache_creation", "ephemeral_5m_input_tokens"),
            span_attributes.ANTHROPIC_CACHE_WRITE_1H: count_in(usage, "cache_creation", "ephemeral_1h_input_tokens"),
        }

    def attributes(self) -> dict[str, AttributeValue]:
        """Return the facts so far; of two models also the first one's counts, for a span that has both together."""
        known = super().attributes()
        if "iterations" in self._usage and not self.impossible and self._counts_other_models():
            counts = {name: count or 0 for name, count in self._counts(self._usage).items() if name in _CORRECTED}
            known[span_attributes.USAGE_OWN] = json.dumps(counts)
        return known

    def _lines(self) -> Sequence[Line]:
        """Return what ``iterations`` has beyond the call's counts; all iterations together are billed."""
        return tuple(self._other_iterations()) if self._usage.get("iterations") else ()

    def _other_iterations(self) -> Iterator[Line]:
        iterations = mappings_in(self._usage.get("iterations"))
        own = [part for part in iterations if self._is_own(part)]
        others = [part for part in iterations if not self._is_own(part)]
        counted, everything = _buckets(self._own_usage(self._usage)), _sum(own)
        left_out = {name: everything[name] - counted[name] for name in _BUCKETS}
        if any(left_out.values()) and all(count >= 0 for count in left_out.values()):
            compactions = [part for part in own if part.get("type") not in _MESSAGES]
            if left_out == _sum(compactions):
                yield from (self._line(part, _buckets(part)) for part in compactions)
            else:
                yield self._line({"type": "iterations"}, left_out)
        yield from (self._line(part, _buckets(part)) for part in others)

    def _is_own(self, iteration: Mapping[str, Any]) -> bool:
        return text_in(iteration.get("model")) in (None, self.model)

    def _counts_other_models(self) -> bool:
        """Return whether the top-level counts include another model's messages, as after a fallback."""
        messages = [part for part in mappings_in(self._usage.get("iterations")) if part.get("type") in _MESSAGES]
        own = [part for part in messages if self._is_own(part)]
        return len(own) < len(messages) and _buckets(self._usage) == _sum(messages) != _sum(own)

    def _own_usage(self, usage: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the counts of the top-level model."""
        if not self._counts_other_models():
            return usage
        messages = mappings_in(usage.get("iterations"))
        own = _sum(part for part in messages if part.get("type") in _MESSAGES and self._is_own(part))
        return {
            "input_tokens": own["input"],
            "cache_read_input_tokens": own["cache_read"],
            "cache_creation_input_tokens": own["cache_write"] + own["cache_write_1h"],
            "cache_creation": {"ephemeral_1h_input_tokens": own["cache_write_1h"]},
            "output_tokens": own["output"],
        }

    def _line(self, iteration: Mapping[str, Any], tokens: dict[str, int]) -> Line:
        model = text_in(iteration.get("model")) or self.model or ""
        speed = text_in(iteration.get("speed"))
        if speed is None and model == self.model:
            speed = self._tiers.get(span_attributes.USAGE_SPEED, "")
        return Line(
            label=str(iteration.get("type") or "iteration").removesuffix("_message"),
            model=model,
            service_tier=self._tiers.get(span_attributes.ANTHROPIC_SERVICE_TIER, ""),
            speed="" if speed in (None, "standard") else str(speed),
            inference_region=self._tiers.get(span_attributes.USAGE_INFERENCE_REGION, ""),
            tokens=tokens,
        )


def _buckets(usage: Mapping[str, Any]) -> dict[str, int]:
    written = count_in(usage, "cache_creation_input_tokens")
    lifetimes = mapping_in(usage.get("cache_creation"))
    written_1h = count_in(lifetimes, "ephemeral_1h_input_tokens") or 0
    if written is None:
        written = written_1h + (count_in(lifetimes, "ephemeral_5m_input_tokens") or 0)
    return {
        "input": count_in(usage, "input_tokens") or 0,
        "cache_read": count_in(usage, "cache_read_input_tokens") or 0,
        "cache_write": max(written - written_1h, 0),
        "cache_write_1h": min(written_1h, written),
        "output": count_in(usage, "output_tokens") or 0,
    }


def _sum(iterations: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    sums = dict.fromkeys(_BUCKETS, 0)
    for iteration in iterations:
        for name, count in _buckets(iteration).items():
            sums[name] += count
    return sums
