"""From what an emitter reports to disjoint buckets: the one place where counts are subtracted.

Emitters differ in two habits: whether the input includes the cache, and whether the output includes the reasoning. A
dialect says which habits it knows its emitter by; where it knows none, the counts decide, and what they cannot decide
is assumed by the specification and flagged.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from farebox_collector.dialects.text import MAX_COUNT, InvalidCount, count_of
from farebox_collector.records import Attributes, Buckets


class Habits(NamedTuple):
    """How an emitter counts. None: not known."""

    cache_inside: bool | None = None
    """Whether the input includes what was read from and written to the cache."""
    reasoning_inside: bool = True
    """Whether the output includes the reasoning, as the specification has it."""
    output_is_rest: bool = False
    """Whether the output is short of the reasoning and only the total includes it."""


INSIDE = Habits(cache_inside=True)
UNKNOWN = Habits()


class Reported(NamedTuple):
    """The counts of one call as its span has them; None where it has none."""

    input: int | None = None
    output: int | None = None
    total: int | None = None
    cache_read: int = 0
    cache_write: int = 0
    cache_write_1h: int | None = None
    """The part of `cache_write` that lives an hour; None where the emitter does not tell."""
    reasoning: int = 0
    input_audio: int = 0
    output_audio: int = 0
    input_image: int = 0
    output_image: int = 0


_NOTHING: tuple[int | None, ...] = Reported()
_INPUT, _OUTPUT, _TOTAL = (Reported._fields.index(name) for name in ("input", "output", "total"))
_DISAGREES = ("total_does_not_add_up",)


Places = tuple[tuple[int, str], ...]
"""Where the counts of a span are: (field of `Reported`, attribute)."""


class Slots:
    """Where an emitter has its counts: attribute → (field of `Reported`, rank among its aliases)."""

    def __init__(self, slots: Mapping[str, tuple[int, int]]) -> None:
        self._slots = slots

    def __iter__(self) -> Iterator[str]:
        """The attributes."""
        return iter(self._slots)

    def among(self, keys: Iterable[str]) -> Places:
        """Which of a span's attributes to read for each field: the first of its aliases."""
        ranked = sorted([(*self._slots[key], key) for key in keys if key in self._slots], reverse=True)
        return tuple({field: key for field, _, key in ranked}.items())[::-1]


def reported_in(attributes: Attributes, places: Places) -> Reported | None:
    """The counts of a span, aliases coalesced by their rank; None if it has none at all. Raises InvalidCount."""
    if not places:
        return None
    counts = list(_NOTHING)
    for field, key in places:
        value = attributes[key]
        sound = type(value) is int and 0 <= value <= MAX_COUNT  # spelt out: this runs for every count
        counts[field] = value if sound else count_of(key, value)  # type: ignore[assignment]
    return tuple.__new__(Reported, counts)


class Counts:
    """Where certain spans have their counts, and how their emitter counts."""

    __slots__ = ("_habits", "_others", "_places", "_text")

    def __init__(self, places: Places, habits: Habits) -> None:
        self._places = places
        self._habits = habits
        of = dict(places)
        self._text = (of[_INPUT], of[_OUTPUT], of.get(_TOTAL)) if _INPUT in of and _OUTPUT in of else None
        if habits.output_is_rest:
            self._text = None
        self._others = tuple(key for field, key in places if field not in (_INPUT, _OUTPUT, _TOTAL))

    def buckets(self, attributes: Attributes) -> tuple[Buckets | None, tuple[str, ...]]:
        """Disjoint buckets of one of the spans, as `disjoint` makes them. Raises InvalidCount."""
        return self._of_text(attributes) or self._of_anything(attributes)

    def _of_text(self, attributes: Attributes) -> tuple[Buckets, tuple[str, ...]] | None:
        """The shortest way, for most calls: text went in and came out, and all else is nothing. None for others."""
        if self._text is None:
            return None
        input_key, output_key, total_key = self._text
        went_in, came_out = attributes[input_key], attributes[output_key]
        total = attributes[total_key] if total_key is not None else 0
        if not (type(went_in) is type(came_out) is type(total) is int):
            return None
        if not (0 <= went_in <= MAX_COUNT and 0 <= came_out <= MAX_COUNT and 0 <= total <= MAX_COUNT):
            return None
        for key in self._others:
            value = attributes[key]
            if type(value) is not int or value:
                return None
        # A total of nothing says nothing.
        agrees = not total or total == went_in + came_out
        return tuple.__new__(Buckets, (went_in, 0, 0, 0, 0, 0, came_out, 0, 0, 0)), () if agrees else _DISAGREES

    def _of_anything(self, attributes: Attributes) -> tuple[Buckets | None, tuple[str, ...]]:
        reported = reported_in(attributes, self._places)
        return disjoint(reported, self._habits) if reported is not None else (None, ())


def disjoint(reported: Reported, habits: Habits) -> tuple[Buckets | None, tuple[str, ...]]:
    """Disjoint buckets and what was assumed; None without any usage. Raises InvalidCount for contradictions."""
    if reported.input is None and reported.output is None:
        return None, ()
    cache = reported.cache_read + reported.cache_write
    remaining_input, assumptions = _uncached_input(reported, habits, cache) if cache else (reported.input or 0, ())
    if reported.input is None:
        assumptions += ("input_tokens_missing",)
    remaining_output, more = _whole_output(reported, habits)
    assumptions += more
    if reported.total is not None and reported.total != reported.cache_read + reported.cache_write:
        assumptions += _check_total(reported, remaining_input + cache + remaining_output)
    if reported.cache_write and reported.cache_write_1h is None:
        assumptions += ("cache_write_lifetime_unknown",)
    cache_write_1h = min(reported.cache_write_1h or 0, reported.cache_write)
    if reported.input_audio + reported.input_image > remaining_input:
        kinds = "audio and image" if reported.input_image else "audio"
        raise InvalidCount(f"{kinds} input tokens are more than the input tokens")
    text_output = remaining_output - reported.output_audio - reported.output_image
    if text_output < 0:
        kinds = "audio and image" if reported.output_image else "audio"
        raise InvalidCount(f"{kinds} output tokens are more than the output tokens")
    reasoning = reported.reasoning
    if reasoning > text_output:
        reasoning = text_output
        assumptions += ("reasoning_over_output",)
    return (
        Buckets(
            input=remaining_input - reported.input_audio - reported.input_image,
            cache_read=reported.cache_read,
            cache_write=reported.cache_write - cache_write_1h,
            cache_write_1h=cache_write_1h,
            input_audio=reported.input_audio,
            input_image=reported.input_image,
            output=text_output,
            output_audio=reported.output_audio,
            output_image=reported.output_image,
            reasoning=reasoning,
        ),
        assumptions,
    )


def _uncached_input(reported: Reported, habits: Habits, cache: int) -> tuple[int, tuple[str, ...]]:
    """The input without the cache."""
    stated = reported.input or 0
    if habits.cache_inside is False:
        return stated, ()
    if cache > stated:
        return stated, ("cache_over_input",) if habits.cache_inside else ("cache_outside_input",)
    if habits.cache_inside:
        return stated - cache, ()
    if reported.total is not None and reported.total == stated + (reported.output or 0) + cache:
        return stated, ("cache_outside_input",)
    return stated - cache, ("cache_assumed_inside_input",)


def _whole_output(reported: Reported, habits: Habits) -> tuple[int, tuple[str, ...]]:
    """The output with the reasoning."""
    stated = reported.output or 0
    if habits.output_is_rest and reported.total is not None:
        rest = reported.total - (reported.input or 0)
        return (rest, ("output_from_total",)) if rest > stated else (stated, ())
    if not habits.reasoning_inside and reported.reasoning:
        return stated + reported.reasoning, ("reasoning_added_to_output",)
    return stated, ()


def _check_total(reported: Reported, sum_of_parts: int) -> tuple[str, ...]:
    """A total agrees with the parts, or with the input and the output as they were stated."""
    stated = (reported.input or 0) + (reported.output or 0)
    return () if reported.total in (sum_of_parts, stated) else _DISAGREES
