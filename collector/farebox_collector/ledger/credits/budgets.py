"""Monthly budgets of departments. Append-only; the newest version is in force."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, func, insert, select

from farebox_collector.ledger.access.audit_log import note
from farebox_collector.ledger.tables.service import budgets
from farebox_collector.model.money import MAX_SUM_NANO, NANO


def set_budget(
    connection: Connection, tenant_id: int, dept: str, nanousd_per_month: int, author: str, reason: str, at_ns: int
) -> int:
    """Set a department's monthly budget from now on; 0 ends it. Returns the version. Raises ValueError."""
    if not 0 <= nanousd_per_month <= MAX_SUM_NANO:
        raise ValueError(f"a budget must be 0 to {MAX_SUM_NANO // NANO:,} dollars")
    before = [row for row in budgets_in_force(connection, tenant_id) if row.dept == dept]
    row = insert(budgets).values(
        tenant_id=tenant_id,
        dept=dept,
        nanousd_per_month=nanousd_per_month,
        author=author,
        reason=reason,
        recorded_at_ns=at_ns,
    )
    key = connection.execute(row).inserted_primary_key
    assert key is not None
    note(
        connection,
        tenant_id,
        "budget.set",
        dept,
        at_ns,
        before={"nanousd_per_month": before[0].nanousd_per_month if before else 0},
        after={"nanousd_per_month": nanousd_per_month, "author": author, "reason": reason, "version": int(key[0])},
    )
    return int(key[0])


def budgets_in_force(connection: Connection, tenant_id: int | None = None) -> Sequence[Row[Any]]:
    """Return the version in force for each department, of one tenant or all; ended budgets are left out."""
    newest = select(func.max(budgets.c.id)).group_by(budgets.c.tenant_id, budgets.c.dept)
    chosen = select(budgets).where(budgets.c.id.in_(newest), budgets.c.nanousd_per_month > 0)
    if tenant_id is not None:
        chosen = chosen.where(budgets.c.tenant_id == tenant_id)
    return connection.execute(chosen.order_by(budgets.c.dept)).all()
