"""Plans of coding agents: which accounts a subscription pays, and what a seat costs."""

from typing import Any

from fastapi import APIRouter
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from farebox_collector.dialects.agents import TOOLS
from farebox_collector.ledger.access.actors import acting
from farebox_collector.ledger.tariffs.agent_plans import BadPlan, plan_history, plans_in_force, set_plan
from farebox_collector.ledger.tariffs.effective_times import CannotBegin, begin
from farebox_collector.model.moments import format_ns
from farebox_collector.model.money import AmountError, format_nano, parse_nano
from farebox_collector.model.names import MAX_NAME
from farebox_collector.model.pseudonyms import name_in_books
from farebox_collector.pricing.agent_plans import EACH, AgentPlan
from farebox_collector.surfaces.api.context import STATED_AUTHOR, Amount, Context, Name, moment_ns
from farebox_collector.surfaces.api.pages import Cursor, Limit, Page, decode_cursor, page
from farebox_collector.surfaces.api.problems import RESPONSES, ApiError


class PlanRequest(BaseModel):
    """The plan of an account, from now or a later time on."""

    model_config = ConfigDict(extra="forbid")

    tool: Name = Field(
        max_length=MAX_NAME,
        description=f"{', '.join(f'`{tool}`' for tool in TOOLS)}, or `*`: each without its own plan.",
    )
    account: Name = Field(
        min_length=1,
        max_length=MAX_NAME,
        description="The developer as in the report `agents`; `*`: each logged-in account without its own plan.",
    )
    plan: Name = Field(max_length=MAX_NAME, description="The plan's name, such as `max-5x`; empty ends the plan.")
    seat_usd_per_month: str = Field("0", description="Decimal with at most nine decimals: the price of one seat.")
    valid_from: AwareDatetime | None = Field(None, description="When it starts: now (the default) or later.")
    author: Name = STATED_AUTHOR
    reason: Name = Field(min_length=1, max_length=500, description="Why; kept with the plan.")


class Plan(BaseModel):
    """One version of a plan."""

    plan_id: str
    tool: str
    account: str
    plan: str = Field(description="Empty if this version ends the plan.")
    seat_usd_per_month: Amount
    valid_from: str
    author: str
    reason: str
    recorded_at: str


def router(context: Context) -> APIRouter:
    """The endpoints under /v1/agent-plans."""
    routes = APIRouter(prefix="/v1/agent-plans", tags=["agent-plans"], responses=RESPONSES)

    @routes.get("")
    def list_plans(at: AwareDatetime | None = None, cursor: Cursor = None, limit: Limit = 100) -> Page[Plan]:
        """List the plans of coding agents in force at a time (default: now), in the order of setting."""
        at_ns = context.clock() if at is None else moment_ns(at)
        (after,) = decode_cursor(cursor, int) or (0,)
        with context.database.reading() as connection:
            rows = plans_in_force(connection, context.tenant_id, at_ns, after, limit + 1)
        return page(rows, limit, show_plan, lambda row: (row.id,))

    @routes.put("")
    def put_plan(request: PlanRequest) -> Plan:
        """Set which account of a coding agent a subscription pays, and what a seat costs; earlier versions are kept."""
        account = request.account if request.account == EACH else name_in_books(request.account)
        author = acting().author
        try:
            plan = AgentPlan(0, request.tool, account, request.plan, parse_nano(request.seat_usd_per_month), 0)
            version = begin(
                context.database,
                context.clock,
                None if request.valid_from is None else moment_ns(request.valid_from),
                lambda connection, at_ns, begins_ns: set_plan(
                    connection,
                    context.tenant_id,
                    plan._replace(valid_from_ns=begins_ns),
                    author,
                    request.reason,
                    at_ns,
                ),
            )
        except AmountError as error:
            raise ApiError(422, f"seat_usd_per_month: {error}") from None
        except BadPlan as error:
            raise ApiError(422, str(error)) from None
        except CannotBegin as error:
            raise ApiError(503, str(error)) from None
        with context.database.reading() as connection:
            rows = plan_history(connection, context.tenant_id, plan.tool, plan.account, version + 1, 1)
        return show_plan(rows[0])

    return routes


def show_plan(row: Any) -> Plan:
    """Convert a row of `agent_plans` to its API model."""
    return Plan(
        plan_id=str(row.id),
        tool=row.tool,
        account=row.account,
        plan=row.plan,
        seat_usd_per_month=format_nano(row.seat_nanousd_per_month),
        valid_from=format_ns(row.valid_from_ns),
        author=row.author,
        reason=row.reason,
        recorded_at=format_ns(row.recorded_at_ns),
    )
