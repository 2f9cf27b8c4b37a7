"""What is picked out of JSON while it passes, held to ``json.loads`` and a plain filter, however it is cut."""

from __future__ import annotations

import itertools
import json
import tracemalloc
from typing import Any

import pytest
from farebox.answers import WANTED
from farebox.json_excerpt import DEPTH_MAX, TEXT_BYTES_MAX, VALUES_MAX, JsonExcerpt, Wanted, excerpt
from hypothesis import given, settings
from hypothesis import strategies as st

SOME: Wanted = {"id": None, "usage": None, "items": {"kind": None, "more": {"n": None}}}


def filtered(value: Any, wanted: Wanted | None) -> Any:
    """The oracle: what is wanted of a value that is parsed already."""
    if isinstance(value, dict):
        return {
            key: filtered(part, None if wanted is None else wanted[key])
            for key, part in value.items()
            if wanted is None or key in wanted
        }
    if isinstance(value, list):
        parts = [filtered(part, wanted) for part in value]
        return [part for part in parts if not isinstance(part, dict | list) or part]
    return value


def picked(text: bytes, wanted: Wanted | None, cuts: list[int]) -> list[Any]:
    values: list[Any] = []
    reader = JsonExcerpt(wanted, values.append)
    ends = [0, *sorted(cut % (len(text) + 1) for cut in cuts), len(text)]
    for start, end in itertools.pairwise(ends):
        reader.feed(text[start:end])
    reader.end()
    return values


SCALARS = st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.text(max_size=12) | st.just('a"\\\n{[é')
KEYS = st.sampled_from(["id", "usage", "items", "kind", "more", "n", "x", 'q"k', "é"])
VALUES = st.recursive(SCALARS, lambda part: st.lists(part, max_size=4) | st.dictionaries(KEYS, part, max_size=4))
OBJECTS = st.dictionaries(KEYS, VALUES, max_size=6)


@settings(max_examples=150, deadline=None)
@given(OBJECTS, st.booleans(), st.booleans(), st.booleans(), st.lists(st.integers(0, 10_000), max_size=6))
def test_an_excerpt_is_what_a_filter_of_the_parsed_value_gives(
    value: dict[str, Any], everything: bool, spaced: bool, escaped: bool, cuts: list[int]
) -> None:
    text = json.dumps(value, indent=2 if spaced else None, ensure_ascii=escaped).encode()
    wanted = None if everything else SOME
    assert picked(text, wanted, cuts) == [filtered(value, wanted)]


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=4))
def test_no_bytes_make_it_fail(data: bytes, cuts: list[int]) -> None:
    picked(data, SOME, cuts)
    picked(b'{"usage":' + data, SOME, cuts)


@settings(max_examples=60, deadline=None)
@given(OBJECTS, st.integers(0, 10_000))
def test_a_value_that_breaks_off_keeps_what_was_complete(value: dict[str, Any], cut: int) -> None:
    text = json.dumps({"usage": {"n": 1}, **{key: part for key, part in value.items() if key != "usage"}}).encode()
    whole = text.index(b"}") + 1
    (kept,) = picked(text[: max(cut % len(text), whole)], SOME, [])
    assert kept["usage"] == {"n": 1}


def test_texts_are_cut_and_values_counted() -> None:
    long = {"id": "x" * (TEXT_BYTES_MAX + 1), "usage": {"n": list(range(VALUES_MAX + 10))}}
    (kept,) = excerpt(json.dumps(long).encode(), SOME)
    assert isinstance(kept, dict)
    assert kept["id"] == ""
    assert len(kept["usage"]["n"]) < VALUES_MAX


def test_what_is_nested_too_deep_is_passed_by_and_what_follows_is_read() -> None:
    deep = b"[" * 200_000 + b"]" * 200_000
    for wanted in (SOME, None):
        (kept,) = excerpt(
            b'{"id":' + deep + b',"x":' + b'{"a":' * 500 + b"1" + b"}" * 500 + b',"usage":{"n":1}}', wanted
        )
        assert isinstance(kept, dict)
        assert kept["usage"] == {"n": 1}
    (kept,) = excerpt(b'{"usage":' * (DEPTH_MAX * 2), None)
    assert kept


def test_several_values_come_one_by_one_and_so_do_the_items_of_a_list() -> None:
    text = b'{"id":1}\n{"id":2}\n\n{"id":3}'
    assert picked(text, SOME, [3, 9, 12]) == [{"id": 1}, {"id": 2}, {"id": 3}]
    assert picked(b'[{"id":1},{"id":2}\n,{"x":3}]', SOME, [5]) == [{"id": 1}, {"id": 2}, {}]


@pytest.mark.parametrize(
    "noise",
    [b'"' + b"x" * 1000, b'"\\u0041\\"' * 100, b"[1,2,[3]]," * 100, b'{"a":"b"},' * 100, b" \n\t" * 300, b"9" * 1000],
)
def test_memory_does_not_grow_with_the_answer(noise: bytes) -> None:
    reader = JsonExcerpt(WANTED, lambda _: None)
    reader.feed(b'{"id":"r","junk":[')
    tracemalloc.start()
    try:
        for _ in range(100):
            reader.feed(noise)
        grown, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert max(grown, peak) < 100_000
