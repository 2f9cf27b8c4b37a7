"""Rows of reports, as in the API and in files."""

from collections.abc import Sequence
from datetime import date, timedelta
from typing import Any, Literal

from pydantic import BaseModel, Field

from farebox_collector.ledger.reports.agent_usage import AgentGroup
from farebox_collector.ledger.reports.money_reports import BalanceRange, CreditsMoved, Summary
from farebox_collector.ledger.reports.reports import UsageGroup
from farebox_collector.ledger.reports.seats import Seat
from farebox_collector.ledger.reports.terms import MEANINGS, ListPrice, Term, margin, margin_at_list, percent
from farebox_collector.ledger.reports.unreported_usage import Unreported
from farebox_collector.model.moments import format_ns
from farebox_collector.model.money import format_nano, round_half_even
from farebox_collector.surfaces.api.context import Amount
from farebox_collector.surfaces.api.table_files import CellType

EPOCH = date(1970, 1, 1)


def term(meaning: Term) -> Any:
    """Return the field of a term: every surface describes it with the same words."""
    return Field(description=MEANINGS[meaning])


class Figures(BaseModel):
    """Sums of calls."""

    requests: int
    errors: int
    input_tokens: int = Field(description="All input tokens, cached or not.")
    output_tokens: int
    cost_usd: Amount = term(Term.COST)
    charge_credits: Amount = term(Term.CHARGE)
    charge_value_usd: Amount = term(Term.CHARGE_VALUE)
    margin_at_list_percent: str | None = term(Term.MARGIN_AT_LIST)


class UsageRow(Figures):
    """The calls of a group; fields that are not grouped by are null."""

    day: str | None = None
    event: str | None = None
    provider: str | None = None
    model: str | None = None
    verdict: str | None = None


class WalletRow(Figures):
    """The charged calls of a wallet."""

    wallet: str | None = Field(None, description="Null in the total.")
    balance_credits: Amount | None = Field(None, description="The current balance.")
    created_at: str | None = None


class AgentRow(BaseModel):
    """The calls of coding agents in a group; fields that are not grouped by are null."""

    day: str | None = None
    tool: str | None = Field(None, description="`claude_code`, `codex_cli`, `gemini_cli` or `qwen_code`.")
    developer: str | None = Field(None, description="The user of a wallet that several share, else the wallet.")
    team: str | None = None
    repository: str | None = None
    work: str | None = Field(None, description="The pull request, else the branch.")
    subagent: str | None = Field(None, description="Empty for the main loop.")
    session: str | None = None
    model: str | None = None
    requests: int
    errors: int = Field(description="Failed calls, each attempt of a retry among them.")
    sessions: int
    developers: int
    input_tokens: int = Field(description="All input tokens, cached or not.")
    output_tokens: int
    cache_hit_percent: str | None = Field(description="Input tokens that were read from a cache.")
    cost_usd: Amount = Field(description="What providers bill by the call.")
    list_equivalent_usd: Amount = Field(
        description="List price of the calls that a subscription pays; apart from cost."
    )
    charge_credits: Amount = Field(description="What wallets paid.")


class UnreportedRow(BaseModel):
    """Tokens that a coding agent's metrics tell, and its calls do not: events that were lost on the way."""

    day: str | None = Field(description="Null in the total.")
    tool: str | None
    developer: str | None = Field(description="Empty if the tool's metrics name no person.")
    metered_input_tokens: int = Field(description="What the metrics tell, cached or not.")
    metered_output_tokens: int
    unreported_input_tokens: int = Field(description="What no call in the books tells.")
    unreported_output_tokens: int
    exposure_usd: Amount = Field(description="Their cost at the average price of the tool's tokens; in no other cost.")


class SeatRow(BaseModel):
    """A developer's use of a coding agent under a subscription in a UTC month."""

    month: str | None = Field(description="Such as 2026-04; null in the total.")
    tool: str | None
    account: str | None = Field(description="The developer, as in the report `agents`.")
    plan: str | None = Field(description="The account's last plan of the month; empty if none is set.")
    requests: int = Field(description="Calls that the subscription pays.")
    input_tokens: int = Field(description="All input tokens, cached or not.")
    output_tokens: int
    list_equivalent_usd: Amount = Field(description="What these calls would have cost by the list.")
    seat_usd: Amount | None = Field(description="The price of the seat for a month; null if no plan is set.")
    plan_pays: Literal["yes", "no"] | None = Field(
        description="Whether the calls would have cost at least the seat's price; null without one and in the total."
    )


class SummaryRow(BaseModel):
    """A tenant's figures of the reported days, or of one of them."""

    day: str | None
    requests: int
    charge_credits: Amount = term(Term.CHARGE)
    charge_value_usd: Amount = term(Term.CHARGE_VALUE)
    given_away_usd: Amount = Field(description=f"{MEANINGS[Term.GIVEN_AWAY]} The bridge has each part.")
    revenue_usd: Amount = term(Term.REVENUE)
    revenue_from_other_days_usd: Amount = Field(
        description="The part of revenue from calls that started on other days; their cost is on those days."
    )
    revenue_on_other_days_usd: Amount = Field(description="Earnings of these days' calls in the revenue of other days.")
    breakage_usd: Amount = term(Term.BREAKAGE)
    refunds_usd: Amount = term(Term.REFUNDS)
    cost_usd: Amount = term(Term.COST)
    fees_usd: Amount = term(Term.FEES)
    profit_usd: Amount = term(Term.PROFIT)
    margin_percent: str | None = term(Term.MARGIN)
    margin_at_list_percent: str | None = term(Term.MARGIN_AT_LIST)
    cash_in_usd: Amount = term(Term.CASH_IN)
    exposure_usd: Amount = term(Term.EXPOSURE)
    active_wallets: int = Field(description="Wallets charged for a call.")
    new_wallets: int
    payers: int = Field(description="Wallets with a deposit.")
    new_payers: int = Field(description="Wallets with their first deposit.")
    arpu_usd: Amount | None = Field(description="Revenue per active wallet.")


class CreditsRow(BaseModel):
    """Credits in and out of wallets by source."""

    day: str | None
    source: str | None = Field(description="`deposit`, `grant`, …, `expiry`, or `usage`; null in the total.")
    movements: int = Field(description="For usage: charged calls.")
    credits_in: Amount
    credits_out: Amount
    cash_in_usd: Amount = term(Term.CASH_IN)


class BalanceRow(BaseModel):
    """Wallets with from_credits < balance <= to_credits; both 0 for a balance of exactly zero."""

    from_credits: Amount | None = Field(description="Null for balances below zero and in the total.")
    to_credits: Amount | None = Field(description="Null without an upper bound.")
    wallets: int
    balance_credits: Amount = Field(description="The sum of these wallets' balances.")


class Prices:
    """Rows with credits at the tenant's list price."""

    def __init__(self, price: ListPrice) -> None:
        self._price = price

    def figures(self, row: Any) -> dict[str, Any]:
        """Return the `Figures` of a row with `DAY_SUMS`; sums may be None."""
        cost, charge = int(row.cost_nanousd or 0), int(row.charge_nanocredits or 0)
        value = self._price.nanousd(charge)
        return {
            "requests": int(row.requests or 0),
            "errors": int(row.errors or 0),
            "input_tokens": int(row.input_tokens or 0),
            "output_tokens": int(row.output_tokens or 0),
            "cost_usd": format_nano(cost),
            "charge_credits": format_nano(charge),
            "charge_value_usd": format_nano(value),
            "margin_at_list_percent": margin_at_list(value, cost),
        }

    def usage(self, row: Any, groups: Sequence[UsageGroup]) -> UsageRow:
        """Return the row of a group of calls."""
        names = {group.value: getattr(row, group) for group in groups}
        if UsageGroup.DAY in groups:
            names["day"] = shown_day(row.day)
        return UsageRow(**names, **self.figures(row))

    def wallet(self, row: Any) -> WalletRow:
        """Return the row of a wallet and its calls."""
        return WalletRow(
            wallet=row.wallet,
            balance_credits=format_nano(row.balance_nano),
            created_at=format_ns(row.created_at_ns),
            **self.figures(row),
        )

    def summary(self, summary: Summary) -> SummaryRow:
        """Return the row of a tenant's days."""
        revenue, active = summary.revenue_nanousd, summary.active_wallets
        value = self._price.nanousd(summary.charge_nanocredits)
        return SummaryRow(
            day=None if summary.day is None else shown_day(summary.day),
            requests=summary.requests,
            charge_credits=format_nano(summary.charge_nanocredits),
            charge_value_usd=format_nano(value),
            given_away_usd=format_nano(value - revenue),
            revenue_usd=format_nano(revenue),
            revenue_from_other_days_usd=format_nano(summary.from_other_days_nanousd),
            revenue_on_other_days_usd=format_nano(summary.on_other_days_nanousd),
            breakage_usd=format_nano(summary.breakage_nanousd),
            refunds_usd=format_nano(summary.refunds_nanousd),
            cost_usd=format_nano(summary.cost_nanousd),
            fees_usd=format_nano(summary.fees_nanousd),
            profit_usd=format_nano(summary.profit_nanousd),
            margin_percent=margin(summary.profit_nanousd, revenue),
            margin_at_list_percent=margin_at_list(value, summary.cost_nanousd),
            cash_in_usd=format_nano(summary.cash_in_nanousd),
            exposure_usd=format_nano(summary.exposure_nanousd),
            active_wallets=active,
            new_wallets=summary.new_wallets,
            payers=summary.payers,
            new_payers=summary.new_payers,
            arpu_usd=format_nano(round_half_even(revenue, active)) if active else None,
        )


def agent_row(row: Any, groups: Sequence[AgentGroup]) -> AgentRow:
    """Return the row of a group of coding agents' calls."""
    names = {group.value: getattr(row, group) for group in groups}
    if AgentGroup.DAY in groups:
        names["day"] = shown_day(row.day)
    went_in = int(row.input_tokens or 0)
    return AgentRow(
        **names,
        requests=row.requests,
        errors=int(row.errors or 0),
        sessions=row.sessions,
        developers=row.developers,
        input_tokens=went_in,
        output_tokens=int(row.output_tokens or 0),
        cache_hit_percent=percent(int(row.cache_read_tokens or 0), went_in),
        cost_usd=format_nano(int(row.cost_nanousd or 0)),
        list_equivalent_usd=format_nano(int(row.list_cost_nanousd or 0)),
        charge_credits=format_nano(int(row.charge_nanocredits or 0)),
    )


def seat_row(seat: Seat, month: str | None, *, total: bool = False) -> SeatRow:
    """Return the row of a seat in a month."""
    price = seat.seat_nanousd
    return SeatRow(
        month=month,
        tool=None if total else seat.tool,
        account=None if total else seat.account,
        plan=None if total else seat.plan,
        requests=seat.requests,
        input_tokens=seat.input_tokens,
        output_tokens=seat.output_tokens,
        list_equivalent_usd=format_nano(seat.list_nanousd),
        seat_usd=None if price is None else format_nano(price),
        plan_pays=None if total or price is None else "yes" if seat.list_nanousd >= price else "no",
    )


def unreported_row(found: Unreported, *, total: bool = False) -> UnreportedRow:
    """Return the row of a day, a tool and a person."""
    day, tool, person, *tokens, exposure_nanousd = found
    figures = dict(zip(Unreported._fields[3:7], tokens, strict=True))
    names = (
        {"day": None, "tool": None, "developer": None}
        if total
        else {"day": shown_day(day), "tool": tool, "developer": person}
    )
    return UnreportedRow(**names, **figures, exposure_usd=format_nano(exposure_nanousd))


def credits_row(moved: CreditsMoved, *, total: bool = False) -> CreditsRow:
    """Return the row of a source."""
    return CreditsRow(
        day=None if moved.day is None else shown_day(moved.day),
        source=None if total else moved.source,
        movements=moved.movements,
        credits_in=format_nano(moved.in_nanocredits),
        credits_out=format_nano(moved.out_nanocredits),
        cash_in_usd=format_nano(moved.cash_in_nanousd),
    )


def balance_row(found: BalanceRange) -> BalanceRow:
    """Return the row of a balance range."""
    bounds = (None if bound is None else format_nano(bound * 10**9) for bound in found[:2])
    lowest, highest = bounds
    return BalanceRow(
        from_credits=lowest,
        to_credits=highest,
        wallets=found.wallets,
        balance_credits=format_nano(found.balance_nanocredits),
    )


def shown_day(day: int) -> str:
    """Format a day as an ISO 8601 date."""
    return (EPOCH + timedelta(days=day)).isoformat()


def cell_type(name: str) -> CellType:
    """Return a column's type by the unit in its name."""
    if name == "day":
        return CellType.DAY
    if name.endswith(("_usd", "_credits")) or name in ("credits_in", "credits_out"):
        return CellType.AMOUNT
    if name.endswith("_percent"):
        return CellType.PERCENT
    counts = (
        "requests",
        "errors",
        "sessions",
        "developers",
        "input_tokens",
        "output_tokens",
        "movements",
        "wallets",
        "payers",
    )
    return CellType.COUNT if name in counts or name.endswith(("_wallets", "_payers", "_tokens")) else CellType.TEXT
