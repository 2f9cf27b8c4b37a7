"""Effective token costs and their distance from the list price. Pure; `docs/explanation/prices.md` defines
every figure.

Costs are linear in usage, so calls of one model under the same price versions can be summed: their total counts on one
card give the exact cost of input and output. The rest of the recorded cost is fees, other units and the rounding of
each call.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from fractions import Fraction
from typing import NamedTuple

from farebox_collector.model.money import round_half_even
from farebox_collector.model.records import Buckets
from farebox_collector.model.units import REQUESTS, stand_in
from farebox_collector.pricing.cards import RateCard
from farebox_collector.pricing.price import UnknownPrice, bill

_OUTPUT = frozenset({"output", "output_audio", "output_image", "output_reasoning"})
_UNCACHED = {"cache_read": "input", "cache_write": "input", "cache_write_1h": "input"}


class Consumption(NamedTuple):
    """Summed usage of charged calls that agree in everything their price depends on."""

    key: str
    """The group in which they are shown."""
    provider: str
    model: str
    price_version_ids: str
    calls: int
    buckets: Buckets
    """Sums over the calls."""
    cost_nanousd: int


class EffectiveCost(NamedTuple):
    """The figures of one group; amounts in nano-USD, None if there is no divisor or nothing to compare with."""

    key: str
    calls: int
    input_tokens: int
    """All input tokens, cached or not."""
    output_tokens: int
    cost_nanousd: int
    input_cost_nanousd: int
    output_cost_nanousd: int
    list_cost_nanousd: int | None
    """The cost of the tokens at the list price: uncached, standard tier, no long context, no negotiated prices."""

    @property
    def other_cost_nanousd(self) -> int:
        """Return fees, searches and other units, and the rounding of each call."""
        return self.cost_nanousd - self.input_cost_nanousd - self.output_cost_nanousd

    @property
    def cost_per_1k_nanousd(self) -> int | None:
        """Return the whole cost per 1,000 tokens."""
        return per_1k(self.cost_nanousd, self.input_tokens + self.output_tokens)

    @property
    def input_cost_per_1k_nanousd(self) -> int | None:
        """Return the cost of 1,000 input tokens."""
        return per_1k(self.input_cost_nanousd, self.input_tokens)

    @property
    def output_cost_per_1k_nanousd(self) -> int | None:
        """Return the cost of 1,000 output tokens."""
        return per_1k(self.output_cost_nanousd, self.output_tokens)

    @property
    def list_cost_per_1k_nanousd(self) -> int | None:
        """Return the list price of 1,000 tokens of this mix."""
        if self.list_cost_nanousd is None:
            return None
        return per_1k(self.list_cost_nanousd, self.input_tokens + self.output_tokens)

    @property
    def drift(self) -> Fraction | None:
        """Return the cost of the tokens relative to the list price: 0.1 is ten percent over, -0.5 is half of it."""
        if not self.list_cost_nanousd:
            return None
        return Fraction(self.input_cost_nanousd + self.output_cost_nanousd, self.list_cost_nanousd) - 1


def per_1k(nanousd: int, tokens: int) -> int | None:
    """Return nano-USD per 1,000 tokens; None without tokens."""
    return round_half_even(nanousd * 1000, tokens) if tokens else None


def effective_costs(
    consumed: Iterable[Consumption],
    card_of: Callable[[str], RateCard],
    list_rates: Callable[[str, str], Mapping[str, Fraction] | None],
) -> list[EffectiveCost]:
    """Return the figures of every group, most expensive first.

    `card_of` returns the card for a JSON list of price versions, `list_rates` returns list prices in nano-USD by unit.
    """
    sums: defaultdict[str, list[Fraction | None]] = defaultdict(lambda: [Fraction(0), Fraction(0), Fraction(0)])
    counts: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    for use in consumed:
        went_in, came_out = _token_cost(card_of(use.price_version_ids), use.buckets)
        listed = _list_cost(list_rates(use.provider, use.model), use.buckets)
        sums[use.key] = [_plus(a, b) for a, b in zip(sums[use.key], (went_in, came_out, listed), strict=True)]
        tokens_in = use.buckets.inclusive_input
        figures = (use.calls, tokens_in, use.buckets.total - tokens_in, use.cost_nanousd)
        counts[use.key] = [a + b for a, b in zip(counts[use.key], figures, strict=True)]
    found = []
    for key, exact in sums.items():
        calls, tokens_in, tokens_out, cost = counts[key]
        parts = (_rounded(exact[0]) or 0, _rounded(exact[1]) or 0, _rounded(exact[2]))
        found.append(EffectiveCost(key, calls, tokens_in, tokens_out, cost, *parts))
    return sorted(found, key=lambda cost: (-cost.cost_nanousd, cost.key))


def _token_cost(card: RateCard, buckets: Buckets) -> tuple[Fraction, Fraction]:
    """Return the exact nano-USD of input and output."""
    went_in = came_out = Fraction(0)
    try:
        lines = bill(card, buckets)
    except UnknownPrice:
        return went_in, came_out
    for unit, count, _, rate in lines:
        if unit in _OUTPUT:
            came_out += Fraction(count * rate, card.denominator)
        elif unit != REQUESTS:
            went_in += Fraction(count * rate, card.denominator)
    return went_in, came_out


def _list_cost(rates: Mapping[str, Fraction] | None, buckets: Buckets) -> Fraction | None:
    """Return the exact nano-USD at the list price without caching; None if the list price is incomplete."""
    if rates is None:
        return None
    total = Fraction(0)
    for unit, count in zip(Buckets._fields, buckets, strict=True):
        if not count or unit == "reasoning":
            continue
        priced_as = stand_in(_UNCACHED.get(unit, unit), rates)
        if priced_as is None:
            return None
        total += count * rates[priced_as]
    return total


def _plus(one: Fraction | None, other: Fraction | None) -> Fraction | None:
    return None if one is None or other is None else one + other


def _rounded(exact: Fraction | None) -> int | None:
    return None if exact is None else round_half_even(exact.numerator, exact.denominator)
