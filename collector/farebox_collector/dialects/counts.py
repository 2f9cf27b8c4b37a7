"""Locate the counts of a span and read ordinary ones on a fast path; `reconcile` reads all others."""

from collections.abc import Iterable, Iterator, Mapping

from farebox_collector.dialects.reconcile import (
    Habits,
    Reading,
    Reported,
    disjoint,
)
from farebox_collector.dialects.text import MAX_BUCKET, MAX_COUNT, count_of
from farebox_collector.model.records import Attributes, Buckets

_NOTHING: tuple[int | bool | None, ...] = Reported()
_INPUT, _OUTPUT, _TOTAL = (Reported._fields.index(name) for name in ("input", "output", "total"))
_UNREADABLE = Reported._fields.index("unreadable")
_NONE = Reading(None)
_named = tuple.__new__


Places = tuple[tuple[int, str], ...]
"""The positions of a span's counts: (field of `Reported`, attribute)."""


class Slots:
    """An emitter's counts: attribute → (field of `Reported`, rank among its aliases)."""

    def __init__(self, slots: Mapping[str, tuple[int, int]]) -> None:
        self._slots = slots

    def __iter__(self) -> Iterator[str]:
        """The attributes."""
        return iter(self._slots)

    def among(self, keys: Iterable[str]) -> Places:
        """Return the attribute to read for each field: the first alias that the span has."""
        ranked = sorted([(*self._slots[key], key) for key in keys if key in self._slots], reverse=True)
        return tuple({field: key for field, _, key in ranked}.items())[::-1]

    def spare(self, keys: Iterable[str]) -> Places:
        """Return the other aliases that the span has, for fields whose first alias has no value."""
        ranked = sorted((*self._slots[key], key) for key in keys if key in self._slots)
        first = set(self.among(keys))
        return tuple((field, key) for field, _, key in ranked if (field, key) not in first)


def reported_in(attributes: Attributes, places: Places, spare: Places = ()) -> Reported | None:
    """Return the counts of a span, aliases coalesced by rank; None if it has no counts. Raises InvalidCount."""
    if not places:
        return None
    counts = list(_NOTHING)
    for field, key in places:
        value = attributes[key]
        if type(value) is int and 0 <= value <= MAX_COUNT:  # spelt out: this runs for every count
            counts[field] = value
            continue
        count = count_of(key, value)
        others = (count_of(other, attributes[other]) for place, other in spare if place == field)
        if count is None:
            counts[_UNREADABLE] = counts[_UNREADABLE] or value != ""
            count = next((other for other in others if other is not None), None)
        if count is not None:
            counts[field] = count
    return tuple.__new__(Reported, counts)


class Counts:
    """The positions of the counts in spans of one kind, and how their emitter counts."""

    __slots__ = ("_habits", "_others", "_places", "_spare", "_text")

    def __init__(self, places: Places, habits: Habits, spare: Places = ()) -> None:
        self._places = places
        self._spare = spare
        self._habits = habits
        of = dict(places)
        self._text = (of[_INPUT], of[_OUTPUT], of.get(_TOTAL)) if _INPUT in of and _OUTPUT in of else None
        self._others = tuple(key for field, key in places if field not in (_INPUT, _OUTPUT, _TOTAL))

    @classmethod
    def of(cls, slots: Slots, keys: Iterable[str], habits: Habits) -> "Counts":
        """Locate the counts among a span's attributes."""
        return cls(slots.among(keys), habits, slots.spare(keys))

    def reading(self, attributes: Attributes) -> Reading:
        """Read the counts of one span, as `disjoint` does. Raises InvalidCount."""
        return self._of_text(attributes) or self._of_anything(attributes)

    def _of_text(self, attributes: Attributes) -> Reading | None:
        """Fast path for most calls: text input and output, and all other counts zero. None for other calls."""
        if self._text is None:
            return None
        input_key, output_key, total_key = self._text
        went_in, came_out = attributes[input_key], attributes[output_key]
        total = attributes[total_key] if total_key is not None else 0
        if not (type(went_in) is type(came_out) is type(total) is int):
            return None
        if not (0 <= went_in <= MAX_BUCKET and 0 <= came_out <= MAX_BUCKET):
            return None
        # A total of zero carries no information.
        if total and total != went_in + came_out:
            return None
        for key in self._others:
            value = attributes[key]
            if type(value) is not int or value:
                return None
        return _named(Reading, (_named(Buckets, (went_in, 0, 0, 0, 0, 0, came_out, 0, 0, 0)), (), (), None))

    def _of_anything(self, attributes: Attributes) -> Reading:
        reported = reported_in(attributes, self._places, self._spare)
        return disjoint(reported, self._habits) if reported is not None else _NONE
