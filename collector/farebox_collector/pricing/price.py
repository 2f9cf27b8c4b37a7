"""Price one usage record: what it cost, what it is charged, or why neither is known yet."""

from collections.abc import Mapping
from operator import mul
from typing import Any, NamedTuple

from farebox_collector.money import NANO, round_half_even
from farebox_collector.pricing.book import REQUESTED_MODEL, PriceBook
from farebox_collector.pricing.cards import RateCard, price_flags
from farebox_collector.pricing.conditions import condition_of
from farebox_collector.pricing.rules import RuleBook, share
from farebox_collector.records import IMPLAUSIBLE, Buckets, PricedUsage, UsageRecord
from farebox_collector.units import INPUT_TOKENS, REQUESTS, Units, stand_in
from farebox_collector.verdicts import Verdict

AHEAD_NS = 5 * 60 * 10**9
"""How far ahead of the receiver a sender's clock may be."""

MAX_COST_NANOUSD = 10_000 * NANO
MAX_CHARGE_NANOCREDITS = 1_000_000 * NANO
"""What one call can cost and be charged at most: more is a broken sender, and the sums of a batch must fit a column."""

CLOCK_ASSUMPTION = "start_time_out_of_range"
_AT_ANOTHER_PRICE = "_price"
_CHARGED = Verdict.CHARGED
_NAMES = slice(UsageRecord._fields.index("event"), UsageRecord._fields.index("summary") + 1)
_UNUSUAL = slice(UsageRecord._fields.index("speed"), len(UsageRecord._fields))
_ORDINARY = tuple(UsageRecord._field_defaults[name] for name in UsageRecord._fields[_UNUSUAL])
_named = tuple.__new__


class UnknownPrice(Exception):
    """A bucket has tokens and the card no price for it; the message names the unit."""


def price(usage: UsageRecord, received_at_ns: int, max_age_ns: int, book: PriceBook, rules: RuleBook) -> PricedUsage:
    """Price a call with the prices and the rule of the moment it started.

    A start outside [received − max age, received + 5 min] is priced at the time of receipt: senders don't pick a price.
    """
    at_ns = usage.started_at_ns
    if not received_at_ns - max_age_ns <= at_ns <= received_at_ns + AHEAD_NS:
        usage = usage._replace(assumptions=(*usage.assumptions, CLOCK_ASSUMPTION))
        at_ns = received_at_ns
    return price_at(usage, at_ns, book, rules)


def price_at(usage: UsageRecord, at_ns: int, book: PriceBook, rules: RuleBook) -> PricedUsage:
    """Price a call with the prices and the rule of a given moment."""
    # All at once, since every call comes through here.
    names: tuple[Any, ...] = usage[_NAMES]  # type: ignore[assignment]
    event, action_id, _, provider, asked, answered, response_id, tier, error_type, buckets, summary = names
    if buckets is None:
        if IMPLAUSIBLE in usage.assumptions:
            return _unsettled(usage, Verdict.UNMETERED, "a count is over 1,000,000,000", at_ns)
        if error_type and not response_id:
            return _unsettled(usage, Verdict.FAILED, error_type, at_ns)
        return _unsettled(usage, Verdict.UNMETERED, "the span reports no usage", at_ns)
    if summary:
        return _unsettled(usage, Verdict.DEFERRED, "repeats the usage of its calls", at_ns)

    units, unusual = usage.units, usage[_UNUSUAL]
    if unusual != _ORDINARY:
        tier = condition_of(tier, usage.speed, usage.inference_region)
    offer = book.offer(provider, asked, answered, tier)
    card, flags = offer.card(at_ns, inclusive_input(buckets, units) if offer.has_steps else 0)
    if card is None:
        reason = "no price for this model at that time" if provider else "the span names no provider"
        return _unsettled(usage, Verdict.UNPRICED, reason, at_ns)
    try:
        cost_nanousd, fallbacks = cost(card, buckets, units)
    except UnknownPrice as error:
        return _unsettled(usage, Verdict.UNPRICED, f"no price for {error}", at_ns)
    rule = rules.in_force(event, at_ns)
    if rule is None:
        return _unsettled(usage, Verdict.UNPRICED, "no charge rule at that time", at_ns)
    charge_nanocredits = share(rule.terms, cost_nanousd, buckets)
    floor_nanocredits: int | None = rule.terms.floor_nanocredits
    if not action_id:
        # Outside any action the call is one of its own.
        charge_nanocredits, floor_nanocredits = max(charge_nanocredits, floor_nanocredits or 0), None
    elif not floor_nanocredits and not rules.has_floors(event):
        floor_nanocredits = None
    if cost_nanousd > MAX_COST_NANOUSD or charge_nanocredits > MAX_CHARGE_NANOCREDITS:
        return _unsettled(usage, Verdict.UNPRICED, "the amount is out of range", at_ns)
    return _named(
        PricedUsage,
        (
            usage,
            _CHARGED,
            "",
            at_ns,
            card.provider,
            card.model,
            cost_nanousd,
            charge_nanocredits,
            card.version_ids,
            rule.id,
            usage.assumptions + flags + fallbacks,
            floor_nanocredits,
        ),
    )


def of_pricing(assumption: str) -> bool:
    """Whether pricing made an assumption, rather than the reading of the span: it is made anew with the next price."""
    return assumption == REQUESTED_MODEL or assumption.endswith(_AT_ANOTHER_PRICE)


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


def _unsettled(usage: UsageRecord, verdict: Verdict, reason: str, at_ns: int) -> PricedUsage:
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
        assumptions=usage.assumptions,
    )
