"""Two-person approval over HTTP: proposals, decisions and the policy that requires them."""

import asyncio
import json
from collections.abc import Callable
from typing import Any, Literal, TypeVar

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Connection, Row

from farebox_collector.ledger.access.actors import acting
from farebox_collector.ledger.approvals import proposals
from farebox_collector.ledger.approvals.changes import SCOPE_TO_DECIDE, execute, policy_proposal
from farebox_collector.ledger.approvals.proposals import (
    MAX_EXPIRES_HOURS,
    BadApprovalPolicy,
    CannotDecide,
    MustWait,
    NoSuchApproval,
    NotPending,
    Policy,
    ProposalConflict,
    ProposalKind,
)
from farebox_collector.ledger.credits.movements import (
    IdempotencyConflict,
    NoSuchLot,
    NoSuchWallet,
    NotEnough,
)
from farebox_collector.model.moments import format_ns
from farebox_collector.model.money import AmountError, format_nano, parse_nano
from farebox_collector.surfaces.api.callers import caller
from farebox_collector.surfaces.api.context import Amount, Context, Name
from farebox_collector.surfaces.api.pages import (
    Cursor,
    Limit,
    Page,
    decode_cursor,
    page,
)
from farebox_collector.surfaces.api.problems import RESPONSES, ApiError, problem

NOT_DONE = (IdempotencyConflict, NotEnough, NoSuchLot, NoSuchWallet, AmountError, ValueError)
"""Errors of a proposal that was possible when proposed but is not when approved."""
Decided = TypeVar("Decided")


class Approval(BaseModel):
    """A change that waits or waited for a second person."""

    approval_id: int
    kind: proposals.ProposalKind
    summary: str
    state: proposals.ProposalState
    proposal: dict[str, Any] = Field(description="The exact change made on approval.")
    proposed_by: str = Field(description="The actor, as in the audit log.")
    author: str = Field(description="The proposer's login, or its key.")
    approved_by: list[str] = Field(description="Actors.")
    approvals_needed: int = Field(description="1, or 2 if the proposer is a key without a person.")
    proposed_at: str
    expires_at: str
    ended_at: str | None
    reason: str = Field(description="Why the proposal was refused.")
    result: dict[str, Any] | None = Field(description="Its result, such as the transaction id.")


class Refusal(BaseModel):
    """The reason for a refusal."""

    model_config = ConfigDict(extra="forbid")

    reason: Name = Field("", max_length=500)


class ApprovalPolicy(BaseModel):
    """The changes that wait for a second person; none by default."""

    model_config = ConfigDict(extra="forbid")

    movements_from_credits: Amount | None = Field(None, description="Movements of at least this amount; null: none.")
    prices: bool = False
    rules: bool = False
    expires_hours: int = Field(72, ge=1, le=MAX_EXPIRES_HOURS, description="How long a proposal waits.")


class ApprovalPolicyChange(ApprovalPolicy):
    """A new policy and its reason."""

    movements_from_credits: str | None = Field(None, max_length=40)
    reason: Name = Field(min_length=1, max_length=500)


WAITS: dict[int | str, dict[str, Any]] = {202: {"model": Approval, "description": "It waits for a second person."}}
"""The extra response of endpoints whose changes may need approval."""


def install(app: FastAPI, context: Context) -> None:
    """Store a change that needs approval as a proposal and answer 202."""

    @app.exception_handler(MustWait)
    async def _propose(_request: Request, waiting: MustWait) -> JSONResponse:
        def put(connection: Connection) -> Approval:
            row = proposals.propose(connection, context.tenant_id, waiting.proposal, context.clock())
            return show_approval(row, proposals.votes_of(connection, context.tenant_id, [row.number])[row.number])

        try:
            shown = await asyncio.to_thread(context.database.transact, put)
        except ProposalConflict as error:
            return problem(409, str(error))
        return JSONResponse(shown.model_dump(), 202)


def router(context: Context) -> APIRouter:
    """The endpoints under /v1/approvals."""
    routes = APIRouter(prefix="/v1/approvals", tags=["approvals"], responses=RESPONSES)

    @routes.get("")
    def list_approvals(
        state: proposals.ProposalState | Literal[""] = "",
        cursor: Cursor = None,
        limit: Limit = 100,
    ) -> Page[Approval]:
        """List changes that wait or waited for a second person, newest first."""
        (before,) = decode_cursor(cursor, int) or (None,)
        with context.database.reading() as connection:
            rows = proposals.approvals_of(connection, context.tenant_id, state, before, limit + 1)
            votes = proposals.votes_of(connection, context.tenant_id, [row.number for row in rows])
        return page(rows, limit, lambda row: show_approval(row, votes[row.number]), lambda row: (row.number,))

    @routes.get("/{approval_id}")
    def get_approval(approval_id: int) -> Approval:
        """Return a proposal."""
        return decided(lambda: _read(context, approval_id))

    @routes.post("/{approval_id}/approve")
    def approve(approval_id: int) -> Approval:
        """Approve another person's proposal. The last approval needed makes the change once, exactly as proposed."""
        return decided(lambda: approve_one(context, approval_id))

    @routes.post("/{approval_id}/refuse")
    def refuse(approval_id: int, request: Refusal) -> Approval:
        """Refuse a proposal permanently, or withdraw your own."""
        return decided(lambda: refuse_one(context, approval_id, request.reason))

    return routes


def policy_router(context: Context) -> APIRouter:
    """The endpoint /v1/approval-policy, for admins."""
    routes = APIRouter(prefix="/v1/approval-policy", tags=["approvals"], responses=RESPONSES)

    @routes.get("")
    def get_policy() -> ApprovalPolicy:
        """Return which changes wait for a second person."""
        with context.database.reading() as connection:
            return _show_policy(proposals.policy_of(connection, context.tenant_id))

    @routes.put("", responses=WAITS)
    def put_policy(request: ApprovalPolicyChange) -> ApprovalPolicy:
        """Set which changes wait from now on. While any change needs approval, changing this policy does too."""
        policy = Policy(_threshold(request), request.prices, request.rules, request.expires_hours)

        def put(connection: Connection) -> None:
            proposal = policy_proposal(policy, request.reason)
            proposals.require_approval(connection, context.tenant_id, proposal)
            author = acting().author
            proposals.set_policy(connection, context.tenant_id, policy, request.reason, author, context.clock())

        try:
            context.database.transact(put)
        except BadApprovalPolicy as error:
            raise ApiError(422, str(error)) from None
        return _show_policy(policy)

    return routes


def approve_one(context: Context, number: int) -> Approval:
    """Approve a proposal; the last approval needed makes the change."""

    def put(connection: Connection) -> Approval:
        tenant_id, now_ns = context.tenant_id, context.clock()
        _require_scope(proposals.approval(connection, tenant_id, number))
        row = proposals.approve(
            connection,
            tenant_id,
            number,
            now_ns,
            lambda proposed: execute(connection, proposed, now_ns, strict=context.strict),
        )
        return show_approval(row, proposals.votes_of(connection, tenant_id, [number])[number])

    return context.database.transact(put)


def refuse_one(context: Context, number: int, reason: str) -> Approval:
    """Refuse a proposal."""

    def put(connection: Connection) -> Approval:
        row = proposals.approval(connection, context.tenant_id, number)
        if row.proposer != acting().name:
            _require_scope(row)
        row = proposals.refuse(connection, context.tenant_id, number, reason, context.clock())
        return show_approval(row, proposals.votes_of(connection, context.tenant_id, [number])[number])

    return context.database.transact(put)


def decided(decide: Callable[[], Decided]) -> Decided:
    """Return the result of a decision. Raises ApiError if it cannot be made."""
    try:
        return decide()
    except (NoSuchApproval, OverflowError):
        raise ApiError(404, "there is no such proposal") from None
    except CannotDecide as error:
        raise ApiError(403, str(error)) from None
    except NotPending as error:
        raise ApiError(409, str(error)) from None
    except NOT_DONE as error:
        raise ApiError(409, f"the change is no longer possible; the proposal still waits: {error}") from None


def show_approval(row: Any, votes: list[str]) -> Approval:
    """Convert a row of `approvals` to its API model."""
    return Approval(
        approval_id=row.number,
        kind=row.kind,
        summary=row.summary,
        state=row.state,
        proposal=json.loads(row.proposal),
        proposed_by=row.proposer,
        author=row.author,
        approved_by=votes,
        approvals_needed=row.needed,
        proposed_at=format_ns(row.proposed_at_ns),
        expires_at=format_ns(row.expires_at_ns),
        ended_at=None if row.ended_at_ns is None else format_ns(row.ended_at_ns),
        reason=row.reason,
        result=json.loads(row.result) if row.result else None,
    )


def _read(context: Context, number: int) -> Approval:
    with context.database.reading() as connection:
        if abs(number) >= 2**63:
            raise NoSuchApproval
        row = proposals.approval(connection, context.tenant_id, number)
        return show_approval(row, proposals.votes_of(connection, context.tenant_id, [number])[number])


def _require_scope(row: Row[Any]) -> None:
    scope = SCOPE_TO_DECIDE[ProposalKind(row.kind)]
    if not caller().may(scope):
        raise CannotDecide(f"deciding this proposal needs the scope {scope.value}")


def _threshold(request: ApprovalPolicyChange) -> int | None:
    if request.movements_from_credits is None:
        return None
    try:
        return parse_nano(request.movements_from_credits)
    except AmountError as error:
        raise ApiError(422, f"movements_from_credits: {error}") from None


def _show_policy(policy: Policy) -> ApprovalPolicy:
    least = policy.movement_nanocredits
    return ApprovalPolicy(
        movements_from_credits=None if least is None else format_nano(least),
        prices=policy.prices,
        rules=policy.rules,
        expires_hours=policy.expires_hours,
    )
