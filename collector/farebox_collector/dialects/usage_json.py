"""Usage that an emitter writes as JSON, in the provider's own shape or as named buckets: parsed within bounds."""

import json
from collections.abc import Mapping
from typing import Any

from farebox_collector.dialects.counts import Habits, Reported
from farebox_collector.dialects.text import InvalidCount, count_of
from farebox_collector.records import AttributeValue

MAX_JSON = 4_000
"""Longest usage text that is parsed, in characters; real ones have a few hundred."""


def parsed(value: AttributeValue | None) -> Mapping[str, Any] | None:
    """The object in a text; None for anything else."""
    if not isinstance(value, str) or not value or len(value) > MAX_JSON:
        return None
    try:
        found = json.loads(value)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def numbers_in(text: str) -> str | None:
    """The same JSON object with nothing but its numbers, three levels deep; None for any other text."""
    found = parsed(text)
    return json.dumps(_numbers(found, 3), separators=(",", ":")) if found is not None else None


def provider_usage(usage: Mapping[str, Any]) -> tuple[Reported, Habits]:
    """A usage object as OpenAI or Anthropic return it. Anthropic's keeps the cache apart. Raises InvalidCount."""
    write = usage.get("cache_creation_input_tokens")
    read = usage.get("cache_read_input_tokens")
    if write is not None or read is not None:
        lifetimes = _object(usage, "cache_creation")
        return (
            Reported(
                input=_count(usage, "input_tokens"),
                output=_count(usage, "output_tokens"),
                cache_read=_count(usage, "cache_read_input_tokens") or 0,
                cache_write=_count(usage, "cache_creation_input_tokens") or 0,
                cache_write_1h=_count(lifetimes, "ephemeral_1h_input_tokens"),
                reasoning=_count(_object(usage, "output_tokens_details"), "thinking_tokens") or 0,
            ),
            Habits(cache_inside=False),
        )
    into = _object(usage, "prompt_tokens_details") or _object(usage, "input_tokens_details")
    out = _object(usage, "completion_tokens_details") or _object(usage, "output_tokens_details")
    return (
        Reported(
            input=_count(usage, "prompt_tokens", "input_tokens"),
            output=_count(usage, "completion_tokens", "output_tokens"),
            total=_count(usage, "total_tokens"),
            cache_read=_count(into, "cached_tokens") or 0,
            cache_write=_count(into, "cache_write_tokens") or 0,
            reasoning=_count(out, "reasoning_tokens") or 0,
            input_audio=_count(into, "audio_tokens") or 0,
            output_audio=_count(out, "audio_tokens") or 0,
            input_image=_count(into, "image_tokens") or 0,
            output_image=_count(out, "image_tokens") or 0,
        ),
        Habits(cache_inside=True),
    )


def web_searches(usage: Mapping[str, Any]) -> int:
    """Searches that the provider made for a call and bills by the piece. Raises InvalidCount."""
    return _count(_object(usage, "server_tool_use"), "web_search_requests") or 0


def named_buckets(usage: Mapping[str, Any]) -> tuple[Reported, Habits]:
    """Disjoint buckets by name, as Langfuse takes them: `input`, `input_cached_tokens`, … Raises InvalidCount."""
    counts = {str(key): count for key in list(usage)[:32] if (count := _count(usage, key)) is not None}
    into = {key: count for key, count in counts.items() if key.startswith("input") or "cache" in key}
    out = {key: count for key, count in counts.items() if key.startswith("output")}
    cache_write_1h = sum(count for key, count in into.items() if "1h" in key)
    cache_write = sum(count for key, count in into.items() if "creation" in key or "write" in key)
    cache_read = sum(into[key] for key in into if "cache" in key and "creation" not in key and "write" not in key)
    input_audio = sum(count for key, count in into.items() if "audio" in key and "cache" not in key)
    output_audio = sum(count for key, count in out.items() if "audio" in key)
    known = bool(into) or bool(out)
    plain_input = sum(count for key, count in into.items() if "cache" not in key)
    return (
        Reported(
            input=plain_input if known else None,
            output=sum(out.values()) if known else None,
            total=counts.get("total"),
            cache_read=cache_read,
            cache_write=cache_write,
            cache_write_1h=cache_write_1h or None,
            reasoning=sum(count for key, count in out.items() if "reasoning" in key),
            input_audio=input_audio,
            output_audio=output_audio,
        ),
        Habits(cache_inside=False),
    )


def _numbers(value: Mapping[str, Any], depth: int) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for key, item in value.items():
        if isinstance(item, dict) and depth:
            kept[key] = _numbers(item, depth - 1)
        elif isinstance(item, int | float):
            kept[key] = item
    return kept


def _object(owner: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = owner.get(key)
    return value if isinstance(value, dict) else {}


def _count(owner: Mapping[str, Any], *keys: str) -> int | None:
    for key in keys:
        value = owner.get(key)
        if value is None:
            continue
        if not isinstance(value, int | float):
            raise InvalidCount(f"{key[:40]} is not a whole number")
        return count_of(key[:40], value)
    return None
