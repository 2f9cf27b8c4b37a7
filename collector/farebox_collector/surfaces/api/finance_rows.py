"""Rows of the reports that close a period: the bridge, deferred revenue and receivables."""

from typing import Any

from pydantic import BaseModel, Field

from farebox_collector.ledger.reports.bridge import Bridge
from farebox_collector.ledger.reports.deferred import RollForward
from farebox_collector.ledger.reports.receivables import Receivable
from farebox_collector.ledger.reports.terms import ListPrice, Term, margin, margin_at_list
from farebox_collector.model.money import format_nano
from farebox_collector.surfaces.api.context import Amount
from farebox_collector.surfaces.api.report_rows import term


class BridgeRow(BaseModel):
    """From charge value to profit, and from profit to cash in, in the order of the lines."""

    month: str | None = Field(description="The UTC month, of which the first and the last may be in part.")
    charge_credits: Amount = term(Term.CHARGE)
    charge_value_usd: Amount = term(Term.CHARGE_VALUE)
    promotional_usd: Amount = Field(description="Given away: promotional credits, at list. They have no price.")
    discounts_usd: Amount = Field(
        description="Given away: paid credits at list, less the price paid; negative if they were dearer than at list."
    )
    unpaid_overdraft_usd: Amount = Field(
        description="Given away: overdraft not paid yet, at list, less what was paid of earlier overdraft."
    )
    timing_usd: Amount = Field(
        description="Calls of the period that drew their credits outside of it, less the reverse, at list."
    )
    adjustments_usd: Amount = Field(
        description="Credits that adjustments took, at list, as a negative figure: they draw on lots without a charge."
    )
    given_away_usd: Amount = Field(description="The sum of the five lines before: charge value less revenue.")
    revenue_usd: Amount = term(Term.REVENUE)
    breakage_usd: Amount = term(Term.BREAKAGE)
    refunds_usd: Amount = term(Term.REFUNDS)
    cost_usd: Amount = term(Term.COST)
    fees_usd: Amount = term(Term.FEES)
    profit_usd: Amount = term(Term.PROFIT)
    margin_percent: str | None = term(Term.MARGIN)
    margin_at_list_percent: str | None = term(Term.MARGIN_AT_LIST)
    deferred_opening_usd: Amount = Field(description="Deferred revenue at the beginning.")
    deferred_closing_usd: Amount = Field(description="Deferred revenue at the end.")
    deferred_change_usd: Amount = Field(description="The change of deferred revenue.")
    cash_in_usd: Amount = Field(
        description="Payments less refunds and lost disputes: profit, cost, fees and the change of deferred revenue."
    )


class DeferredRow(BaseModel):
    """How deferred revenue rolled forward: opening + sold + transferred − used − expired − returned = closing."""

    month: str | None = Field(description="The UTC month, of which the first and the last may be in part.")
    pack: str | None = Field(description="The pack, or the kind of movement of credits without one.")
    sold: str | None = Field(description="The UTC month in which the credits were sold.")
    opening_usd: Amount = Field(description="Deferred revenue at the beginning.")
    sold_usd: Amount = Field(description="The price of credits that came in.")
    transferred_usd: Amount = Field(description="What came from other wallets, less what went to them.")
    used_usd: Amount = Field(description="The part that became revenue.")
    expired_usd: Amount = Field(description="The part that became breakage.")
    returned_usd: Amount = Field(description="The price of unused credits that went back.")
    closing_usd: Amount = Field(description="Deferred revenue at the end.")
    closing_credits: Amount = Field(description="Credits that are paid for and not used, at the end.")


class ReceivableRow(BaseModel):
    """What a wallet owes, at list; the age is that of the calls, as the oldest overdraft is paid first."""

    wallet: str | None = Field(description="Null in the total.")
    receivable_credits: Amount = Field(description="Overdraft.")
    receivable_usd: Amount = term(Term.RECEIVABLE)
    to_30_days_usd: Amount = Field(description="Of calls of the last 30 days.")
    to_60_days_usd: Amount = Field(description="Of calls 31 to 60 days ago.")
    to_90_days_usd: Amount = Field(description="Of calls 61 to 90 days ago.")
    older_usd: Amount = Field(description="Of earlier calls.")


def bridge_row(found: Bridge, month: int | None = None) -> BridgeRow:
    """Return the row of a bridge."""
    figures: dict[str, Any] = {
        "charge_credits": found.charge_nanocredits,
        "charge_value_usd": found.charge_value,
        "promotional_usd": found.promotional,
        "discounts_usd": found.discounts,
        "unpaid_overdraft_usd": found.unpaid,
        "timing_usd": found.timing,
        "adjustments_usd": found.adjustments,
        "given_away_usd": found.given_away,
        "revenue_usd": found.revenue,
        "breakage_usd": found.breakage,
        "refunds_usd": found.refunds,
        "cost_usd": found.cost,
        "fees_usd": found.fees,
        "profit_usd": found.profit,
        "deferred_opening_usd": found.deferred_opening,
        "deferred_closing_usd": found.deferred_closing,
        "deferred_change_usd": found.deferred_change,
        "cash_in_usd": found.cash_in,
    }
    return BridgeRow(
        month=shown_month(month),
        margin_percent=margin(found.profit, found.revenue),
        margin_at_list_percent=margin_at_list(found.charge_value, found.cost),
        **{name: format_nano(figure) for name, figure in figures.items()},
    )


def deferred_row(found: RollForward) -> DeferredRow:
    """Return the row of a group of deferred revenue."""
    return DeferredRow(
        month=shown_month(found.month),
        pack=found.pack,
        sold=shown_month(found.sold_month),
        opening_usd=format_nano(found.opening_nanousd),
        sold_usd=format_nano(found.amounts.sold_nanousd),
        transferred_usd=format_nano(found.amounts.transferred_nanousd),
        used_usd=format_nano(found.amounts.used_nanousd),
        expired_usd=format_nano(found.amounts.expired_nanousd),
        returned_usd=format_nano(found.amounts.returned_nanousd),
        closing_usd=format_nano(found.closing_nanousd),
        closing_credits=format_nano(found.closing_nano),
    )


def receivable_row(found: Receivable, price: ListPrice) -> ReceivableRow:
    """Return the row of a wallet that owes."""
    ages = price.parts(*found.by_age)
    return ReceivableRow(
        wallet=found.wallet,
        receivable_credits=format_nano(found.owed_nano),
        receivable_usd=format_nano(price.nanousd(found.owed_nano)),
        **{name: format_nano(value) for name, value in zip(_AGES, ages, strict=True)},
    )


def shown_month(month: int | None) -> str | None:
    """Format a month, counted since year 0, as in 2026-10."""
    return None if month is None else f"{month // 12:04}-{month % 12 + 1:02}"


_AGES = ("to_30_days_usd", "to_60_days_usd", "to_90_days_usd", "older_usd")
