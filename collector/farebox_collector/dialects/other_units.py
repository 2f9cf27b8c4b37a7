"""What a call is billed by besides tokens: `farebox.units.NAME` on any span, whatever its dialect."""

from farebox_collector.dialects.text import count_of
from farebox_collector.records import Attributes
from farebox_collector.units import Units, billable_units

PREFIX = "farebox.units."
NAMES = (
    "requests",
    "images",
    "pages",
    "characters",
    "web_searches",
    "web_fetches",
    "social_searches",
    "storage_searches",
    "rerank_searches",
    "code_executions",
    "audio_seconds",
    "audio_hours",
    "input_audio_hours",
    "output_audio_hours",
    "input_audio_seconds",
    "output_audio_seconds",
    "video_seconds",
    "input_characters",
    "input_pixels",
    "input_text_messages",
    "input_document_pages",
    "input_annotated_document_pages",
    "input_video_tokens",
    "output_video_tokens",
    "output_citation_tokens",
    "cache_audio_read_tokens",
    "cache_image_read_tokens",
)
"""Units that a span can report. Attributes are chosen by their whole key at the door, so they are listed."""

KEYS = frozenset(PREFIX + name for name in NAMES)
_NAMES = {PREFIX + name: name for name in NAMES}


def units_of(attributes: Attributes, web_searches: int = 0) -> Units:
    """The units of a call; `web_searches` are those that the dialect found. Raises InvalidCount and InvalidUnit."""
    if not web_searches and KEYS.isdisjoint(attributes):
        return ()
    counts = {"web_searches": web_searches}
    for key in KEYS.intersection(attributes):
        counts[_NAMES[key]] = count_of(key, attributes[key])
    return billable_units(counts)
