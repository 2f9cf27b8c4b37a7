"""Replays: reprice past calls on the collector.

Requests keep no state: each reads a bounded number of records and returns a cursor. An interrupted replay continues at
any replica, and every request is short.
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
"""Maximum records per request: a few seconds of work."""


class ReplayRequest(BaseModel):
    """The calls to reprice: those with from <= pricing time < to."""

    model_config = ConfigDict(extra="forbid")

    since: AwareDatetime = Field(alias="from")
    until: AwareDatetime = Field(alias="to")
    wallet: NameInBooks = Field("", max_length=500)
    provider: Name = Field("", max_length=500)
    model: Name = Field("", max_length=500, description="As reported, or as named in the price book.")
    event: Name = Field("", max_length=500)
    dry_run: bool = Field(True, description="Report the changes without posting them.")
    cursor: str | None = Field(None, max_length=1000, description="The `next_cursor` of the previous request.")
    limit: int = Field(MOST_RECORDS, ge=1, le=MOST_RECORDS, description="Maximum records to read.")


class ReplayDifference(BaseModel):
    """Old and new sums of the changed records."""

    name: str
    records: int
    cost_before_usd: Amount
    cost_after_usd: Amount
    charge_before_credits: Amount
    charge_after_credits: Amount


class ReplayAnswer(BaseModel):
    """The changes of a replay, posted or not, in the records that it read."""

    looked_at: int
    total: ReplayDifference
    without_price: int = Field(description="Charged records without a price now; unchanged.")
    still_unpriced: int
    models: list[ReplayDifference] = Field(description="The largest differences; the last may sum up the rest.")
    wallets: list[ReplayDifference]
    next_cursor: str | None = Field(description="Send it with the same request to continue; null at the end.")


def router(context: Context) -> APIRouter:
    """The endpoint /v1/replays."""
    routes = APIRouter(prefix="/v1/replays", tags=["replays"], responses=RESPONSES)

    @routes.post("")
    def replay(request: ReplayRequest) -> ReplayAnswer:
        """Reprice calls at the prices valid at their time and post only differences; by default only show them.

        Repeat with `next_cursor` until it is null. A second replay posts nothing.
        """
        names = (request.wallet, request.provider, request.model, request.event)
        scope = ReplayScope(moment_ns(request.since), moment_ns(request.until), *names)
        if scope.from_ns >= scope.to_ns:
            raise ApiError(422, "from must be before to")
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
    """Convert a report to its API model."""
    models, wallets = (
        [_show(row) for row in (*largest.shown, largest.rest) if row.records]
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
