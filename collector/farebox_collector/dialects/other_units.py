"""Units other than tokens that a call is billed by: `farebox.units.NAME` on any span, in every dialect."""

from collections.abc import Iterable

from farebox_collector.dialects.text import count_of
from farebox_collector.model.records import Attributes
from farebox_collector.model.units import (
    MAX_UNIT_COUNT,
    PER_HOUR,
    TOKEN_BUCKETS,
    UNITS,
    Units,
    billable_units,
)

PREFIX = "farebox.units."
_ALIASES = {"pages": "input_document_pages", "characters": "input_characters"}
_HOURS = frozenset(PER_HOUR.values())
NAMES = (*(name for name in UNITS if name not in TOKEN_BUCKETS and name not in _HOURS), *_ALIASES)
"""Units that a span can report: all that can have a price and are counted in whole units. It is a list because the
decoder selects attributes by their whole key."""

KEYS = frozenset(PREFIX + name for name in NAMES)
_NAMES = {PREFIX + name: _ALIASES.get(name, name) for name in NAMES}


def unit_keys(keys: Iterable[str]) -> tuple[str, ...]:
    """Return the unit attributes among the keys; a unit's own name comes last, and takes precedence."""
    return tuple(sorted(KEYS.intersection(keys), key=lambda key: (key == PREFIX + _NAMES[key], key)))


def units_of(attributes: Attributes, keys: tuple[str, ...], web_searches: int = 0) -> Units:
    """Return the units of a call by its `unit_keys`; `web_searches` are those that the dialect found.

    Raises InvalidCount and InvalidUnit.
    """
    if not web_searches and not keys:
        return ()
    counts = {"web_searches": min(web_searches, MAX_UNIT_COUNT)}
    for key in keys:
        count = count_of(key, attributes[key])
        if count is not None:
            # A sum over the bound is not charged; clamping keeps it over the bound.
            counts[_NAMES[key]] = min(count, MAX_UNIT_COUNT)
    return billable_units(counts)
