"""Effective cost per 1,000 tokens by model, event, department and more, compared with the list price."""

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import AwareDatetime, BaseModel, Field

from farebox_collector.ledger.reports.costs import Grouping, Period, costs
from farebox_collector.model.moments import DAY_NS, format_ns
from farebox_collector.model.money import format_nano
from farebox_collector.pricing.costs import EffectiveCost
from farebox_collector.surfaces.api.context import Amount, Context, moment_ns
from farebox_collector.surfaces.api.pages import Limit
from farebox_collector.surfaces.api.problems import RESPONSES, ApiError

DEFAULT_DAYS = 30
MAX_DAYS = 400


class Cost(BaseModel):
    """Effective costs of a group's charged calls. `docs/explanation/prices.md` defines every figure."""

    key: str = Field(description="The group's value; a model is provider/model.")
    calls: int
    input_tokens: int = Field(description="All input tokens, cached or not.")
    output_tokens: int
    cost_usd: Amount
    input_cost_usd: Amount
    output_cost_usd: Amount
    other_cost_usd: Amount = Field(description="Fees, searches, other units and per-call rounding.")
    cost_per_1k_usd: Amount | None = Field(description="Total cost per 1,000 tokens.")
    input_cost_per_1k_usd: Amount | None
    output_cost_per_1k_usd: Amount | None
    list_cost_per_1k_usd: Amount | None = Field(description="List price of 1,000 uncached tokens of this mix.")
    drift_percent: str | None = Field(
        description="Input and output cost relative to the list price; negative is cheaper.", examples=["-37.50"]
    )


class Costs(BaseModel):
    """Effective costs of a period, most expensive group first, with the total of all groups."""

    since: str
    until: str
    group_by: str
    list_prices_at: str
    items: list[Cost]
    next_cursor: None = Field(default=None, description="Always null: groups beyond the limit are only in the total.")
    total: Cost


def router(context: Context) -> APIRouter:
    """The endpoint /v1/costs."""
    routes = APIRouter(prefix="/v1/costs", tags=["costs"], responses=RESPONSES)

    @routes.get("")
    def get_costs(
        group_by: Grouping = Grouping.MODEL,
        since: Annotated[
            AwareDatetime | None, Query(description="From this time on (default: 29 UTC days ago).")
        ] = None,
        until: Annotated[AwareDatetime | None, Query(description="Before this time (default: now).")] = None,
        limit: Limit = 100,
    ) -> Costs:
        """Return the effective cost per 1,000 tokens (blended, input, output) and its drift from the list price."""
        now_ns = context.clock()
        to_ns = now_ns if until is None else moment_ns(until)
        from_ns = first_of_last_days(to_ns) if since is None else moment_ns(since)
        if not from_ns < to_ns <= from_ns + MAX_DAYS * DAY_NS:
            raise ApiError(400, f"the period must begin before it ends and have at most {MAX_DAYS} days")
        # Read days that are not over whole, to avoid a lookup per record.
        period = Period(from_ns, end_of_day(to_ns) if until is None else to_ns)
        list_at_ns = min(to_ns, now_ns)
        with context.database.reading() as connection:
            found = costs(connection, context.tenant_id, period, group_by, list_at_ns)
        return show_costs(found, Period(from_ns, to_ns), group_by, list_at_ns, limit)

    return routes


def first_of_last_days(to_ns: int) -> int:
    """Return the start of the last UTC days, including the day of `to_ns`."""
    return max(0, (to_ns - 1) // DAY_NS - DEFAULT_DAYS + 1) * DAY_NS


def end_of_day(at_ns: int) -> int:
    """Return the end of the UTC day of a time."""
    return (at_ns // DAY_NS + 1) * DAY_NS


def show_costs(found: list[EffectiveCost], period: Period, grouping: Grouping, list_at_ns: int, limit: int) -> Costs:
    """Convert effective costs to their API model."""
    return Costs(
        since=format_ns(period.from_ns),
        until=format_ns(period.to_ns),
        group_by=grouping.value,
        list_prices_at=format_ns(list_at_ns),
        items=[_show(cost) for cost in found[:limit]],
        total=_show(_sum(found)),
    )


def _sum(found: list[EffectiveCost]) -> EffectiveCost:
    unknown = any(cost.list_cost_nanousd is None for cost in found)
    return EffectiveCost(
        key="",
        calls=sum(cost.calls for cost in found),
        input_tokens=sum(cost.input_tokens for cost in found),
        output_tokens=sum(cost.output_tokens for cost in found),
        cost_nanousd=sum(cost.cost_nanousd for cost in found),
        input_cost_nanousd=sum(cost.input_cost_nanousd for cost in found),
        output_cost_nanousd=sum(cost.output_cost_nanousd for cost in found),
        list_cost_nanousd=None if unknown else sum(cost.list_cost_nanousd or 0 for cost in found),
    )


def _show(cost: EffectiveCost) -> Cost:
    drift = cost.drift
    return Cost(
        key=cost.key,
        calls=cost.calls,
        input_tokens=cost.input_tokens,
        output_tokens=cost.output_tokens,
        cost_usd=format_nano(cost.cost_nanousd),
        input_cost_usd=format_nano(cost.input_cost_nanousd),
        output_cost_usd=format_nano(cost.output_cost_nanousd),
        other_cost_usd=format_nano(cost.other_cost_nanousd),
        cost_per_1k_usd=_amount(cost.cost_per_1k_nanousd),
        input_cost_per_1k_usd=_amount(cost.input_cost_per_1k_nanousd),
        output_cost_per_1k_usd=_amount(cost.output_cost_per_1k_nanousd),
        list_cost_per_1k_usd=_amount(cost.list_cost_per_1k_nanousd),
        drift_percent=None if drift is None else f"{round(drift * 10_000) / 100:.2f}",
    )


def _amount(nanousd: int | None) -> str | None:
    return None if nanousd is None else format_nano(nanousd)
