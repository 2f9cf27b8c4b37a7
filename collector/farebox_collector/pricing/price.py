"""Price one usage record: what it cost, what it is charged, or why neither is known yet."""

from collections.abc import Mapping
from operator import mul
from typing import NamedTuple

from farebox_collector.money import NANO, round_half_even
from farebox_collector.pricing.book import STANDARD_TIERS, PriceBook, RateCard, price_flags
from farebox_collector.pricing.providers import book_provider
from farebox_collector.pricing.rules import RuleBook
from farebox_collector.records import STANDARD, Buckets, PricedUsage, UsageRecord
from farebox_collector.units import INPUT_TOKENS, REQUESTS, Units, stand_in
from farebox_collector.verdicts import Verdict

AHEAD_NS = 5 * 60 * 10**9
"""How far ahead of the receiver a sender's clock may be."""

MAX_COST_NANOUSD = 10_000 * NANO
MAX_CHARGE_NANOCREDITS = 1_000_000 * NANO
"""What one call can cost and be charged at most: more is a broken sender, and the sums of a batch must fit a column."""

CLOCK_ASSUMPTION = "start_time_out_of_range"
_AT_ANOTHER_PRICE = "_price"
_REQUESTED_MODEL = "priced_as_the_requested_model"
_STANDARD_TIER = "service_tier_at_standard_price"
_ANOTHER_PROVIDER = "provider_at_another_provider_s_price"


class UnknownPrice(Exception):
    """A bucket has tokens and the card no price for it; the message names the unit."""


def price(usage: UsageRecord, received_at_ns: int, max_age_ns: int, book: PriceBook, rules: RuleBook) -> PricedUsage:
    """Price a call with the prices and the rule of the moment it started.

    A start outside [received − max age, received + 5 min] is priced at the time of receipt: senders don't pick a price.
    """
    if not received_at_ns - max_age_ns <= usage.started_at_ns <= received_at_ns + AHEAD_NS:
        usage = usage._replace(assumptions=(*usage.assumptions, CLOCK_ASSUMPTION))
        return price_at(usage, received_at_ns, book, rules)
    return price_at(usage, usage.started_at_ns, book, rules)


def price_at(usage: UsageRecord, at_ns: int, book: PriceBook, rules: RuleBook) -> PricedUsage:
    """Price a call with the prices and the rule of a given moment."""
    assumptions = usage.assumptions
    if usage.buckets is None:
        if usage.error_type and not usage.response_id:
            return _unsettled(usage, Verdict.FAILED, usage.error_type, at_ns, assumptions)
        return _unsettled(usage, Verdict.UNMETERED, "the span reports no usage", at_ns, assumptions)
    if usage.summary:
        return _unsettled(usage, Verdict.DEFERRED, "repeats the usage of its calls", at_ns, assumptions)

    card, guessed = _card(usage, usage.buckets, at_ns, book)
    if card is None and not usage.provider:
        return _unsettled(usage, Verdict.UNPRICED, "the span names no provider", at_ns, assumptions)
    if card is None:
        return _unsettled(usage, Verdict.UNPRICED, "no price for this model at that time", at_ns, assumptions)
    try:
        cost_nanousd, fallbacks = cost(card, usage.buckets, usage.units)
    except UnknownPrice as error:
        return _unsettled(usage, Verdict.UNPRICED, f"no price for {error}", at_ns, assumptions)
    rule = rules.rule_for(usage.event, at_ns)
    if rule is None:
        return _unsettled(usage, Verdict.UNPRICED, "no charge rule at that time", at_ns, assumptions)
    charge_nanocredits = rules.share_nanocredits(rule, cost_nanousd, usage.buckets)
    floor_nanocredits = rules.floor_nanocredits(rule)
    if floor_nanocredits and not usage.action_id:
        # Outside any action the call is one of its own.
        charge_nanocredits, floor_nanocredits = max(charge_nanocredits, floor_nanocredits), 0
    if cost_nanousd > MAX_COST_NANOUSD or charge_nanocredits > MAX_CHARGE_NANOCREDITS:
        return _unsettled(usage, Verdict.UNPRICED, "the amount is out of range", at_ns, assumptions)
    if card.condition == STANDARD and usage.service_tier not in STANDARD_TIERS:
        guessed += (_STANDARD_TIER,)
    if card.provider != usage.provider and card.provider != book_provider(usage.provider):
        guessed += (_ANOTHER_PROVIDER,)
    # By position: every call comes through here.
    return PricedUsage(
        usage,
        Verdict.CHARGED,
        "",
        at_ns,
        card.provider,
        card.model,
        cost_nanousd,
        charge_nanocredits,
        card.version_ids,
        rule.id,
        assumptions + guessed + fallbacks,
        floor_nanocredits or None,
    )


def of_pricing(assumption: str) -> bool:
    """Whether pricing made an assumption, rather than the reading of the span: it is made anew with the next price."""
    return assumption == _REQUESTED_MODEL or assumption.endswith(_AT_ANOTHER_PRICE)


class Line(NamedTuple):
    """One line of the bill of a call."""

    unit: str
    quantity: int
    priced_as: str
    """The unit whose price is used: its own, unless the book has none for it."""
    rate: int
    """Over the card's denominator."""


def cost(card: RateCard, buckets: Buckets, units: Units = ()) -> tuple[int, tuple[str, ...]]:
    """Nano-USD that a call costs, and which units were billed at another unit's price. Raises UnknownPrice.

    It is the sum of the `bill`, without making it: every call comes through here.
    """
    if units:
        return _cost_of_bill(card, buckets, units)
    fallbacks = card.fee_flags
    for index, flags in card.marks:
        if buckets[index]:
            if flags is None:
                raise UnknownPrice(Buckets._fields[index])
            fallbacks += flags
    return round_half_even(card.fee + sum(map(mul, buckets, card.bucket_rates)), card.denominator), fallbacks


def _cost_of_bill(card: RateCard, buckets: Buckets, units: Units) -> tuple[int, tuple[str, ...]]:
    exact = 0
    fallbacks: tuple[str, ...] = ()
    for unit, count, priced_as, rate in bill(card, buckets, units):
        exact += count * rate
        fallbacks += price_flags(unit, priced_as, card.standard_units)
    return round_half_even(exact, card.denominator), fallbacks


def bill(card: RateCard, buckets: Buckets, units: Units = ()) -> list[Line]:
    """The lines whose sum is the cost of a call, one a unit that it used. Raises UnknownPrice.

    Reasoning is billed apart from output only where the card prices it apart. A fee a request is one, unless the call
    says how many requests it stands for.
    """
    rates = card.rates
    lines: list[Line] = []
    if REQUESTS in rates and REQUESTS not in dict(units):
        lines.append(Line(REQUESTS, 1, REQUESTS, rates[REQUESTS]))
    for unit, count in zip(Buckets._fields, buckets, strict=True):
        if not count or unit == "reasoning":
            continue
        if unit == "output" and buckets.reasoning and "output_reasoning" in rates:
            lines.append(Line("output_reasoning", buckets.reasoning, "output_reasoning", rates["output_reasoning"]))
            count -= buckets.reasoning
        lines.append(_line(rates, unit, count))
    for unit, count in units:
        if count and (unit != REQUESTS or REQUESTS in rates):
            lines.append(_line(rates, unit, count))
    return lines


def _line(rates: Mapping[str, int], unit: str, count: int) -> Line:
    """The line of one unit, at its own price or at that of the unit that stands in for it. Raises UnknownPrice."""
    priced_as = stand_in(unit, rates)
    if priced_as is None:
        raise UnknownPrice(unit)
    return Line(unit, count, priced_as, rates[priced_as])


def inclusive_input(buckets: Buckets, units: Units) -> int:
    """All tokens that went in, cached or not: what long-context thresholds look at."""
    if units:
        return buckets.inclusive_input + sum(count for name, count in units if name in INPUT_TOKENS)
    return buckets.inclusive_input


def _card(usage: UsageRecord, buckets: Buckets, at_ns: int, book: PriceBook) -> tuple[RateCard | None, tuple[str, ...]]:
    """The card of the model that answered, else of the one that was asked for, flagged."""
    tokens, tier = inclusive_input(buckets, usage.units), usage.service_tier
    if usage.response_model:
        card = book.rate_for(usage.provider, usage.response_model, at_ns, tokens, tier)
        if card is not None:
            return card, ()
    if usage.request_model and usage.request_model != usage.response_model:
        card = book.rate_for(usage.provider, usage.request_model, at_ns, tokens, tier)
        return card, (_REQUESTED_MODEL,) if usage.response_model else ()
    return None, ()


def _unsettled(
    usage: UsageRecord, verdict: Verdict, reason: str, at_ns: int, assumptions: tuple[str, ...]
) -> PricedUsage:
    return PricedUsage(
        usage=usage,
        verdict=verdict,
        reason=reason,
        priced_at_ns=at_ns,
        provider=usage.provider,
        model=usage.response_model or usage.request_model,
        cost_nanousd=None,
        charge_nanocredits=None,
        price_version_ids="",
        rule_version_id=None,
        assumptions=assumptions,
    )
