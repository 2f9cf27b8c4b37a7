"""What every kind of price list is before it is imported, and what makes one unfit: then nothing of it is taken."""

from collections import Counter
from collections.abc import Sequence
from decimal import Decimal
from typing import NamedTuple

from farebox_collector.model.records import PricedModel
from farebox_collector.pricing.revision import PriceList

MAX_USD_PER_1K = Decimal(10**9)
"""Higher prices are mistakes."""
MAX_DIGITS = 30
"""Most digits of a price, so that working with it stays exact."""
MAX_LIST_BYTES = 64 * 2**20
MAX_LIST_ROWS = 200_000
_SHOWN = 20


class Catalogue(NamedTuple):
    """A price list as it was read."""

    prices: PriceList
    models: Sequence[PricedModel]
    """How the models of the list are recognised."""
    left_out: Counter[str]
    """What the list states and the book has no place for: reason → how often."""


class Problem(NamedTuple):
    """Something in a list that cannot be a price."""

    place: str
    """Where: a line number, or an entry with its line."""
    reason: str

    def __str__(self) -> str:
        """One line for people."""
        return f"{self.place}: {self.reason}"


class UnfitList(ValueError):
    """A list that cannot be imported; the message names the first problems with line and reason."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = list(problems)
        lines = [str(problem) for problem in self.problems[:_SHOWN]]
        if len(self.problems) > _SHOWN:
            lines.append(f"and {len(self.problems) - _SHOWN} more")
        super().__init__("nothing was imported:\n" + "\n".join(lines))


def price_problem(price: Decimal, *, allow_free: bool) -> str:
    """Why a number cannot be a price; empty if it can."""
    if not price.is_finite():
        return "the price is no number"
    if price < 0:
        return f"the price {price} is below zero"
    if price == 0 and not allow_free:
        return "the price is zero: calls would be free (an import takes it as that with --allow-free)"
    if price > MAX_USD_PER_1K or len(price.as_tuple().digits) > MAX_DIGITS:
        return "the price is out of range"
    return ""
