"""Usage as named buckets in Langfuse's format: `input`, `output`, `input_cached_tokens`, …

Names come from Langfuse's documentation, from its callbacks (which split the details of LangChain, OpenAI, Anthropic
and Vertex, each with its own prefix) and from senders of custom names. The buckets are disjoint, except Vertex's
modalities, which include cached tokens.
"""

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from farebox_collector.dialects.reconcile import Habits, Reported
from farebox_collector.dialects.usage_json import count_in

_MOST_KEYS = 64
_DISJOINT = Habits(cache_inside=False, reasoning_inside=False, adds_up=True)

_BUCKETS: Mapping[str, str] = {
    "input": "input",
    "input_tokens": "input",
    "prompt_tokens": "input",
    "prompt_token_count": "input",
    "input_token_count": "input",
    "tool_use_prompt_token_count": "input_tools",
    "output": "output",
    "output_tokens": "output",
    "completion_tokens": "output",
    "candidates_token_count": "output",
    "generated_token_count": "output",
    "output_token_count": "output",
    "output_text_tokens": "output_text",
    "total": "total",
    "total_tokens": "total",
    "total_token_count": "total",
    "thoughts_token_count": "reasoning",
    "reasoning_tokens": "reasoning",
    "output_reasoning": "reasoning",
    "output_reasoning_tokens": "reasoning",
    "cache_read": "cache_read",
    "cached_tokens": "cache_read",
    "cached_content_token_count": "cache_read",
    "cache_read_tokens": "cache_read",
    "cache_read_input_tokens": "cache_read",
    "input_cache_read": "cache_read",
    "input_cache_read_tokens": "cache_read",
    "input_cached": "cache_read",
    "input_cached_tokens": "cache_read",
    "cache_creation": "cache_write",
    "cache_creation_tokens": "cache_write",
    "cache_creation_input_tokens": "cache_write",
    "cache_write": "cache_write",
    "cache_write_tokens": "cache_write",
    "input_cache_creation": "cache_write",
    "input_cache_creation_tokens": "cache_write",
    "input_cache_write": "cache_write",
    "input_cache_write_tokens": "cache_write",
    "input_audio": "input_audio",
    "input_audio_tokens": "input_audio",
    "input_image": "input_image",
    "input_image_tokens": "input_image",
    "output_audio": "output_audio",
    "output_audio_tokens": "output_audio",
    "output_image": "output_image",
    "output_image_tokens": "output_image",
    "input_audio_cached_tokens": "cached_audio",
    "input_cached_audio_tokens": "cached_audio",
}
"""Key → bucket. Keys of the same bucket are aliases of one count; the largest value counts."""
_LIFETIME = re.compile(r"(?:input_)?(?:(?:cache_creation_)?ephemeral|cache_creation)_(5m|1h)(?:_input)?(?:_tokens)?")
_MODALITY = re.compile(r"(input|output|cached)_modality_(?:[A-Za-z]*Modality\.)?([A-Za-z]+|[0-9])")
_CAMEL_CASE = re.compile(r"[a-z]+(?:[A-Z][a-z0-9]*)+")
_LETTER_WITHIN = re.compile(r"([A-Z])")
_MODALITIES = {"AUDIO": "audio", "4": "audio", "IMAGE": "image", "2": "image", "VIDEO": "video", "3": "video"}


def named_buckets(usage: Mapping[str, Any]) -> tuple[Reported, Habits]:
    """Read named buckets, counting aliases once. Raises InvalidCount.

    An unknown key is not dropped: it counts as input or output if its name begins with that, and otherwise only the
    total includes it.
    """
    found: Counter[str] = Counter()
    present: set[str] = set()
    for key in list(usage)[:_MOST_KEYS]:
        count = count_in(usage, key)
        bucket = _bucket_of(str(key))
        if count is None or not bucket:
            continue
        present.add(bucket)
        # Aliases of one count are not added. Keys that only share a prefix are separate counts.
        found[bucket] = found[bucket] + count if bucket.startswith("more_") else max(found[bucket], count)
    if not present - {"total"}:
        return Reported(total=found["total"] if "total" in present else None), _DISJOINT
    return _reported(found, present)


def _bucket_of(key: str) -> str:
    """Return the bucket of a key; empty if the key does not say where it belongs."""
    known = _BUCKETS.get(key)
    if known is not None:
        return known
    if _CAMEL_CASE.fullmatch(key):
        return _bucket_of(_LETTER_WITHIN.sub(r"_\1", key).lower())
    lifetime = _LIFETIME.fullmatch(key)
    if lifetime is not None:
        return f"cache_write_{lifetime.group(1)}"
    modality = _MODALITY.fullmatch(key)
    if modality is not None:
        kind = _MODALITIES.get(modality.group(2).upper(), "text")
        return f"{modality.group(1)}_modality_{kind}"
    if "cache" in key:
        written = "creation" in key or "write" in key
        return ("more_cache_write_1h" if "1h" in key else "more_cache_write") if written else "more_cache_read"
    if key.startswith(("input", "prompt")):
        return "more_input"
    if key.startswith(("output", "completion", "candidates", "accepted_prediction", "rejected_prediction")):
        return "more_reasoning" if "reasoning" in key else "more_output"
    return "more_reasoning" if "reasoning" in key or "thought" in key else ""


def _reported(found: Counter[str], present: set[str]) -> tuple[Reported, Habits]:
    cached = {kind: found[f"cached_modality_{kind}"] for kind in ("text", "audio", "image", "video")}
    in_parts = {kind: found[f"input_modality_{kind}"] for kind in ("text", "audio", "image", "video")}
    out_parts = {kind: found[f"output_modality_{kind}"] for kind in ("text", "audio", "image")}
    hour, five = found["cache_write_1h"] + found["more_cache_write_1h"], found["cache_write_5m"]
    # The sum of both lifetimes equals the count of all writes.
    write = max(found["cache_write"], hour + five) + found["more_cache_write"]
    by_lifetime = not present.isdisjoint({"cache_write_1h", "more_cache_write_1h", "cache_write_5m"})
    read = max(found["cache_read"], sum(cached.values())) + found["more_cache_read"] + found["cached_audio"]
    reasoning = found["reasoning"] + found["more_reasoning"]
    cached_audio = cached["audio"] + found["cached_audio"]
    input_audio = max(found["input_audio"] + found["cached_audio"], in_parts["audio"])
    input_image = max(found["input_image"], in_parts["image"])
    sums = found["input"] + found["output"] + found["reasoning"]
    if any((*in_parts.values(), *out_parts.values())) and sums == found["total"] > 0:
        # Senders that write these keys without Langfuse's callback include the modalities in the counts.
        found["input"] = max(0, found["input"] - sum(in_parts.values()))
        found["output"] = max(0, found["output"] - sum(out_parts.values()))
    beside = found["input"] + found["input_tools"] + found["more_input"]
    if any(in_parts.values()):
        # Vertex's modalities include cached tokens, which were also subtracted from the rest of the input.
        uncached = max(0, sum(in_parts.values()) - read) + beside
    else:
        uncached = beside + found["input_audio"] + found["input_image"]
    output = found["output"] + found["output_text"] + found["more_output"] + sum(out_parts.values())
    output += max(0, found["output_audio"] - out_parts["audio"]) + max(0, found["output_image"] - out_parts["image"])
    if "total" in present and any(cached.values()):
        # Cached tokens of a modality with its own count were subtracted twice.
        missing = found["total"] - uncached - read - write - output - reasoning
        uncached += missing if 0 < missing <= read else 0
    return (
        Reported(
            input=uncached,
            output=output,
            total=found["total"] if "total" in present else None,
            cache_read=read,
            cache_write=write,
            cache_write_1h=hour if by_lifetime else None,
            reasoning=reasoning,
            input_audio=input_audio,
            output_audio=max(found["output_audio"], out_parts["audio"]),
            input_image=input_image,
            output_image=max(found["output_image"], out_parts["image"]),
            cached_audio=cached_audio,
            cached_image=cached["image"],
            cached_video=cached["video"],
        ),
        _DISJOINT,
    )
