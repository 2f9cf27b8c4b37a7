"""Prices in the smallest unit of a currency: what can be paid, and how it is written."""

from fractions import Fraction

import pytest
from farebox_collector.model.minor_units import (
    MAX_MINOR,
    decimals,
    format_minor,
    minor_in_nanousd,
    parse_minor,
)
from farebox_collector.model.money import AmountError
from hypothesis import given
from hypothesis import strategies as st

PRICES = [
    ("10.00", "EUR", 1_000),
    ("10", "EUR", 1_000),
    ("10.0", "EUR", 1_000),
    ("0.01", "USD", 1),
    ("0.10", "USD", 10),
    ("500", "JPY", 500),
    ("1.230", "KWD", 1_230),
    ("1.23", "KWD", 1_230),
    ("999999.99", "USD", MAX_MINOR),
    ("99999999", "JPY", MAX_MINOR),
    ("0010.00", "USD", 1_000),
]
NO_PRICES = [
    ("10.005", "EUR", "2 decimals"),
    ("10.000", "EUR", "2 decimals"),
    ("1.0", "JPY", "0 decimals"),
    ("1.2345", "KWD", "3 decimals"),
    ("1.234", "KWD", "last decimal"),
    ("0", "USD", "positive"),
    ("0.00", "USD", "positive"),
    ("1000000.00", "USD", "eight digits"),
    ("100000000", "JPY", "eight digits"),
    ("-1.00", "USD", "plain decimal"),
    ("+1.00", "USD", "plain decimal"),
    ("1e3", "USD", "plain decimal"),
    ("1,00", "EUR", "plain decimal"),
    (".50", "USD", "plain decimal"),
    ("1.", "USD", "plain decimal"),
    ("", "USD", "plain decimal"),
    ("1.00 ", "USD", "plain decimal"),
    ("١.00", "USD", "plain decimal"),
]
WRITTEN = [
    (0, "USD", "0.00"),
    (5, "USD", "0.05"),
    (-5, "USD", "-0.05"),
    (-100, "EUR", "-1.00"),
    (1_000, "EUR", "10.00"),
    (0, "JPY", "0"),
    (-7, "JPY", "-7"),
    (500, "JPY", "500"),
    (5, "KWD", "0.005"),
    (1_230, "KWD", "1.230"),
]
WORTH = [
    (100, "USD", Fraction(1), 10**9),
    (1, "USD", Fraction(1), 10**7),
    (100, "JPY", Fraction(1, 150), 666_666_667),
    (1_000, "KWD", Fraction(13, 4), 3_250_000_000),
    # Half a nano dollar goes to the even one.
    (1, "JPY", Fraction(1, 2 * 10**9), 0),
    (3, "JPY", Fraction(1, 2 * 10**9), 2),
    (5, "JPY", Fraction(1, 2 * 10**9), 2),
    (-3, "JPY", Fraction(1, 2 * 10**9), -2),
    (-1, "JPY", Fraction(1, 2 * 10**9), 0),
    (-1_500, "USD", Fraction(1), -15 * 10**9),
]


@pytest.mark.parametrize(("text", "currency", "minor"), PRICES)
def test_prices_are_read_exactly(text: str, currency: str, minor: int) -> None:
    assert parse_minor(text, currency) == minor


@pytest.mark.parametrize(("text", "currency", "why"), NO_PRICES)
def test_what_cannot_be_paid_is_refused_with_the_reason(text: str, currency: str, why: str) -> None:
    with pytest.raises(AmountError, match=why):
        parse_minor(text, currency)


@pytest.mark.parametrize(("minor", "currency", "text"), WRITTEN)
def test_amounts_are_written_with_the_decimals_of_their_currency(minor: int, currency: str, text: str) -> None:
    assert format_minor(minor, currency) == text


@pytest.mark.parametrize(("minor", "currency", "rate", "nanousd"), WORTH)
def test_amounts_are_worth_their_rate_rounded_half_to_even(
    minor: int, currency: str, rate: Fraction, nanousd: int
) -> None:
    assert minor_in_nanousd(minor, currency, rate) == nanousd


@given(st.integers(1, MAX_MINOR // 10), st.sampled_from(["USD", "JPY", "KWD", "EUR", "XOF", "BHD"]))
def test_what_is_written_is_read_again(tens: int, currency: str) -> None:
    minor = tens * 10
    assert parse_minor(format_minor(minor, currency), currency) == minor
    assert len(format_minor(minor, currency).partition(".")[2]) == decimals(currency)
