"""Convert reported counts to disjoint buckets. No other module subtracts counts.

Emitters differ: the cache is inside the input or separate, the reasoning inside the output or separate, and so are
audio and images. The total is evidence: of the plausible readings, the one that explains the total is chosen. If none
or several explain it, the emitter's habits and the provider's documentation decide; then the record is flagged, and
keeps the other reading, so that pricing can compute the amount at stake. Nothing is refused here.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from farebox_collector.dialects.text import MAX_BUCKET
from farebox_collector.model.records import IMPLAUSIBLE, Buckets
from farebox_collector.model.units import Units

_CACHED_UNITS = ("cache_audio_read_tokens", "cache_image_read_tokens", "cache_video_read_tokens")


class Habits(NamedTuple):
    """How an emitter counts. None: unknown."""

    cache_inside: bool | None = None
    """Whether the input includes tokens read from and written to the cache."""
    reasoning_inside: bool | None = True
    """Whether the output includes the reasoning, as in the specification. None: separate, unless the total shows
    otherwise, as with providers that document it so."""
    rest_is_output: bool | None = None
    """Whether a total above the sum of its parts means output that no other count reports, such as reasoning. None:
    assumed, and flagged. False: the provider documents the total as the sum of the parts."""
    adds_up: bool = False
    """Whether the total is the sum of all reported counts, so that input or output alone can complete it."""
    embeds: bool = False
    """Whether the call has no output, so that its total is its input."""


INSIDE = Habits(cache_inside=True)
UNKNOWN = Habits()


class Reported(NamedTuple):
    """The counts of one call as its span has them; None if it has none."""

    input: int | None = None
    output: int | None = None
    total: int | None = None
    cache_read: int = 0
    cache_write: int = 0
    cache_write_1h: int | None = None
    """The part of `cache_write` that lives an hour; None if the emitter does not report it."""
    reasoning: int = 0
    input_audio: int = 0
    """This and the images include the cached part."""
    output_audio: int = 0
    input_image: int = 0
    output_image: int = 0
    cached_audio: int = 0
    """The part of `cache_read` that is audio; the next two likewise."""
    cached_image: int = 0
    cached_video: int = 0
    unreadable: bool = False
    """Whether a count was not a number."""


class Reading(NamedTuple):
    """The chosen reading of counts."""

    buckets: Buckets | None
    """None without usage, or with an implausible count."""
    assumptions: tuple[str, ...] = ()
    units: Units = ()
    """Tokens without a bucket: audio, images and video read from a cache."""
    other: Buckets | None = None
    """Another reading of contradictory counts, as far as buckets show it."""


class _Option(NamedTuple):
    """One way to read the counts: the input without the cache, and the whole output."""

    uncached: int
    output: int
    cache_beside: str
    """The part of the cache that is separate from the input: empty, `all`, or `write`."""
    reasoning_beside: bool
    input_parts_beside: bool = False
    output_parts_beside: bool = False
    """Whether audio and images are separate."""
    total: int = 0
    """The sum of all counts."""


def disjoint(reported: Reported, habits: Habits) -> Reading:
    """Return disjoint buckets, the assumptions, and the other reading of the counts."""
    counts, completed = _completed(reported, habits)
    if counts.input is None and counts.output is None:
        return Reading(None, ("count_unreadable",) if reported.unreadable else ())
    options = list(_options(counts, habits))
    option, other, flags = _chosen(counts, habits, options)
    buckets, units, about_parts = _bucketed(counts, option)
    if max(buckets) > MAX_BUCKET or any(count > MAX_BUCKET for _, count in units):
        return Reading(None, (IMPLAUSIBLE,))
    flags = completed + _flags(counts, habits, option) + flags + about_parts
    if reported.unreadable:
        flags += ("count_unreadable",)
    if reported.cache_write and reported.cache_write_1h is None:
        flags += ("cache_write_lifetime_unknown",)
    beside = _bucketed(counts, other)[0] if other is not None else None
    if beside == buckets or (beside is not None and max(beside) > MAX_BUCKET):
        beside = None
    return Reading(buckets, flags, units, beside)


def _completed(reported: Reported, habits: Habits) -> tuple[Reported, tuple[str, ...]]:
    """Derive a missing input or output from the total, and return the assumptions."""
    total, went_in, came_out = reported.total or 0, reported.input, reported.output
    if went_in is None and came_out is None:
        return (reported._replace(input=total), ("input_from_total",)) if habits.embeds and total else (reported, ())
    if went_in is None:
        missing = max(0, total - (came_out or 0))
        return reported._replace(input=missing), ("input_from_total",) if missing else ("input_tokens_missing",)
    return reported, ()


def _options(counts: Reported, habits: Habits) -> Iterator[_Option]:
    """Yield the plausible readings, those that match the habits first."""
    stated_in, stated_out = counts.input or 0, counts.output or 0
    read, write = counts.cache_read, counts.cache_write
    caches = [(stated_in, "")]
    if read or write:
        caches = [(stated_in - read - write, "")] if read + write <= stated_in else []
        caches.insert(0 if habits.cache_inside is False else len(caches), (stated_in, "all"))
        if read and write and read <= stated_in:
            caches.append((stated_in - read, "write"))
    reasons = [(stated_out, False)]
    if counts.reasoning:
        reasons = [(stated_out, False)] if counts.reasoning <= stated_out else []
        reasons.insert(len(reasons) if habits.reasoning_inside else 0, (stated_out + counts.reasoning, True))
    parts_in, parts_out = counts.input_audio + counts.input_image, counts.output_audio + counts.output_image
    for input_beside in (False, True) if parts_in else (False,):
        for output_beside in (False, True) if parts_out else (False,):
            for (uncached, where), (output, beside) in _pairs(caches, reasons, habits):
                total = uncached + read + write + output
                total += (parts_in if input_beside else 0) + (parts_out if output_beside else 0)
                yield _Option(uncached, output, where, beside, input_beside, output_beside, total)


def _pairs(
    caches: Sequence[tuple[int, str]], reasons: Sequence[tuple[int, bool]], habits: Habits
) -> list[tuple[tuple[int, str], tuple[int, bool]]]:
    """Return all pairs, ordered so that the least known habit of the emitter is doubted first."""
    if habits.cache_inside is None:
        return [(cache, reason) for reason in reasons for cache in caches]
    return [(cache, reason) for cache in caches for reason in reasons]


def _chosen(
    counts: Reported, habits: Habits, options: Sequence[_Option]
) -> tuple[_Option, _Option | None, tuple[str, ...]]:
    """Return the chosen reading, the alternative if there is one, and the flags."""
    stated = (counts.input or 0) + (counts.output or 0)
    total = counts.total or 0
    by_habit = next(option for option in options if _fits(counts, option))
    if not total or total == counts.cache_read + counts.cache_write:
        return by_habit, _undecided(counts, habits, options), ()
    if total == stated and not habits.adds_up:
        # Weak evidence: some emitters add up the two counts themselves, regardless of their content.
        agreeing, other = by_habit, _undecided(counts, habits, options)
        if habits.reasoning_inside is None and by_habit.reasoning_beside:
            inside = [option for option in options if not option.reasoning_beside and _fits(counts, option)]
            agreeing = next((option for option in inside if option.cache_beside == by_habit.cache_beside), by_habit)
            other = other if agreeing is by_habit else None
        if by_habit.input_parts_beside or by_habit.output_parts_beside:
            agreeing, other = agreeing._replace(input_parts_beside=False, output_parts_beside=False), by_habit
        return agreeing, other, ()
    explaining = [option for option in options if option.total == total]
    if habits.rest_is_output and total > by_habit.total and by_habit not in explaining:
        explaining = []
    if explaining:
        explaining.sort(key=lambda option: not _fits(counts, option))
        first = _bucketed(counts, explaining[0])[0]
        others = [
            option for option in explaining[1:] if _fits(counts, option) and _bucketed(counts, option)[0] != first
        ]
        return explaining[0], next(iter(others), None), ("counts_ambiguous",) if others else ()
    return _unexplained(counts, habits, by_habit, total)


def _unexplained(
    counts: Reported, habits: Habits, by_habit: _Option, total: int
) -> tuple[_Option, _Option | None, tuple[str, ...]]:
    """Choose a reading if none adds up to the total."""
    rest = total - by_habit.total
    with_rest = by_habit._replace(output=max(0, by_habit.output + rest), total=total)
    plausible = with_rest.output <= MAX_BUCKET
    if rest > 0 and plausible and habits.rest_is_output is not False and not habits.embeds:
        return with_rest, None if habits.rest_is_output else by_habit, ("output_from_total",)
    return by_habit, with_rest if plausible else None, ("total_does_not_add_up",)


def _fits(counts: Reported, option: _Option) -> bool:
    """Return whether audio and images fit where this reading puts them."""
    parts_in, parts_out = counts.input_audio + counts.input_image, counts.output_audio + counts.output_image
    available = option.uncached + counts.cache_read
    fits = (
        option.input_parts_beside or parts_in <= available,
        option.output_parts_beside or parts_out <= option.output,
    )
    return all(fits)


def _undecided(counts: Reported, habits: Habits, options: Sequence[_Option]) -> _Option | None:
    """Return the second reading if neither the total nor a habit decides between two."""
    first = next(option for option in options if _fits(counts, option))
    about_cache = counts.cache_read + counts.cache_write > 0 and (
        habits.cache_inside is None or (habits.cache_inside and first.cache_beside == "all")
    )
    about_reasoning = first.reasoning_beside and habits.reasoning_inside is not False
    if first.input_parts_beside or first.output_parts_beside:
        return first._replace(input_parts_beside=False, output_parts_beside=False)
    if not (about_cache or about_reasoning):
        return None
    for option in options:
        cache_fits = about_cache or option.cache_beside == first.cache_beside
        reasoning_fits = about_reasoning or option.reasoning_beside == first.reasoning_beside
        parts_fit = _fits(counts, option) and not (option.input_parts_beside or option.output_parts_beside)
        if option != first and cache_fits and reasoning_fits and parts_fit:
            return option
    return _clamped(counts, first)


def _clamped(counts: Reported, option: _Option) -> _Option | None:
    """Return the reading in which the reasoning is limited to the reported output."""
    return option._replace(output=counts.output or 0, reasoning_beside=False) if option.reasoning_beside else None


def _flags(counts: Reported, habits: Habits, option: _Option) -> tuple[str, ...]:
    """Return the assumptions of a reading that differ from what is known of the emitter."""
    flags: tuple[str, ...] = ()
    cache = counts.cache_read + counts.cache_write
    if option.cache_beside and habits.cache_inside is not False:
        over = habits.cache_inside and cache > (counts.input or 0)
        flags += ("cache_over_input",) if over else ("cache_outside_input",)
    elif cache and not option.cache_beside and habits.cache_inside is not True:
        flags += ("cache_inside_input",) if habits.cache_inside is False else ("cache_assumed_inside_input",)
    if option.reasoning_beside:
        over = habits.reasoning_inside is True and option.total != counts.total
        flags += ("reasoning_over_output",) if over else ("reasoning_added_to_output",)
    elif counts.reasoning and habits.reasoning_inside is False:
        flags += ("reasoning_inside_output",)
    if option.input_parts_beside or option.output_parts_beside:
        flags += ("modalities_beside_text",)
    return flags


def _bucketed(counts: Reported, option: _Option) -> tuple[Buckets, Units, tuple[str, ...]]:
    """Convert a reading to buckets and units, none negative, without counting a token twice, and return the flags."""
    flags: tuple[str, ...] = ()
    audio, image, video = _cached_parts(counts)
    if (audio, image, video) != (counts.cached_audio, counts.cached_image, counts.cached_video):
        flags += ("modalities_over_cache",)
    text_cached = counts.cache_read - audio - image - video
    new_audio, new_image = max(0, counts.input_audio - audio), max(0, counts.input_image - image)
    text_in = option.uncached
    if option.input_parts_beside:
        text_in += new_audio + new_image
    elif new_audio + new_image > text_in:
        # More of them than uncached tokens: some were cached; assume the smallest possible number.
        from_image = min(new_image + new_audio - text_in, new_image, text_cached)
        from_audio = min(new_image + new_audio - text_in - from_image, new_audio, text_cached - from_image)
        audio, image, text_cached = audio + from_audio, image + from_image, text_cached - from_audio - from_image
        new_image, new_audio = new_image - from_image, new_audio - from_audio
        flags += ("modalities_overlap_cache",) if from_image or from_audio else ()
        if new_image + new_audio > text_in:
            new_image = min(new_image, text_in)
            new_audio = text_in - new_image
            flags += ("modalities_over_text",)
    output = option.output
    out_image, out_audio, text_out = counts.output_image, counts.output_audio, output
    if not option.output_parts_beside:
        if out_image + out_audio > output:
            out_image = min(out_image, output)
            out_audio = output - out_image
            flags += ("modalities_over_text",)
        text_out -= out_image + out_audio
    hour = min(counts.cache_write_1h or 0, counts.cache_write)
    buckets = Buckets(
        input=text_in - new_audio - new_image,
        cache_read=text_cached,
        cache_write=counts.cache_write - hour,
        cache_write_1h=hour,
        input_audio=new_audio,
        input_image=new_image,
        output=text_out,
        output_audio=out_audio,
        output_image=out_image,
        reasoning=min(counts.reasoning, text_out),
    )
    return buckets, tuple([pair for pair in zip(_CACHED_UNITS, (audio, image, video), strict=True) if pair[1]]), flags


def _cached_parts(counts: Reported) -> tuple[int, int, int]:
    """Return audio, images and video read from the cache, together at most the cached tokens."""
    audio = min(counts.cached_audio, counts.cache_read)
    image = min(counts.cached_image, counts.cache_read - audio)
    return audio, image, min(counts.cached_video, counts.cache_read - audio - image)
