"""The outcome of a priced call: charged by its rule, or kept with the reason why not yet. Pure."""

from farebox_collector.model.money import NANO
from farebox_collector.model.records import (
    Buckets,
    Particulars,
    PricedUsage,
    UsageRecord,
)
from farebox_collector.model.verdicts import Verdict
from farebox_collector.pricing.rules import RuleBook, share

MAX_COST_NANOUSD = 10_000 * NANO
MAX_CHARGE_NANOCREDITS = 1_000_000 * NANO
"""Largest cost and charge of one call. More comes from a broken sender, and the sums of a batch must fit a column."""

_CHARGED = Verdict.CHARGED
_named = tuple.__new__


def charged(
    usage: UsageRecord,
    at_ns: int,
    rules: RuleBook,
    cost_nanousd: int,
    buckets: Buckets,
    priced_as: tuple[str, str, str],
    assumptions: tuple[str, ...],
    particulars: Particulars | None = None,
) -> PricedUsage:
    """Return a call with its cost, charged by the rule of its event, or the reason why it cannot be charged.

    `buckets` are the tokens that a rule may charge by, `priced_as` is provider, model and price versions in the book.
    """
    rule = rules.in_force(usage.event, at_ns)
    if rule is None:
        return uncharged(usage, Verdict.UNPRICED, "no charge rule at that time", at_ns)
    charge_nanocredits = share(rule.terms, cost_nanousd, buckets, usage.units)
    floor_nanocredits: int | None = rule.terms.floor_nanocredits
    if not usage.action_id:
        # A call outside any action is an action of its own.
        charge_nanocredits, floor_nanocredits = max(charge_nanocredits, floor_nanocredits or 0), None
    elif not floor_nanocredits and not rules.has_floors(usage.event):
        floor_nanocredits = None
    if cost_nanousd > MAX_COST_NANOUSD or charge_nanocredits > MAX_CHARGE_NANOCREDITS:
        return uncharged(usage, Verdict.UNPRICED, "the amount is out of range", at_ns)
    provider, model, version_ids = priced_as
    return _named(
        PricedUsage,
        (
            usage,
            _CHARGED,
            "",
            at_ns,
            provider,
            model,
            cost_nanousd,
            charge_nanocredits,
            version_ids,
            rule.id,
            assumptions,
            floor_nanocredits,
            particulars,
        ),
    )


def uncharged(usage: UsageRecord, verdict: Verdict, reason: str, at_ns: int) -> PricedUsage:
    """Return a call that is kept and not charged, or not charged yet."""
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
