"""Exchange rates with dates, and prices in other currencies made US dollars by them."""

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
    """What one unit of a currency is worth from a moment on, until a later rate takes over."""

    currency: str
    usd_per_currency: Decimal
    valid_from_ns: int


class NoExchangeRate(ValueError):
    """There is no rate for a currency at a moment; the message names it."""


class ExchangeRates:
    """All exchange rates; of two that begin at the same moment the one recorded later holds."""

    def __init__(self, rates: Iterable[ExchangeRate] = ()) -> None:
        courses: defaultdict[str, dict[int, Decimal]] = defaultdict(dict)
        for rate in rates:
            courses[rate.currency][rate.valid_from_ns] = rate.usd_per_currency
        self._courses = {currency: sorted(course.items()) for currency, course in courses.items()}

    def usd_per(self, currency: str, at_ns: int) -> Decimal:
        """What one unit of a currency was worth at a moment. Raises NoExchangeRate."""
        if currency == USD:
            return Decimal(1)
        course = self._courses.get(currency, [])
        place = bisect_right(course, at_ns, key=lambda rate: rate[0])
        if not place:
            known = "before the first known one" if course else "set one with `farebox prices rate set`"
            raise NoExchangeRate(f"no exchange rate for {currency} at that time: {known}")
        return course[place - 1][1]


def is_currency(code: str) -> bool:
    """Whether a text has the form of a currency's code: three capital letters."""
    return _CODE.fullmatch(code) is not None


def in_usd(row: CatalogueRow, price_per_1k: Decimal, currency: str, rates: ExchangeRates) -> CatalogueRow:
    """The row with a price in any currency, made US dollars at the rate of the moment it begins to hold.

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
