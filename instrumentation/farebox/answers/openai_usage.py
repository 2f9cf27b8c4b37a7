"""Read OpenAI's ``usage`` and the variants of compatible providers.

The prompt includes the cache, the completion the reasoning. The total shows which providers exclude reasoning.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from farebox import span_attributes
from farebox.answers.counts import count_in, count_of, first_count, mapping_in

_INSIDE: Final = ("prompt_tokens_details", "input_tokens_details", "input_token_details", "prompt_token_details")
_OUTSIDE: Final = ("completion_tokens_details", "output_tokens_details", "output_token_details")
"""Names of the parts of a prompt and an answer: in chats, responses, images and transcriptions, runs."""


def counts_of(usage: Mapping[str, Any], *, separate_thoughts: bool = False) -> dict[str, int | None]:
    """Return the counts as span attributes.

    With ``separate_thoughts``, the total's excess over prompt and completion are thoughts without their own count, as
    in Gemini's OpenAI-compatible endpoint.
    """
    total_input = first_count(usage, "prompt_tokens", "input_tokens")
    output = first_count(usage, "completion_tokens", "output_tokens")
    inside = _details(usage, *_INSIDE)
    outside = _details(usage, *_OUTSIDE)
    reasoning = count_of(outside.get("reasoning_tokens"))
    if reasoning is None:
        reasoning = count_of(usage.get("reasoning_tokens"))
    total = count_of(usage.get("total_tokens"))
    if total_input is None and total is not None and total >= (output or 0):
        total_input = total - (output or 0)  # Voyage's and other embeddings without output
    beyond = None if total is None or output is None else total - (total_input or 0) - output
    if beyond and "prompt_audio_seconds" in usage:
        total, beyond = None, 0  # the rest of the total is audio, which Mistral bills per second
    if beyond and beyond == count_of(usage.get("connector_tokens")):
        total_input = (total_input or 0) + beyond  # tool results that Mistral's model read
        beyond = 0
    # xAI excludes reasoning from the completion tokens; the total includes it.
    if output is not None and beyond and ((reasoning and beyond == reasoning) or (separate_thoughts and beyond > 0)):
        output += beyond
        reasoning = reasoning or beyond
    cached_apart = mapping_in(inside.get("cached_tokens_details"))
    return {
        span_attributes.USAGE_INPUT: total_input,
        span_attributes.USAGE_OUTPUT: output,
        span_attributes.USAGE_TOTAL: total,
        span_attributes.USAGE_CACHE_READ: _cached(usage, inside),
        span_attributes.USAGE_CACHE_WRITE: count_of(inside.get("cache_write_tokens")),
        span_attributes.USAGE_CACHE_READ_AUDIO: (
            cached_apart.get("audio_tokens") and count_of(cached_apart["audio_tokens"])
        )
        or None,
        span_attributes.USAGE_CACHE_READ_IMAGE: (
            cached_apart.get("image_tokens") and count_of(cached_apart["image_tokens"])
        )
        or None,
        span_attributes.USAGE_REASONING: reasoning,
        span_attributes.USAGE_INPUT_AUDIO: _some(inside, "audio_tokens"),
        span_attributes.USAGE_OUTPUT_AUDIO: _some(outside, "audio_tokens"),
        span_attributes.USAGE_INPUT_IMAGE: _some(inside, "image_tokens"),
        span_attributes.USAGE_OUTPUT_IMAGE: _some(outside, "image_tokens"),
    }


def _some(details: Mapping[str, Any], key: str) -> int | None:
    """Return the count; None if zero."""
    value = details.get(key)
    return (count_of(value) or None) if value else None


def image_tokens(usage: Mapping[str, Any]) -> tuple[dict[str, int], dict[str, int]]:
    """Return the image tool's disjoint buckets and units."""
    details = mapping_in(usage.get("input_tokens_details"))
    total_input = count_in(usage, "input_tokens") or 0
    images = min(count_in(details, "image_tokens") or 0, total_input)
    text = total_input - images
    cached_apart = mapping_in(usage.get("cached_tokens_details"))
    cached_text = count_in(cached_apart, "cached_text_tokens")
    cached_images = count_in(cached_apart, "cached_image_tokens")
    if cached_text is None and cached_images is None:
        cached = count_in(usage, "cached_tokens") or 0
        cached_text = min(cached, text)
        cached_images = cached - cached_text
    cached_text, cached_images = min(cached_text or 0, text), min(cached_images or 0, images)
    output = count_in(usage, "output_tokens") or 0
    drawn = count_in(usage, "output_tokens_details", "image_tokens")
    drawn = output if drawn is None else min(drawn, output)
    tokens = {
        "input": text - cached_text,
        "cache_read": cached_text,
        "input_image": images - cached_images,
        "output": output - drawn,
        "output_image": drawn,
    }
    return tokens, {"cache_image_read_tokens": cached_images}


def _details(usage: Mapping[str, Any], *keys: str) -> Mapping[str, Any]:
    for key in keys:
        if isinstance(details := usage.get(key), dict):
            return details
    return {}


def _cached(usage: Mapping[str, Any], inside: Mapping[str, Any]) -> int | None:
    cached = count_of(inside.get("cached_tokens"))
    if cached is not None:
        return cached
    # DeepSeek, Moonshot, Mistral.
    return first_count(usage, "prompt_cache_hit_tokens", "cached_tokens", "num_cached_tokens")
