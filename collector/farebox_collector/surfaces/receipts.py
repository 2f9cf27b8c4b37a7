"""Receipts: the arithmetic behind one charge, from the facts that are in the books."""

import json
from decimal import Context as DecimalContext
from decimal import Decimal
from typing import Any

from pydantic import BaseModel, Field
from sqlalchemy import Connection

from farebox_collector.ledger import statements
from farebox_collector.ledger.prices import version_of
from farebox_collector.ledger.tables import TOKEN_COLUMNS
from farebox_collector.moments import format_ns
from farebox_collector.money import format_nano
from farebox_collector.pricing.book import rate_card
from farebox_collector.pricing.price import bill
from farebox_collector.records import Buckets
from farebox_collector.surfaces.context import Amount
from farebox_collector.units import Units, read_units

_EXACT = DecimalContext(prec=60)
_ROUNDING = "the sum is rounded once, half to even, to 0.000000001"


class ReceiptPrice(BaseModel):
    """The price version that a line uses."""

    version_id: int
    unit: str
    usd_per_1k: str
    over_input_tokens: int
    valid_from: str
    valid_to: str | None
    source: str
    source_version: str


class ReceiptLine(BaseModel):
    """count × usd_per_1k ÷ 1,000."""

    unit: str
    count: int
    price: ReceiptPrice
    exact_usd: str


class ReceiptCharge(BaseModel):
    """cost × multiplier ÷ usd_per_credit."""

    rule_version_id: int
    rule_event: str
    kind: str
    multiplier: str
    usd_per_credit: str
    rounding: str
    charge_credits: Amount


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
    priced_at: str = Field(description="The moment whose prices and rule apply.")
    buckets: dict[str, int] | None = Field(description="Disjoint token counts; reasoning is part of output.")
    units: dict[str, int] = Field(description="What else the call is billed by.")
    assumptions: list[str]
    lines: list[ReceiptLine]
    rounding: str
    cost_usd: Amount | None
    charge: ReceiptCharge | None


def receipt(connection: Connection, tenant_id: int, trace_id: bytes, span_id: bytes) -> Receipt | None:
    """The receipt of one usage record; None if there is no such record."""
    row = statements.usage_record(connection, tenant_id, trace_id, span_id)
    if row is None:
        return None
    counts = [getattr(row, name) for name in TOKEN_COLUMNS]
    buckets = None if counts[0] is None else Buckets(*counts)
    units = read_units(row.units)
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
        priced_at=format_ns(row.priced_at_ns),
        buckets=buckets._asdict() if buckets else None,
        assumptions=row.assumptions.split(",") if row.assumptions else [],
        units=dict(units),
        lines=_lines(connection, row.price_version_ids, buckets, units) if buckets and charged else [],
        rounding=_ROUNDING,
        cost_usd=format_nano(row.cost_nanousd) if charged else None,
        charge=_charge(connection, row) if charged else None,
    )


def _lines(connection: Connection, version_ids: str, buckets: Buckets, units: Units) -> list[ReceiptLine]:
    versions = [version_of(row) for row in statements.price_versions_by_id(connection, json.loads(version_ids))]
    by_unit = {version.unit: version for version in versions}
    lines = []
    for line in bill(rate_card(versions), buckets, units):
        version = by_unit[line.priced_as]
        exact = _EXACT.divide(_EXACT.multiply(Decimal(line.quantity), version.usd_per_1k), Decimal(1000))
        price = ReceiptPrice(
            version_id=version.id,
            unit=version.unit,
            usd_per_1k=format(version.usd_per_1k, "f"),
            over_input_tokens=version.over_input_tokens,
            valid_from=format_ns(version.valid_from_ns),
            valid_to=None if version.valid_to_ns is None else format_ns(version.valid_to_ns),
            source=version.source,
            source_version=version.source_version,
        )
        lines.append(ReceiptLine(unit=line.unit, count=line.quantity, price=price, exact_usd=format(exact, "f")))
    return lines


def _charge(connection: Connection, row: Any) -> ReceiptCharge:
    rule = statements.charge_rule(connection, row.rule_version_id)
    assert rule is not None
    return ReceiptCharge(
        rule_version_id=rule.id,
        rule_event=rule.event,
        kind=rule.kind,
        multiplier=rule.multiplier,
        usd_per_credit=rule.usd_per_credit,
        rounding=_ROUNDING,
        charge_credits=format_nano(row.charge_nanocredits),
    )
