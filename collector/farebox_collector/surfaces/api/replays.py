"""Replays: price history anew, on the collector that holds the books.

Nothing is kept between two requests: each looks at so many records and says where to go on. So a replay that is broken
off goes on at any replica, and no request runs for longer than its records take.
"""

from fastapi import APIRouter
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from farebox_collector.background.replay import Replay, ReplayReport
from farebox_collector.ledger.reports.replay_difference import Difference
from farebox_collector.ledger.usage.corrections import CorrectionsFrozen
from farebox_collector.ledger.usage.replay_candidates import Position, ReplayScope
from farebox_collector.model.money import AmountError, format_nano
from farebox_collector.surfaces.api.context import (
    Amount,
    Context,
    Name,
    NameInBooks,
    moment_ns,
)
from farebox_collector.surfaces.api.pages import decode_cursor, encode_cursor
from farebox_collector.surfaces.api.problems import RESPONSES, ApiError

MOST_RECORDS = 20_000
"""Records that one request may look at: some seconds."""


class ReplayRequest(BaseModel):
    """Which calls to price anew: those whose prices are of a moment with from <= moment < to."""

    model_config = ConfigDict(extra="forbid")

    since: AwareDatetime = Field(alias="from")
    until: AwareDatetime = Field(alias="to")
    wallet: NameInBooks = Field("", max_length=500)
    provider: Name = Field("", max_length=500)
    model: Name = Field("", max_length=500, description="As reported, or as the price book names it.")
    event: Name = Field("", max_length=500)
    dry_run: bool = Field(True, description="Say what would change and post nothing.")
    cursor: str | None = Field(None, max_length=1000, description="The `next_cursor` of the request before.")
    limit: int = Field(MOST_RECORDS, ge=1, le=MOST_RECORDS, description="Most records to look at.")


class ReplayDifference(BaseModel):
    """What changed records came to, and what they come to instead."""

    name: str
    records: int
    cost_before_usd: Amount
    cost_after_usd: Amount
    charge_before_credits: Amount
    charge_after_credits: Amount


class ReplayAnswer(BaseModel):
    """What a replay changes in the records that it looked at, or has changed."""

    looked_at: int
    total: ReplayDifference
    without_price: int = Field(description="Charged records that have no price now; they stay as they are.")
    still_unpriced: int
    models: list[ReplayDifference] = Field(description="The largest differences; the last may sum up the others.")
    wallets: list[ReplayDifference]
    next_cursor: str | None = Field(description="Send it with the same request to go on; null at the end.")


def router(context: Context) -> APIRouter:
    """The endpoint /v1/replays."""
    routes = APIRouter(prefix="/v1/replays", tags=["replays"], responses=RESPONSES)

    @routes.post("")
    def replay(request: ReplayRequest) -> ReplayAnswer:
        """Price calls anew at the prices that were valid then, and post differences only; by default, only show them.

        Send it again with `next_cursor` until that is null. Doing it twice posts nothing the second time.
        """
        names = (request.wallet, request.provider, request.model, request.event)
        scope = ReplayScope(moment_ns(request.since), moment_ns(request.until), *names)
        if scope.from_ns >= scope.to_ns:
            raise ApiError(422, "from is before to")
        at = decode_cursor(request.cursor, int, int)
        after = None if at is None else max(Position(*at), Position(scope.from_ns, 0))
        made = Replay(context.database, context.tenant_id, scope, context.clock, charge_exposed=context.charge_exposed)
        try:
            step = made.compare_some if request.dry_run else made.post_some
            return show_report(step(after, request.limit))
        except CorrectionsFrozen as error:
            raise ApiError(409, str(error)) from None
        except AmountError as error:
            raise ApiError(422, str(error)) from None

    return routes


def show_report(report: ReplayReport) -> ReplayAnswer:
    """A report as the API shows it."""
    models, wallets = (
        [_show(row) for row in (*largest.shown, largest.others) if row.records]
        for largest in (report.models, report.wallets)
    )
    return ReplayAnswer(
        looked_at=report.looked_at,
        total=_show(report.total),
        without_price=report.without_price,
        still_unpriced=report.still_unpriced,
        models=models,
        wallets=wallets,
        next_cursor=None if report.next is None else encode_cursor(*report.next),
    )


def _show(difference: Difference) -> ReplayDifference:
    cost_before, cost_after, charge_before, charge_after = (format_nano(nano) for nano in difference[2:])
    return ReplayDifference(
        name=difference.name,
        records=difference.records,
        cost_before_usd=cost_before,
        cost_after_usd=cost_after,
        charge_before_credits=charge_before,
        charge_after_credits=charge_after,
    )
