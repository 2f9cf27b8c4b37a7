"""Price one usage record: its cost and charge, or the reason why they are not known yet."""

from typing import Any

from farebox_collector.model.records import IMPLAUSIBLE, PricedUsage, UsageRecord
from farebox_collector.model.verdicts import Verdict
from farebox_collector.pricing.bills import (
    Line,
    UnknownPrice,
    bill,
    cost,
    inclusive_input,
)
from farebox_collector.pricing.book import REQUESTED_MODEL, PriceBook
from farebox_collector.pricing.conditions import condition_of
from farebox_collector.pricing.outcomes import (
    MAX_CHARGE_NANOCREDITS,
    MAX_COST_NANOUSD,
    charged,
    uncharged,
)
from farebox_collector.pricing.parts import FLAGS, FREE, price_in_parts
from farebox_collector.pricing.rules import RuleBook

__all__ = [
    "AHEAD_NS",
    "CLOCK_ASSUMPTION",
    "MAX_CHARGE_NANOCREDITS",
    "MAX_COST_NANOUSD",
    "Line",
    "UnknownPrice",
    "bill",
    "cost",
    "inclusive_input",
    "is_from_pricing",
    "price",
    "price_at",
]

AHEAD_NS = 5 * 60 * 10**9
"""How far a sender's clock may be ahead of the receiver's."""

CLOCK_ASSUMPTION = "start_time_out_of_range"
_AT_ANOTHER_PRICE = "_price"
_NAMES = slice(UsageRecord._fields.index("provider"), UsageRecord._fields.index("summary") + 1)
_UNUSUAL = slice(UsageRecord._fields.index("speed"), len(UsageRecord._fields))
_ORDINARY = tuple(UsageRecord._field_defaults[name] for name in UsageRecord._fields[_UNUSUAL])
_IN_PARTS = slice(UsageRecord._fields.index("other_lines"), len(UsageRecord._fields))
_ONE_PART = tuple(UsageRecord._field_defaults[name] for name in UsageRecord._fields[_IN_PARTS])


def price(usage: UsageRecord, received_at_ns: int, max_age_ns: int, book: PriceBook, rules: RuleBook) -> PricedUsage:
    """Price a call with the prices and the rule in force at its start.

    A start outside [received − max age, received + 5 min] is priced at the time of receipt, so that senders cannot
    choose a price.
    """
    at_ns = usage.started_at_ns
    if not received_at_ns - max_age_ns <= at_ns <= received_at_ns + AHEAD_NS:
        usage = usage._replace(assumptions=(*usage.assumptions, CLOCK_ASSUMPTION))
        at_ns = received_at_ns
    return price_at(usage, at_ns, book, rules)


def price_at(usage: UsageRecord, at_ns: int, book: PriceBook, rules: RuleBook) -> PricedUsage:
    """Price a call with the prices and the rule in force at a given time."""
    # Read as one slice: every call passes through here.
    names: tuple[Any, ...] = usage[_NAMES]  # type: ignore[assignment]
    provider, asked, answered, response_id, tier, error_type, buckets, summary = names
    unusual = usage[_UNUSUAL] != _ORDINARY
    if buckets is None and not (unusual and usage.exposure):
        if IMPLAUSIBLE in usage.assumptions:
            return uncharged(usage, Verdict.UNMETERED, "a count is over 1,000,000,000", at_ns)
        if error_type and not response_id:
            return uncharged(usage, Verdict.FAILED, error_type, at_ns)
        return uncharged(usage, Verdict.UNMETERED, "the span reports no usage", at_ns)
    if summary:
        return uncharged(usage, Verdict.DEFERRED, "repeats the usage of its calls", at_ns)
    if unusual:
        if usage[_IN_PARTS] != _ONE_PART:
            return price_in_parts(usage, at_ns, book, rules)
        tier = condition_of(tier, usage.speed, usage.inference_region)

    units = usage.units
    offer = book.offer(provider, asked, answered, tier)
    card, flags = offer.card(at_ns, inclusive_input(buckets, units) if offer.has_steps else 0)
    if card is None:
        reason = "no price for this model at that time" if provider else "the span names no provider"
        return uncharged(usage, Verdict.UNPRICED, reason, at_ns)
    try:
        cost_nanousd, fallbacks = cost(card, buckets, units)
    except UnknownPrice:
        # Charge what has a price.
        return price_in_parts(usage, at_ns, book, rules)
    if not cost_nanousd and card.is_free:
        fallbacks += (FREE,)
    names_in_book = card.provider, card.model, card.version_ids
    return charged(usage, at_ns, rules, cost_nanousd, buckets, names_in_book, usage.assumptions + flags + fallbacks)


def is_from_pricing(assumption: str) -> bool:
    """Return whether pricing made an assumption, not the dialect. The next pricing makes it again."""
    return assumption == REQUESTED_MODEL or assumption in FLAGS or assumption.endswith(_AT_ANOTHER_PRICE)
