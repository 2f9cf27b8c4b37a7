"""From the counts that an emitter reports to disjoint buckets: the one place where counts are subtracted.

Emitters differ: the cache is a part of the input or beside it, the reasoning a part of the output or beside it, and so
are audio and images. A total is evidence: of the plausible readings the one counts that explains it. If none or several
explain it, the habits of the emitter and the documents of the provider decide; then the record is flagged, and keeps
the reading that was not chosen, so that pricing can say how much is at stake. Nothing is refused here.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from farebox_collector.dialects.text import MAX_BUCKET
from farebox_collector.model.records import IMPLAUSIBLE, Buckets
from farebox_collector.model.units import Units

_CACHED_UNITS = ("cache_audio_read_tokens", "cache_image_read_tokens", "cache_video_read_tokens")


class Habits(NamedTuple):
    """How an emitter counts. None: not known."""

    cache_inside: bool | None = None
    """Whether the input includes what was read from and written to the cache."""
    reasoning_inside: bool | None = True
    """Whether the output includes the reasoning, as the specification has it. None: beside it, unless the total says
    otherwise, as with providers that document it so."""
    rest_is_output: bool | None = None
    """Whether what the total has more than its parts is output that nothing else tells of, such as reasoning. None:
    taken for that, and flagged. False: the provider documents the total as the sum of the parts."""
    adds_up: bool = False
    """Whether a total is the sum of all counts that are told, so that one of only the first two says something."""
    embeds: bool = False
    """Whether the call makes no output, so that its total is its input."""


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
    """Of this and of images the cached part is included."""
    output_audio: int = 0
    input_image: int = 0
    output_image: int = 0
    cached_audio: int = 0
    """The part of `cache_read` that is audio; the next two likewise."""
    cached_image: int = 0
    cached_video: int = 0
    unreadable: bool = False
    """Whether there was a count that is no number."""


class Reading(NamedTuple):
    """What counts were taken for."""

    buckets: Buckets | None
    """None without any usage, or with an implausible one."""
    assumptions: tuple[str, ...] = ()
    units: Units = ()
    """Tokens that have no bucket: those of audio, images and video that were read from a cache."""
    other: Buckets | None = None
    """Another reading of contradictory counts, as far as buckets tell it."""


class _Way(NamedTuple):
    """One way to read the counts: what the input is without the cache, and what the whole output is."""

    uncached: int
    output: int
    cache_beside: str
    """Which part of the cache is beside the input: empty, `all`, or `write`."""
    reasoning_beside: bool
    input_parts_beside: bool = False
    output_parts_beside: bool = False
    """Whether audio and images are beside the rest."""
    total: int = 0
    """The sum of all of it."""


def disjoint(reported: Reported, habits: Habits) -> Reading:
    """Disjoint buckets, what was assumed, and how else the counts can be read."""
    said, completed = _completed(reported, habits)
    if said.input is None and said.output is None:
        return Reading(None, ("count_unreadable",) if reported.unreadable else ())
    ways = list(_ways(said, habits))
    way, other, flags = _chosen(said, habits, ways)
    buckets, units, about_parts = _bucketed(said, way)
    if max(buckets) > MAX_BUCKET or any(count > MAX_BUCKET for _, count in units):
        return Reading(None, (IMPLAUSIBLE,))
    flags = completed + _about(said, habits, way) + flags + about_parts
    if reported.unreadable:
        flags += ("count_unreadable",)
    if reported.cache_write and reported.cache_write_1h is None:
        flags += ("cache_write_lifetime_unknown",)
    beside = _bucketed(said, other)[0] if other is not None else None
    if beside == buckets or (beside is not None and max(beside) > MAX_BUCKET):
        beside = None
    return Reading(buckets, flags, units, beside)


def _completed(reported: Reported, habits: Habits) -> tuple[Reported, tuple[str, ...]]:
    """The counts with what the total tells where there is no input, or no output, and what was assumed of that."""
    total, went_in, came_out = reported.total or 0, reported.input, reported.output
    if went_in is None and came_out is None:
        return (reported._replace(input=total), ("input_from_total",)) if habits.embeds and total else (reported, ())
    if went_in is None:
        missing = max(0, total - (came_out or 0))
        return reported._replace(input=missing), ("input_from_total",) if missing else ("input_tokens_missing",)
    return reported, ()


def _ways(said: Reported, habits: Habits) -> Iterator[_Way]:
    """The plausible readings, those first that the habits speak for."""
    stated_in, stated_out = said.input or 0, said.output or 0
    read, write = said.cache_read, said.cache_write
    caches = [(stated_in, "")]
    if read or write:
        caches = [(stated_in - read - write, "")] if read + write <= stated_in else []
        caches.insert(0 if habits.cache_inside is False else len(caches), (stated_in, "all"))
        if read and write and read <= stated_in:
            caches.append((stated_in - read, "write"))
    reasons = [(stated_out, False)]
    if said.reasoning:
        reasons = [(stated_out, False)] if said.reasoning <= stated_out else []
        reasons.insert(len(reasons) if habits.reasoning_inside else 0, (stated_out + said.reasoning, True))
    parts_in, parts_out = said.input_audio + said.input_image, said.output_audio + said.output_image
    for input_beside in (False, True) if parts_in else (False,):
        for output_beside in (False, True) if parts_out else (False,):
            for (uncached, where), (output, beside) in _pairs(caches, reasons, habits):
                total = uncached + read + write + output
                total += (parts_in if input_beside else 0) + (parts_out if output_beside else 0)
                yield _Way(uncached, output, where, beside, input_beside, output_beside, total)


def _pairs(
    caches: Sequence[tuple[int, str]], reasons: Sequence[tuple[int, bool]], habits: Habits
) -> list[tuple[tuple[int, str], tuple[int, bool]]]:
    """Each with each, in such an order that what is least known of the emitter is doubted first."""
    if habits.cache_inside is None:
        return [(cache, reason) for reason in reasons for cache in caches]
    return [(cache, reason) for cache in caches for reason in reasons]


def _chosen(said: Reported, habits: Habits, ways: Sequence[_Way]) -> tuple[_Way, _Way | None, tuple[str, ...]]:
    """The reading that counts, the one that it might also be, and what there is to say of that."""
    stated = (said.input or 0) + (said.output or 0)
    total = said.total or 0
    by_habit = next(way for way in ways if _holds(said, way))
    if not total or total == said.cache_read + said.cache_write:
        return by_habit, _undecided(said, habits, ways), ()
    if total == stated and not habits.adds_up:
        # This says little: some emitters add up the two counts themselves, whatever is in them.
        agreeing, other = by_habit, _undecided(said, habits, ways)
        if habits.reasoning_inside is None and by_habit.reasoning_beside:
            inside = [way for way in ways if not way.reasoning_beside and _holds(said, way)]
            agreeing = next((way for way in inside if way.cache_beside == by_habit.cache_beside), by_habit)
            other = other if agreeing is by_habit else None
        if by_habit.input_parts_beside or by_habit.output_parts_beside:
            agreeing, other = agreeing._replace(input_parts_beside=False, output_parts_beside=False), by_habit
        return agreeing, other, ()
    explaining = [way for way in ways if way.total == total]
    if habits.rest_is_output and total > by_habit.total and by_habit not in explaining:
        explaining = []
    if explaining:
        explaining.sort(key=lambda way: not _holds(said, way))
        first = _bucketed(said, explaining[0])[0]
        others = [way for way in explaining[1:] if _holds(said, way) and _bucketed(said, way)[0] != first]
        return explaining[0], next(iter(others), None), ("counts_ambiguous",) if others else ()
    return _unexplained(said, habits, by_habit, total)


def _unexplained(
    said: Reported, habits: Habits, by_habit: _Way, total: int
) -> tuple[_Way, _Way | None, tuple[str, ...]]:
    """What counts if no reading adds up to the total."""
    rest = total - by_habit.total
    with_rest = by_habit._replace(output=max(0, by_habit.output + rest), total=total)
    plausible = with_rest.output <= MAX_BUCKET
    if rest > 0 and plausible and habits.rest_is_output is not False and not habits.embeds:
        return with_rest, None if habits.rest_is_output else by_habit, ("output_from_total",)
    return by_habit, with_rest if plausible else None, ("total_does_not_add_up",)


def _holds(said: Reported, way: _Way) -> bool:
    """Whether audio and images fit where this reading has them."""
    parts_in, parts_out = said.input_audio + said.input_image, said.output_audio + said.output_image
    room = way.uncached + said.cache_read
    fits = (way.input_parts_beside or parts_in <= room, way.output_parts_beside or parts_out <= way.output)
    return all(fits)


def _undecided(said: Reported, habits: Habits, ways: Sequence[_Way]) -> _Way | None:
    """The second reading where neither the total nor a habit decides between two."""
    first = next(way for way in ways if _holds(said, way))
    about_cache = said.cache_read + said.cache_write > 0 and (
        habits.cache_inside is None or (habits.cache_inside and first.cache_beside == "all")
    )
    about_reasoning = first.reasoning_beside and habits.reasoning_inside is not False
    if first.input_parts_beside or first.output_parts_beside:
        return first._replace(input_parts_beside=False, output_parts_beside=False)
    if not (about_cache or about_reasoning):
        return None
    for way in ways:
        cache_fits = about_cache or way.cache_beside == first.cache_beside
        reasoning_fits = about_reasoning or way.reasoning_beside == first.reasoning_beside
        parts_fit = _holds(said, way) and not (way.input_parts_beside or way.output_parts_beside)
        if way != first and cache_fits and reasoning_fits and parts_fit:
            return way
    return _clamped(said, first)


def _clamped(said: Reported, way: _Way) -> _Way | None:
    """A reading by which the reasoning is what was reported as output, although it is more."""
    return way._replace(output=said.output or 0, reasoning_beside=False) if way.reasoning_beside else None


def _about(said: Reported, habits: Habits, way: _Way) -> tuple[str, ...]:
    """What a reading assumes, where it is not what is known of the emitter."""
    flags: tuple[str, ...] = ()
    cache = said.cache_read + said.cache_write
    if way.cache_beside and habits.cache_inside is not False:
        over = habits.cache_inside and cache > (said.input or 0)
        flags += ("cache_over_input",) if over else ("cache_outside_input",)
    elif cache and not way.cache_beside and habits.cache_inside is not True:
        flags += ("cache_inside_input",) if habits.cache_inside is False else ("cache_assumed_inside_input",)
    if way.reasoning_beside:
        over = habits.reasoning_inside is True and way.total != said.total
        flags += ("reasoning_over_output",) if over else ("reasoning_added_to_output",)
    elif said.reasoning and habits.reasoning_inside is False:
        flags += ("reasoning_inside_output",)
    if way.input_parts_beside or way.output_parts_beside:
        flags += ("modalities_beside_text",)
    return flags


def _bucketed(said: Reported, way: _Way) -> tuple[Buckets, Units, tuple[str, ...]]:
    """A reading as buckets and units, none of which is negative or has tokens of another, and what is odd about it."""
    flags: tuple[str, ...] = ()
    audio, image, video = _cached_parts(said)
    if (audio, image, video) != (said.cached_audio, said.cached_image, said.cached_video):
        flags += ("modalities_over_cache",)
    text_cached = said.cache_read - audio - image - video
    new_audio, new_image = max(0, said.input_audio - audio), max(0, said.input_image - image)
    text_in = way.uncached
    if way.input_parts_beside:
        text_in += new_audio + new_image
    elif new_audio + new_image > text_in:
        # There is more of them than is not cached: some of it must have been, so as little as possible.
        from_image = min(new_image + new_audio - text_in, new_image, text_cached)
        from_audio = min(new_image + new_audio - text_in - from_image, new_audio, text_cached - from_image)
        audio, image, text_cached = audio + from_audio, image + from_image, text_cached - from_audio - from_image
        new_image, new_audio = new_image - from_image, new_audio - from_audio
        flags += ("modalities_overlap_cache",) if from_image or from_audio else ()
        if new_image + new_audio > text_in:
            new_image = min(new_image, text_in)
            new_audio = text_in - new_image
            flags += ("modalities_over_text",)
    output = way.output
    out_image, out_audio, text_out = said.output_image, said.output_audio, output
    if not way.output_parts_beside:
        if out_image + out_audio > output:
            out_image = min(out_image, output)
            out_audio = output - out_image
            flags += ("modalities_over_text",)
        text_out -= out_image + out_audio
    hour = min(said.cache_write_1h or 0, said.cache_write)
    buckets = Buckets(
        input=text_in - new_audio - new_image,
        cache_read=text_cached,
        cache_write=said.cache_write - hour,
        cache_write_1h=hour,
        input_audio=new_audio,
        input_image=new_image,
        output=text_out,
        output_audio=out_audio,
        output_image=out_image,
        reasoning=min(said.reasoning, text_out),
    )
    return buckets, tuple([pair for pair in zip(_CACHED_UNITS, (audio, image, video), strict=True) if pair[1]]), flags


def _cached_parts(said: Reported) -> tuple[int, int, int]:
    """Audio, images and video among what was read from the cache: together no more than that."""
    audio = min(said.cached_audio, said.cache_read)
    image = min(said.cached_image, said.cache_read - audio)
    return audio, image, min(said.cached_video, said.cache_read - audio - image)
