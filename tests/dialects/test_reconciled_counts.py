"""Counts that disagree: the reading that explains the total is charged, and nothing is refused or counted twice."""

import pytest
from farebox_collector.dialects.assumptions import ASSUMPTIONS
from farebox_collector.dialects.reconcile import (
    INSIDE,
    UNKNOWN,
    Habits,
    Reading,
    Reported,
    disjoint,
)
from farebox_collector.model.records import Buckets
from hypothesis import given, settings
from hypothesis import strategies as st

COUNT = st.one_of(st.integers(0, 60), st.integers(0, 10**10))
MAYBE = st.none() | COUNT
COUNTS = {
    name: MAYBE if name in ("input", "output", "total", "cache_write_1h") else COUNT
    for name in Reported._fields
    if name != "unreadable"
}
REPORTED = st.builds(Reported, **COUNTS)
HABITS = st.builds(
    Habits,
    cache_inside=st.sampled_from((True, False, None)),
    reasoning_inside=st.sampled_from((True, False, None)),
    rest_is_output=st.sampled_from((True, False, None)),
    adds_up=st.booleans(),
    embeds=st.booleans(),
)
OUTSIDE = Habits(cache_inside=False)
BESIDE = Habits(cache_inside=True, reasoning_inside=None, rest_is_output=True)


def tokens(reading: Reading) -> int:
    """All tokens of a reading, each once."""
    assert reading.buckets is not None
    return reading.buckets.total + sum(count for _, count in reading.units)


@given(REPORTED, HABITS)
@settings(max_examples=600)
def test_no_count_is_negative_and_every_flag_is_documented(reported: Reported, habits: Habits) -> None:
    reading = disjoint(reported, habits)
    assert set(reading.assumptions) <= ASSUMPTIONS.keys()
    for buckets in (reading.buckets, reading.other):
        if buckets is not None:
            assert min(buckets) >= 0
            assert max(buckets) <= 10**9
            assert buckets.reasoning <= buckets.output
    assert all(0 < count <= 10**9 for _, count in reading.units)


@given(REPORTED, HABITS)
@settings(max_examples=600)
def test_nothing_that_was_reported_is_lost(reported: Reported, habits: Habits) -> None:
    reading = disjoint(reported, habits)
    if reading.buckets is None:
        return
    least = max(reported.input or 0, reported.cache_read + reported.cache_write) + (reported.output or 0)
    assert tokens(reading) >= least
    most = least + (reported.input or 0) + reported.cache_read + reported.cache_write + reported.reasoning
    parts = reported.input_audio + reported.input_image + reported.output_audio + reported.output_image
    rest = reported.total or 0 if None in (reported.input, reported.output) else 0
    assert tokens(reading) <= max(most + parts, reported.total or 0) + rest


SMALL = st.integers(0, 2_000)


@given(
    SMALL, SMALL, SMALL, SMALL, SMALL, st.booleans(), st.booleans(), st.sampled_from((True, False, None)), st.booleans()
)
@settings(max_examples=600)
def test_a_total_that_includes_everything_finds_the_true_reading(
    fresh: int,
    read: int,
    write: int,
    text: int,
    reasoning: int,
    cache_inside: bool,
    reasoning_inside: bool,
    habit: bool | None,
    adds_up: bool,
) -> None:
    truth = fresh + read + write + text + reasoning
    reported = Reported(
        input=fresh + (read + write if cache_inside else 0),
        output=text + (reasoning if reasoning_inside else 0),
        total=truth,
        cache_read=read,
        cache_write=write,
        reasoning=reasoning,
    )
    reading = disjoint(reported, Habits(habit, reasoning_inside=None, adds_up=adds_up))
    everything_inside = (cache_inside or not read + write) and (reasoning_inside or not reasoning)
    if not truth or truth == read + write or (everything_inside and habit is False and not adds_up):
        return  # no evidence, or none against a habit
    assert tokens(reading) == truth
    if "counts_ambiguous" not in reading.assumptions:
        assert reading.buckets is not None
        assert (reading.buckets.input, reading.buckets.output) == (fresh, text + reasoning)


@pytest.mark.parametrize(
    ("reported", "habits", "expected"),
    [
        (Reported(10, 5, cache_read=4), INSIDE, Reading(Buckets(input=6, cache_read=4, output=5))),
        (Reported(10, 5, cache_read=4), OUTSIDE, Reading(Buckets(input=10, cache_read=4, output=5))),
        # An emitter that adds up two counts says nothing of a third.
        (Reported(10, 5, total=15, cache_read=4), OUTSIDE, Reading(Buckets(input=10, cache_read=4, output=5))),
        # Unambiguous counts are believed, even of an unknown emitter.
        (
            Reported(10, 5, total=19, cache_read=4),
            INSIDE,
            Reading(Buckets(input=10, cache_read=4, output=5), ("cache_outside_input",)),
        ),
        (
            Reported(10, 5, total=15, cache_read=4),
            Habits(cache_inside=False, adds_up=True),
            Reading(Buckets(input=6, cache_read=4, output=5), ("cache_inside_input",)),
        ),
        (
            Reported(10, 5, cache_read=40),
            INSIDE,
            Reading(Buckets(input=10, cache_read=40, output=5), ("cache_over_input",)),
        ),
        (
            Reported(10, 5, cache_read=4),
            UNKNOWN,
            Reading(
                Buckets(input=6, cache_read=4, output=5),
                ("cache_assumed_inside_input",),
                other=Buckets(input=10, cache_read=4, output=5),
            ),
        ),
        # Read from inside the input, written beside it.
        (
            Reported(100, 5, total=135, cache_read=40, cache_write=30, cache_write_1h=0),
            INSIDE,
            Reading(Buckets(input=60, cache_read=40, cache_write=30, output=5), ("cache_outside_input",)),
        ),
        # Reasoning beside the output, told by the total, by its size, or by the provider's documents.
        (
            Reported(14, 1, total=115, reasoning=100),
            INSIDE,
            Reading(Buckets(input=14, output=101, reasoning=100), ("reasoning_added_to_output",)),
        ),
        (
            Reported(14, 1, reasoning=100),
            INSIDE,
            Reading(
                Buckets(input=14, output=101, reasoning=100),
                ("reasoning_over_output",),
                other=Buckets(input=14, output=1, reasoning=1),
            ),
        ),
        (
            Reported(14, 50, reasoning=40),
            BESIDE,
            Reading(
                Buckets(input=14, output=90, reasoning=40),
                ("reasoning_added_to_output",),
                other=Buckets(input=14, output=50, reasoning=40),
            ),
        ),
        (Reported(14, 50, total=64, reasoning=40), BESIDE, Reading(Buckets(input=14, output=50, reasoning=40))),
        # Only the total tells.
        (Reported(10, 50, total=960), BESIDE, Reading(Buckets(input=10, output=950), ("output_from_total",))),
        (
            Reported(10, 50, total=960),
            INSIDE,
            Reading(Buckets(input=10, output=950), ("output_from_total",), other=Buckets(input=10, output=50)),
        ),
        (
            Reported(10, 50, total=960),
            Habits(rest_is_output=False),
            Reading(Buckets(input=10, output=50), ("total_does_not_add_up",), other=Buckets(input=10, output=950)),
        ),
        (
            Reported(10, 50, total=40),
            INSIDE,
            Reading(Buckets(input=10, output=50), ("total_does_not_add_up",), other=Buckets(input=10, output=30)),
        ),
        (Reported(None, 50, total=60), INSIDE, Reading(Buckets(input=10, output=50), ("input_from_total",))),
        (Reported(10, None, total=60), BESIDE, Reading(Buckets(input=10, output=50), ("output_from_total",))),
        (Reported(total=60), Habits(embeds=True), Reading(Buckets(input=60), ("input_from_total",))),
        (Reported(total=60), INSIDE, Reading(None)),
        # Two readings have the same total.
        (
            Reported(100, 50, total=180, cache_read=30, reasoning=30),
            INSIDE,
            Reading(
                Buckets(input=70, cache_read=30, output=80, reasoning=30),
                ("reasoning_added_to_output", "counts_ambiguous"),
                other=Buckets(input=100, cache_read=30, output=50, reasoning=30),
            ),
        ),
        # Audio and images that were cached.
        (
            Reported(20_000, 100, total=20_100, cache_read=8_000, input_audio=10_000, cached_audio=8_000),
            INSIDE,
            Reading(Buckets(10_000, 0, 0, 0, 2_000, 0, 100), units=(("cache_audio_read_tokens", 8_000),)),
        ),
        (
            Reported(9_660, 100, total=9_760, cache_read=9_651, input_image=258, cached_image=258),
            INSIDE,
            Reading(Buckets(input=9, cache_read=9_393, output=100), units=(("cache_image_read_tokens", 258),)),
        ),
        (
            Reported(20_000, 100, cache_read=19_000, input_audio=19_200),
            INSIDE,
            Reading(
                Buckets(input=0, cache_read=800, input_audio=1_000, output=100),
                ("modalities_overlap_cache",),
                units=(("cache_audio_read_tokens", 18_200),),
            ),
        ),
        (
            Reported(100, 5, cache_read=10, cached_audio=40, input_audio=50),
            INSIDE,
            Reading(
                Buckets(input=50, input_audio=40, output=5),
                ("modalities_over_cache",),
                units=(("cache_audio_read_tokens", 10),),
            ),
        ),
        # More audio than there can be.
        (
            Reported(100, 50, input_audio=300),
            INSIDE,
            Reading(
                Buckets(input=100, input_audio=300, output=50),
                ("modalities_beside_text",),
                other=Buckets(input_audio=100, output=50),
            ),
        ),
        (
            Reported(100, 50, total=150, output_audio=80),
            INSIDE,
            Reading(
                Buckets(input=100, output_audio=50),
                ("modalities_over_text",),
                other=Buckets(input=100, output=50, output_audio=80),
            ),
        ),
    ],
)
def test_what_counts_are_taken_for(reported: Reported, habits: Habits, expected: Reading) -> None:
    assert disjoint(reported, habits) == expected
