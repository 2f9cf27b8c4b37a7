"""Spending policies: daily and monthly limits of wallets, their users, departments and projects."""

from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from farebox_collector.ledger.access.actors import acting
from farebox_collector.ledger.credits.policies import (
    NO_LIMITS,
    Authorship,
    BadPolicy,
    Terms,
    Validity,
    policies_in_force,
    policies_of,
    policy_history,
    set_policy,
)
from farebox_collector.ledger.credits.policies import Policy as InForce
from farebox_collector.ledger.credits.spending import (
    LimitScope,
    Spent,
    Subject,
    held_of,
    in_books,
    spent_of,
    subjects_of,
)
from farebox_collector.model.moments import format_ns
from farebox_collector.model.money import AmountError, format_nano, parse_nano
from farebox_collector.model.names import MAX_NAME
from farebox_collector.surfaces.api.context import (
    STATED_AUTHOR,
    Amount,
    Context,
    Name,
    NameInBooks,
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

_LIMITS = ("day_credits", "month_credits", "soft_day_credits", "soft_month_credits")


class PolicyRequest(BaseModel):
    """A spending policy, from now or a later time on. Without a limit it ends the previous policy."""

    model_config = ConfigDict(extra="forbid")

    scope: LimitScope
    name: Name = Field(
        min_length=1, max_length=MAX_NAME, description="Wallet, department or project; `*`: each without its own."
    )
    user: Name = Field(
        "", max_length=MAX_NAME, description="For the scope `user`: the wallet's user; `*`: each without its own."
    )
    hard_stop: bool = Field(True, description="For wallets: refuse holds that would take it below zero.")
    day_credits: str | None = Field(None, description="Maximum credits per UTC day.")
    month_credits: str | None = Field(None, description="Maximum credits per UTC month.")
    soft_day_credits: str | None = Field(None, description="Credits per UTC day above which the webhook is called.")
    soft_month_credits: str | None = Field(None, description="Credits per UTC month above which the webhook is called.")
    valid_from: AwareDatetime | None = Field(None, description="When it starts (default: now).")
    valid_to: AwareDatetime | None = Field(None, description="When it ends; the previous policy then applies again.")
    author: Name = STATED_AUTHOR
    reason: Name = Field(min_length=1, max_length=500, description="Why; kept with the policy.")


class Policy(BaseModel):
    """One version of a policy."""

    policy_id: str
    scope: LimitScope
    name: str
    user: str
    hard_stop: bool
    day_credits: Amount | None
    month_credits: Amount | None
    soft_day_credits: Amount | None
    soft_month_credits: Amount | None
    valid_from: str
    valid_to: str | None
    author: str
    reason: str
    recorded_at: str


class Standing(BaseModel):
    """A subject's limits, spending and remainder; negative where usage exceeded the limit."""

    scope: LimitScope
    name: str
    user: str
    policy_id: str | None = Field(description="The version in force; null if there is none.")
    spent_day_credits: Amount
    spent_month_credits: Amount
    held_credits: Amount
    left_day_credits: Amount | None = Field(description="The day's limit less spent and held credits.")
    left_month_credits: Amount | None
    overspent: bool = Field(description="Whether usage exceeded a limit that stops holds.")


class Standings(BaseModel):
    """The standing of every subject that a hold with these names would count for."""

    items: list[Standing]
    next_cursor: None = None


def router(context: Context) -> APIRouter:
    """The endpoints under /v1/policies."""
    routes = APIRouter(prefix="/v1/policies", tags=["policies"], responses=RESPONSES)

    @routes.get("")
    def list_policies(cursor: Cursor = None, limit: Limit = 100) -> Page[Policy]:
        """List the policies in force, in the order of creation."""
        (after,) = decode_cursor(cursor, int) or (0,)
        with context.database.reading() as connection:
            rows = policies_in_force(connection, context.tenant_id, context.clock(), after, limit + 1)
        return page(rows, limit, _show, lambda row: (row.id,))

    @routes.post("", status_code=201)
    def add_policy(request: PolicyRequest) -> Policy:
        """Set a spending policy; earlier versions are kept."""
        terms, validity = _terms(request), _validity(request)
        subject, authorship = _subject(request), Authorship(acting().author, request.reason)
        at_ns = context.clock()
        try:
            version = context.database.transact(
                lambda connection: set_policy(
                    connection, context.tenant_id, subject, terms, authorship, at_ns, validity
                )
            )
        except BadPolicy as error:
            raise ApiError(422, str(error)) from None
        with context.database.reading() as connection:
            rows = policy_history(connection, context.tenant_id, subject)
        return _show(next(row for row in rows if row.id == version))

    @routes.get("/history")
    def get_history(
        scope: LimitScope,
        name: Annotated[Name, Query(min_length=1, max_length=MAX_NAME)],
        user: Name = "",
        cursor: Cursor = None,
        limit: Limit = 100,
    ) -> Page[Policy]:
        """List every version of a policy, newest first."""
        (before,) = decode_cursor(cursor, int) or (None,)
        subject = in_books(Subject(scope, name, user))
        with context.database.reading() as connection:
            rows = policy_history(connection, context.tenant_id, subject, before, limit + 1)
        return page(rows, limit, _show, lambda row: (row.id,))

    @routes.get("/standing")
    def get_standing(
        wallet: NameInBooks = "", user: NameInBooks = "", dept: Name = "", project: Name = ""
    ) -> Standings:
        """Return what a wallet, its user, a department and a project may still spend by the policies in force."""
        subjects = [Subject(LimitScope.WALLET, wallet)] if wallet else []
        subjects += subjects_of(wallet, user if wallet else "", dept, project)
        at_ns = context.clock()
        with context.database.reading() as connection:
            policies = policies_of(connection, context.tenant_id, subjects, at_ns) if subjects else {}
            spent = spent_of(connection, context.tenant_id, subjects, at_ns)
            held = held_of(connection, context.tenant_id, subjects, at_ns)
        return Standings(items=[_standing(one, policies.get(one), spent[one], held[one]) for one in subjects])

    return routes


def _standing(subject: Subject, policy: InForce | None, spent: Spent, held: int) -> Standing:
    terms = NO_LIMITS if policy is None else policy.terms
    limits = ((terms.day_limit_nano, spent.day), (terms.month_limit_nano, spent.month))
    left = [None if limit is None else limit - gone - held for limit, gone in limits]
    return Standing(
        scope=subject.scope,
        name=subject.name,
        user=subject.user_id,
        policy_id=None if policy is None else str(policy.id),
        spent_day_credits=format_nano(spent.day),
        spent_month_credits=format_nano(spent.month),
        held_credits=format_nano(held),
        left_day_credits=_amount(left[0]),
        left_month_credits=_amount(left[1]),
        overspent=any(limit is not None and gone > limit for limit, gone in limits),
    )


def _subject(request: PolicyRequest) -> Subject:
    return in_books(Subject(request.scope, request.name, request.user))


def _terms(request: PolicyRequest) -> Terms:
    return Terms(request.hard_stop, *(_limit(name, getattr(request, name)) for name in _LIMITS))


def _limit(name: str, text: str | None) -> int | None:
    if text is None:
        return None
    try:
        return parse_nano(text)
    except AmountError as error:
        raise ApiError(422, f"{name}: {error}") from None


def _validity(request: PolicyRequest) -> Validity:
    begin, end = request.valid_from, request.valid_to
    return Validity(None if begin is None else moment_ns(begin), None if end is None else moment_ns(end))


def _amount(nano: int | None) -> str | None:
    return None if nano is None else format_nano(nano)


def _show(row: Any) -> Policy:
    return Policy(
        policy_id=str(row.id),
        scope=row.scope,
        name=row.name,
        user=row.user_id,
        hard_stop=bool(row.hard_stop),
        day_credits=_amount(row.day_limit_nano),
        month_credits=_amount(row.month_limit_nano),
        soft_day_credits=_amount(row.soft_day_limit_nano),
        soft_month_credits=_amount(row.soft_month_limit_nano),
        valid_from=format_ns(row.valid_from_ns),
        valid_to=None if row.valid_to_ns is None else format_ns(row.valid_to_ns),
        author=row.author,
        reason=row.reason,
        recorded_at=format_ns(row.recorded_at_ns),
    )
