"""Rate cards: the integer prices of one model at one time, for one condition and context length. Pure.

All rates of a card share a common denominator, so that a cost is exact until its single rounding.
"""

import json
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import lcm

from farebox_collector.model.records import STANDARD, Buckets, PriceVersion
from farebox_collector.model.units import PER_HOUR, REQUESTS, stand_in

_HOUR_S = 3600
_REASONING = "output_reasoning"
_TEXT = tuple(Buckets._fields.index(name) for name in ("input", "cache_read", "output", "reasoning"))


Marks = tuple[tuple[int, tuple[str, ...] | None], ...]
"""(field of `Buckets`, flag if it has tokens); None instead of a flag: the field has no price."""


@dataclass(frozen=True, slots=True)
class RateCard:
    """The rates of one model at one time, for one condition and context length, over a common denominator.

    One unit costs `rates[unit] / denominator` nano-USD.
    """

    provider: str
    model: str
    rates: Mapping[str, int]
    denominator: int
    version_ids: str
    """JSON list of the price versions behind the rates."""
    condition: str
    """The best condition that may serve the call and has a price, else `standard`."""
    standard_units: frozenset[str]
    """Units whose price is of a condition further down the chain than the card's, such as the standard one."""
    bucket_rates: tuple[int, ...]
    """The rate of each field of `Buckets`, fallbacks included; for reasoning the difference from the output rate."""
    marks: Marks
    """Fields that are flagged if they have tokens."""
    text_rates: tuple[int, int, int, int]
    """The `bucket_rates` that most calls need: input, cache read, output, reasoning."""
    text_marks: Marks
    """`marks` of these."""
    fee: int
    """Fee per call, over the denominator."""
    fee_flags: tuple[str, ...]

    @property
    def is_free(self) -> bool:
        """Return whether the model is deliberately free."""
        return bool(self.rates) and not any(self.rates.values())


def rate_card(versions: Sequence[PriceVersion], condition: str = STANDARD) -> RateCard:
    """Build a card from price versions, at most one per unit."""
    # USD per 1,000 to nano-USD per unit.
    exact = {row.unit: Fraction(row.usd_per_1k) * 10**6 for row in versions}
    for seconds, hours in PER_HOUR.items():
        if hours in exact:
            exact.setdefault(seconds, exact[hours] / _HOUR_S)
    denominator = lcm(*(rate.denominator for rate in exact.values()))
    rates = {unit: int(rate * denominator) for unit, rate in exact.items()}
    own = any(row.condition == condition for row in versions)
    standard_units: frozenset[str] = frozenset()
    if own and condition != STANDARD:
        standard_units = frozenset(row.unit for row in versions if row.condition != condition)
    bucket_rates, marks = _by_bucket(rates, standard_units)
    return RateCard(
        provider=versions[0].provider if versions else "",
        model=versions[0].model if versions else "",
        rates=rates,
        denominator=denominator,
        version_ids=json.dumps(sorted(row.id for row in versions), separators=(",", ":")),
        condition=condition if own else STANDARD,
        standard_units=standard_units,
        bucket_rates=bucket_rates,
        marks=marks,
        text_rates=tuple(bucket_rates[index] for index in _TEXT),  # type: ignore[arg-type]
        text_marks=tuple(mark for mark in marks if mark[0] in _TEXT),
        fee=rates.get(REQUESTS, 0),
        fee_flags=price_flags(REQUESTS, REQUESTS, standard_units) if REQUESTS in rates else (),
    )


def price_flags(unit: str, priced_as: str, standard_units: Container[str]) -> tuple[str, ...]:
    """Return the flags of a unit billed at another unit's price, or at the standard price in another condition."""
    flags: tuple[str, ...] = () if priced_as == unit else (f"{unit}_at_{priced_as}_price",)
    return (*flags, f"{unit}_at_standard_price") if priced_as in standard_units else flags


def _by_bucket(rates: Mapping[str, int], standard_units: Container[str]) -> tuple[tuple[int, ...], Marks]:
    """`RateCard.bucket_rates` and `RateCard.marks`."""
    found: list[int] = []
    marks: list[tuple[int, tuple[str, ...] | None]] = []
    for index, bucket in enumerate(Buckets._fields):
        unit = _REASONING if bucket == "reasoning" else bucket
        priced_as = stand_in(unit, rates)
        rate = 0 if priced_as is None else rates[priced_as]
        if unit is _REASONING:
            found.append(rate - rates.get("output", 0) if priced_as else 0)
        else:
            found.append(rate)
        flags = None if priced_as is None else price_flags(unit, priced_as, standard_units)
        if flags or (flags is None and unit is not _REASONING):
            marks.append((index, flags))
    return tuple(found), tuple(marks)
