"""Dated exchange rates, and conversion of prices in other currencies to US dollars."""

import re
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable
from decimal import Context, Decimal
from typing import NamedTuple

from farebox_collector.model.records import CatalogueRow

USD = "USD"
_CODE = re.compile(r"[A-Z]{3}")
_EXACT = Context(prec=60)


class ExchangeRate(NamedTuple):
    """The value of one unit of a currency from a time on, until a later rate takes over."""

    currency: str
    usd_per_currency: Decimal
    valid_from_ns: int


class NoExchangeRate(ValueError):
    """No rate for a currency at a time; the message names the currency."""


class ExchangeRates:
    """All exchange rates. Of two rates with the same start, the one recorded later holds."""

    def __init__(self, rates: Iterable[ExchangeRate] = ()) -> None:
        courses: defaultdict[str, dict[int, Decimal]] = defaultdict(dict)
        for rate in rates:
            courses[rate.currency][rate.valid_from_ns] = rate.usd_per_currency
        self._courses = {currency: sorted(course.items()) for currency, course in courses.items()}

    def usd_per(self, currency: str, at_ns: int) -> Decimal:
        """Return the value of one unit of a currency at a time. Raises NoExchangeRate."""
        if currency == USD:
            return Decimal(1)
        course = self._courses.get(currency, [])
        place = bisect_right(course, at_ns, key=lambda rate: rate[0])
        if not place:
            known = "before the first known one" if course else "set one with `farebox prices rate set`"
            raise NoExchangeRate(f"no exchange rate for {currency} at that time: {known}")
        return course[place - 1][1]


def is_currency(code: str) -> bool:
    """Return whether a text has the form of a currency code: three capital letters."""
    return _CODE.fullmatch(code) is not None


def in_usd(row: CatalogueRow, price_per_1k: Decimal, currency: str, rates: ExchangeRates) -> CatalogueRow:
    """Return the row with a price converted to US dollars at the rate of the row's start.

    Raises NoExchangeRate.
    """
    if currency == USD:
        return row._replace(usd_per_1k=price_per_1k)
    rate = rates.usd_per(currency, row.valid_from_ns)
    return row._replace(
        usd_per_1k=_EXACT.multiply(price_per_1k, rate),
        currency=currency,
        original_per_1k=price_per_1k,
        usd_per_currency=rate,
    )
