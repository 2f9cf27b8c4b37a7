"""What coding agents used, by developer, repository, session and more. Read from the records of the calls.

The records of these days must have their detail: no roll-up knows sessions and developers.
"""

from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, Connection, CursorResult, Row, and_, case, distinct, func, literal, select

from farebox_collector.dialects.agents import TOOLS
from farebox_collector.ledger.storage.differences import json_number
from farebox_collector.ledger.tables.books import usage_records
from farebox_collector.ledger.tables.usage_columns import Tokens, token_columns
from farebox_collector.ledger.usage.tombstones import require_detail
from farebox_collector.model.moments import DAY_NS, Days
from farebox_collector.model.records import UNDER_SUBSCRIPTION
from farebox_collector.model.verdicts import ONE_CALL, Verdict

_ROWS_AT_ONCE = 1_000
_LIST_COST = ("priced", "list_cost_nanousd")
"""Where the unusual facts of a record have the list price of a call that costs something else."""
_SUBSCRIBED = (
    usage_records.c.verdict == Verdict.CHARGED,
    usage_records.c.assumptions.contains(UNDER_SUBSCRIPTION),
)
"""The calls that a subscription pays."""


class AgentGroup(StrEnum):
    """What the calls of coding agents can be grouped by."""

    DAY = "day"
    TOOL = "tool"
    DEVELOPER = "developer"
    TEAM = "team"
    REPOSITORY = "repository"
    WORK = "work"
    """The pull request, else the branch."""
    SUBAGENT = "subagent"
    SESSION = "session"
    MODEL = "model"


def developer() -> ColumnElement[str]:
    """Return who made a call: the user of a wallet that several share, else the wallet."""
    table = usage_records.c
    return case((table.user_id != "", table.user_id), else_=table.wallet)


def agent_usage(connection: Connection, tenant_id: int, days: Days, groups: Sequence[AgentGroup]) -> Iterator[Row[Any]]:
    """Yield the calls of coding agents by these groups, highest cost first, one row of sums without groups.

    Each row has requests, errors, sessions, developers, input_tokens, cache_read_tokens, output_tokens, cost_nanousd,
    list_cost_nanousd (of calls that a subscription pays) and charge_nanocredits; sums of nothing are NULL. The start
    of a call decides on its day. Raises DetailRetired.
    """
    from_ns, to_ns = days.first * DAY_NS, days.end * DAY_NS
    require_detail(connection, tenant_id, from_ns, to_ns, "ask for later days")
    table = usage_records.c
    columns = [_column(group).label(group.value) for group in groups]
    cost, listed = func.sum(table.cost_nanousd), func.sum(_list_cost(connection))
    query = select(
        *columns,
        func.count().label("requests"),
        func.sum(case((table.error_type != "", 1), else_=0)).label("errors"),
        func.count(distinct(func.nullif(table.action_id, ""))).label("sessions"),
        func.count(distinct(developer())).label("developers"),
        _sum_of(Tokens.INPUT).label("input_tokens"),
        func.sum(table.cache_read_tokens).label("cache_read_tokens"),
        _sum_of(Tokens.OUTPUT).label("output_tokens"),
        cost.label("cost_nanousd"),
        listed.label("list_cost_nanousd"),
        func.sum(table.charge_nanocredits).label("charge_nanocredits"),
    ).where(*_calls_of_agents(tenant_id, from_ns, to_ns), table.verdict.in_(sorted(ONE_CALL)))
    if columns:
        total = func.coalesce(cost, 0) + func.coalesce(listed, 0)
        query = query.group_by(*columns).order_by(total.desc(), *columns)
    found: CursorResult[Any] = connection.execute(query, execution_options={"yield_per": _ROWS_AT_ONCE})
    yield from found


def subscribed_usage(connection: Connection, tenant_id: int, days: Days) -> Sequence[Row[Any]]:
    """Return the calls that a subscription pays, by tool and developer.

    Each row has tool, developer, requests, input_tokens, output_tokens and list_cost_nanousd. Raises DetailRetired.
    """
    from_ns, to_ns = days.first * DAY_NS, days.end * DAY_NS
    require_detail(connection, tenant_id, from_ns, to_ns, "ask for later months")
    columns = [_column(group).label(group.value) for group in (AgentGroup.TOOL, AgentGroup.DEVELOPER)]
    query = (
        select(
            *columns,
            func.count().label("requests"),
            _sum_of(Tokens.INPUT).label("input_tokens"),
            _sum_of(Tokens.OUTPUT).label("output_tokens"),
            func.sum(_list_cost(connection)).label("list_cost_nanousd"),
        )
        .where(*_calls_of_agents(tenant_id, from_ns, to_ns), *_SUBSCRIBED)
        .group_by(*columns)
    )
    found: CursorResult[Any] = connection.execute(query)
    return found.all()


def _calls_of_agents(tenant_id: int, from_ns: int, to_ns: int) -> tuple[ColumnElement[bool], ...]:
    table = usage_records.c
    return (
        table.tenant_id == tenant_id,
        table.priced_at_ns >= from_ns,
        table.priced_at_ns < to_ns,
        table.dialect.in_(TOOLS),
    )


def _column(group: AgentGroup) -> ColumnElement[Any]:
    table = usage_records.c
    columns: dict[AgentGroup, ColumnElement[Any]] = {
        AgentGroup.DAY: table.priced_at_ns // DAY_NS,
        AgentGroup.TOOL: table.dialect,
        AgentGroup.DEVELOPER: developer(),
        AgentGroup.TEAM: table.dept,
        AgentGroup.REPOSITORY: table.project,
        AgentGroup.WORK: table.task,
        AgentGroup.SUBAGENT: table.route,
        AgentGroup.SESSION: table.action_id,
        AgentGroup.MODEL: table.model,
    }
    return columns[group]


def _sum_of(kind: Tokens) -> ColumnElement[Any]:
    table = usage_records.c
    together: ColumnElement[Any] = literal(0)
    for name in token_columns(kind):
        together = together + func.coalesce(table[name], 0)
    return func.sum(together)


def _list_cost(connection: Connection) -> ColumnElement[Any]:
    """Return the list price of a call that a subscription pays; NULL for other calls."""
    return case((and_(*_SUBSCRIBED), json_number(connection, usage_records.c.unusual, _LIST_COST)))
