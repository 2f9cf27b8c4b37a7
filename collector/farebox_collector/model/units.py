"""Units other than tokens that calls are billed by: web searches, images, pages, seconds of audio, requests.

A name is up to 40 lower-case letters, digits and underscores. Units are passed as a tuple of (name, count) pairs sorted
by name, and stored as JSON. A call that is billed by units alone has empty token buckets. A call whose buckets are
unknown stays unmetered, even if it reports other units.
"""

import json
import re
from collections.abc import Container, Mapping

Units = tuple[tuple[str, int], ...]

REQUESTS = "requests"
"""Every call has one of these, unless it reports another count."""
MAX_KINDS = 16
"""Most kinds of units in one call."""
MAX_UNIT_COUNT = 10**10
"""Most of one unit in one call; a higher count comes from a broken sender."""
TOKEN_BUCKETS = frozenset(
    {
        "input",
        "cache_read",
        "cache_write",
        "cache_write_1h",
        "input_audio",
        "input_image",
        "output",
        "output_audio",
        "output_image",
        "reasoning",
        "output_reasoning",
    }
)
"""Names of token buckets. Calls report them in `records.Buckets` and nowhere else."""

UNITS: Mapping[str, str] = {
    "input": "input text tokens, not cached",
    "cache_read": "tokens read from a cache",
    "cache_write": "tokens written to a cache for five minutes",
    "cache_write_1h": "tokens written to a cache for an hour",
    "input_audio": "audio input tokens",
    "input_image": "image input tokens",
    "output": "text output tokens",
    "output_audio": "audio output tokens",
    "output_image": "image output tokens",
    "output_reasoning": "reasoning tokens, if billed separately from `output`",
    "cache_audio_read_tokens": "audio tokens read from a cache",
    "cache_image_read_tokens": "image tokens read from a cache",
    "cache_video_read_tokens": "video tokens read from a cache",
    "input_video_tokens": "video input tokens",
    "output_video_tokens": "video output tokens",
    "output_citation_tokens": "citation output tokens",
    REQUESTS: "fee per call",
    "web_searches": "web searches",
    "advanced_web_searches": "web searches that the provider bills at a higher fee",
    "preview_web_searches": "web searches by OpenAI's earlier tool",
    "web_visits": "web pages that a tool opened",
    "browser_automations": "browsers that the provider drove",
    "map_searches": "searches of maps",
    "social_searches": "searches of a social network",
    "storage_searches": "searches of stored files",
    "document_searches": "searches of attached files",
    "rerank_searches": "rerank requests",
    "code_executions": "code runs at the provider",
    "container_sessions": "provider containers in which code ran, per session and gigabyte",
    "images": "images generated",
    "input_characters": "input characters",
    "input_text_messages": "input messages",
    "input_pixels": "input pixels",
    "input_document_pages": "pages read",
    "input_annotated_document_pages": "pages read and annotated",
    "audio_seconds": "seconds of audio, in or out",
    "audio_hours": "hours of audio, in or out",
    "input_audio_seconds": "seconds of input audio",
    "input_audio_hours": "hours of input audio",
    "output_audio_seconds": "seconds of output audio",
    "output_audio_hours": "hours of output audio",
    "video_seconds": "seconds of video generated",
}
"""Units that can have a price. Calls report token buckets, and of the others those counted in whole units."""
IN, CACHED, OUT = "in", "cached", "out"
TOKENS: Mapping[str, str] = {
    "input_video_tokens": IN,
    "cache_audio_read_tokens": CACHED,
    "cache_image_read_tokens": CACHED,
    "cache_video_read_tokens": CACHED,
    "output_video_tokens": OUT,
    "output_citation_tokens": OUT,
}
"""Units that are tokens: input, read from a cache (also input), and output.

Token rules and long-context thresholds count them like tokens in buckets.
"""
INPUT_TOKENS = frozenset(unit for unit, way in TOKENS.items() if way != OUT)
"""Units that are input tokens; they count towards long-context thresholds."""
OWN_UNIT = "x_"
"""Prefix of custom units."""
PER_HOUR: Mapping[str, str] = {
    "audio_seconds": "audio_hours",
    "input_audio_seconds": "input_audio_hours",
    "output_audio_seconds": "output_audio_hours",
}
"""Units that calls report in seconds and that may be priced by the hour."""

FALLBACK_UNITS: Mapping[str, str] = {
    "cache_read": "input",
    "cache_write": "input",
    "cache_write_1h": "cache_write",
    "input_audio": "input",
    "input_image": "input",
    "output_audio": "output",
    "output_image": "output",
    "output_citation_tokens": "output",
    "output_video_tokens": "output",
    "input_video_tokens": "input",
    "cache_audio_read_tokens": "cache_read",
    "cache_image_read_tokens": "cache_read",
    "cache_video_read_tokens": "cache_read",
    "preview_web_searches": "web_searches",
    "advanced_web_searches": "web_searches",
    "input_audio_seconds": "audio_seconds",
    "output_audio_seconds": "audio_seconds",
}
"""Fallback units: used if the book has no price for the unit itself, as providers bill it."""

_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")


class InvalidUnit(ValueError):
    """Units that cannot be booked; the message is the reason."""


def is_unit_name(name: str) -> bool:
    """Return whether a value can be a unit's name."""
    return _NAME.fullmatch(name) is not None


def can_have_price(unit: str) -> bool:
    """Return whether the price book accepts a unit."""
    return unit in UNITS or (unit.startswith(OWN_UNIT) and is_unit_name(unit))


def stand_in(unit: str, priced: Container[str]) -> str | None:
    """Return the priced unit that a unit is billed as: itself, else its fallback; None if neither has a price."""
    priced_as: str | None = unit
    while priced_as is not None and priced_as not in priced:
        priced_as = FALLBACK_UNITS.get(priced_as)
    return priced_as


def billable_units(counts: Mapping[str, int]) -> Units:
    """Convert counts by name to a record's units: sorted by name, zeros dropped. Raises InvalidUnit."""
    found = tuple(sorted((name, count) for name, count in counts.items() if count))
    if len(found) > MAX_KINDS:
        raise InvalidUnit(f"more than {MAX_KINDS} kinds of units")
    for name, count in found:
        if not is_unit_name(name):
            raise InvalidUnit("a unit's name must be up to 40 lower-case letters, digits and underscores")
        if name in TOKEN_BUCKETS:
            raise InvalidUnit(f"{name} is a kind of token, not another unit")
        if not 0 <= count <= MAX_UNIT_COUNT:
            raise InvalidUnit(f"{name} is negative or over {MAX_UNIT_COUNT}")
    return found


def stored_units(units: Units) -> str:
    """Serialise units for the books. Equal units give equal texts; no units give an empty text."""
    return json.dumps(dict(units), separators=(",", ":")) if units else ""


def read_units(stored: str) -> Units:
    """Parse the text that `stored_units` made."""
    return tuple(json.loads(stored).items()) if stored else ()
