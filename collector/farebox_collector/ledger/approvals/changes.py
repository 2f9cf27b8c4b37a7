"""Changes that need a second person: their proposals as JSON, and their execution."""

import json
from decimal import Decimal
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row

from farebox_collector.ledger.approvals.proposals import (
    Policy,
    Proposal,
    ProposalKind,
    set_policy,
)
from farebox_collector.ledger.credits.movements import Kind as MovementKind
from farebox_collector.ledger.credits.movements import Movement, move
from farebox_collector.ledger.tariffs.effective_times import starts_ns
from farebox_collector.ledger.tariffs.prices import state_price
from farebox_collector.ledger.tariffs.rules import RuleAuthorship, set_rule
from farebox_collector.model.credentials import Scope
from farebox_collector.model.money import format_nano
from farebox_collector.model.records import CatalogueRow
from farebox_collector.pricing.rules import RuleTerms, describe

SCOPE_TO_DECIDE = {
    ProposalKind.MOVEMENT: Scope.WALLETS,
    ProposalKind.PRICE: Scope.PRICING,
    ProposalKind.RULE: Scope.PRICING,
    ProposalKind.POLICY: Scope.ADMIN,
}
"""Scope required to approve or refuse a proposal: that of the change itself."""


class StatedPrice(NamedTuple):
    """A price as stated in a request; see `prices.state_price`."""

    row: CatalogueRow
    price_per_1k: Decimal
    currency: str
    negotiated: bool
    free: bool
    from_now: bool
    """Whether it applies from its execution on, regardless of the row."""


class StatedRule(NamedTuple):
    """A rule as stated in a request; see `rules.set_rule`."""

    event: str
    terms: RuleTerms
    reason: str
    valid_from_ns: int | None
    """None: from its execution on."""
    valid_to_ns: int | None


def movement_proposal(movement: Movement, moved_nanocredits: int, key: str) -> Proposal:
    """Propose a movement under an idempotency key; a trial moved so many credits."""
    size = abs(moved_nanocredits)
    target = f" to {movement.to_wallet}" if movement.to_wallet else ""
    summary = f"{movement.kind} of {format_nano(size)} credits, wallet {movement.wallet}{target}"
    return Proposal(ProposalKind.MOVEMENT, summary, {**movement._asdict(), "idempotency_key": key}, key, size)


def price_proposal(stated: StatedPrice) -> Proposal:
    """Propose a price."""
    row, scope = stated.row, "negotiated" if stated.negotiated else "list"
    what = f"{scope} price of {row.provider}/{row.model} {row.unit}"
    change = {**stated._asdict(), "row": _texts(row._asdict()), "price_per_1k": str(stated.price_per_1k)}
    return Proposal(ProposalKind.PRICE, f"{what}: {stated.price_per_1k} {stated.currency} per 1,000", change)


def rule_proposal(stated: StatedRule) -> Proposal:
    """Propose a charge rule."""
    change = {**stated._asdict(), "terms": _texts(stated.terms._asdict())}
    return Proposal(ProposalKind.RULE, f"rule of {stated.event}: {describe(stated.terms)}", change)


def policy_proposal(policy: Policy, reason: str) -> Proposal:
    """Propose another approval policy."""
    change = {"policy": policy._asdict(), "reason": reason}
    return Proposal(ProposalKind.POLICY, "another approval policy", change)


def execute(connection: Connection, row: Row[Any], at_ns: int, *, strict: bool = False) -> dict[str, Any]:
    """Execute a proposal exactly as stored; returns the result. Raises the errors of the change."""
    change, tenant_id = json.loads(row.proposal), row.tenant_id
    kind = ProposalKind(row.kind)
    if kind is ProposalKind.MOVEMENT:
        key = change.pop("idempotency_key")
        movement = Movement(**{**change, "kind": MovementKind(change["kind"])})
        made = move(connection, tenant_id, movement, key, at_ns, strict=strict)
        return {"transaction_id": made.transaction_id, "lot_id": made.lot_id}
    if kind is ProposalKind.PRICE:
        fields = {
            **change["row"],
            **{name: Decimal(change["row"][name]) for name in ("usd_per_1k", "usd_per_currency")},
        }
        stated_row = CatalogueRow(**fields)
        if change["from_now"]:
            stated_row = stated_row._replace(valid_from_ns=starts_ns(at_ns, None))
        owner = tenant_id if change["negotiated"] else None
        price = Decimal(change["price_per_1k"])
        done = state_price(connection, stated_row, price, change["currency"], row.author, at_ns, owner, change["free"])
        return {"added": done.added, "closed": done.closed}
    if kind is ProposalKind.RULE:
        figures = {name: Decimal(text) for name, text in change["terms"].items() if name != "kind"}
        authorship = RuleAuthorship(row.author, change["reason"])
        version = set_rule(
            connection,
            tenant_id,
            change["event"],
            RuleTerms(change["terms"]["kind"], **figures),
            authorship,
            at_ns,
            starts_ns(at_ns, change["valid_from_ns"]),
            change["valid_to_ns"],
        )
        return {"version_id": version}
    set_policy(connection, tenant_id, Policy(**change["policy"]), change["reason"], row.author, at_ns)
    return {}


def _texts(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: str(value) if isinstance(value, Decimal) else value for name, value in fields.items()}
