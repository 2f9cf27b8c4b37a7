"""The form of every price list before import, and the reasons to refuse one. A list is imported whole or not at all."""

from collections import Counter
from collections.abc import Sequence
from decimal import Decimal
from typing import NamedTuple

from farebox_collector.model.records import PricedModel
from farebox_collector.pricing.revision import PriceList

MAX_USD_PER_1K = Decimal(10**9)
"""Higher prices are treated as mistakes."""
MAX_DIGITS = 30
"""Most digits of a price, so that arithmetic with it stays exact."""
MAX_LIST_BYTES = 64 * 2**20
MAX_LIST_ROWS = 200_000
_SHOWN = 20


class Catalogue(NamedTuple):
    """A parsed price list."""

    prices: PriceList
    models: Sequence[PricedModel]
    """How the models of the list are recognised."""
    left_out: Counter[str]
    """Entries that the book cannot represent: reason → count."""


class Problem(NamedTuple):
    """Something in a list that cannot be a price."""

    place: str
    """The place: a line number, or an entry with its line."""
    reason: str

    def __str__(self) -> str:
        """Format the problem as one line."""
        return f"{self.place}: {self.reason}"


class UnfitList(ValueError):
    """A list that cannot be imported; the message gives the first problems with line and reason."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = list(problems)
        lines = [str(problem) for problem in self.problems[:_SHOWN]]
        if len(self.problems) > _SHOWN:
            lines.append(f"and {len(self.problems) - _SHOWN} more")
        super().__init__("nothing was imported:\n" + "\n".join(lines))


def price_problem(price: Decimal, *, allow_free: bool) -> str:
    """Return why a number cannot be a price; empty if it can."""
    if not price.is_finite():
        return "the price is not a number"
    if price < 0:
        return f"the price {price} is below zero"
    if price == 0 and not allow_free:
        return "the price is zero: calls would be free (pass --allow-free to import it as a free price)"
    if price > MAX_USD_PER_1K or len(price.as_tuple().digits) > MAX_DIGITS:
        return "the price is out of range"
    return ""
