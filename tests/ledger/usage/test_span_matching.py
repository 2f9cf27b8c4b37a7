"""Which of two spans of one call knows more, and whether two spans show one call; pairs that differ in one thing."""

from itertools import pairwise
from typing import Any

import pytest
from calls import START_NS, call
from farebox_collector.ledger.usage.span_matching import is_outranked, knowledge, show_one_call
from farebox_collector.model.records import UNATTRIBUTED, Buckets, PricedUsage
from farebox_collector.model.verdicts import Verdict
from farebox_collector.pricing.parts import BY_ESTIMATE

SECOND_NS = 10**9


def having(made: PricedUsage, **fields: Any) -> PricedUsage:
    return made._replace(usage=made.usage._replace(**fields))


POORER_FIRST = [
    call(2, verdict=Verdict.UNMETERED),
    call(2, wallet=UNATTRIBUTED, buckets=Buckets(input=999, output=5), response_id="r"),
    call(2, assumptions=(BY_ESTIMATE,), buckets=Buckets(input=999, output=5), response_id="r"),
    call(2, buckets=None),
    call(2, buckets=Buckets(input=10, output=4), response_id="r"),
    call(2, buckets=Buckets(input=12, output=5)),
    call(2, buckets=Buckets(input=11, cache_read=1, output=5)),
    call(2, buckets=Buckets(input=10, cache_write=2, output=5)),
    call(2, buckets=Buckets(input=9, cache_write=1, cache_write_1h=2, output=5)),
    call(2, buckets=Buckets(input=8, cache_write=1, cache_write_1h=3, output=5),
         assumptions=("cache_write_lifetime_unknown",), response_id="r"),
    call(2, buckets=Buckets(input=8, cache_write=1, cache_write_1h=3, output=5)),
    call(2, buckets=Buckets(input=8, cache_write=1, cache_write_1h=3, output=5), response_id="r"),
    having(call(2), units=(("images", 1),)),
    having(call(2), units=(("images", 1),), stated_cost_nanousd=0),
]  # fmt: skip


@pytest.mark.parametrize("place", range(len(POORER_FIRST) - 1))
def test_the_better_witness_pays(place: int) -> None:
    poorer, better = list(pairwise(POORER_FIRST))[place]
    assert knowledge(poorer) < knowledge(better)
    # Wherever the spans are.
    for parent in (0, 2):
        other = having(better, span_id=call(3).usage.span_id, parent_span_id=call(parent).usage.span_id)
        assert (is_outranked(poorer, other), is_outranked(other, poorer)) == (True, False)


def test_of_equals_the_inner_pays_then_the_earlier_then_the_lesser_id() -> None:
    outer, inner = call(1), call(2, parent=1)
    assert (is_outranked(outer, inner), is_outranked(inner, outer)) == (True, False)
    late, early = call(1, start_ns=START_NS + 1), call(2)
    assert (is_outranked(late, early), is_outranked(early, late)) == (True, False)
    assert (is_outranked(call(2), call(1)), is_outranked(call(1), call(2))) == (True, False)


NESTED = (call(1, latency_ns=4 * SECOND_NS), call(2, parent=1, start_ns=START_NS + SECOND_NS))


@pytest.mark.parametrize(
    ("changes", "one"),
    [
        ({}, True),
        ({"response_id": "r"}, True),
        ({"request_model": "other"}, False),
        ({"started_at_ns": START_NS}, True),
        ({"started_at_ns": START_NS - 1}, False),
        ({"started_at_ns": START_NS + 3 * SECOND_NS}, True),
        ({"started_at_ns": START_NS + 3 * SECOND_NS + 1}, False),
        ({"buckets": Buckets(input=99, output=5)}, True),
        ({"buckets": Buckets(input=10, output=6)}, False),
        ({"parent_span_id": b""}, False),
    ],
)
def test_a_nested_span_shows_the_call_around_it(changes: dict[str, Any], one: bool) -> None:
    outer, inner = NESTED[0], having(NESTED[1], **changes)
    assert (show_one_call(outer, inner), show_one_call(inner, outer)) == (one, one)


def test_two_response_ids_are_two_calls_and_an_estimate_may_count_anything() -> None:
    outer, inner = NESTED
    assert not show_one_call(having(outer, response_id="a"), having(inner, response_id="a"))
    other = having(inner, buckets=Buckets(input=1, output=1))
    assert not show_one_call(outer, other)
    for unsure in (other._replace(assumptions=(BY_ESTIMATE,)), other._replace(verdict=Verdict.UNMETERED)):
        assert show_one_call(outer, unsure)
        assert show_one_call(unsure, outer)


@pytest.mark.parametrize(
    ("scopes", "apart_ns", "buckets", "one"),
    [
        (("a", "b"), 0, Buckets(input=10, output=5), True),
        (("a", "b"), SECOND_NS, Buckets(input=10, output=5), True),
        (("a", "b"), SECOND_NS + 1, Buckets(input=10, output=5), False),
        (("a", "a"), 0, Buckets(input=10, output=5), False),
        (("a", ""), 0, Buckets(input=10, output=5), False),
        (("a", "b"), 0, Buckets(input=10, output=6), False),
        (("a", "b"), 0, None, False),
    ],
)
def test_siblings_show_one_call_if_they_overlap_and_two_libraries_wrote_them(
    scopes: tuple[str, str], apart_ns: int, buckets: Buckets | None, one: bool
) -> None:
    first = having(call(1), scope=scopes[0])
    second = having(call(2, start_ns=START_NS + apart_ns), scope=scopes[1], buckets=buckets)
    if buckets is None:
        first = having(first, buckets=None)
    assert (show_one_call(first, second), show_one_call(second, first)) == (one, one)
