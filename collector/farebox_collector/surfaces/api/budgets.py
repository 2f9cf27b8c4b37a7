"""Monthly budgets of departments."""

from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from farebox_collector.ledger.access.actors import acting
from farebox_collector.ledger.credits.budgets import budgets_in_force, set_budget
from farebox_collector.model.moments import format_ns
from farebox_collector.model.money import AmountError, format_nano, parse_nano
from farebox_collector.surfaces.api.context import (
    STATED_AUTHOR,
    Amount,
    Context,
    Name,
    require_named,
)
from farebox_collector.surfaces.api.problems import RESPONSES, ApiError


class BudgetRequest(BaseModel):
    """A new budget of a department."""

    model_config = ConfigDict(extra="forbid", strict=True)

    usd_per_month: str | int = Field(description="Decimal, as a string, with at most nine decimals; 0 ends the budget.")
    author: Name = STATED_AUTHOR
    reason: Name = Field("", max_length=500, description="Why; kept with the budget.")


class Budget(BaseModel):
    """A department's monthly budget."""

    dept: str
    usd_per_month: Amount
    since: str
    author: str
    reason: str


class Budgets(BaseModel):
    """All budgets in force, one per department, on one page."""

    items: list[Budget]
    next_cursor: None = None


def router(context: Context) -> APIRouter:
    """The endpoints under /v1/budgets."""
    routes = APIRouter(prefix="/v1/budgets", tags=["budgets"], responses=RESPONSES)

    @routes.get("")
    def list_budgets() -> Budgets:
        """List the budget of each department that has one."""
        with context.database.reading() as connection:
            rows = budgets_in_force(connection, context.tenant_id)
        return Budgets(items=[_show(row) for row in rows])

    @routes.put("/{dept:name}")
    def put_budget(dept: str, request: BudgetRequest) -> Budget:
        """Set a department's monthly budget from now on; earlier versions are kept."""
        require_named(dept, "a department's name")
        at_ns = context.clock()
        try:
            amount = parse_nano(str(request.usd_per_month))
            context.database.transact(
                lambda connection: set_budget(
                    connection, context.tenant_id, dept, amount, acting().author, request.reason, at_ns
                )
            )
        except (AmountError, ValueError) as error:
            raise ApiError(422, f"usd_per_month: {error}") from None
        return Budget(
            dept=dept,
            usd_per_month=format_nano(amount),
            since=format_ns(at_ns),
            author=acting().author,
            reason=request.reason,
        )

    return routes


def _show(row: Any) -> Budget:
    return Budget(
        dept=row.dept,
        usd_per_month=format_nano(row.nanousd_per_month),
        since=format_ns(row.recorded_at_ns),
        author=row.author,
        reason=row.reason,
    )
