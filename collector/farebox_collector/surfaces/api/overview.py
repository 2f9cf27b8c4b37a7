"""The overview of a wallet: balance, usage, runway, and the origin of its credits."""

import json
from collections.abc import Sequence
from datetime import date
from typing import Annotated, Any
from urllib.parse import quote, urlsplit

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from farebox_collector.ledger.reports import statements
from farebox_collector.ledger.reports.wallet_reports import (
    WalletGroup,
    held_nanocredits,
    living_lots,
    paid_lots,
    wallet_by,
)
from farebox_collector.model.moments import DAY_NS, Days, format_ns
from farebox_collector.model.money import format_nano
from farebox_collector.surfaces.api.callers import OwnWallet
from farebox_collector.surfaces.api.context import Amount, Context, wallet_name
from farebox_collector.surfaces.api.movements import LotShown, show_lot
from farebox_collector.surfaces.api.problems import RESPONSES, ApiError
from farebox_collector.surfaces.api.report_rows import shown_day
from farebox_collector.surfaces.api.reports import MAX_DAYS, period_of
from farebox_collector.surfaces.api.topups import topup_link

RATE_DAYS = 7
"""Number of recent days that give the spending rate for the runway."""
MOST_LOTS = 100
MOST_TOPUPS = 20

LastDays = Annotated[int, Query(ge=1, le=MAX_DAYS, description="Number of UTC days, including today.")]
First = Annotated[date | None, Query(description="The first UTC day, instead of `days`.")]
Last = Annotated[date | None, Query(description="The last UTC day (default: today).")]


class SpentOn(BaseModel):
    """What a wallet paid for one event or on one day. Provider costs are not shown."""

    key: str
    requests: int
    tokens: int
    charge_credits: Amount


class PaidIn(BaseModel):
    """A deposit, with metadata of the business or the payment provider."""

    lot_id: int
    at: str
    amount_credits: Amount
    price_usd: Amount
    memo: str
    receipt_url: str | None = Field(description="`receipt_url` of the movement's metadata.")
    invoice_url: str | None = Field(description="`invoice_url` or `hosted_invoice_url` of the movement's metadata.")


class Overview(BaseModel):
    """A wallet with its balance and usage."""

    wallet: str
    balance_credits: Amount
    held_credits: Amount = Field(description="Reserved for actions in progress.")
    available_credits: Amount
    spent_credits: Amount = Field(description="All usage charges so far, net of corrections.")
    last_activity: str | None
    first_day: str
    last_day: str
    requests: int = Field(description="Charged calls of these days, like the following figures.")
    tokens: int
    charge_credits: Amount
    rate_credits: Amount = Field(description=f"Average per day over the last {RATE_DAYS}, or since the wallet exists.")
    runway_days: int | None = Field(description="Days that available credits last at that rate; null if it is zero.")
    by_event: list[SpentOn]
    by_day: list[SpentOn]
    lots: list[LotShown] = Field(description="Remaining credits by origin, at most a minute old.")
    topups: list[PaidIn] = Field(description=f"The last {MOST_TOPUPS}, newest first.")
    topup_url: str | None = Field(description="The top-up page: `FAREBOX_TOPUP_URL`, or the API's own link.")


def router(context: Context) -> APIRouter:
    """The endpoint /v1/wallets/{wallet}/overview."""
    routes = APIRouter(prefix="/v1/wallets", tags=["wallets"], responses=RESPONSES)

    @routes.get("/{wallet:name}/overview")
    def get_overview(wallet: OwnWallet, days: LastDays = 30, first: First = None, last: Last = None) -> Overview:
        """Return a wallet's balance, spending by event and day, runway and deposits."""
        name, now_ns = wallet_name(wallet), context.clock()
        period = period_of(now_ns, days, first, last)
        tenant_id = context.tenant_id
        today = now_ns // DAY_NS
        with context.database.reading() as connection:
            row = statements.wallet(connection, tenant_id, name)
            if row is None:
                raise ApiError(404, "there is no such wallet: it was neither paid into nor charged yet")
            held = held_nanocredits(connection, tenant_id, name, now_ns)
            by_event, by_day = (
                wallet_by(connection, tenant_id, name, period, group) for group in (WalletGroup.EVENT, WalletGroup.DAY)
            )
            recent = wallet_by(
                connection, tenant_id, name, Days(max(0, today - RATE_DAYS + 1), today + 1), WalletGroup.DAY
            )
            left = living_lots(connection, tenant_id, name, MOST_LOTS)
            paid = paid_lots(connection, tenant_id, name, MOST_TOPUPS)
            link = topup_url(context.topup_url, name) or topup_link(context, connection, name)
        rate = daily_rate(recent, row.created_at_ns, now_ns)
        available = row.balance_nano - held
        return Overview(
            wallet=row.name,
            balance_credits=format_nano(row.balance_nano),
            held_credits=format_nano(held),
            available_credits=format_nano(available),
            spent_credits=format_nano(row.spent_nano),
            last_activity=None if row.last_activity_ns is None else format_ns(row.last_activity_ns),
            first_day=shown_day(period.first),
            last_day=shown_day(period.end - 1),
            requests=sum(int(day.requests) for day in by_day),
            tokens=sum(_tokens(day) for day in by_day),
            charge_credits=format_nano(sum(int(day.charge_nanocredits) for day in by_day)),
            rate_credits=format_nano(rate),
            runway_days=max(0, available) // rate if rate > 0 else None,
            by_event=[_spent(event.event, event) for event in by_event],
            by_day=[_spent(shown_day(day.day), day) for day in by_day],
            lots=[show_lot(lot) for lot in left],
            topups=[_paid_in(lot) for lot in paid],
            topup_url=link,
        )

    return routes


def daily_rate(recent: Sequence[Any], created_at_ns: int, now_ns: int) -> int:
    """Return nanocredits a day over the last days (rows by day), without days before the wallet was created.

    Today counts for its elapsed part; for a wallet created today it counts as a whole day.
    """
    charge = sum(int(day.charge_nanocredits) for day in recent)
    begin_ns = max((now_ns // DAY_NS - RATE_DAYS + 1) * DAY_NS, created_at_ns)
    return charge * DAY_NS // max(DAY_NS, now_ns - begin_ns)


def topup_url(template: str, wallet: str) -> str | None:
    """Return the top-up URL with the wallet's name filled in; None without the setting."""
    return template.replace("{wallet}", quote(wallet, safe="")) if template else None


def _paid_in(row: Any) -> PaidIn:
    kept = json.loads(row.metadata) if row.metadata else {}
    return PaidIn(
        lot_id=row.id,
        at=format_ns(row.created_at_ns),
        amount_credits=format_nano(row.amount_nano),
        price_usd=format_nano(row.price_nanousd),
        memo=row.memo or "",
        receipt_url=_link(kept, "receipt_url"),
        invoice_url=_link(kept, "invoice_url", "hosted_invoice_url"),
    )


def _link(kept: dict[str, Any], *names: str) -> str | None:
    """Return the first of these that is a web link; other schemes could run code in a page."""
    for name in names:
        value = kept.get(name)
        if isinstance(value, str) and urlsplit(value).scheme in ("https", "http"):
            return value
    return None


def _tokens(row: Any) -> int:
    return int(row.input_tokens) + int(row.output_tokens)


def _spent(key: str, row: Any) -> SpentOn:
    charge = format_nano(int(row.charge_nanocredits))
    return SpentOn(key=key, requests=int(row.requests), tokens=_tokens(row), charge_credits=charge)
