"""Money as integers with the unit in the name, and the only function that rounds.

`*_nanousd` is 10⁻⁹ US dollar, `*_nanocredits` is 10⁻⁹ credit. Rates are `Decimal`. No floats.
"""

import re
from enum import StrEnum

NANO = 10**9
# Half the range of a signed 64-bit column, so that the sum of two bounded amounts still fits.
MAX_NANO = 2**62
MAX_SUM_NANO = 2**63 - 1
MAX_MOVEMENT_NANO = MAX_NANO
"""The most credits in one movement, and the most dollars paid for them: about 4.6 billion."""
_PLAIN_DECIMAL = re.compile(r"(-?)([0-9]+)(?:\.([0-9]+))?")


class Commodity(StrEnum):
    """What a posting counts."""

    USD = "USD"
    CREDIT = "CREDIT"


class AmountError(ValueError):
    """A text is not an amount that can be booked; the message gives the reason."""


def round_half_even(numerator: int, denominator: int) -> int:
    """Divide and round to the nearest integer, ties to even. No other code in Farebox rounds money.

    >>> [round_half_even(n, 2) for n in (1, 3, 5, -1)]
    [0, 2, 2, 0]
    """
    if denominator == 1:
        return numerator
    quotient, remainder = divmod(numerator, denominator)
    twice = 2 * remainder
    if twice > denominator or (twice == denominator and quotient & 1):
        return quotient + 1
    return quotient


def parse_nano(text: str) -> int:
    """Parse a decimal amount with at most nine decimals as nano units: "1.5" is 1_500_000_000.

    Raises AmountError for anything but ASCII digits with a point, for more than nine decimals, and for a value over
    the limit.
    """
    found = _PLAIN_DECIMAL.fullmatch(text)
    if found is None:
        raise AmountError("must be a plain decimal number, such as 1.5")
    sign, whole, decimals = found.group(1), found.group(2), found.group(3) or ""
    if len(decimals) > 9:
        raise AmountError("must have at most nine decimals")
    if len(whole) > 10 or int(whole) >= MAX_NANO // NANO:
        raise AmountError("too large")
    nano = int(whole) * NANO + int(decimals.ljust(9, "0"))
    return -nano if sign else nano


def format_nano(nano: int) -> str:
    """Format nano units as a plain decimal with nine decimals: 150 is "0.000000150"."""
    sign = "-" if nano < 0 else ""
    whole, part = divmod(abs(nano), NANO)
    return f"{sign}{whole}.{part:09d}"
