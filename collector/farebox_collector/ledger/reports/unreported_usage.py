"""What coding agents told by metrics and not by calls: events were lost on the way. It is exposure, and no cost."""

from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

from sqlalchemy import Connection, select

from farebox_collector.ledger.reports.agent_usage import AgentGroup, agent_usage
from farebox_collector.ledger.tables.agents import agent_meters
from farebox_collector.model.moments import Days
from farebox_collector.model.money import round_half_even


class Unreported(NamedTuple):
    """Tokens of a tool and a person on a day that metrics told, and calls did not."""

    day: int
    tool: str
    person: str
    """Empty if the tool's metrics name no person: then the calls of all persons are compared."""
    metered_input_tokens: int
    metered_output_tokens: int
    unreported_input_tokens: int
    unreported_output_tokens: int
    exposure_nanousd: int
    """Their cost at the average price of the tool's tokens in these days; 0 if there is no call."""


class _Used(NamedTuple):
    went_in: int = 0
    came_out: int = 0
    list_nanousd: int = 0

    def plus(self, other: "_Used") -> "_Used":
        return _Used(*map(sum, zip(self, other, strict=True)))


def unreported_usage(connection: Connection, tenant_id: int, days: Days) -> Iterator[Unreported]:
    """Yield what metrics told and calls did not, by day, tool and person. Raises DetailRetired.

    Metrics also tell less than calls: tools that write no metrics, and persons who switched them off. Only a shortfall
    of calls is reported.
    """
    used, prices = _used(connection, tenant_id, days)
    table = agent_meters.c
    query = (
        select(agent_meters)
        .where(table.tenant_id == tenant_id, table.day >= days.first, table.day < days.end)
        .order_by(table.day, table.tool, table.person)
    )
    for row in connection.execute(query):
        known = used[row.day, row.tool, row.person]
        missing_in = max(0, row.input_tokens - known.went_in)
        missing_out = max(0, row.output_tokens - known.came_out)
        if missing_in or missing_out:
            price = prices[row.tool]
            tokens = price.went_in + price.came_out
            exposed = round_half_even((missing_in + missing_out) * price.list_nanousd, tokens) if tokens else 0
            metered = row.input_tokens, row.output_tokens
            yield Unreported(row.day, row.tool, row.person, *metered, missing_in, missing_out, exposed)


def _used(
    connection: Connection, tenant_id: int, days: Days
) -> tuple[defaultdict[tuple[int, str, str], _Used], defaultdict[str, _Used]]:
    """Return what calls told: by day, tool and person, and with an empty name of all persons; and in all by tool."""
    groups = (AgentGroup.DAY, AgentGroup.TOOL, AgentGroup.DEVELOPER)
    by_day: defaultdict[tuple[int, str, str], _Used] = defaultdict(_Used)
    by_tool: defaultdict[str, _Used] = defaultdict(_Used)
    for row in agent_usage(connection, tenant_id, days, groups):
        listed = int(row.cost_nanousd or 0) + int(row.list_cost_nanousd or 0)
        one = _Used(int(row.input_tokens or 0), int(row.output_tokens or 0), listed)
        for key in {(row.day, row.tool, row.developer), (row.day, row.tool, "")}:
            by_day[key] = by_day[key].plus(one)
        by_tool[row.tool] = by_tool[row.tool].plus(one)
    return by_day, by_tool
