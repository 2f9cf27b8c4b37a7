"""Receipts: the arithmetic behind one charge, from the facts that are in the books."""

import json
from decimal import Context as DecimalContext
from decimal import Decimal
from typing import Any

from pydantic import BaseModel, Field
from sqlalchemy import Connection

from farebox_collector.ledger import statements
from farebox_collector.ledger.actions import action_before
from farebox_collector.ledger.prices import version_of
from farebox_collector.ledger.retired import DetailRetired, is_retired
from farebox_collector.ledger.tables import TOKEN_COLUMNS
from farebox_collector.ledger.unusual import read_unusual
from farebox_collector.moments import format_ns
from farebox_collector.money import format_nano
from farebox_collector.pricing.cards import rate_card
from farebox_collector.pricing.price import bill, inclusive_input
from farebox_collector.pricing.weekdays import weekday_names
from farebox_collector.records import Buckets, PriceVersion
from farebox_collector.surfaces.context import Amount
from farebox_collector.surfaces.prices import time_of_day
from farebox_collector.units import PER_HOUR, Units, read_units

_EXACT = DecimalContext(prec=60)
_HOUR_S = 3600
_ROUNDING = "the sum is rounded once, half to even, to 0.000000001"


class ReceiptPrice(BaseModel):
    """The price version that a line uses."""

    version_id: int
    provider: str
    model: str
    unit: str
    usd_per_1k: str
    condition: str = Field(description="`standard`, or what it is for: a service tier, a speed, `standard@us`, …")
    over_input_tokens: int
    daily_from: str | None = Field(description="UTC time of day between which it holds; null for all day.")
    daily_to: str | None
    weekdays: str = Field("", description="UTC days of the week on which it holds; empty is every day.")
    valid_from: str
    valid_to: str | None
    scope: str = Field(description="`list`, or `negotiated` for a price of this tenant alone.")
    currency: str
    original_per_1k: str | None = Field(description="The price in its own currency; null if that is USD.")
    usd_per_currency: str | None = Field(description="usd_per_1k is original_per_1k times this.")
    source: str
    source_version: str


class ReceiptLine(BaseModel):
    """count × usd_per_1k ÷ divisor."""

    unit: str
    count: int
    price: ReceiptPrice
    divisor: int = Field(description="1,000, or 3,600,000 for seconds that are priced by the hour.")
    exact_usd: str = Field(description="Exact, but for seconds priced by the hour: those have 60 digits.")


class ReceiptAction(BaseModel):
    """An action is charged max(floor, sum of its calls' shares); a call is charged what it added to that."""

    action_id: str
    share_credits: Amount = Field(description="What the call would be charged without a floor.")
    floor_credits: Amount = Field(description="What the action is charged at least.")
    calls_before: int = Field(description="Calls of the action that were recorded before this one.")
    shares_before_credits: Amount = Field(description="The sum of their shares.")


class ReceiptCharge(BaseModel):
    """How the rule made a charge of the call; figures that its kind has no use for are "0".

    `cost_plus`: cost × multiplier ÷ usd_per_credit. `per_1k_tokens`: tokens in, cached and out × their credits ÷ 1,000.
    `flat` and a minimum are asked for once an action: `action` says how that came out.
    """

    rule_version_id: int
    rule_event: str
    kind: str
    multiplier: str
    minimum_credits: str
    flat_credits: str
    input_credits_per_1k: str
    cached_credits_per_1k: str
    output_credits_per_1k: str
    usd_per_credit: str
    rounding: str
    action: ReceiptAction | None = Field(description="Where calls of an action are charged as one.")
    charge_credits: Amount


class ReceiptCorrection(BaseModel):
    """What the record said before, and what it said from then on; amounts are null where nothing was charged."""

    cause: str = Field(description="`replay`, `late_price`, `twin`, `agent` or `action`.")
    recorded_at: str
    transaction_id: int | None = Field(description="What posted the difference; null where no money moved.")
    verdict_before: str
    verdict_after: str
    cost_before_usd: Amount | None
    cost_after_usd: Amount | None
    charge_before_credits: Amount | None
    charge_after_credits: Amount | None


class Receipt(BaseModel):
    """Everything that the charge of one call was worked out from."""

    trace_id: str
    span_id: str
    wallet: str
    event: str
    verdict: str
    reason: str
    dialect: str
    provider: str
    model: str
    service_tier: str
    speed: str
    inference_region: str
    inclusive_input_tokens: int | None = Field(description="All tokens that went in: what decides about long context.")
    started_at: str
    priced_at: str = Field(description="The moment whose prices and rule apply.")
    buckets: dict[str, int] | None = Field(description="Disjoint token counts; reasoning is part of output.")
    units: dict[str, int] = Field(description="What else the call is billed by.")
    assumptions: list[str]
    lines: list[ReceiptLine]
    rounding: str
    cost_usd: Amount | None
    charge: ReceiptCharge | None
    corrections: list[ReceiptCorrection] = Field(description="How the record came to say this, oldest first.")


def receipt(connection: Connection, tenant_id: int, trace_id: bytes, span_id: bytes) -> Receipt | None:
    """The receipt of one usage record; None if there is no such record. Raises DetailRetired."""
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
        lines=_lines(connection, row.price_version_ids, buckets, units) if buckets and charged else [],
        rounding=_ROUNDING,
        cost_usd=format_nano(row.cost_nanousd) if charged else None,
        charge=_charge(connection, row) if charged else None,
        corrections=[_correction(one) for one in statements.corrections_of(connection, tenant_id, row.id)],
    )


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


def _lines(connection: Connection, version_ids: str, buckets: Buckets, units: Units) -> list[ReceiptLine]:
    versions = [version_of(row) for row in statements.price_versions_by_id(connection, json.loads(version_ids))]
    by_unit = {version.unit: version for version in versions}
    lines = []
    for line in bill(rate_card(versions), buckets, units):
        own = line.priced_as in by_unit
        version = by_unit[line.priced_as if own else PER_HOUR[line.priced_as]]
        divisor = 1000 if own else 1000 * _HOUR_S
        exact = _EXACT.divide(_EXACT.multiply(Decimal(line.quantity), version.usd_per_1k), Decimal(divisor))
        lines.append(
            ReceiptLine(
                unit=line.unit,
                count=line.quantity,
                price=_price(version),
                divisor=divisor,
                exact_usd=format(exact, "f"),
            )
        )
    return lines


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
