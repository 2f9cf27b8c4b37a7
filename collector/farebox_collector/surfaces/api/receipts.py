"""Build receipts: the arithmetic of a charge from stored facts."""

import json
from collections.abc import Sequence
from decimal import Context as DecimalContext
from decimal import Decimal
from fractions import Fraction
from typing import Any, NamedTuple

from sqlalchemy import Connection

from farebox_collector.ledger.reports import statements
from farebox_collector.ledger.tables.usage_columns import TOKEN_COLUMNS
from farebox_collector.ledger.tariffs.prices import version_of
from farebox_collector.ledger.usage.action_pricing import action_before
from farebox_collector.ledger.usage.tombstones import DetailRetired, is_retired
from farebox_collector.model.moments import format_ns
from farebox_collector.model.money import NANO, format_nano, round_half_even
from farebox_collector.model.records import (
    Buckets,
    LinePrice,
    ModelLine,
    Particulars,
    PriceVersion,
)
from farebox_collector.model.units import PER_HOUR, Units, read_units
from farebox_collector.model.unusual import UnusualFacts, read_particulars, read_unusual
from farebox_collector.pricing.bills import bill_in_part, inclusive_input
from farebox_collector.pricing.cards import rate_card
from farebox_collector.pricing.weekdays import weekday_names
from farebox_collector.surfaces.api.prices import time_of_day
from farebox_collector.surfaces.api.receipt_models import (
    Receipt,
    ReceiptAction,
    ReceiptCharge,
    ReceiptCorrection,
    ReceiptLine,
    ReceiptPart,
    ReceiptPrice,
    ReceiptUnpriced,
)

_EXACT = DecimalContext(prec=60)
_HOUR_S = 3600
_ROUNDING = "the sum is rounded once, half to even, to 0.000000001"


def receipt(connection: Connection, tenant_id: int, trace_id: bytes, span_id: bytes) -> Receipt | None:
    """Return the receipt of a usage record; None if there is none. Raises DetailRetired."""
    row = statements.usage_record(connection, tenant_id, trace_id, span_id)
    if row is None:
        if is_retired(connection, tenant_id, trace_id, span_id):
            raise DetailRetired("the detail of this call is retired: its charge stands, its arithmetic is not kept")
        return None
    counts = [getattr(row, name) for name in TOKEN_COLUMNS]
    buckets = None if counts[0] is None else Buckets(*counts)
    units, unusual = read_units(row.units), read_unusual(row.unusual)
    charged = buckets is not None and row.cost_nanousd is not None
    return Receipt(
        trace_id=trace_id.hex(),
        span_id=span_id.hex(),
        wallet=row.wallet,
        event=row.event,
        verdict=row.verdict,
        reason=row.reason,
        dialect=row.dialect,
        provider=row.provider,
        model=row.model,
        service_tier=row.service_tier,
        speed=unusual.speed,
        inference_region=unusual.inference_region,
        inclusive_input_tokens=None if buckets is None else inclusive_input(buckets, units),
        started_at=format_ns(row.started_at_ns),
        priced_at=format_ns(row.priced_at_ns),
        buckets=buckets._asdict() if buckets else None,
        assumptions=row.assumptions.split(",") if row.assumptions else [],
        units=dict(units),
        **_bill(connection, row, buckets, units, unusual),
        rounding=_ROUNDING,
        cost_usd=format_nano(row.cost_nanousd) if charged else None,
        charge=_charge(connection, row) if charged else None,
        corrections=[_correction(one) for one in statements.corrections_of(connection, tenant_id, row.id)],
    )


def _bill(
    connection: Connection, row: Any, buckets: Buckets | None, units: Units, unusual: UnusualFacts
) -> dict[str, Any]:
    """Return the receipt's fields of billed usage and related costs."""
    particulars = read_particulars(row.unusual) or Particulars()
    priced = row.cost_nanousd is not None or particulars.estimate_nanousd is not None
    prices = [*particulars.lines, *[LinePrice()] * (len(unusual.other_lines) - len(particulars.lines))]
    others = list(zip(unusual.other_lines, prices, strict=True))
    parts = [Bought(row.price_version_ids, buckets or Buckets(), units)]
    parts += [Bought(price.price_version_ids, line.buckets, line.units) for line, price in others]
    lines = _lines(connection, parts) if buckets and priced else []
    listed, stated = _list_cost(lines) if lines else None, unusual.stated_cost_nanousd
    return {
        "lines": lines,
        "other_parts": [_part(number, *other) for number, other in enumerate(others, start=1)],
        "unpriced": [ReceiptUnpriced(part=part, unit=unit, count=count) for part, unit, count in particulars.unpriced],
        "list_cost_usd": _amount(listed),
        "stated_cost_usd": _amount(stated),
        "stated_difference_usd": None if stated is None or listed is None else format_nano(stated - listed),
        "at_stake_usd": _amount(particulars.at_stake_nanousd),
        "estimated_cost_usd": _amount(particulars.estimate_nanousd),
    }


def _correction(row: Any) -> ReceiptCorrection:
    return ReceiptCorrection(
        cause=row.cause,
        recorded_at=format_ns(row.recorded_at_ns),
        transaction_id=row.transaction_id,
        verdict_before=row.verdict_before,
        verdict_after=row.verdict_after,
        cost_before_usd=_amount(row.cost_nanousd_before),
        cost_after_usd=_amount(row.cost_nanousd_after),
        charge_before_credits=_amount(row.charge_nanocredits_before),
        charge_after_credits=_amount(row.charge_nanocredits_after),
    )


def _amount(nano: int | None) -> str | None:
    return None if nano is None else format_nano(nano)


class Bought(NamedTuple):
    """The usage of a call's part and the price versions that billed it."""

    version_ids: str
    buckets: Buckets
    units: Units


def _lines(connection: Connection, parts: Sequence[Bought]) -> list[ReceiptLine]:
    lines = []
    for part, (version_ids, buckets, units) in enumerate(parts):
        if not version_ids:
            continue
        versions = [version_of(row) for row in statements.price_versions_by_id(connection, json.loads(version_ids))]
        by_unit = {version.unit: version for version in versions}
        for line in bill_in_part(rate_card(versions).rates, buckets, units)[0]:
            own = line.priced_as in by_unit
            version = by_unit[line.priced_as if own else PER_HOUR[line.priced_as]]
            divisor = 1000 if own else 1000 * _HOUR_S
            exact = _EXACT.divide(_EXACT.multiply(Decimal(line.quantity), version.usd_per_1k), Decimal(divisor))
            lines.append(
                ReceiptLine(
                    part=part,
                    unit=line.unit,
                    count=line.quantity,
                    price=_price(version),
                    divisor=divisor,
                    exact_usd=format(exact, "f"),
                )
            )
    return lines


def _list_cost(lines: Sequence[ReceiptLine]) -> int:
    """Return the lines' sum in nano-USD."""
    exact = sum((line.count * Fraction(line.price.usd_per_1k) / line.divisor for line in lines), Fraction(0)) * NANO
    return round_half_even(exact.numerator, exact.denominator)


def _part(number: int, line: ModelLine, prices: LinePrice) -> ReceiptPart:
    return ReceiptPart(
        part=number,
        label=line.label,
        provider=prices.provider or line.provider,
        model=prices.model or line.model,
        service_tier=line.service_tier,
        speed=line.speed,
        inference_region=line.inference_region,
        inclusive_input_tokens=inclusive_input(line.buckets, line.units),
        buckets=line.buckets._asdict(),
        units=dict(line.units),
    )


def _price(version: PriceVersion) -> ReceiptPrice:
    all_day = version.daily_from_s == version.daily_to_s
    original = version.original_per_1k
    return ReceiptPrice(
        version_id=version.id,
        provider=version.provider,
        model=version.model,
        unit=version.unit,
        usd_per_1k=format(version.usd_per_1k, "f"),
        condition=version.condition,
        over_input_tokens=version.over_input_tokens,
        daily_from=None if all_day else time_of_day(version.daily_from_s),
        daily_to=None if all_day else time_of_day(version.daily_to_s),
        weekdays=weekday_names(version.weekdays),
        valid_from=format_ns(version.valid_from_ns),
        valid_to=None if version.valid_to_ns is None else format_ns(version.valid_to_ns),
        scope="list" if version.tenant_id is None else "negotiated",
        currency=version.currency,
        original_per_1k=None if original is None else format(original, "f"),
        usd_per_currency=None if original is None else format(version.usd_per_currency, "f"),
        source=version.source,
        source_version=version.source_version,
    )


def _charge(connection: Connection, row: Any) -> ReceiptCharge:
    rule = statements.charge_rule(connection, row.rule_version_id)
    assert rule is not None
    return ReceiptCharge(
        rule_version_id=rule.id,
        rule_event=rule.event,
        kind=rule.kind,
        multiplier=rule.multiplier,
        minimum_credits=rule.minimum_credits,
        flat_credits=rule.flat_credits,
        input_credits_per_1k=rule.input_credits_per_1k,
        cached_credits_per_1k=rule.cached_credits_per_1k,
        output_credits_per_1k=rule.output_credits_per_1k,
        usd_per_credit=rule.usd_per_credit,
        rounding=_ROUNDING,
        action=_action(connection, row) if row.action_share_nanocredits is not None else None,
        charge_credits=format_nano(row.charge_nanocredits),
    )


def _action(connection: Connection, row: Any) -> ReceiptAction:
    before = action_before(connection, row.tenant_id, (row.wallet, row.event, row.action_id), row.id)
    return ReceiptAction(
        action_id=row.action_id,
        share_credits=format_nano(row.action_share_nanocredits),
        floor_credits=format_nano(before.floor_nanocredits),
        calls_before=before.calls,
        shares_before_credits=format_nano(before.share_nanocredits),
    )
