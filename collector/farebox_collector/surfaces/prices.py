"""The price book: what held at a moment, and prices set by hand."""

from typing import Any

from fastapi import APIRouter
from pydantic import AwareDatetime, BaseModel, Field

from farebox_collector.ledger import statements
from farebox_collector.moments import format_ns
from farebox_collector.surfaces.context import Context, Name, moment_ns
from farebox_collector.surfaces.pages import Cursor, Limit, Page, decode_cursor, page
from farebox_collector.surfaces.problems import RESPONSES


class Price(BaseModel):
    """One version of one price."""

    version_id: int
    provider: str
    model: str
    unit: str
    usd_per_1k: str
    over_input_tokens: int = Field(description="For calls with more input tokens than this; 0 is the base price.")
    daily_from: str | None = Field(description="UTC time of day between which it holds; null for all day.")
    daily_to: str | None
    valid_from: str
    valid_to: str | None
    source: str
    source_version: str
    condition: str = Field(description="`standard`, or the service tier it is for: batch, flex, priority, …")
    scope: str = Field(description="`list`, or `negotiated` for a price of this tenant alone.")
    currency: str
    original_per_1k: str | None = Field(description="The price in its own currency; null if that is USD.")
    usd_per_currency: str | None = Field(description="The exchange rate it became US dollars by.")


def router(context: Context) -> APIRouter:
    """The endpoint /v1/prices."""
    routes = APIRouter(prefix="/v1/prices", tags=["prices"], responses=RESPONSES)

    @routes.get("")
    def list_prices(
        at: AwareDatetime | None = None,
        provider: Name = "",
        model: Name = "",
        cursor: Cursor = None,
        limit: Limit = 100,
    ) -> Page[Price]:
        """The prices that held at a moment, by default now: negotiated ones in place of list prices."""
        at_ns = context.clock() if at is None else moment_ns(at)
        (after,) = decode_cursor(cursor, int) or (0,)
        with context.database.reading() as connection:
            rows = statements.price_versions_at(connection, context.tenant_id, at_ns, provider, model, after, limit + 1)
        return page(rows, limit, show_price, lambda row: (row.id,))

    return routes


def show_price(row: Any) -> Price:
    """A row of `price_versions` as the API shows it."""
    all_day = row.daily_from_s == row.daily_to_s
    return Price(
        version_id=row.id,
        provider=row.provider,
        model=row.model,
        unit=row.unit,
        usd_per_1k=row.usd_per_1k,
        over_input_tokens=row.over_input_tokens,
        daily_from=None if all_day else time_of_day(row.daily_from_s),
        daily_to=None if all_day else time_of_day(row.daily_to_s),
        valid_from=format_ns(row.valid_from_ns),
        valid_to=None if row.valid_to_ns is None else format_ns(row.valid_to_ns),
        source=row.source,
        source_version=row.source_version,
        condition=row.condition,
        scope="list" if row.tenant_id is None else "negotiated",
        currency=row.currency,
        original_per_1k=row.original_per_1k or None,
        usd_per_currency=row.usd_per_currency if row.original_per_1k else None,
    )


def time_of_day(seconds: int) -> str:
    """A second of the day as people write it, UTC."""
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}Z"
