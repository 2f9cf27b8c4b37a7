"""The page of changes that wait for a second person."""

import asyncio
import json
from typing import Any

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from farebox_collector.ledger.access.people import logins_of
from farebox_collector.ledger.approvals import proposals
from farebox_collector.ledger.approvals.changes import SCOPE_TO_DECIDE
from farebox_collector.ledger.approvals.proposals import Policy, ProposalKind, ProposalState
from farebox_collector.model.money import format_nano
from farebox_collector.surfaces.api.approvals import approve_one, decided, refuse_one
from farebox_collector.surfaces.api.context import Context
from farebox_collector.surfaces.api.problems import ApiError
from farebox_collector.surfaces.console.account import shown_moment
from farebox_collector.surfaces.console.frame import APPROVALS, framed
from farebox_collector.surfaces.console.visit import Form, PageError, Visit

_SHOWN = 50


async def show(request: Request, context: Context, visit: Visit) -> Response:
    """The page."""
    return await _page(request, context, visit)


async def decide(request: Request, context: Context, visit: Visit, form: Form) -> Response:
    """Approve or refuse a proposal."""
    number, what = int(request.path_params["number"]), form.get("do", "")
    if what not in ("approve", "refuse") or number >= 2**63:
        raise PageError(422, "Nothing to do", "The form names no action. Send approve or refuse.")
    reason = form.get("reason", "").strip()[:500]
    if not reason.isprintable():
        raise PageError(422, "Not refused", "A reason must have printable characters only.")

    def put() -> None:
        if what == "approve":
            decided(lambda: approve_one(context, number))
        else:
            decided(lambda: refuse_one(context, number, reason))

    try:
        await asyncio.to_thread(put)
    except ApiError as error:
        if error.status_code == 403:
            raise PageError(403, "Not allowed", f"{str(error.detail).capitalize()}.") from None
        return await _page(request, context, visit, f"{str(error.detail).capitalize()}.", error.status_code)
    return RedirectResponse(APPROVALS, 303)


async def _page(request: Request, context: Context, visit: Visit, problem: str = "", status: int = 200) -> Response:
    facts = await asyncio.to_thread(_read, context, visit)
    return framed(request, visit, "approvals.html", APPROVALS, {**facts, "problem": problem}, status)


def _read(context: Context, visit: Visit) -> dict[str, Any]:
    tenant_id = visit.caller.tenant_id
    with context.database.reading() as connection:
        policy = proposals.policy_of(connection, tenant_id)
        waiting = proposals.approvals_of(connection, tenant_id, ProposalState.PENDING, limit=_SHOWN)
        newest = proposals.approvals_of(connection, tenant_id, limit=_SHOWN)
        rows = [*waiting, *(row for row in newest if row.state != ProposalState.PENDING)]
        votes = proposals.votes_of(connection, tenant_id, [row.number for row in rows])
        logins = {f"person:{number}": login for number, login in logins_of(connection, tenant_id).items()}
    return {
        "policy": _policy(policy),
        "approvals": [_shown(row, [logins.get(vote, vote) for vote in votes[row.number]], visit) for row in rows],
    }


def _shown(row: Any, approved_by: list[str], visit: Visit) -> dict[str, Any]:
    who = visit.caller
    own = bool(who.person) and who.person == row.proposer_person
    may = who.may(SCOPE_TO_DECIDE[ProposalKind(row.kind)]) and bool(who.person) and who.login not in approved_by
    return {
        "number": row.number,
        "summary": row.summary,
        "state": row.state,
        "author": row.author,
        "proposed_at": shown_moment(row.proposed_at_ns),
        "expires_at": shown_moment(row.expires_at_ns),
        "approved_by": approved_by,
        "reason": row.reason,
        "facts": [(name, _text(value)) for name, value in json.loads(row.proposal).items() if value not in ("", None)],
        "is_own": own,
        "may_decide": row.state == ProposalState.PENDING and may and not own,
    }


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {part}" for name, part in value.items() if part not in ("", None))
    return str(value)


def _policy(policy: Policy) -> str:
    waits = []
    if policy.movement_nanocredits is not None:
        waits.append(f"movements of {format_nano(policy.movement_nanocredits)} credits or more")
    waits += [name for name, on in (("prices", policy.prices), ("rules", policy.rules)) if on]
    if not waits:
        return "No change needs approval. Set which do with farebox approvals policy."
    return f"A second person approves {', '.join(waits)}. A proposal waits for {policy.expires_hours} hours."
