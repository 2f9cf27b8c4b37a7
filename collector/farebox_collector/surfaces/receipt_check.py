"""Work a receipt out again from nothing but its own figures, as a stranger would."""

from datetime import date
from fractions import Fraction

from farebox_collector.money import NANO, format_nano, round_half_even
from farebox_collector.pricing.book import is_on
from farebox_collector.pricing.conditions import chain, condition_of
from farebox_collector.pricing.rules import FLAT, PER_1K_TOKENS
from farebox_collector.pricing.weekdays import weekdays_of
from farebox_collector.surfaces.receipts import Receipt, ReceiptCharge, ReceiptLine

_MEMO = "reasoning"
_EPOCH = date(1970, 1, 1)
_CHARGE = "charge_credits"


def mismatches(receipt: Receipt) -> list[str]:
    """What does not add up, a sentence each; empty for a receipt that is right."""
    if receipt.cost_usd is None:
        claimed = receipt.lines or receipt.charge
        return ["a call without a cost has lines or a charge"] if claimed else []
    found = _counts(receipt)
    for line in receipt.lines:
        found += _price(receipt, line)
    exact = sum((_exact_usd(line) for line in receipt.lines), Fraction(0))
    found += _differs("the lines sum to", _rounded(exact), receipt.cost_usd, "cost_usd")
    return found + _charge(receipt)


def _counts(receipt: Receipt) -> list[str]:
    """The lines bill every token bucket and unit once."""
    if receipt.buckets is None:
        return ["a call with a cost has no token counts"]
    used = {name: count for name, count in receipt.buckets.items() if count and name != _MEMO} | receipt.units
    billed: dict[str, int] = {}
    for line in receipt.lines:
        unit = "output" if line.unit == "output_reasoning" else line.unit
        billed[unit] = billed.get(unit, 0) + line.count
    billed = {unit: count for unit, count in billed.items() if count}
    # Every call is one request, and where requests have no fee their number has no line.
    for counts in (used, billed):
        counts.pop("requests", None)
    return [
        f"{unit}: the call used {used.get(unit, 0)}, the lines bill {billed.get(unit, 0)}"
        for unit in sorted(used.keys() | billed.keys())
        if used.get(unit) != billed.get(unit)
    ]


def _price(receipt: Receipt, line: ReceiptLine) -> list[str]:
    """The price of a line is of this model and call, and held at the moment of pricing."""
    price, found = line.price, []
    if (price.provider, price.model) != (receipt.provider, receipt.model):
        found.append(f"{line.unit}: price version {price.version_id} is of {price.provider}/{price.model}")
    # RFC 3339 in UTC with nanoseconds: as texts they sort as moments do.
    if not price.valid_from <= receipt.priced_at:
        found.append(f"{line.unit}: price version {price.version_id} did not hold yet at {receipt.priced_at}")
    second = receipt.priced_at[11:19] + "Z"
    if price.daily_from and price.daily_to and not _within(second, price.daily_from, price.daily_to):
        found.append(f"{line.unit}: price version {price.version_id} does not hold at that time of day")
    day = date.fromisoformat(receipt.priced_at[:10]) - _EPOCH
    if not is_on(day.days, weekdays_of(price.weekdays)):
        found.append(f"{line.unit}: price version {price.version_id} does not hold on that day of the week")
    if price.over_input_tokens and not (receipt.inclusive_input_tokens or 0) > price.over_input_tokens:
        found.append(f"{line.unit}: price version {price.version_id} is for calls with more input")
    asked = condition_of(receipt.service_tier, receipt.speed, receipt.inference_region)
    if price.condition not in chain(asked):
        what = "the condition" if "@" in price.condition else "the service tier"
        found.append(f"{line.unit}: price version {price.version_id} is for {what} {price.condition}")
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
        share, what = _rounded(_token_credits(charge, receipt.buckets or {})), "the tokens at the rule's credits are"
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
