"""Reports by UTC day, as JSON or CSV: usage by what tells it apart, wallets by what they cost, one wallet whole."""

import csv
import io
from collections.abc import Sequence
from datetime import date, timedelta
from enum import StrEnum
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, Field

from farebox_collector.ledger import statements
from farebox_collector.ledger.days import DAY_NS
from farebox_collector.ledger.reports import (
    Days,
    UsageGroup,
    WalletGroup,
    held_nanocredits,
    top_wallets,
    usage_by,
    wallet_by,
)
from farebox_collector.moments import format_ns
from farebox_collector.money import format_nano
from farebox_collector.surfaces.context import Amount, Context, Name, wallet_name
from farebox_collector.surfaces.pages import Limit
from farebox_collector.surfaces.problems import RESPONSES, ApiError
from farebox_collector.verdicts import Verdict

MAX_DAYS = 400
_EPOCH = date(1970, 1, 1)
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


class Format(StrEnum):
    """What a report is written as."""

    JSON = "json"
    CSV = "csv"


class Figures(BaseModel):
    """What calls came to."""

    requests: int
    errors: int
    input_tokens: int = Field(description="All tokens that went in, cached or not.")
    output_tokens: int
    cost_usd: Amount = Field(description="What providers charge us for them.")
    charge_credits: Amount = Field(description="What wallets paid for them.")


class UsageRow(Figures):
    """The calls of one group; null where the report does not tell them apart by it."""

    day: str | None = None
    event: str | None = None
    provider: str | None = None
    model: str | None = None
    verdict: str | None = None


class WalletRow(Figures):
    """The charged calls of one wallet."""

    wallet: str


class UsageReport(BaseModel):
    """Usage of some UTC days, and of as many days before them if asked for."""

    first_day: str
    last_day: str
    items: list[UsageRow]
    previous: list[UsageRow] | None


class WalletReport(BaseModel):
    """Wallets of some UTC days, those that cost us most first."""

    first_day: str
    last_day: str
    items: list[WalletRow]


class SpentOn(BaseModel):
    """What a wallet paid for, of one event or on one day. Costs of ours are not shown here."""

    key: str
    requests: int
    tokens: int
    charge_credits: Amount


class Overview(BaseModel):
    """One wallet, and the usage that made its balance what it is."""

    wallet: str
    balance_credits: Amount
    held_credits: Amount = Field(description="Set aside for actions that are under way.")
    available_credits: Amount
    spent_credits: Amount = Field(description="What usage has taken since ever, net of corrections.")
    last_activity: str | None
    first_day: str
    last_day: str
    requests: int = Field(description="Charged calls of these days, like the figures that follow.")
    tokens: int
    charge_credits: Amount
    runway_days: int | None = Field(description="Days that the balance lasts at this rate; null if nothing is spent.")
    by_event: list[SpentOn]
    by_day: list[SpentOn]


LastDays = Annotated[int, Query(ge=1, le=MAX_DAYS, description="The last so many UTC days, today among them.")]
First = Annotated[date | None, Query(description="The first UTC day, instead of `days`.")]
Last = Annotated[date | None, Query(description="The last UTC day (default: today).")]
Columns = Annotated[list[str] | None, Query(description="Columns of the CSV file, in order (default: all).")]


def overview_router(context: Context) -> APIRouter:
    """The endpoint /v1/wallets/{wallet}/overview."""
    routes = APIRouter(prefix="/v1/wallets", tags=["wallets"], responses=RESPONSES)

    @routes.get("/{wallet:path}/overview")
    def get_overview(wallet: str, days: LastDays = 30, first: First = None, last: Last = None) -> Overview:
        """One wallet's balance, what was spent on what and when, and how long the rest will last."""
        name, period = wallet_name(wallet), _period(context, days, first, last)
        with context.database.reading() as connection:
            row = statements.wallet(connection, context.tenant_id, name)
            if row is None:
                raise ApiError(404, "there is no such wallet: it was neither paid into nor charged yet")
            held = held_nanocredits(connection, context.tenant_id, name)
            by_event, by_day = (
                wallet_by(connection, context.tenant_id, name, period, group)
                for group in (WalletGroup.EVENT, WalletGroup.DAY)
            )
        return _overview(row, held, period, by_event, by_day)

    return routes


def router(context: Context) -> APIRouter:
    """The endpoints under /v1/reports."""
    routes = APIRouter(prefix="/v1/reports", tags=["reports"], responses=RESPONSES)

    @routes.get("/usage", response_model=UsageReport)
    def report_usage(
        group_by: Annotated[list[UsageGroup] | None, Query(description="One or more, in order.")] = None,
        days: LastDays = 30,
        first: First = None,
        last: Last = None,
        compare: Annotated[bool, Query(description="Also as many days directly before.")] = False,
        event: Name = "",
        model: Name = "",
        verdict: Verdict | None = None,
        format: Format = Format.JSON,
        columns: Columns = None,
    ) -> Any:
        """Calls, tokens, cost and charge by event, day, model and more; each call counts once."""
        period = _period(context, days, first, last)
        groups = list(dict.fromkeys(group_by or [UsageGroup.EVENT]))
        filters = {"event": event, "model": model, "verdict": verdict or ""}
        with context.database.reading() as connection:
            rows = usage_by(connection, context.tenant_id, period, groups, **filters)
            before = usage_by(connection, context.tenant_id, period.before, groups, **filters) if compare else None
        items = [_usage_row(row, groups) for row in rows]
        if format is Format.CSV:
            return _csv([*groups, *Figures.model_fields], items, columns)
        return UsageReport(
            first_day=_shown_day(period.first),
            last_day=_shown_day(period.end - 1),
            items=items,
            previous=None if before is None else [_usage_row(row, groups) for row in before],
        )

    @routes.get("/wallets", response_model=WalletReport)
    def report_wallets(
        days: LastDays = 30,
        first: First = None,
        last: Last = None,
        event: Name = "",
        model: Name = "",
        limit: Limit = 100,
        format: Format = Format.JSON,
        columns: Columns = None,
    ) -> Any:
        """Wallets with what they paid and what they cost to serve, the dearest first."""
        period = _period(context, days, first, last)
        with context.database.reading() as connection:
            rows = top_wallets(connection, context.tenant_id, period, event=event, model=model, limit=limit)
        items = [WalletRow(wallet=row.wallet, **_figures(row)) for row in rows]
        if format is Format.CSV:
            return _csv(["wallet", *Figures.model_fields], items, columns)
        return WalletReport(first_day=_shown_day(period.first), last_day=_shown_day(period.end - 1), items=items)

    return routes


def _period(context: Context, days: int, first: date | None, last: date | None) -> Days:
    end = (context.clock() // DAY_NS if last is None else (last - _EPOCH).days) + 1
    begin = end - days if first is None else (first - _EPOCH).days
    if not 0 <= begin < end <= begin + MAX_DAYS or end > 106_751:
        raise ApiError(400, f"a period begins in 1970 or later, before it ends, and has at most {MAX_DAYS} days")
    return Days(begin, end)


def _shown_day(day: int) -> str:
    return (_EPOCH + timedelta(days=day)).isoformat()


def _figures(row: Any) -> dict[str, Any]:
    return {
        "requests": int(row.requests),
        "errors": int(row.errors),
        "input_tokens": int(row.input_tokens),
        "output_tokens": int(row.output_tokens),
        "cost_usd": format_nano(int(row.cost_nanousd)),
        "charge_credits": format_nano(int(row.charge_nanocredits)),
    }


def _usage_row(row: Any, groups: Sequence[UsageGroup]) -> UsageRow:
    names = {group.value: getattr(row, group) for group in groups}
    if UsageGroup.DAY in groups:
        names["day"] = _shown_day(row.day)
    return UsageRow(**names, **_figures(row))


def _overview(row: Any, held: int, period: Days, by_event: Sequence[Any], by_day: Sequence[Any]) -> Overview:
    charge = sum(int(day.charge_nanocredits) for day in by_day)
    runway = None
    if charge > 0:
        runway = max(0, row.balance_nano) * (period.end - period.first) // charge
    return Overview(
        wallet=row.name,
        balance_credits=format_nano(row.balance_nano),
        held_credits=format_nano(held),
        available_credits=format_nano(row.balance_nano - held),
        spent_credits=format_nano(row.spent_nano),
        last_activity=None if row.last_activity_ns is None else format_ns(row.last_activity_ns),
        first_day=_shown_day(period.first),
        last_day=_shown_day(period.end - 1),
        requests=sum(int(day.requests) for day in by_day),
        tokens=sum(_tokens(day) for day in by_day),
        charge_credits=format_nano(charge),
        runway_days=runway,
        by_event=[_spent(event.event, event) for event in by_event],
        by_day=[_spent(_shown_day(day.day), day) for day in by_day],
    )


def _tokens(row: Any) -> int:
    return int(row.input_tokens) + int(row.output_tokens)


def _spent(key: str, row: Any) -> SpentOn:
    charge = format_nano(int(row.charge_nanocredits))
    return SpentOn(key=key, requests=int(row.requests), tokens=_tokens(row), charge_credits=charge)


def _csv(known: Sequence[str], items: Sequence[BaseModel], wanted: Sequence[str] | None) -> Response:
    """A CSV file of these columns. A text that a spreadsheet would take for a formula gets a quote in front."""
    unknown = sorted(set(wanted or ()) - set(known))
    if unknown:
        raise ApiError(400, f"there is no column {unknown[0]!r} here; there are {', '.join(known)}")
    columns = [str(name) for name in wanted or known]
    file = io.StringIO()
    writer = csv.writer(file)
    writer.writerow(columns)
    for item in items:
        writer.writerow([_cell(name, getattr(item, name)) for name in columns])
    return Response(file.getvalue(), media_type="text/csv; charset=utf-8")


def _cell(name: str, value: Any) -> Any:
    harmless = name in Figures.model_fields or not isinstance(value, str) or not value.startswith(_FORMULA)
    return value if harmless else f"'{value}"
