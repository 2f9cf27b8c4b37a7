"""What a call is billed by besides tokens: web searches, images, pages, seconds of audio, requests.

A name is up to 40 lower-case letters, digits and underscores. Units travel as a tuple of (name, count) pairs in the
order of their names, and rest in the books as JSON. A call that is billed by them alone has empty token buckets; one
whose buckets are unknown stays unmetered whatever else it reports.
"""

import json
import re
from collections.abc import Mapping

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

_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")


class InvalidUnit(ValueError):
    """Units that can never be booked; the message is the reason."""


def is_unit_name(name: str) -> bool:
    """Whether something can be a unit's name."""
    return _NAME.fullmatch(name) is not None


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
