"""Money as integers with the unit in the name, and the one place that rounds.

`*_nanousd` is 10⁻⁹ US dollar, `*_nanocredits` is 10⁻⁹ credit. Rates are `Decimal`. Nothing here is a float.
"""

from decimal import Decimal, InvalidOperation
from enum import StrEnum

NANO = 10**9
# What a signed 64-bit column holds, halved, so that a sum of two bounded amounts still fits.
MAX_NANO = 2**62


class Commodity(StrEnum):
    """What a posting is counted in."""

    USD = "USD"
    CREDIT = "CREDIT"


class AmountError(ValueError):
    """A text is not an amount of money that can be booked; the message says why."""


def round_half_even(numerator: int, denominator: int) -> int:
    """Divide and round to the nearest integer, ties to even: the only rounding of money in Farebox.

    >>> [round_half_even(n, 2) for n in (1, 3, 5, -1)]
    [0, 2, 2, 0]
    """
    quotient, remainder = divmod(numerator, denominator)
    twice = 2 * remainder
    if twice > denominator or (twice == denominator and quotient & 1):
        return quotient + 1
    return quotient


def parse_nano(text: str) -> int:
    """Read a decimal amount with at most nine decimals as nano units: "1.5" is 1_500_000_000.

    Raises AmountError for anything that is not a finite plain decimal, has more than nine decimals, or is too large.
    """
    try:
        # A bounded length first: Decimal would spend quadratic time on a megabyte of digits.
        amount = Decimal(text) if len(text) <= 40 else None
    except InvalidOperation:
        amount = None
    if amount is None or not amount.is_finite():
        raise AmountError("not a decimal number")
    if abs(amount) >= MAX_NANO // NANO:
        raise AmountError("too large")
    nano = amount.scaleb(9)
    if nano != nano.to_integral_value():
        raise AmountError("more than nine decimals")
    return int(nano)


def format_nano(nano: int) -> str:
    """Write nano units as a plain decimal with nine decimals: 150 is "0.000000150"."""
    sign = "-" if nano < 0 else ""
    whole, part = divmod(abs(nano), NANO)
    return f"{sign}{whole}.{part:09d}"
