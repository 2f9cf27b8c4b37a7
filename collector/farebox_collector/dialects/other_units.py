"""What a call is billed by besides tokens: `farebox.units.NAME` on any span, whatever its dialect."""

from farebox_collector.dialects.text import count_of
from farebox_collector.records import Attributes
from farebox_collector.units import Units, billable_units

PREFIX = "farebox.units."
NAMES = (
    "requests",
    "web_searches",
    "web_fetches",
    "file_searches",
    "code_sessions",
    "images",
    "pages",
    "characters",
    "audio_seconds",
    "audio_minutes",
    "audio_hours",
    "video_seconds",
    "searches",
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
