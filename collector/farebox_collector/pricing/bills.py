"""The bill of a call: the cost of each unit that it used, at the prices of a card. Pure."""

from collections.abc import Mapping
from operator import mul
from typing import NamedTuple

from farebox_collector.model.money import round_half_even
from farebox_collector.model.records import Buckets
from farebox_collector.model.units import (
    INPUT_TOKENS,
    REQUESTS,
    Units,
    stand_in,
)
from farebox_collector.pricing.cards import RateCard, price_flags

Used = tuple[str, int]
"""A unit and its count."""


class UnknownPrice(Exception):
    """A bucket has tokens but the card has no price for it; the message names the unit."""


class Line(NamedTuple):
    """One line of a call's bill."""

    unit: str
    quantity: int
    priced_as: str
    """The unit whose price is used: the unit itself, or its fallback if the book has no price for it."""
    rate: int
    """Over the card's denominator."""


def cost(card: RateCard, buckets: Buckets, units: Units = ()) -> tuple[int, tuple[str, ...]]:
    """Return a call's cost in nano-USD, and the units billed at another unit's price. Raises UnknownPrice.

    The cost is the sum of `bill`, computed without creating the lines because every call passes through here.
    """
    if units:
        return _cost_of_bill(card, buckets, units)
    text_in, cached, written, written_1h, audio_in, image_in, text_out, audio_out, image_out, reasoning = buckets
    exact, fallbacks, marks = card.fee, card.fee_flags, card.text_marks
    if written or written_1h or audio_in or image_in or audio_out or image_out:
        marks = card.marks
        exact += sum(map(mul, buckets, card.bucket_rates))
    else:
        in_rate, cached_rate, out_rate, reasoning_rate = card.text_rates
        exact += text_in * in_rate + cached * cached_rate + text_out * out_rate + reasoning * reasoning_rate
    for index, flags in marks:
        if buckets[index]:
            if flags is None:
                raise UnknownPrice(Buckets._fields[index])
            fallbacks += flags
    return round_half_even(exact, card.denominator), fallbacks


def _cost_of_bill(card: RateCard, buckets: Buckets, units: Units) -> tuple[int, tuple[str, ...]]:
    exact = 0
    fallbacks: tuple[str, ...] = ()
    for unit, count, priced_as, rate in bill(card, buckets, units):
        exact += count * rate
        fallbacks += price_flags(unit, priced_as, card.standard_units)
    return round_half_even(exact, card.denominator), fallbacks


def bill(card: RateCard, buckets: Buckets, units: Units = ()) -> list[Line]:
    """Return one line per unit used; the sum is the cost of the call. Raises UnknownPrice.

    Reasoning is a separate line only if the card has a separate price for it. A call counts as one request unless it
    states another count.
    """
    lines, missing = bill_in_part(card.rates, buckets, units)
    if missing:
        raise UnknownPrice(missing[0][0])
    return lines


def bill_in_part(rates: Mapping[str, int], buckets: Buckets, units: Units = ()) -> tuple[list[Line], list[Used]]:
    """Return the lines of the priced units, as `bill` does, and the units without a price."""
    lines: list[Line] = []
    missing: list[Used] = []
    if REQUESTS in rates and REQUESTS not in dict(units):
        lines.append(Line(REQUESTS, 1, REQUESTS, rates[REQUESTS]))
    for unit, count in used_of(buckets, units):
        if unit == REQUESTS and REQUESTS not in rates:
            continue
        if unit == "output" and buckets.reasoning and "output_reasoning" in rates:
            lines.append(Line("output_reasoning", buckets.reasoning, "output_reasoning", rates["output_reasoning"]))
            count -= buckets.reasoning
        priced_as = stand_in(unit, rates)
        if priced_as is None:
            missing.append((unit, count))
        else:
            lines.append(Line(unit, count, priced_as, rates[priced_as]))
    return lines, missing


def used_of(buckets: Buckets, units: Units = ()) -> list[Used]:
    """Return what a call used, each unit once, without the reasoning memo."""
    tokens = [(unit, count) for unit, count in zip(Buckets._fields, buckets, strict=True) if unit != "reasoning"]
    return [(unit, count) for unit, count in (*tokens, *units) if count]


def inclusive_input(buckets: Buckets, units: Units) -> int:
    """Return all input tokens, cached or not. Long-context thresholds compare this."""
    if units:
        return buckets.inclusive_input + sum(count for name, count in units if name in INPUT_TOKENS)
    return buckets.inclusive_input
