"""Amounts at stake: records with a doubtful cost and calls whose end was not observed."""

from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from farebox_collector.ledger.usage.stakes import (
    FLAGS,
    StakeFilter,
    stake_rows,
    stake_sums,
)
from farebox_collector.model.moments import format_ns
from farebox_collector.model.money import format_nano
from farebox_collector.surfaces.api.context import (
    Amount,
    Context,
    Name,
    NameInBooks,
)
from farebox_collector.surfaces.api.pages import (
    Cursor,
    Limit,
    Page,
    decode_cursor,
    page,
)
from farebox_collector.surfaces.api.problems import RESPONSES, ApiError

_FLAGS = ", ".join(FLAGS)


class Stake(BaseModel):
    """A record and the reason why its cost may be wrong; its receipt has the arithmetic."""

    flag: str = Field(description=f"The reason: one of {_FLAGS}.")
    trace_id: str
    span_id: str
    wallet: str
    provider: str
    model: str
    priced_at: str
    at_stake_usd: Amount = Field(description="Possible error of the cost; for an exposed call the estimate.")


class StakeSum(BaseModel):
    """The sum of a flag's records."""

    flag: str
    records: int
    at_stake_usd: Amount


class StakeSums(BaseModel):
    """Amounts at stake by flag. A record may have several flags."""

    items: list[StakeSum]
    next_cursor: None = Field(default=None, description="Always null: all flags are on one page.")


def router(context: Context) -> APIRouter:
    """The endpoints under /v1/stakes."""
    routes = APIRouter(prefix="/v1/stakes", tags=["stakes"], responses=RESPONSES)

    @routes.get("")
    def list_stakes(
        flag: Annotated[Name, Query(description=f"One of {_FLAGS}.")] = "",
        wallet: NameInBooks = "",
        cursor: Cursor = None,
        limit: Limit = 100,
    ) -> Page[Stake]:
        """List records with a doubtful cost, newest first: contradictory counts, unpriced units, unobserved ends."""
        if flag and flag not in FLAGS:
            raise ApiError(400, f"unknown flag {flag!r}; choose from {_FLAGS}")
        position = decode_cursor(cursor, int, str, str, str)
        after = None
        if position is not None:
            try:
                after = (position[0], position[1], bytes.fromhex(position[2]), bytes.fromhex(position[3]))
            except ValueError:
                raise ApiError(400, "invalid cursor; send the next_cursor of this list's previous page") from None
        with context.database.reading() as connection:
            rows = stake_rows(connection, context.tenant_id, StakeFilter(flag, wallet), after, limit + 1)
        return page(rows, limit, show_stake, _place)

    @routes.get("/sums")
    def get_stake_sums() -> StakeSums:
        """Return the total at stake by flag."""
        with context.database.reading() as connection:
            return show_sums(stake_sums(connection, context.tenant_id))

    return routes


def show_stake(row: Any) -> Stake:
    """Convert a row of `stakes` to its API model."""
    return Stake(
        flag=row.flag,
        trace_id=row.trace_id.hex(),
        span_id=row.span_id.hex(),
        wallet=row.wallet,
        provider=row.provider,
        model=row.model,
        priced_at=format_ns(row.priced_at_ns),
        at_stake_usd=format_nano(row.amount_nanousd),
    )


def show_sums(sums: dict[str, tuple[int, int]]) -> StakeSums:
    """Convert the sums of `stake_sums` to their API model."""
    return StakeSums(
        items=[
            StakeSum(flag=flag, records=records, at_stake_usd=format_nano(amount))
            for flag, (records, amount) in sums.items()
        ]
    )


def _place(row: Any) -> tuple[str | int, ...]:
    return row.priced_at_ns, row.flag, row.trace_id.hex(), row.span_id.hex()
