"""Money: exact, bounded, rounded in one way only."""

from decimal import ROUND_HALF_EVEN, Decimal

import pytest
from farebox_collector.model.money import (
    MAX_NANO,
    NANO,
    AmountError,
    format_nano,
    parse_nano,
    round_half_even,
)
from hypothesis import given
from hypothesis import strategies as st

nano_amounts = st.integers(-MAX_NANO + NANO, MAX_NANO - NANO)


@given(st.integers(-(10**30), 10**30), st.integers(1, 10**20))
def test_rounding_is_that_of_decimal(numerator: int, denominator: int) -> None:
    # An oracle with more digits than any case has.
    from decimal import Context

    exact = Context(prec=120).divide(Decimal(numerator), Decimal(denominator))
    assert round_half_even(numerator, denominator) == int(exact.to_integral_value(ROUND_HALF_EVEN))


@given(nano_amounts)
def test_what_is_written_is_read_back(nano: int) -> None:
    assert parse_nano(format_nano(nano)) == nano
    assert Decimal(format_nano(nano)) == Decimal(nano) / NANO


@pytest.mark.parametrize(("text", "nano"), [("0.000000150", 150), ("1.5", 1_500_000_000), ("-2", -2_000_000_000)])
def test_amounts_are_decimal(text: str, nano: int) -> None:
    assert parse_nano(text) == nano


NO_AMOUNTS = [
    "",
    "x",
    "NaN",
    "Infinity",
    "1e999",
    "1E-9",
    "1_0",
    "\u0663",
    "1,5",
    "0.0000000001",
    "5" * 50,
    "4611686019",
]


@pytest.mark.parametrize("text", [*NO_AMOUNTS, "0." + "9" * 40])
def test_what_is_no_amount_is_refused(text: str) -> None:
    with pytest.raises(AmountError):
        parse_nano(text)
