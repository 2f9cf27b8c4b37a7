"""Charge rules: append-only versions of what an event costs its wallet."""

from decimal import Decimal

from sqlalchemy import Connection, func, insert, select, update

from farebox_collector.ledger.tables import charge_rules, tenants
from farebox_collector.records import ChargeRule

COST_PLUS = "cost_plus"
"""The provider's cost times a multiplier."""


def set_rule(
    connection: Connection, tenant_id: int, event: str, multiplier: Decimal, author: str, reason: str, at_ns: int
) -> int:
    """Let an event be charged its cost times `multiplier` from a moment on; returns the new rule version.

    The version before ends there. Raises ValueError for a multiplier that is not positive.
    """
    if not multiplier.is_finite() or multiplier <= 0:
        raise ValueError("a multiplier is positive")
    rules = charge_rules.c
    connection.execute(
        update(charge_rules)
        .where(rules.tenant_id == tenant_id, rules.event == event, rules.valid_to_ns.is_(None))
        .values(valid_to_ns=at_ns)
    )
    usd_per_credit = connection.execute(select(tenants.c.usd_per_credit).where(tenants.c.id == tenant_id)).scalar_one()
    key = connection.execute(
        insert(charge_rules).values(
            tenant_id=tenant_id,
            event=event,
            kind=COST_PLUS,
            multiplier=format(multiplier, "f"),
            usd_per_credit=usd_per_credit,
            valid_from_ns=at_ns,
            valid_to_ns=None,
            author=author,
            reason=reason,
            recorded_at_ns=at_ns,
        )
    ).inserted_primary_key
    assert key is not None
    return int(key[0])


def rules_edition(connection: Connection) -> int:
    """A number that grows with every change of a rule."""
    return int(connection.execute(select(func.coalesce(func.max(charge_rules.c.id), 0))).scalar_one())


def load_rules(connection: Connection, tenant_id: int) -> list[ChargeRule]:
    """All charge rules of a tenant."""
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
        )
        for row in found
    ]
