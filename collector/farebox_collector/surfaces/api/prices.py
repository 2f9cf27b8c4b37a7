"""The price book: prices in force at a time, and prices set by hand."""

from decimal import Decimal
from typing import Any

from fastapi import APIRouter
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field
from sqlalchemy import Connection

from farebox_collector.ledger.access.actors import acting
from farebox_collector.ledger.approvals.changes import StatedPrice, price_proposal
from farebox_collector.ledger.approvals.proposals import require_approval
from farebox_collector.ledger.reports import statements
from farebox_collector.ledger.tariffs.effective_times import CannotBegin, begin
from farebox_collector.ledger.tariffs.prices import (
    MANUAL,
    BookChange,
    OverlappingHours,
    state_price,
)
from farebox_collector.model.moments import format_ns
from farebox_collector.model.records import DEFAULT_TENANT_ID, STANDARD, CatalogueRow
from farebox_collector.pricing.conditions import canonical
from farebox_collector.pricing.price_csv import hours_of_day
from farebox_collector.pricing.weekdays import weekday_names, weekdays_of
from farebox_collector.surfaces.api.approvals import WAITS
from farebox_collector.surfaces.api.context import (
    STATED_AUTHOR,
    Context,
    Name,
    moment_ns,
)
from farebox_collector.surfaces.api.pages import (
    Cursor,
    Limit,
    Page,
    decode_cursor,
    page,
)
from farebox_collector.surfaces.api.problems import RESPONSES, ApiError

_MAX_NAME = 150


class PriceRequest(BaseModel):
    """A price to set from a time on."""

    model_config = ConfigDict(extra="forbid")

    provider: Name = Field(min_length=1, max_length=_MAX_NAME, description="The provider's name in the price book.")
    model: Name = Field(min_length=1, max_length=_MAX_NAME, description="A new model is matched by its exact name.")
    unit: Name = Field(max_length=100, description="`input`, `cache_read`, `output`, …; custom units begin with `x_`.")
    price_per_1k: str = Field(pattern=r"^[0-9]{1,9}(\.[0-9]{1,18})?$", description="Per 1,000; zero only with `free`.")
    currency: str = Field("USD", pattern=r"^[A-Z]{3}$", description="Converted to USD at the rate of `valid_from`.")
    valid_from: AwareDatetime | None = Field(None, description="From when (default: now).")
    over_input_tokens: int = Field(0, ge=0, lt=10**12, description="For calls with more input tokens than this.")
    condition: Name = Field(STANDARD, min_length=1, max_length=80, description="A service tier, speed or region.")
    hours: str = Field("", max_length=20, description="For these hours of the day, UTC.", examples=["22:00-06:00"])
    weekdays: str = Field("", max_length=40, description="For these days of the week, UTC.", examples=["mon-fri"])
    free: bool = Field(False, description="Allow a price of zero for calls that are free.")
    negotiated: bool = Field(False, description="For this tenant only. Only the tenant `default` sets list prices.")
    author: Name = STATED_AUTHOR


class PriceChange(BaseModel):
    """The changes that a new price made to the price book."""

    added: int = Field(description="Price versions.")
    closed: int = Field(description="Price versions that end where the new one starts.")
    source: str


class Price(BaseModel):
    """One version of one price."""

    version_id: int
    provider: str
    model: str
    unit: str
    usd_per_1k: str
    over_input_tokens: int = Field(description="For calls with more input tokens than this; 0 is the base price.")
    daily_from: str | None = Field(description="Start of its UTC time of day; null for all day.")
    daily_to: str | None
    weekdays: str = Field(description="Its UTC days of the week, such as mon-fri; empty for every day.")
    valid_from: str
    valid_to: str | None
    source: str
    source_version: str
    condition: str = Field(description="`standard`, or a service tier, a speed, `standard@us`, …")
    scope: str = Field(description="`list`, or `negotiated` for a price of this tenant only.")
    currency: str
    original_per_1k: str | None = Field(description="The price in its own currency; null if that is USD.")
    usd_per_currency: str | None = Field(description="The exchange rate used to convert it to US dollars.")


def router(context: Context) -> APIRouter:
    """The endpoints under /v1/prices."""
    routes = APIRouter(prefix="/v1/prices", tags=["prices"], responses=RESPONSES)

    @routes.get("")
    def list_prices(
        at: AwareDatetime | None = None,
        provider: Name = "",
        model: Name = "",
        cursor: Cursor = None,
        limit: Limit = 100,
    ) -> Page[Price]:
        """List the prices in force at a time (default: now); negotiated prices replace list prices."""
        at_ns = context.clock() if at is None else moment_ns(at)
        (after,) = decode_cursor(cursor, int) or (0,)
        with context.database.reading() as connection:
            rows = statements.price_versions_at(connection, context.tenant_id, at_ns, provider, model, after, limit + 1)
        return page(rows, limit, show_price, lambda row: (row.id,))

    @routes.post("", status_code=201, responses=WAITS)
    def create_price(request: PriceRequest) -> PriceChange:
        """Set a price from a time on. Earlier charges are unchanged; imports do not overwrite it.

        A price from now on takes effect a quarter of a second later; the response comes then.
        """
        if not request.negotiated and context.tenant_id != DEFAULT_TENANT_ID:
            raise ApiError(403, "only the tenant `default` may set list prices; send negotiated: true")
        from_ns = None if request.valid_from is None else moment_ns(request.valid_from)
        name = request.provider, request.model, request.unit, request.over_input_tokens
        price = Decimal(request.price_per_1k)
        try:
            hours = hours_of_day(request.hours)
            condition, weekdays = canonical(request.condition), weekdays_of(request.weekdays)
            row = CatalogueRow(*name, *hours, Decimal(0), from_ns or 0, None, condition, weekdays=weekdays)
            stated = StatedPrice(row, price, request.currency, request.negotiated, request.free, from_ns is None)
            change = begin(
                context.database,
                context.clock,
                from_ns,
                lambda connection, at_ns, begins_ns: _set(
                    context, connection, stated._replace(row=row._replace(valid_from_ns=begins_ns)), at_ns
                ),
            )
        except CannotBegin as error:
            raise ApiError(503, str(error)) from None
        except OverlappingHours as error:
            raise ApiError(409, str(error)) from None
        except ValueError as error:
            raise ApiError(422, str(error)) from None
        return PriceChange(added=change.added, closed=change.closed, source=f"{MANUAL} {acting().author}")

    return routes


def _set(context: Context, connection: Connection, stated: StatedPrice, now_ns: int) -> BookChange:
    tenant_id = context.tenant_id if stated.negotiated else None
    change = state_price(
        connection,
        stated.row,
        stated.price_per_1k,
        stated.currency,
        acting().author,
        now_ns,
        tenant_id,
        stated.free,
    )
    require_approval(connection, context.tenant_id, price_proposal(stated))
    return change


def show_price(row: Any) -> Price:
    """Convert a row of `price_versions` to its API model."""
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
        weekdays=weekday_names(row.weekdays),
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
    """Format a second of the UTC day."""
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}Z"
