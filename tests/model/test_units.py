"""Units besides tokens: bounded, in one order, the same text for the same units."""

from decimal import Decimal

import pytest
from farebox_collector.model.money import NANO
from farebox_collector.model.records import Buckets, ChargeRule
from farebox_collector.model.units import (
    CACHED,
    IN,
    OUT,
    TOKENS,
    UNITS,
    InvalidUnit,
    billable_units,
    read_units,
    stored_units,
)
from farebox_collector.pricing.rules import PER_1K_TOKENS, RuleBook, RuleTerms
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


@pytest.mark.parametrize("unit", sorted(unit for unit in UNITS if unit.endswith("_tokens")))
def test_every_unit_that_is_tokens_says_which_way_they_went(unit: str) -> None:
    assert TOKENS[unit] == (OUT if unit.startswith("output") else CACHED if unit.startswith("cache") else IN)


@pytest.mark.parametrize(("unit", "credits"), [*TOKENS.items(), ("images", "none")])
def test_rules_by_tokens_count_those_that_travel_as_units(unit: str, credits: str) -> None:
    """1 credit for 1,000 tokens in, 0.1 cached, 2 out: 1,000 in as a bucket, 10,000 as a unit."""
    terms = RuleTerms(PER_1K_TOKENS, *map(Decimal, ("0", "0", "0", "1", "0.1", "2")))
    rule = ChargeRule(1, "v", usd_per_credit=Decimal(1), valid_from_ns=0, valid_to_ns=None, **terms._asdict())
    charged = RuleBook([rule]).share_nanocredits(rule, 0, Buckets(input=1000), ((unit, 10_000),))
    more = {IN: 10, CACHED: 1, OUT: 20, "none": 0}[credits]
    assert charged == (1 + more) * NANO
