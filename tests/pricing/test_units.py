"""Units besides tokens: bounded, in one order, the same text for the same units."""

import pytest
from farebox_collector.units import InvalidUnit, billable_units, read_units, stored_units
from hypothesis import given
from hypothesis import strategies as st

NAMES = st.from_regex(r"x[a-z0-9_]{0,39}", fullmatch=True)


@given(st.dictionaries(NAMES, st.integers(0, 10**10), max_size=16))
def test_units_come_back_from_the_books_as_they_went_in(counts: dict[str, int]) -> None:
    units = billable_units(counts)
    assert dict(units) == {name: count for name, count in counts.items() if count}
    assert read_units(stored_units(units)) == units
    assert stored_units(billable_units(dict(reversed(counts.items())))) == stored_units(units)


@pytest.mark.parametrize(
    "counts",
    [
        {"": 1},
        {"Web": 1},
        {"x" * 41: 1},
        {"web-searches": 1},
        {"searches": -1},
        {"searches": 10**10 + 1},
        {"input": 5},
        {f"x{number}": 1 for number in range(17)},
    ],
)
def test_units_that_cannot_be_booked_are_refused(counts: dict[str, int]) -> None:
    with pytest.raises(InvalidUnit):
        billable_units(counts)
