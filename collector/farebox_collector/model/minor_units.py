"""Prices that customers pay, in the smallest unit of a currency, as payment providers count them: 10.00 EUR is 1000."""

import re
from fractions import Fraction

from farebox_collector.model.money import NANO, AmountError, round_half_even

MAX_MINOR = 99_999_999
"""The largest amount that Stripe accepts."""
_NO_DECIMALS = frozenset(
    ["BIF", "CLP", "DJF", "GNF", "JPY", "KMF", "KRW", "MGA", "PYG", "RWF", "VND", "VUV", "XAF", "XOF", "XPF"]
)
_THREE_DECIMALS = frozenset(["BHD", "JOD", "KWD", "OMR", "TND"])
_AMOUNT = re.compile(r"([0-9]{1,10})(?:\.([0-9]+))?")


def decimals(currency: str) -> int:
    """Return the number of decimals that Stripe uses for a currency. The code is in capitals."""
    if currency in _NO_DECIMALS:
        return 0
    return 3 if currency in _THREE_DECIMALS else 2


def parse_minor(text: str, currency: str) -> int:
    """Parse a positive price: "10.00" EUR is 1000. Raises AmountError for an amount that cannot be paid."""
    found, places = _AMOUNT.fullmatch(text), decimals(currency)
    if found is None:
        raise AmountError("must be a plain decimal number, such as 10.00")
    whole, fraction = found.group(1), found.group(2) or ""
    if len(fraction) > places:
        raise AmountError(f"must have at most {places} decimals in {currency}")
    minor = int(whole) * 10**places + int(fraction.ljust(places, "0") or "0")
    if not 0 < minor <= MAX_MINOR:
        raise AmountError("must be positive and have at most eight digits")
    if places == 3 and minor % 10:
        raise AmountError(f"the last decimal must be 0 in {currency}")
    return int(minor)


def format_minor(minor: int, currency: str) -> str:
    """Format a price with the decimals of its currency.

    >>> format_minor(1000, "EUR"), format_minor(-5, "USD"), format_minor(500, "JPY")
    ('10.00', '-0.05', '500')
    """
    places = decimals(currency)
    sign, digits = "-" if minor < 0 else "", str(abs(minor)).rjust(places + 1, "0")
    return f"{sign}{digits[:-places]}.{digits[-places:]}" if places else f"{sign}{digits}"


def minor_in_nanousd(minor: int, currency: str, usd_per_currency: Fraction) -> int:
    """Convert an amount to nano US dollars at a rate."""
    worth = Fraction(minor * NANO, 10 ** decimals(currency)) * usd_per_currency
    return round_half_even(worth.numerator, worth.denominator)
