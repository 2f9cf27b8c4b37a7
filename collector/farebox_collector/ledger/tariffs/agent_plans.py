"""The plans of coding agents in the books: append-only versions. `pricing.agent_plans` says which one applies."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, func, insert, select

from farebox_collector.dialects.agents import TOOLS
from farebox_collector.ledger.access.audit_log import note
from farebox_collector.ledger.access.erased import ERASED, is_erased
from farebox_collector.ledger.tables.agents import agent_plans
from farebox_collector.model.money import MAX_SUM_NANO, NANO
from farebox_collector.pricing.agent_plans import EACH, AgentPlan

_FACTS = ("plan", "seat_nanousd_per_month", "valid_from_ns")


class BadPlan(ValueError):
    """An invalid plan; the message states the rule."""


def set_plan(
    connection: Connection,
    tenant_id: int,
    plan: AgentPlan,
    author: str,
    reason: str,
    at_ns: int,
) -> int:
    """Append a version of a plan that begins now or later; `plan.id` is ignored. Returns the version's id.

    The account is as the books name it. Raises BadPlan.
    """
    _check(connection, tenant_id, plan, at_ns)
    before = next(iter(plan_history(connection, tenant_id, plan.tool, plan.account, limit=1)), None)
    facts = {**plan._asdict(), "author": author, "reason": reason}
    del facts["id"]
    key = connection.execute(
        insert(agent_plans).values(tenant_id=tenant_id, recorded_at_ns=at_ns, **facts)
    ).inserted_primary_key
    assert key is not None
    note(
        connection,
        tenant_id,
        "agent_plan.set",
        f"{plan.tool}/{plan.account}",
        at_ns,
        before=None if before is None else {"version": before.id, **{name: getattr(before, name) for name in _FACTS}},
        after={**{name: facts[name] for name in (*_FACTS, "author", "reason")}, "version": int(key[0])},
    )
    return int(key[0])


def _check(connection: Connection, tenant_id: int, plan: AgentPlan, at_ns: int) -> None:
    if plan.tool not in (*TOOLS, EACH):
        raise BadPlan(f"unknown tool {plan.tool!r}; choose from {', '.join((*TOOLS, EACH))}")
    if not plan.account:
        raise BadPlan("an account is required; * is each account without its own plan")
    if not 0 <= plan.seat_nanousd_per_month <= MAX_SUM_NANO:
        raise BadPlan(f"a seat must cost 0 to {MAX_SUM_NANO // NANO:,} dollars a month")
    if plan.valid_from_ns < at_ns:
        raise BadPlan("a plan must begin now or later; earlier calls stay as they are")
    if is_erased(connection, tenant_id, plan.account):
        raise BadPlan(ERASED)


def plans_edition(connection: Connection) -> int:
    """Return a number that grows with every change of a plan."""
    return int(connection.execute(select(func.coalesce(func.max(agent_plans.c.id), 0))).scalar_one())


def load_plans(connection: Connection, tenant_id: int) -> list[AgentPlan]:
    """Return all versions of a tenant's plans, in the order of recording."""
    columns = [agent_plans.c[name] for name in AgentPlan._fields]
    query = select(*columns).where(agent_plans.c.tenant_id == tenant_id).order_by(agent_plans.c.id)
    return [AgentPlan(*row) for row in connection.execute(query)]


def plans_in_force(
    connection: Connection, tenant_id: int, at_ns: int, after_id: int = 0, limit: int = 1_000
) -> Sequence[Row[Any]]:
    """Return the versions in force at a moment, in the order of recording."""
    table = agent_plans.c
    newest = (
        select(func.max(table.id))
        .where(table.tenant_id == tenant_id, table.valid_from_ns <= at_ns)
        .group_by(table.tool, table.account)
    )
    query = select(agent_plans).where(
        table.tenant_id == tenant_id, table.id.in_(newest), table.plan != "", table.id > after_id
    )
    return connection.execute(query.order_by(table.id).limit(limit)).all()


def plan_history(
    connection: Connection, tenant_id: int, tool: str, account: str, before_id: int | None = None, limit: int = 1_000
) -> Sequence[Row[Any]]:
    """Return all versions of one plan, newest first."""
    table = agent_plans.c
    query = select(agent_plans).where(table.tenant_id == tenant_id, table.tool == tool, table.account == account)
    if before_id is not None:
        query = query.where(table.id < before_id)
    return connection.execute(query.order_by(table.id.desc()).limit(limit)).all()
