"""Recompute a receipt from its own figures only."""

from datetime import date
from fractions import Fraction
from typing import NamedTuple

from farebox_collector.model.money import NANO, format_nano, round_half_even
from farebox_collector.pricing.book import is_on
from farebox_collector.pricing.conditions import chain, condition_of
from farebox_collector.pricing.parts import STATED
from farebox_collector.pricing.rules import FLAT, PER_1K_TOKENS
from farebox_collector.pricing.weekdays import weekdays_of
from farebox_collector.surfaces.api.receipt_models import Receipt, ReceiptCharge, ReceiptLine

_MEMO = "reasoning"
_EPOCH = date(1970, 1, 1)
_CHARGE = "charge_credits"


class _Part(NamedTuple):
    """A part of a call that its lines must match."""

    name: str
    provider: str
    model: str
    condition: str
    inclusive_input: int
    used: dict[str, int]


def mismatches(receipt: Receipt) -> list[str]:
    """Return one sentence per inconsistency; empty for a correct receipt."""
    if receipt.cost_usd is None and (receipt.charge or (receipt.lines and receipt.estimated_cost_usd is None)):
        return ["a call without a cost has lines or a charge"]
    if receipt.cost_usd is None and receipt.estimated_cost_usd is None:
        return []
    if receipt.buckets is None:
        return ["a call with a cost has no token counts"]
    found = []
    parts = _parts(receipt, receipt.buckets)
    for number, part in enumerate(parts):
        found += _counts(receipt, number, part)
    for line in receipt.lines:
        if not 0 <= line.part < len(parts):
            return [f"{line.unit}: the call has no part {line.part}"]
        found += _price(receipt, line, parts[line.part])
    listed = _rounded(sum((_exact_usd(line) for line in receipt.lines), Fraction(0)))
    if receipt.list_cost_usd is not None:
        found += _differs("the lines sum to", listed, receipt.list_cost_usd, "list_cost_usd")
    if receipt.cost_usd is None:
        return found + _differs("the lines sum to", listed, receipt.estimated_cost_usd or "", "estimated_cost_usd")
    return found + _cost(receipt, listed) + _charge(receipt)


def _cost(receipt: Receipt, listed: str) -> list[str]:
    """Check that the cost is the lines' sum or the provider's stated cost."""
    if receipt.cost_usd is None or receipt.stated_cost_usd is None or STATED not in receipt.assumptions:
        return _differs("the lines sum to", listed, receipt.cost_usd or "", "cost_usd")
    found = _differs("the provider states", receipt.stated_cost_usd, receipt.cost_usd, "cost_usd")
    if receipt.list_cost_usd is None or receipt.stated_difference_usd is None:
        return found
    difference = _rounded(Fraction(receipt.stated_cost_usd) - Fraction(receipt.list_cost_usd))
    return found + _differs("the difference is", difference, receipt.stated_difference_usd, "stated_difference_usd")


def _parts(receipt: Receipt, buckets: dict[str, int]) -> list[_Part]:
    """Return the call itself and the parts that other models made."""
    condition = condition_of(receipt.service_tier, receipt.speed, receipt.inference_region)
    own = (receipt.provider, receipt.model, condition, receipt.inclusive_input_tokens or 0)
    parts = [_Part("", *own, _used(buckets, receipt.units))]
    for part in receipt.other_parts:
        condition = condition_of(part.service_tier, part.speed, part.inference_region)
        own = (part.provider, part.model, condition, part.inclusive_input_tokens)
        parts.append(_Part(f"{part.label}: ", *own, _used(part.buckets, part.units)))
    return parts


def _used(buckets: dict[str, int], units: dict[str, int]) -> dict[str, int]:
    return {name: count for name, count in buckets.items() if count and name != _MEMO} | units


def _counts(receipt: Receipt, number: int, part: _Part) -> list[str]:
    """Check that the lines bill every token bucket and unit once, except unpriced ones."""
    used, billed = dict(part.used), dict[str, int]()
    for unit, count in (
        *((line.unit, line.count) for line in receipt.lines if line.part == number),
        *((without.unit, without.count) for without in receipt.unpriced if without.part == number),
    ):
        unit = "output" if unit == "output_reasoning" else unit
        billed[unit] = billed.get(unit, 0) + count
    billed = {unit: count for unit, count in billed.items() if count}
    # Every call is one request. Without a fee per request there is no line for it.
    for counts in (used, billed):
        counts.pop("requests", None)
    return [
        f"{part.name}{unit}: the call used {used.get(unit, 0)}, the lines bill {billed.get(unit, 0)}"
        for unit in sorted(used.keys() | billed.keys())
        if used.get(unit) != billed.get(unit)
    ]


def _price(receipt: Receipt, line: ReceiptLine, part: _Part) -> list[str]:
    """Check that a line's price is for this model and call, and was in force at pricing."""
    price, found = line.price, []
    version = f"{part.name}{line.unit}: price version {price.version_id}"
    if (price.provider, price.model) != (part.provider, part.model):
        found.append(f"{version} is of {price.provider}/{price.model}")
    # RFC 3339 in UTC with nanoseconds sorts in order of time.
    if not price.valid_from <= receipt.priced_at:
        found.append(f"{version} did not hold yet at {receipt.priced_at}")
    second = receipt.priced_at[11:19] + "Z"
    if price.daily_from and price.daily_to and not _within(second, price.daily_from, price.daily_to):
        found.append(f"{version} does not hold at that time of day")
    day = date.fromisoformat(receipt.priced_at[:10]) - _EPOCH
    if not is_on(day.days, weekdays_of(price.weekdays)):
        found.append(f"{version} does not hold on that day of the week")
    if price.over_input_tokens and not part.inclusive_input > price.over_input_tokens:
        found.append(f"{version} is for calls with more input")
    if price.condition not in chain(part.condition):
        what = "the condition" if "@" in price.condition else "the service tier"
        found.append(f"{version} is for {what} {price.condition}")
    if price.original_per_1k is not None and price.usd_per_currency is not None:
        usd = Fraction(price.original_per_1k) * Fraction(price.usd_per_currency)
        if usd != Fraction(price.usd_per_1k):
            found.append(f"{line.unit}: {price.original_per_1k} {price.currency} is not {price.usd_per_1k} USD")
    return found


def _charge(receipt: Receipt) -> list[str]:
    if receipt.charge is None:
        return ["a call with a cost has no charge"]
    charge = receipt.charge
    share = _rounded(Fraction(receipt.cost_usd or 0) * Fraction(charge.multiplier) / Fraction(charge.usd_per_credit))
    what = "cost × multiplier ÷ usd_per_credit is"
    if charge.kind == PER_1K_TOKENS:
        share, what = _rounded(_token_credits(charge, _all_tokens(receipt))), "the tokens at the rule's credits are"
    floor = Fraction(charge.flat_credits if charge.kind == FLAT else charge.minimum_credits)
    action = charge.action
    if action is None:
        least = max(Fraction(share), floor)
        return _differs(what if floor < least else "the rule asks for", _rounded(least), charge.charge_credits, _CHARGE)
    found = _differs(what, share, action.share_credits, "share_credits")
    before = Fraction(action.shares_before_credits)
    paid = max(before, Fraction(action.floor_credits)) if action.calls_before else Fraction(0)
    owed = max(before + Fraction(share), Fraction(action.floor_credits)) - paid
    return found + _differs("the call adds to its action", _rounded(owed), charge.charge_credits, _CHARGE)


def _all_tokens(receipt: Receipt) -> dict[str, int]:
    """Return the tokens of the call and its other parts together."""
    parts = [receipt.buckets or {}, *(part.buckets for part in receipt.other_parts)]
    return {name: sum(part[name] for part in parts) for name in parts[0]}


def _token_credits(charge: ReceiptCharge, buckets: dict[str, int]) -> Fraction:
    came_out = sum(buckets[name] for name in ("output", "output_audio", "output_image"))
    cached = buckets["cache_read"]
    went_in = sum(count for name, count in buckets.items() if name != _MEMO) - came_out - cached
    credits = went_in * Fraction(charge.input_credits_per_1k) + cached * Fraction(charge.cached_credits_per_1k)
    return (credits + came_out * Fraction(charge.output_credits_per_1k)) / 1000


def _exact_usd(line: ReceiptLine) -> Fraction:
    return line.count * Fraction(line.price.usd_per_1k) / line.divisor


def _rounded(exact: Fraction) -> str:
    nano = exact * NANO
    return format_nano(round_half_even(nano.numerator, nano.denominator))


def _differs(what: str, worked_out: str, stated: str, name: str) -> list[str]:
    return [] if worked_out == stated else [f"{what} {worked_out}, and {name} says {stated}"]


def _within(second: str, start: str, end: str) -> bool:
    return start <= second < end if start < end else second >= start or second < end
