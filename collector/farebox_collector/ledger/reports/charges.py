"""Charges of some days by any name of a call, from the roll-ups."""

from enum import StrEnum

from sqlalchemy import Connection, FromClause, Row, func, select

from farebox_collector.ledger.reports.wallet_blocks import sums_by_wallet
from farebox_collector.ledger.tables.rollups import cost_days, usage_days, within
from farebox_collector.model.moments import Days
from farebox_collector.model.verdicts import Verdict


class ChargedBy(StrEnum):
    """What charges can be grouped by."""

    EVENT = "event"
    WALLET = "wallet"
    MODEL = "model"
    PROVIDER = "provider"
    DEPT = "dept"
    PROJECT = "project"
    TASK = "task"
    ROUTE = "route"
    REGION = "region"


def charges_by(
    connection: Connection, tenant_id: int, by: ChargedBy, days: Days, limit: int
) -> list[Row[tuple[str, int, int, int]]]:
    """Return charges of these days, highest first: name, calls, charge_nanocredits, cost_nanousd."""
    source: FromClause
    if by is ChargedBy.WALLET:
        source, conditions = sums_by_wallet(connection, tenant_id, days), []
    else:
        source = usage_days if by in usage_days.c else cost_days
        conditions = [source.c.tenant_id == tenant_id, within(source.c.day, days)]
    if source is usage_days:
        conditions.append(source.c.verdict == Verdict.CHARGED)
    table = source.c
    charge, calls = func.sum(table.charge_nanocredits), func.sum(table.requests)
    name = table[by.value]
    query = (
        select(
            name.label("name"),
            calls.label("calls"),
            charge.label("charge_nanocredits"),
            func.sum(table.cost_nanousd).label("cost_nanousd"),
        )
        .where(*conditions)
        .group_by(name)
        .having(calls > 0)
    )
    return list(connection.execute(query.order_by(charge.desc(), name).limit(limit)))
