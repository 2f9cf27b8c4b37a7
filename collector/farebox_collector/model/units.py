"""What a call is billed by besides tokens: web searches, images, pages, seconds of audio, requests.

A name is up to 40 lower-case letters, digits and underscores. Units travel as a tuple of (name, count) pairs in the
order of their names, and rest in the books as JSON. A call that is billed by them alone has empty token buckets; one
whose buckets are unknown stays unmetered whatever else it reports.
"""

import json
import re
from collections.abc import Container, Mapping

Units = tuple[tuple[str, int], ...]

REQUESTS = "requests"
"""The unit that every call has one of, unless it says otherwise."""
MAX_KINDS = 16
"""Most kinds of units that one call can have."""
MAX_UNIT_COUNT = 10**10
"""Most of one unit that one call can have used; more is a broken sender."""
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
"""Names that mean tokens, which a call reports in `records.Buckets` and nowhere else."""

UNITS: Mapping[str, str] = {
    "input": "tokens of text that went in, not cached",
    "cache_read": "tokens read from a cache",
    "cache_write": "tokens written to a cache for five minutes",
    "cache_write_1h": "tokens written to a cache for an hour",
    "input_audio": "tokens of audio that went in",
    "input_image": "tokens of images that went in",
    "output": "tokens of text that came out",
    "output_audio": "tokens of audio that came out",
    "output_image": "tokens of images that came out",
    "output_reasoning": "tokens spent on reasoning, where they are billed apart from `output`",
    "cache_audio_read_tokens": "tokens of audio read from a cache",
    "cache_image_read_tokens": "tokens of images read from a cache",
    "cache_video_read_tokens": "tokens of video read from a cache",
    "input_video_tokens": "tokens of video that went in",
    "output_video_tokens": "tokens of video that came out",
    "output_citation_tokens": "tokens of citations that came out",
    REQUESTS: "a fee a call",
    "web_searches": "searches of the web",
    "advanced_web_searches": "searches of the web that the provider bills at a higher fee",
    "preview_web_searches": "searches of the web by the earlier tool of OpenAI",
    "web_visits": "pages of the web that a tool opened",
    "browser_automations": "browsers that the provider drove",
    "map_searches": "searches of maps",
    "social_searches": "searches of a social network",
    "storage_searches": "searches of stored files",
    "document_searches": "searches of attached files",
    "rerank_searches": "rerank requests",
    "code_executions": "runs of code by the provider",
    "container_sessions": "containers of the provider in which code ran, by session and gigabyte",
    "images": "images that were made",
    "input_characters": "characters that went in",
    "input_text_messages": "messages that went in",
    "input_pixels": "pixels that went in",
    "input_document_pages": "pages that were read",
    "input_annotated_document_pages": "pages that were read and annotated",
    "audio_seconds": "seconds of audio, in or out",
    "audio_hours": "the same, priced by the hour",
    "input_audio_seconds": "seconds of audio that went in",
    "input_audio_hours": "the same, priced by the hour",
    "output_audio_seconds": "seconds of audio that came out",
    "output_audio_hours": "the same, priced by the hour",
    "video_seconds": "seconds of video that were made",
}
"""What can have a price. Calls report token buckets and, of the rest, what is counted in whole ones."""
IN, CACHED, OUT = "in", "cached", "out"
TOKENS: Mapping[str, str] = {
    "input_video_tokens": IN,
    "cache_audio_read_tokens": CACHED,
    "cache_image_read_tokens": CACHED,
    "cache_video_read_tokens": CACHED,
    "output_video_tokens": OUT,
    "output_citation_tokens": OUT,
}
"""Units that are tokens, and whether they went in, were read from a cache (and so went in), or came out.

Rules that charge by tokens and long-context thresholds count them as they count those in buckets.
"""
INPUT_TOKENS = frozenset(unit for unit, way in TOKENS.items() if way != OUT)
"""Units that are tokens which went in: they count for long-context thresholds."""
OWN_UNIT = "x_"
"""How the name of a unit begins that somebody made up."""
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
"""Where a book has no price of its own for a unit, providers bill it as this one."""

_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")


class InvalidUnit(ValueError):
    """Units that can never be booked; the message is the reason."""


def is_unit_name(name: str) -> bool:
    """Whether something can be a unit's name."""
    return _NAME.fullmatch(name) is not None


def can_have_price(unit: str) -> bool:
    """Whether a unit can be in the price book."""
    return unit in UNITS or (unit.startswith(OWN_UNIT) and is_unit_name(unit))


def stand_in(unit: str, priced: Container[str]) -> str | None:
    """The unit whose price a unit has, among those with a price: its own, else its fallback's; None without any."""
    priced_as: str | None = unit
    while priced_as is not None and priced_as not in priced:
        priced_as = FALLBACK_UNITS.get(priced_as)
    return priced_as


def billable_units(counts: Mapping[str, int]) -> Units:
    """Counts by name as a record keeps them: in the order of their names, without zeros. Raises InvalidUnit."""
    found = tuple(sorted((name, count) for name, count in counts.items() if count))
    if len(found) > MAX_KINDS:
        raise InvalidUnit(f"more than {MAX_KINDS} kinds of units")
    for name, count in found:
        if not is_unit_name(name):
            raise InvalidUnit("a unit's name is up to 40 lower-case letters, digits and underscores")
        if name in TOKEN_BUCKETS:
            raise InvalidUnit(f"{name} is a kind of token, not another unit")
        if not 0 <= count <= MAX_UNIT_COUNT:
            raise InvalidUnit(f"{name} is negative or over {MAX_UNIT_COUNT}")
    return found


def stored_units(units: Units) -> str:
    """Units as the books keep them: the same text for the same units; empty for none."""
    return json.dumps(dict(units), separators=(",", ":")) if units else ""


def read_units(stored: str) -> Units:
    """Units from the text that `stored_units` made."""
    return tuple(json.loads(stored).items()) if stored else ()
