"""Holds: reserve credits of a wallet for an action if the wallet can pay."""

from typing import Annotated, Any

from fastapi import APIRouter, Body, Header, Response
from pydantic import BaseModel, ConfigDict, Field

from farebox_collector.ledger.access.erased import ERASED
from farebox_collector.ledger.credits import holds as ledger_holds
from farebox_collector.ledger.credits.hold_release import HoldState, standing_of
from farebox_collector.ledger.credits.hold_release import void_hold as end_by_voiding
from farebox_collector.ledger.credits.holds import (
    AlreadyHeld,
    Held,
    HoldEnded,
    HoldRequest,
    Insufficient,
    KeyReused,
    Refusal,
    WalletErased,
)
from farebox_collector.ledger.credits.limits import LimitReached
from farebox_collector.model.moments import format_ns
from farebox_collector.model.money import format_nano
from farebox_collector.model.names import MAX_NAME
from farebox_collector.model.records import NO_EVENT
from farebox_collector.surfaces.api.amounts import positive_nanocredits
from farebox_collector.surfaces.api.context import (
    Amount,
    Context,
    Name,
    NameInBooks,
    wallet_name,
)
from farebox_collector.surfaces.api.pages import (
    Cursor,
    Limit,
    Page,
    decode_cursor,
    page,
)
from farebox_collector.surfaces.api.problems import RESPONSES, ApiError

MOST_SECONDS = 7 * 86_400
_DEFAULT_SECONDS = 600


class HoldWanted(BaseModel):
    """Credits to reserve for an action."""

    model_config = ConfigDict(extra="forbid", strict=True)

    wallet: str
    amount_credits: str | int = Field(description="Positive decimal, as a string, with at most nine decimals.")
    event: Name = Field("", max_length=256, description="The action's event.")
    action_id: Name = Field("", max_length=256, description="The action whose charges settle the hold.")
    expires_in_seconds: int = Field(_DEFAULT_SECONDS, ge=1, le=MOST_SECONDS)
    user: NameInBooks = Field(
        "", max_length=MAX_NAME, description="The user of a shared wallet; the user's limit applies."
    )
    dept: Name = Field("", max_length=MAX_NAME, description="The department whose limit applies.")
    project: Name = Field("", max_length=MAX_NAME, description="The project whose limit applies.")


class HoldTaken(BaseModel):
    """Reserved credits."""

    hold_id: str
    wallet: str
    amount_credits: Amount
    available_credits: Amount = Field(description="What the wallet can still reserve.")
    expires_at: str
    passed_limits: list[str] = Field(description="Soft limits that this hold exceeds, one sentence each.")


class Hold(BaseModel):
    """A hold and its state."""

    hold_id: str
    wallet: str
    user: str
    dept: str
    project: str
    event: str
    action_id: str | None
    amount_credits: Amount
    open_credits: Amount = Field(description="What is still reserved: the amount less the action's charges.")
    charged_credits: Amount = Field(
        description="Charges of the action since the hold was taken, less corrections; "
        "tracked until the hold is voided or expires."
    )
    state: HoldState
    created_at: str
    expires_at: str
    ended_at: str | None


def router(context: Context) -> APIRouter:
    """The endpoints under /v1/holds."""
    routes = APIRouter(prefix="/v1/holds", tags=["holds"], responses=RESPONSES)

    @routes.post("", status_code=201)
    async def take_hold(
        wanted: HoldWanted,
        response: Response,
        idempotency_key: Annotated[str, Header(min_length=1, max_length=200)],
    ) -> HoldTaken:
        """Reserve credits, once per Idempotency-Key.

        402 if the wallet has less available, or a policy's limit is reached. 404 if the wallet's name was erased.
        409 if this key's hold has ended; the problem's `state` tells how.
        """
        request = _request(wanted, idempotency_key)
        answer = await context.holds.take(context.tenant_id, request)
        if not isinstance(answer, Held):
            raise _refusal(request, answer)
        if answer.repeated:
            response.headers["Idempotent-Replayed"] = "true"
        return HoldTaken(
            hold_id=str(answer.hold_id),
            wallet=request.wallet,
            amount_credits=format_nano(request.amount_nanocredits),
            available_credits=format_nano(answer.available_nanocredits),
            expires_at=format_ns(answer.expires_at_ns),
            passed_limits=[limit_sentence(passed) for passed in answer.passed],
        )

    @routes.post("/{hold_id}/void")
    def void_hold(hold_id: str, _body: Annotated[dict[str, Any] | None, Body()] = None) -> Hold:
        """Release what is still reserved; an ended hold stays unchanged."""
        found = context.database.transact(
            lambda connection: end_by_voiding(connection, context.tenant_id, _id(hold_id), context.clock())
        )
        return _show(_there(found), context.clock())

    @routes.get("")
    def list_holds(
        wallet: NameInBooks = "", state: HoldState | None = None, cursor: Cursor = None, limit: Limit = 100
    ) -> Page[Hold]:
        """List holds, newest first."""
        (before,) = decode_cursor(cursor, int) or (None,)
        now_ns = context.clock()
        with context.database.reading() as connection:
            rows = ledger_holds.holds_of(connection, context.tenant_id, wallet, state or "", before, limit + 1, now_ns)
        return page(rows, limit, lambda row: _show(row, now_ns), lambda row: (row.id,))

    @routes.get("/{hold_id}")
    def get_hold(hold_id: str) -> Hold:
        """One hold."""
        with context.database.reading() as connection:
            found = ledger_holds.hold(connection, context.tenant_id, _id(hold_id))
        return _show(_there(found), context.clock())

    return routes


def _request(wanted: HoldWanted, idempotency_key: str) -> HoldRequest:
    return HoldRequest(
        wallet_name(wanted.wallet),
        positive_nanocredits(str(wanted.amount_credits), "a hold"),
        idempotency_key,
        wanted.event or NO_EVENT,
        wanted.action_id,
        wanted.expires_in_seconds,
        wanted.user,
        wanted.dept,
        wanted.project,
    )


def _refusal(request: HoldRequest, answer: Refusal) -> ApiError:
    """Convert a refused hold to an error."""
    amount = request.amount_nanocredits
    match answer:
        case Insufficient():
            return ApiError(402, _shortage(request.wallet, amount, answer))
        case LimitReached():
            return ApiError(402, f"{limit_sentence(answer)}; {format_nano(amount)} were requested")
        case AlreadyHeld():
            return ApiError(409, f"this action already has a hold, {answer.hold_id}; only one is allowed")
        case KeyReused():
            return ApiError(409, "this Idempotency-Key was already used for another hold")
        case WalletErased():
            return ApiError(404, ERASED)
        case HoldEnded():
            ended_at = format_ns(answer.ended_at_ns)
            facts = {"hold_id": str(answer.hold_id), "state": answer.state.value, "ended_at": ended_at}
            why = f"the hold {answer.hold_id} of this Idempotency-Key is {answer.state} since {ended_at}"
            return ApiError(409, f"{why}: nothing is reserved; send a new key and a new action_id", facts)


def _shortage(wallet: str, amount: int, answer: Insufficient) -> str:
    if not answer.known:
        return f"wallet {wallet} has no credits: it was neither paid into nor charged yet"
    available = format_nano(answer.available_nanocredits)
    return f"wallet {wallet} has {available} credits available, and {format_nano(amount)} were requested"


def limit_sentence(reached: LimitReached) -> str:
    """Return a sentence with the limit's subject, amount and remainder."""
    subject = reached.subject
    whose = f"user {subject.user_id} of wallet {subject.name}" if subject.user_id else f"{subject.scope} {subject.name}"
    limit, left = format_nano(reached.limit_nano), format_nano(reached.left_nano)
    return f"{whose} may spend {limit} credits a {reached.period}, and has {left} left"


def _id(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise ApiError(404, "there is no such hold")
    return int(text)


def _there(row: Any) -> Any:
    if row is None:
        raise ApiError(404, "there is no such hold")
    return row


def _show(row: Any, at_ns: int) -> Hold:
    state, open_nano, ended_at_ns = standing_of(row, at_ns)
    return Hold(
        hold_id=str(row.id),
        wallet=row.wallet,
        user=row.user_id,
        dept=row.dept,
        project=row.project,
        event=row.event,
        action_id=row.action_id,
        amount_credits=format_nano(row.amount_nano),
        open_credits=format_nano(open_nano),
        charged_credits=format_nano(row.settled_nano),
        state=state,
        created_at=format_ns(row.created_at_ns),
        expires_at=format_ns(row.expires_at_ns),
        ended_at=None if ended_at_ns is None else format_ns(ended_at_ns),
    )
