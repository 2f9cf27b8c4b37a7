"""Tenants: the businesses that an installation keeps books for. The key of a request determines its tenant."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection, Row, insert, select

from farebox_collector.ledger.access.audit_log import note
from farebox_collector.ledger.storage import bulk_insert
from farebox_collector.ledger.tables.books import charge_rules, tenants
from farebox_collector.model.records import DEFAULT_TENANT_ID
from farebox_collector.pricing.rules import COST_PLUS

DEFAULT_TENANT = "default"
_DEFAULT_REASON = "the default: a call is charged what it cost"
_COLUMNS = ("name", "usd_per_credit", "created_at_ns")


class TenantExists(Exception):
    """A tenant of this name already exists."""


def usd_per_credit_of(connection: Connection, tenant_id: int) -> str:
    """Return the list price of a tenant's credit, in US dollars."""
    query = select(tenants.c.usd_per_credit).where(tenants.c.id == tenant_id)
    return str(connection.execute(query).scalar_one())


def ensure_default_tenant(connection: Connection, at_ns: int) -> None:
    """Create the tenant `default`, whose wallets pay the cost of a call (1 credit = $1), unless it exists."""
    if connection.execute(select(tenants.c.id).where(tenants.c.id == DEFAULT_TENANT_ID)).first():
        return
    connection.execute(
        insert(tenants).values(id=DEFAULT_TENANT_ID, name=DEFAULT_TENANT, usd_per_credit="1", created_at_ns=at_ns)
    )
    bulk_insert.skip_taken_ids(connection, "tenants")
    _charge_what_it_costs(connection, DEFAULT_TENANT_ID, Decimal(1), at_ns)


def create_tenant(connection: Connection, name: str, usd_per_credit: Decimal, at_ns: int) -> int:
    """Create a tenant with a rule that charges every event its cost; returns its id. Raises TenantExists."""
    row = (name, format(usd_per_credit, "f"), at_ns)
    if not bulk_insert.insert_ignoring_conflicts(connection, "tenants", _COLUMNS, [row], on=("name",)):
        raise TenantExists(name)
    tenant_id = tenant_of(connection, name)
    assert tenant_id is not None
    _charge_what_it_costs(connection, tenant_id, usd_per_credit, at_ns)
    after = {"tenant": name, "tenant_id": tenant_id, "usd_per_credit": format(usd_per_credit, "f")}
    # In two logs: that of the installation's operator, and that of the new tenant, which begins with it.
    for log in sorted({DEFAULT_TENANT_ID, tenant_id}):
        note(connection, log, "tenant.create", name, at_ns, after=after)
    return tenant_id


def tenant_of(connection: Connection, name: str) -> int | None:
    """Return the id of a tenant by name; None if there is none."""
    found = connection.execute(select(tenants.c.id).where(tenants.c.name == name)).scalar()
    return None if found is None else int(found)


def tenant_ids(connection: Connection) -> list[int]:
    """Return the ids of all tenants."""
    return list(connection.execute(select(tenants.c.id).order_by(tenants.c.id)).scalars())


def tenants_after(connection: Connection, after_id: int = 0, limit: int = 100) -> Sequence[Row[Any]]:
    """Return tenants in the order of creation: id, name, usd_per_credit, created_at_ns."""
    return connection.execute(select(tenants).where(tenants.c.id > after_id).order_by(tenants.c.id).limit(limit)).all()


def _charge_what_it_costs(connection: Connection, tenant_id: int, usd_per_credit: Decimal, at_ns: int) -> None:
    connection.execute(
        insert(charge_rules).values(
            tenant_id=tenant_id,
            event="*",
            kind=COST_PLUS,
            multiplier="1",
            usd_per_credit=format(usd_per_credit, "f"),
            # From the beginning of time: a late span must find the same rule as one on time.
            valid_from_ns=0,
            valid_to_ns=None,
            author="farebox",
            reason=_DEFAULT_REASON,
            recorded_at_ns=at_ns,
        )
    )
