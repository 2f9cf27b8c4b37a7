"""Price the few calls that one card alone cannot price. Ordinary calls do not come here. Pure.

An answer may have parts that other models produced, each at its own model's price. A part or a unit without a price
does not stop the rest from being charged: it is listed, and settles when a price is added. A provider's own statement
of the cost is booked as such. If counts contradict each other, the cost of the other reading says how much is at stake.
A call whose end was not seen has an estimate, apart from cost.
"""

from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

from farebox_collector.model.money import NANO, round_half_even
from farebox_collector.model.records import (
    UNDER_SUBSCRIPTION,
    Buckets,
    LinePrice,
    Particulars,
    PricedUsage,
    UnpricedUnit,
    UsageRecord,
)
from farebox_collector.model.units import Units
from farebox_collector.model.verdicts import Verdict
from farebox_collector.pricing.bills import (
    Line,
    Used,
    bill_in_part,
    inclusive_input,
    used_of,
)
from farebox_collector.pricing.book import PriceBook
from farebox_collector.pricing.cards import RateCard, price_flags
from farebox_collector.pricing.conditions import condition_of
from farebox_collector.pricing.outcomes import MAX_COST_NANOUSD, charged, uncharged
from farebox_collector.pricing.rules import RuleBook

FREE = "free_on_purpose"
WITHOUT_PRICE = "parts_without_price"
STATED = "cost_as_stated"
STATED_IMPLAUSIBLE = "stated_cost_implausible"
STATED_ZERO = "stated_cost_zero"
BY_ESTIMATE = "charged_by_estimate"
FLAGS = frozenset({FREE, WITHOUT_PRICE, STATED, STATED_IMPLAUSIBLE, STATED_ZERO, BY_ESTIMATE})
"""Assumptions that are added here; see `records.PricedUsage.assumptions`."""

MAX_STATED_TIMES = 1_000
MIN_DOUBTED_NANOUSD = NANO
"""A stated cost over this multiple of the list price and over a dollar is not believed."""
_NO_CARD_IDS = "[]"
_TOKENS = frozenset(Buckets._fields)
"""A model sells input and output, and all other tokens can fall back to one of these. If the book has only one of the
two, it is incomplete, and the call waits for the other."""


class _Part(NamedTuple):
    """A part of an answer: its priced lines, and what has no price."""

    card: RateCard | None
    flags: tuple[str, ...]
    lines: Sequence[Line]
    missing: Sequence[Used]

    @property
    def exact_nanousd(self) -> Fraction:
        """The sum of its lines."""
        if self.card is None:
            return Fraction(0)
        return Fraction(sum(line.quantity * line.rate for line in self.lines), self.card.denominator)


def price_in_parts(usage: UsageRecord, at_ns: int, book: PriceBook, rules: RuleBook) -> PricedUsage:
    """Price a call with several parts, with units that may have no price, or with an unseen end."""
    if usage.buckets is None:
        return _exposed(usage, at_ns, (), rules)
    main, *others = parts = _parts_of(usage, at_ns, book)
    if usage.exposure:
        return _exposed(usage, at_ns, parts, rules)
    list_cost = None if main.card is None else _rounded(parts)
    stated, flags = _believed_cost(usage, list_cost)
    if stated is None:
        if main.card is None:
            reason = "no price for this model at that time" if usage.provider else "the span names no provider"
            return uncharged(usage, Verdict.UNPRICED, reason, at_ns)
        lacking = [unit for unit, _ in main.missing if unit in _TOKENS]
        if not any(part.lines for part in parts):
            lacking += [unit for part in parts for unit, _ in part.missing]
        if lacking:
            return uncharged(usage, Verdict.UNPRICED, f"no price for {lacking[0]}", at_ns)
    unpriced = tuple(
        UnpricedUnit(number, unit, count) for number, part in enumerate(parts) for unit, count in part.missing
    )
    cost_nanousd = stated if stated is not None else list_cost or 0
    if unpriced and stated is None:
        flags += (WITHOUT_PRICE,)
    if not cost_nanousd and main.card is not None and main.card.is_free:
        flags += (FREE,)
    particulars = Particulars(
        lines=tuple(_line_price(part) for part in others),
        unpriced=unpriced,
        list_cost_nanousd=None if usage.stated_cost_nanousd is None else list_cost,
        at_stake_nanousd=_at_stake(usage, at_ns, book, main) if stated is None else None,
    )
    flagged = tuple(dict.fromkeys(flag for part in parts for flag in part.flags))
    if main.card is None:
        priced_as = usage.provider, usage.response_model or usage.request_model, _NO_CARD_IDS
    else:
        priced_as = main.card.provider, main.card.model, main.card.version_ids
    return charged(
        usage,
        at_ns,
        rules,
        cost_nanousd,
        all_tokens(usage),
        priced_as,
        usage.assumptions + flagged + flags,
        None if particulars == Particulars() else particulars,
    )


def all_tokens(usage: UsageRecord) -> Buckets:
    """Return the tokens of a call including its other parts; rules charge by these."""
    buckets = usage.buckets or Buckets()
    if not usage.other_lines:
        return buckets
    return Buckets(*map(sum, zip(buckets, *(line.buckets for line in usage.other_lines), strict=True)))


def _parts_of(usage: UsageRecord, at_ns: int, book: PriceBook) -> list[_Part]:
    assert usage.buckets is not None
    condition = condition_of(usage.service_tier, usage.speed, usage.inference_region)
    names = usage.provider, usage.request_model, usage.response_model
    parts = [_part(book, at_ns, (*names, condition), usage.buckets, usage.units)]
    for line in usage.other_lines:
        condition = condition_of(line.service_tier, line.speed, line.inference_region)
        names = line.provider or usage.provider, line.model, line.model
        parts.append(_part(book, at_ns, (*names, condition), line.buckets, line.units))
    return parts


def _part(book: PriceBook, at_ns: int, offered: tuple[str, str, str, str], buckets: Buckets, units: Units) -> _Part:
    offer = book.offer(*offered)
    card, flags = offer.card(at_ns, inclusive_input(buckets, units) if offer.has_steps else 0)
    if card is None:
        return _Part(None, (), (), used_of(buckets, units))
    lines, missing = bill_in_part(card.rates, buckets, units)
    for line in lines:
        flags += price_flags(line.unit, line.priced_as, card.standard_units)
    return _Part(card, flags, lines, missing)


def _rounded(parts: Sequence[_Part]) -> int:
    """Return the nano-USD of all parts; the sum is rounded once."""
    exact = sum((part.exact_nanousd for part in parts), Fraction(0))
    return round_half_even(exact.numerator, exact.denominator)


def _line_price(part: _Part) -> LinePrice:
    if part.card is None:
        return LinePrice()
    return LinePrice(part.card.provider, part.card.model, part.card.version_ids)


def _answered(usage: UsageRecord) -> bool:
    """Return whether the model produced an answer; an embedding has no tokens of its own."""
    tokens = all_tokens(usage)
    return bool(tokens.output or tokens.output_audio or tokens.output_image) or usage.operation == "embeddings"


def _believed_cost(usage: UsageRecord, list_cost: int | None) -> tuple[int | None, tuple[str, ...]]:
    """Return the stated cost of a call if it is believed, and the flags. The calls of a subscription cost nothing."""
    if UNDER_SUBSCRIPTION in usage.assumptions:
        return 0, ()
    return _credible_cost(usage.stated_cost_nanousd, list_cost, answered=_answered(usage))


def _credible_cost(stated: int | None, list_cost: int | None, *, answered: bool) -> tuple[int | None, tuple[str, ...]]:
    """Return the provider's stated cost if it is credible, and the flags.

    Zero is credible only if the list price is missing or zero, or if the model produced nothing, which OpenRouter does
    not bill: some gateways state zero for calls that another account is billed for.
    """
    if stated is None:
        return None, ()
    doubtful = list_cost is not None and stated > max(MIN_DOUBTED_NANOUSD, MAX_STATED_TIMES * list_cost)
    if not 0 <= stated <= MAX_COST_NANOUSD or doubtful:
        return None, (STATED_IMPLAUSIBLE,)
    if stated == 0 and list_cost != 0 and answered:
        return (0, (STATED, STATED_ZERO)) if list_cost is None else (None, (STATED_ZERO,))
    return stated, (STATED,)


def _at_stake(usage: UsageRecord, at_ns: int, book: PriceBook, main: _Part) -> int | None:
    """Return by how much the other reading of the counts would change the cost; None if the counts are consistent."""
    if usage.other_reading is None:
        return None
    condition = condition_of(usage.service_tier, usage.speed, usage.inference_region)
    names = usage.provider, usage.request_model, usage.response_model
    other = _part(book, at_ns, (*names, condition), usage.other_reading, usage.units)
    difference = abs(other.exact_nanousd - main.exact_nanousd)
    return round_half_even(difference.numerator, difference.denominator)


def _exposed(usage: UsageRecord, at_ns: int, parts: Sequence[_Part], rules: RuleBook) -> PricedUsage:
    """Return a call whose end was not seen, with a cost estimate; charged only if the tenant enabled that."""
    card = parts[0].card if parts else None
    estimate = None if card is None else min(_rounded(parts), MAX_COST_NANOUSD)
    particulars = Particulars(lines=tuple(map(_line_price, parts[1:])), estimate_nanousd=estimate)
    if card is None or estimate is None:
        open_call = uncharged(usage, Verdict.EXPOSED, f"its end was not seen: {usage.exposure}", at_ns)
        return open_call._replace(particulars=particulars)
    if rules.charges_exposed:
        priced_as = card.provider, card.model, card.version_ids
        flags = (*usage.assumptions, *parts[0].flags, BY_ESTIMATE)
        return charged(usage, at_ns, rules, estimate, all_tokens(usage), priced_as, flags, particulars)
    return uncharged(usage, Verdict.EXPOSED, f"its end was not seen: {usage.exposure}", at_ns)._replace(
        provider=card.provider,
        model=card.model,
        price_version_ids=card.version_ids,
        assumptions=usage.assumptions + parts[0].flags,
        particulars=particulars,
    )
