"""Usage that an emitter writes as JSON in the provider's own shape: parsed within bounds."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from farebox_collector.dialects.reconcile import Habits, Reported, disjoint
from farebox_collector.dialects.text import clean, count_of
from farebox_collector.dialects.unusual import conditions_in
from farebox_collector.model.records import AttributeValue, ModelLine

MAX_JSON = 16_000
"""Longest usage text that is parsed, in characters; real ones have a few hundred."""
_MAX_KEYS = 64
_MAX_ITEMS = 32
"""Most keys of an object and items of a list that are read."""
_WORDS = frozenset(
    {"model", "type", "modality", "speed", "service_tier", "inference_geo", "serviceTier", "trafficType", "latency"}
)
"""Keys whose texts are names, not prompts."""
_WORD = re.compile(r"[A-Za-z0-9_.:/@-]{1,80}")
_DATE = re.compile(r"[-@](20\d{6}|latest)$")
_DIGITS = re.compile(r"[0-9]{1,20}(\.0*)?")
_AUDIO, _IMAGE, _VIDEO = ({"AUDIO", "4"}, {"IMAGE", "2"}, {"VIDEO", "3"})
"""Google's names of modalities, and the numbers that some clients write for them."""


def parsed(value: AttributeValue | None) -> Mapping[str, Any] | None:
    """Parse the JSON object in a text; None for anything else."""
    if not isinstance(value, str) or not value or len(value) > MAX_JSON:
        return None
    try:
        found = json.loads(value)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def service_tier_in(parameters: str) -> str | None:
    """Return the service tier among a call's parameters; None if there is none."""
    found = parsed(parameters) if '"service_tier"' in parameters else None
    tier = found.get("service_tier") if found else None
    return tier if isinstance(tier, str) else None


def numbers_in(text: str) -> str | None:
    """Reduce a JSON object to its numbers and a few names, four levels deep; None for any other text."""
    found = parsed(text)
    return json.dumps(_numbers(found, 4), separators=(",", ":")) if found is not None else None


def provider_usage(usage: Mapping[str, Any], model: str = "") -> tuple[Reported, Habits]:
    """Read a usage object in the format of OpenAI, Anthropic or Google. Raises InvalidCount.

    `model` is the model that answered: its iterations are the counts of the call.
    """
    if "promptTokenCount" in usage or "prompt_token_count" in usage:
        return _google_usage(usage)
    write = usage.get("cache_creation_input_tokens")
    read = usage.get("cache_read_input_tokens")
    iterations = _iterations(usage)
    if write is not None or read is not None or iterations:
        own = [one for one in iterations if _is_message(one) and _is_of(one, model)]
        return _anthropic_usage(own or [usage]), Habits(cache_inside=False, rest_is_output=False)
    return _openai_usage(usage), Habits(cache_inside=True)


def other_lines(usage: Mapping[str, Any], model: str) -> tuple[ModelLine, ...]:
    """Return the parts of Anthropic's answer that its counts omit: a compaction, an advisor. Raises InvalidCount."""
    iterations = _iterations(usage)
    if not iterations:
        return ()
    lines: list[ModelLine] = []
    tier, fast, region = conditions_in(usage)
    # Without a message of the model named at the top, the counts at the top are those of the messages.
    counted = [one for one in iterations if _is_message(one) and _is_of(one, model)] or [
        one for one in iterations if _is_message(one)
    ]
    for one in iterations:
        if any(one is other for other in counted):
            continue
        buckets = disjoint(_anthropic_usage([one]), Habits(cache_inside=False)).buckets
        if buckets is not None:
            own = _is_of(one, model)
            speed = conditions_in(one).speed if "speed" in one else fast if own else ""
            label = clean(str(one.get("type") or "iteration"))[:40]
            name = model if own else str(one["model"])
            lines.append(ModelLine(label, "", clean(name), tier, speed, region, buckets))
    return tuple(lines[:16])


def of_model(lines: Sequence[ModelLine], model: str) -> Sequence[ModelLine]:
    """Return the lines that the model itself produced."""
    return [line for line in lines if line.model == model]


def _is_message(iteration: Mapping[str, Any]) -> bool:
    return iteration.get("type") in (None, "message", "fallback_message")


def _is_of(iteration: Mapping[str, Any], model: str) -> bool:
    """Return whether an iteration belongs to a model, whose name may have a date appended."""
    named = iteration.get("model")
    if not isinstance(named, str) or not named:
        return True
    return _DATE.sub("", named.lower()) == _DATE.sub("", model.lower())


def web_searches(usage: Mapping[str, Any]) -> int:
    """Return the searches that the provider made for a call and bills individually. Raises InvalidCount."""
    return count_in(object_in(usage, "server_tool_use"), "web_search_requests") or 0


def _openai_usage(usage: Mapping[str, Any]) -> Reported:
    into = object_in(usage, "prompt_tokens_details") or object_in(usage, "input_tokens_details")
    out = object_in(usage, "completion_tokens_details") or object_in(usage, "output_tokens_details")
    cached = object_in(into, "cached_tokens_details")
    # Moonshot, Mistral and DeepSeek report the cache next to the counts.
    beside = count_in(usage, "cached_tokens", "num_cached_tokens", "prompt_cache_hit_tokens")
    read = count_in(into, "cached_tokens")
    return Reported(
        input=count_in(usage, "prompt_tokens", "input_tokens"),
        output=count_in(usage, "completion_tokens", "output_tokens"),
        total=count_in(usage, "total_tokens"),
        cache_read=(beside if read is None else read) or 0,
        cache_write=count_in(into, "cache_write_tokens") or 0,
        reasoning=count_in(out, "reasoning_tokens") or 0,
        input_audio=count_in(into, "audio_tokens") or 0,
        output_audio=count_in(out, "audio_tokens") or 0,
        input_image=count_in(into, "image_tokens") or 0,
        output_image=count_in(out, "image_tokens") or 0,
        cached_audio=count_in(cached, "audio_tokens") or 0,
        cached_image=count_in(cached, "image_tokens") or 0,
    )


def _anthropic_usage(parts: Sequence[Mapping[str, Any]]) -> Reported:
    """Return the counts of one usage object, or of several iterations together."""
    hours = [count_in(object_in(one, "cache_creation"), "ephemeral_1h_input_tokens") for one in parts]
    inputs = [count for one in parts if (count := count_in(one, "input_tokens")) is not None]
    outputs = [count for one in parts if (count := count_in(one, "output_tokens")) is not None]
    return Reported(
        input=sum(inputs) if inputs else None,
        output=sum(outputs) if outputs else None,
        cache_read=sum(count_in(one, "cache_read_input_tokens") or 0 for one in parts),
        cache_write=sum(count_in(one, "cache_creation_input_tokens") or 0 for one in parts),
        cache_write_1h=None if hours.count(None) == len(hours) else sum(hour or 0 for hour in hours),
        reasoning=sum(count_in(object_in(one, "output_tokens_details"), "thinking_tokens") or 0 for one in parts),
    )


def _google_usage(usage: Mapping[str, Any]) -> tuple[Reported, Habits]:
    """Read Google's format: thoughts are separate from candidates, tool results separate from the prompt."""
    prompt = count_in(usage, "promptTokenCount", "prompt_token_count")
    tools = count_in(usage, "toolUsePromptTokenCount", "tool_use_prompt_token_count") or 0
    cached = _modalities(usage, "cacheTokensDetails", "cache_tokens_details")
    into = _modalities(usage, "promptTokensDetails", "prompt_tokens_details")
    out = _modalities(usage, "candidatesTokensDetails", "candidates_tokens_details")
    reported = Reported(
        input=None if prompt is None else prompt + tools,
        output=count_in(usage, "candidatesTokenCount", "candidates_token_count"),
        total=count_in(usage, "totalTokenCount", "total_token_count"),
        cache_read=count_in(usage, "cachedContentTokenCount", "cached_content_token_count") or 0,
        reasoning=count_in(usage, "thoughtsTokenCount", "thoughts_token_count") or 0,
        input_audio=into[0],
        input_image=into[1],
        output_audio=out[0],
        output_image=out[1],
        cached_audio=cached[0],
        cached_image=cached[1],
        cached_video=cached[2],
    )
    return reported, Habits(cache_inside=True, reasoning_inside=False, rest_is_output=True)


def _modalities(usage: Mapping[str, Any], *keys: str) -> tuple[int, int, int]:
    """Return the tokens of audio, images and video in one of Google's lists."""
    found: list[Any] = next((usage[key] for key in keys if isinstance(usage.get(key), list)), [])
    sums = [0, 0, 0]
    for part in found[:_MAX_ITEMS]:
        if isinstance(part, dict):
            kind = str(part.get("modality", "")).upper().rpartition(".")[2]
            for place, names in enumerate((_AUDIO, _IMAGE, _VIDEO)):
                if kind in names:
                    sums[place] += count_in(part, "tokenCount", "token_count") or 0
    return sums[0], sums[1], sums[2]


def _iterations(usage: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    found = usage.get("iterations")
    return [one for one in found[:_MAX_ITEMS] if isinstance(one, dict)] if isinstance(found, list) else []


def _numbers(value: Mapping[str, Any], depth: int) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for key, item in list(value.items())[:_MAX_KEYS]:
        if isinstance(item, dict) and depth:
            kept[key] = _numbers(item, depth - 1)
        elif isinstance(item, list) and depth:
            objects = [_numbers(one, depth - 1) for one in item[:_MAX_ITEMS] if isinstance(one, dict)]
            if objects:
                kept[key] = objects
        elif isinstance(item, int | float) or (isinstance(item, str) and _is_kept(key, item)):
            kept[key] = item
    return kept


def _is_kept(key: str, text: str) -> bool:
    """Return whether a text is a number, or one of the few names that matter."""
    return _DIGITS.fullmatch(text) is not None or (key in _WORDS and _WORD.fullmatch(text) is not None)


def object_in(owner: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """Return the object under a key; an empty one for anything else."""
    value = owner.get(key)
    return value if isinstance(value, dict) else {}


def count_in(owner: Mapping[str, Any], *keys: str) -> int | None:
    """Return the first count among aliases; None if it is not a number. Raises InvalidCount."""
    for key in keys:
        value = owner.get(key)
        if value is not None and (count := count_of(key[:40], value)) is not None:
            return count
    return None
