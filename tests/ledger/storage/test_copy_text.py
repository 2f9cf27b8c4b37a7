"""Rows as the data of a COPY, beside PostgreSQL's own reading of it."""

from enum import StrEnum

import pytest
from farebox_collector.ledger.storage.copy_text import copy_text
from hypothesis import given
from hypothesis import strategies as st


class Colour(StrEnum):
    BRIGHT = "br\tight"


values = st.one_of(
    st.none(),
    st.integers(),
    st.sampled_from(Colour),
    st.binary(max_size=8),
    st.text(alphabet="a\\\t\n\r%s.Nüx0", max_size=8),
)


def read(text: str) -> list[tuple[object, ...]]:
    """What PostgreSQL makes of the data, by its documentation; numbers and bytes stay text."""
    marks = {"t": "\t", "n": "\n", "r": "\r", "\\": "\\"}

    def field(found: str) -> str | None:
        if found == "\\N":
            return None
        made, at = "", 0
        while at < len(found):
            escaped = found[at] == "\\"
            made += marks[found[at + 1]] if escaped else found[at]
            at += 2 if escaped else 1
        return made

    assert text.endswith("\n")
    return [tuple(map(field, line.split("\t"))) for line in text[:-1].split("\n")]


def plain(value: object) -> str | None:
    if value is None:
        return None
    return f"\\x{value.hex()}" if isinstance(value, bytes) else str(value)


@given(st.data(), st.lists(values, max_size=3), st.integers(1, 4), st.integers(1, 5))
def test_each_value_is_read_as_it_was(data: st.DataObject, same: list[object], width: int, height: int) -> None:
    kinds = [
        data.draw(st.sampled_from((values, st.integers(), st.binary(max_size=3), st.text("%\\\tb"))))
        for _ in range(width)
    ]
    rows = [tuple(data.draw(kind) for kind in kinds) for _ in range(height)]
    assert read(copy_text(rows, tuple(same))) == [tuple(map(plain, (*same, *row))) for row in rows]


def test_a_value_that_no_column_takes_is_refused() -> None:
    with pytest.raises(TypeError, match="float"):
        copy_text([(1.5,)])
