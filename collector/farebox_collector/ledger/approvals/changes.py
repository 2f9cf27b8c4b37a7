"""Changes that wait for a second person: each as JSON that says exactly what is to be done, and how that is done."""

import json
from decimal import Decimal
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row

from farebox_collector.ledger.approvals.proposals import (
    Kind,
    Policy,
    Proposal,
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
    Kind.MOVEMENT: Scope.WALLETS,
    Kind.PRICE: Scope.PRICING,
    Kind.RULE: Scope.PRICING,
    Kind.POLICY: Scope.ADMIN,
}
"""What a caller needs to approve or refuse: what it would need to do it."""


class StatedPrice(NamedTuple):
    """A price as a person states it; see `prices.state_price`."""

    row: CatalogueRow
    price_per_1k: Decimal
    currency: str
    negotiated: bool
    free: bool
    from_now: bool
    """Whether it holds from the moment on at which it is set, whatever the row says."""


class StatedRule(NamedTuple):
    """A rule as a person states it; see `rules.set_rule`."""

    event: str
    terms: RuleTerms
    reason: str
    valid_from_ns: int | None
    """None is the moment at which it is set."""
    valid_to_ns: int | None


def movement_proposal(movement: Movement, moved_nanocredits: int, key: str) -> Proposal:
    """A movement under an idempotency key, which was tried and moved so many credits."""
    size = abs(moved_nanocredits)
    target = f" to {movement.to_wallet}" if movement.to_wallet else ""
    summary = f"{movement.kind} of {format_nano(size)} credits, wallet {movement.wallet}{target}"
    return Proposal(Kind.MOVEMENT, summary, {**movement._asdict(), "idempotency_key": key}, key, size)


def price_proposal(stated: StatedPrice) -> Proposal:
    """A price."""
    row, scope = stated.row, "negotiated" if stated.negotiated else "list"
    what = f"{scope} price of {row.provider}/{row.model} {row.unit}"
    change = {**stated._asdict(), "row": _texts(row._asdict()), "price_per_1k": str(stated.price_per_1k)}
    return Proposal(Kind.PRICE, f"{what}: {stated.price_per_1k} {stated.currency} per 1,000", change)


def rule_proposal(stated: StatedRule) -> Proposal:
    """A charge rule."""
    change = {**stated._asdict(), "terms": _texts(stated.terms._asdict())}
    return Proposal(Kind.RULE, f"rule of {stated.event}: {describe(stated.terms)}", change)


def policy_proposal(policy: Policy, reason: str) -> Proposal:
    """Another policy of what has to wait."""
    change = {"policy": policy._asdict(), "reason": reason}
    return Proposal(Kind.POLICY, "another approval policy", change)


def execute(connection: Connection, row: Row[Any], at_ns: int, *, strict: bool = False) -> dict[str, Any]:
    """Do what a proposal says, no more and no less; what came of it. Raises what doing it raises."""
    change, tenant_id = json.loads(row.proposal), row.tenant_id
    kind = Kind(row.kind)
    if kind is Kind.MOVEMENT:
        key = change.pop("idempotency_key")
        movement = Movement(**{**change, "kind": MovementKind(change["kind"])})
        made = move(connection, tenant_id, movement, key, at_ns, strict=strict)
        return {"transaction_id": made.transaction_id, "lot_id": made.lot_id}
    if kind is Kind.PRICE:
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
    if kind is Kind.RULE:
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
