"""Charge rules: what an event costs its wallet, each version's author and reason, and simulations."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any, Literal

from fastapi import APIRouter
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field
from sqlalchemy import Connection

from farebox_collector.ledger.access.actors import acting
from farebox_collector.ledger.approvals.changes import StatedRule, rule_proposal
from farebox_collector.ledger.approvals.proposals import require_approval
from farebox_collector.ledger.reports import simulation, statements
from farebox_collector.ledger.reports.terms import MEANINGS, Term, margin_at_list
from farebox_collector.ledger.tariffs.effective_times import CannotBegin, begin
from farebox_collector.ledger.tariffs.rules import RuleAuthorship, RuleOverlap, set_rule
from farebox_collector.model.moments import DAY_NS, format_ns
from farebox_collector.model.money import format_nano
from farebox_collector.model.names import MAX_NAME, is_valid_text
from farebox_collector.pricing.rules import (
    COST_PLUS,
    PER_1K_TOKENS,
    BadRule,
    RuleTerms,
    describe,
    rule_terms,
)
from farebox_collector.surfaces.api.approvals import WAITS
from farebox_collector.surfaces.api.context import (
    STATED_AUTHOR,
    Amount,
    Context,
    Name,
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

MOST_SIMULATED = 250_000
"""Maximum calls per simulation request: a few seconds of work. The command has no such bound."""

_FIGURES = tuple(name for name in RuleTerms._fields if name != "kind")
_DECIMAL = r"^([0-9]{1,7}(\.[0-9]{1,18})?)?$"

Figure = Annotated[str, Field("", pattern=_DECIMAL, description="A decimal; empty if the kind does not use it.")]


class Terms(BaseModel):
    """The terms of a rule. `docs/explanation/credits.md` defines what each kind charges."""

    model_config = ConfigDict(extra="forbid")

    kind: Literal["flat", "per_1k_tokens", "cost_plus"]
    multiplier: Figure
    minimum_credits: Figure
    flat_credits: Figure
    input_credits_per_1k: Figure
    cached_credits_per_1k: Figure = Field(description="Empty charges cached tokens like other input tokens.")
    output_credits_per_1k: Figure


class RuleRequest(Terms):
    """A rule to set."""

    event: Name = Field(min_length=1, max_length=MAX_NAME, description="`*` is every event without its own rule.")
    reason: Name = Field(min_length=1, max_length=500, description="Why; kept with the rule.")
    author: Name = STATED_AUTHOR
    valid_from: AwareDatetime | None = Field(None, description="When it starts: now (the default) or later.")
    valid_to: AwareDatetime | None = Field(None, description="When it ends; `*` applies afterwards.")


class SimulationRequest(Terms):
    """Proposed terms to simulate on past calls."""

    event: Name = Field(min_length=1, max_length=MAX_NAME)
    days: int = Field(30, ge=1, le=366, description="Number of past days.")
    limit: int = Field(100, ge=1, le=1_000, description="Maximum wallets in the response.")


class Rule(BaseModel):
    """One version of a rule; immutable except for the end that its successor sets."""

    version_id: int
    event: str
    kind: str
    terms: str = Field(description="The terms in words.")
    multiplier: str
    minimum_credits: str
    flat_credits: str
    input_credits_per_1k: str
    cached_credits_per_1k: str
    output_credits_per_1k: str
    usd_per_credit: str = Field(description="The price of a credit when the rule was set.")
    valid_from: str
    valid_to: str | None
    author: str
    reason: str


class Outcome(BaseModel):
    """Actual and proposed charges of calls."""

    name: str
    calls: int
    charged_credits: Amount
    proposed_credits: Amount
    difference_credits: Amount
    cost_usd: Amount = Field(description=MEANINGS[Term.COST])
    charge_value_usd: Amount = Field(description=MEANINGS[Term.CHARGE_VALUE])
    proposed_value_usd: Amount = Field(description="The charge value of the proposed charge.")
    margin_at_list_percent: str | None = Field(description=MEANINGS[Term.MARGIN_AT_LIST])
    proposed_margin_at_list_percent: str | None = Field(description="The same for the proposed charge.")


class Simulation(BaseModel):
    """Actual and proposed charges of the last days, by event and by wallet."""

    days: int
    rule: str
    by_event: list[Outcome]
    by_wallet: list[Outcome] = Field(description="Highest proposed charge first.")


def router(context: Context) -> APIRouter:
    """The endpoints under /v1/rules that list and set rules."""
    routes = APIRouter(prefix="/v1/rules", tags=["rules"], responses=RESPONSES)

    @routes.get("")
    def list_rules(at: AwareDatetime | None = None, cursor: Cursor = None, limit: Limit = 100) -> Page[Rule]:
        """List the rules in force at a time (default: now), by event."""
        at_ns = context.clock() if at is None else moment_ns(at)
        return _rules(context, cursor, limit, at_ns=at_ns)

    @routes.get("/history")
    def list_versions(event: Name = "", cursor: Cursor = None, limit: Limit = 100) -> Page[Rule]:
        """List every version of all rules, or of one event's rule, with author and reason."""
        return _rules(context, cursor, limit, event=event)

    @routes.post("", status_code=201, responses=WAITS)
    def create_rule(request: RuleRequest) -> Rule:
        """Set an event's charge terms from now or a later time on. Earlier versions are kept.

        A rule from now on takes effect a quarter of a second later (`valid_from`); the response comes then.
        """
        if not is_valid_text(request.event):
            raise ApiError(422, f"event: must have 1 to {MAX_NAME} printable characters")
        start_ns, end_ns = (None if at is None else moment_ns(at) for at in (request.valid_from, request.valid_to))
        authorship = RuleAuthorship(acting().author, request.reason)
        terms = _terms(request)

        def put(connection: Connection, at_ns: int, begins_ns: int) -> Rule:
            version = set_rule(
                connection, context.tenant_id, request.event, terms, authorship, at_ns, begins_ns, end_ns
            )
            stated = StatedRule(request.event, terms, request.reason, start_ns, end_ns)
            require_approval(connection, context.tenant_id, rule_proposal(stated))
            return show_rule(statements.charge_rule(connection, version))

        try:
            return begin(context.database, context.clock, start_ns, put)
        except CannotBegin as error:
            raise ApiError(503, str(error)) from None
        except RuleOverlap as error:
            raise ApiError(409, str(error)) from None
        except BadRule as error:
            raise ApiError(422, str(error)) from None

    return routes


def simulation_router(context: Context) -> APIRouter:
    """The endpoint /v1/rules/simulate: a POST that changes nothing."""
    routes = APIRouter(prefix="/v1/rules", tags=["rules"], responses=RESPONSES)

    @routes.post("/simulate")
    def simulate(request: SimulationRequest) -> Simulation:
        """Simulate a rule on the last days: what it would have charged, at which margin at list. Changes nothing."""
        terms, now_ns = _terms(request), context.clock()
        from_ns = max(0, now_ns - request.days * DAY_NS)
        with context.database.reading() as connection:
            if simulation.calls_at_most(connection, context.tenant_id, from_ns, now_ns) > MOST_SIMULATED:
                raise ApiError(
                    422,
                    f"days: more than {MOST_SIMULATED:,} calls; ask for fewer days, or run `farebox rules simulate`",
                )
            try:
                found = simulation.simulate(connection, context.tenant_id, request.event, terms, from_ns, now_ns)
            except BadRule as error:
                raise ApiError(422, str(error)) from None
        wallets = sorted(found.by_wallet.items(), key=lambda item: -item[1].proposed_nanocredits)
        return Simulation(
            days=request.days,
            rule=describe(terms),
            by_event=[show_outcome(name, row) for name, row in found.by_event.items()],
            by_wallet=[show_outcome(name, row) for name, row in wallets[: request.limit]],
        )

    return routes


def show_rule(row: Any) -> Rule:
    """Convert a row of `charge_rules` to its API model."""
    figures = {name: getattr(row, name) for name in _FIGURES}
    return Rule(
        version_id=row.id,
        event=row.event,
        kind=row.kind,
        terms=describe(rule_terms(row.kind, figures)),
        **figures,
        usd_per_credit=row.usd_per_credit,
        valid_from=format_ns(row.valid_from_ns),
        valid_to=None if row.valid_to_ns is None else format_ns(row.valid_to_ns),
        author=row.author,
        reason=row.reason,
    )


def show_outcome(name: str, row: simulation.Outcome) -> Outcome:
    """Convert a simulation's outcome for an event or wallet to its API model."""
    return Outcome(
        name=name,
        calls=row.calls,
        charged_credits=format_nano(row.charged_nanocredits),
        proposed_credits=format_nano(row.proposed_nanocredits),
        difference_credits=format_nano(row.proposed_nanocredits - row.charged_nanocredits),
        cost_usd=format_nano(row.cost_nanousd),
        charge_value_usd=format_nano(row.charge_value_nanousd),
        proposed_value_usd=format_nano(row.proposed_value_nanousd),
        margin_at_list_percent=margin_at_list(row.charge_value_nanousd, row.cost_nanousd),
        proposed_margin_at_list_percent=margin_at_list(row.proposed_value_nanousd, row.cost_nanousd),
    )


def stated_terms(kind: str, figures: Mapping[str, Decimal]) -> RuleTerms:
    """Return the terms of the stated figures; without a price for cached tokens, the input price applies.

    A multiplier must be stated, even if it is 1.
    """
    known = dict(figures)
    if kind == PER_1K_TOKENS and "input_credits_per_1k" in known:
        known.setdefault("cached_credits_per_1k", known["input_credits_per_1k"])
    return RuleTerms(kind, **known)


def _terms(request: Terms) -> RuleTerms:
    figures = {name: Decimal(text) for name in _FIGURES if (text := getattr(request, name))}
    if request.kind == COST_PLUS and "multiplier" not in figures:
        raise ApiError(422, "multiplier: allowed only for cost_plus rules")
    if request.kind != COST_PLUS and not figures:
        raise ApiError(422, f"a {request.kind} rule must state its charge, even if it is 0")
    return stated_terms(request.kind, figures)


def _rules(context: Context, cursor: str | None, limit: int, event: str = "", at_ns: int | None = None) -> Page[Rule]:
    position = decode_cursor(cursor, str, int)
    with context.database.reading() as connection:
        rows = statements.charge_rules_of(connection, context.tenant_id, event, at_ns, position, limit + 1)
    return page(rows, limit, show_rule, lambda row: (row.event, row.valid_from_ns))
