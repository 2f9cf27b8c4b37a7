"""Charge rules: append-only versions of what a call of an event costs its wallet."""

from decimal import Decimal
from typing import Any, NamedTuple

from sqlalchemy import Connection, func, insert, or_, select, true, update

from farebox_collector.ledger.access.audit_log import note
from farebox_collector.ledger.tables.books import charge_rules, tenants
from farebox_collector.ledger.usage.action_joins import join_recorded_calls
from farebox_collector.model.moments import format_ns
from farebox_collector.model.records import ChargeRule
from farebox_collector.pricing.rules import (
    EVERY_OTHER_EVENT,
    BadRule,
    RuleTerms,
    require_chargeable,
)


class RuleOverlap(ValueError):
    """A rule would overlap another version; the message names it."""


class RuleAuthorship(NamedTuple):
    """The author of a rule and the reason."""

    author: str
    reason: str


def set_rule(
    connection: Connection,
    tenant_id: int,
    event: str,
    terms: RuleTerms,
    authorship: RuleAuthorship,
    at_ns: int,
    valid_from_ns: int | None = None,
    valid_to_ns: int | None = None,
) -> int:
    """Charge an event by these terms, from now or a later moment on; returns the new rule version.

    An earlier version without an end ends there; a version with an end is kept. Raises BadRule for invalid terms, and
    RuleOverlap.
    """
    require_chargeable(terms)
    start_ns = at_ns if valid_from_ns is None else valid_from_ns
    if start_ns < at_ns:
        raise BadRule("a rule must begin now or later; earlier charges stay as they are")
    if valid_to_ns is not None and valid_to_ns <= start_ns:
        raise BadRule("a rule must end after it begins")
    usd_per_credit = connection.execute(
        # Locked until the end of the transaction: a concurrent setter of rules sees this one.
        select(tenants.c.usd_per_credit).where(tenants.c.id == tenant_id).with_for_update()
    ).scalar_one()
    before = _at(connection, tenant_id, event, start_ns)
    _end_replaced(connection, tenant_id, event, start_ns, valid_to_ns)
    if (terms.flat_credits or terms.minimum_credits) and not _has_floors(connection, tenant_id, event):
        join_recorded_calls(connection, tenant_id, event, at_ns)
    key = connection.execute(
        insert(charge_rules).values(
            tenant_id=tenant_id,
            event=event,
            usd_per_credit=usd_per_credit,
            valid_from_ns=start_ns,
            valid_to_ns=valid_to_ns,
            recorded_at_ns=at_ns,
            kind=terms.kind,
            **{name: format(figure, "f") for name, figure in terms._asdict().items() if name != "kind"},
            **authorship._asdict(),
        )
    ).inserted_primary_key
    assert key is not None
    facts = {**terms._asdict(), "valid_from_ns": start_ns, "valid_to_ns": valid_to_ns, **authorship._asdict()}
    note(connection, tenant_id, "rule.set", event, at_ns, before=before, after={**facts, "version": int(key[0])})
    return int(key[0])


def _at(connection: Connection, tenant_id: int, event: str, at_ns: int) -> dict[str, Any] | None:
    """Return the version of an event's rule at a moment, as for the audit log; None if there is none."""
    rules = charge_rules.c
    holds = (rules.valid_from_ns <= at_ns, or_(rules.valid_to_ns.is_(None), rules.valid_to_ns > at_ns))
    row = connection.execute(
        select(charge_rules).where(rules.tenant_id == tenant_id, rules.event == event, *holds).order_by(rules.id.desc())
    ).first()
    return None if row is None else {"version": row.id, **{name: getattr(row, name) for name in RuleTerms._fields}}


def _end_replaced(connection: Connection, tenant_id: int, event: str, start_ns: int, end_ns: int | None) -> None:
    """End the version that a new one replaces. Raises RuleOverlap."""
    rules = charge_rules.c
    of_event = (rules.tenant_id == tenant_id, rules.event == event)
    overlapping = connection.execute(
        select(rules.id, rules.valid_from_ns, rules.valid_to_ns).where(
            *of_event,
            or_(rules.valid_to_ns.is_(None), rules.valid_to_ns > start_ns),
            # A version that was replaced before it began never applies.
            or_(rules.valid_to_ns.is_(None), rules.valid_to_ns > rules.valid_from_ns),
            true() if end_ns is None else rules.valid_from_ns < end_ns,
        )
    ).all()
    for version in overlapping:
        if version.valid_to_ns is not None or version.valid_from_ns >= start_ns:
            until = "" if version.valid_to_ns is None else f" to {format_ns(version.valid_to_ns)}"
            raise RuleOverlap(
                f"rule version {version.id} of {event} applies from {format_ns(version.valid_from_ns)}{until}"
            )
        connection.execute(update(charge_rules).where(rules.id == version.id).values(valid_to_ns=start_ns))


def _has_floors(connection: Connection, tenant_id: int, event: str) -> bool:
    """Return whether calls of an event are already joined to actions: one of its rules ever had a floor."""
    rules = charge_rules.c
    versions = select(rules.flat_credits, rules.minimum_credits).where(
        rules.tenant_id == tenant_id, rules.event.in_((event, EVERY_OTHER_EVENT))
    )
    return any(Decimal(flat) or Decimal(minimum) for flat, minimum in connection.execute(versions))


def rules_edition(connection: Connection) -> int:
    """Return a number that grows with every change of a rule."""
    return int(connection.execute(select(func.coalesce(func.max(charge_rules.c.id), 0))).scalar_one())


def load_rules(connection: Connection, tenant_id: int) -> list[ChargeRule]:
    """Return all charge rules of a tenant."""
    rules = charge_rules.c
    found = connection.execute(select(charge_rules).where(rules.tenant_id == tenant_id).order_by(rules.id))
    return [
        ChargeRule(
            id=row.id,
            event=row.event,
            kind=row.kind,
            multiplier=Decimal(row.multiplier),
            usd_per_credit=Decimal(row.usd_per_credit),
            valid_from_ns=row.valid_from_ns,
            valid_to_ns=row.valid_to_ns,
            minimum_credits=Decimal(row.minimum_credits),
            flat_credits=Decimal(row.flat_credits),
            input_credits_per_1k=Decimal(row.input_credits_per_1k),
            cached_credits_per_1k=Decimal(row.cached_credits_per_1k),
            output_credits_per_1k=Decimal(row.output_credits_per_1k),
        )
        for row in found
    ]
