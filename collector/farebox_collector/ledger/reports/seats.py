"""Seats of coding agents: what each account used under a subscription in a month, and what its seat cost.

Read from the records of the calls: these months must have their detail.
"""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row

from farebox_collector.ledger.reports.agent_usage import subscribed_usage
from farebox_collector.ledger.tariffs.agent_plans import load_plans
from farebox_collector.model.moments import DAY_NS, Days, months_of
from farebox_collector.pricing.agent_plans import AgentPlan, PlanBook


class Seat(NamedTuple):
    """The calls of one account that a subscription pays, in one month."""

    month: int
    """Months since year 0, UTC."""
    tool: str
    account: str
    """The developer, as `agent_usage.developer` names them."""
    plan: str
    """Empty if no plan is set: the tool or the settings tell the subscription."""
    requests: int
    input_tokens: int
    output_tokens: int
    list_nanousd: int
    seat_nanousd: int | None
    """The price of the seat; None without a plan."""


def seats(connection: Connection, tenant_id: int, days: Days) -> Iterator[Seat]:
    """Yield the seats of these whole months, newest month first, in each the highest list price first.

    An account that a plan names has a seat even if it made no calls. Raises DetailRetired.
    """
    plans = PlanBook(load_plans(connection, tenant_id))
    for month, part in reversed(list(months_of(days))):
        used = subscribed_usage(connection, tenant_id, part)
        found = [
            _seat(month, plans.seat(row.tool, row.developer, *_bounds(part)), row.tool, row.developer, row)
            for row in used
        ]
        known = {(seat.tool, seat.account) for seat in found}
        idle = [
            _seat(month, plan, tool, account)
            for tool, account in plans.named_seats()
            if (tool, account) not in known
            and (plan := plans.seat(tool, account, *_bounds(part))) is not None
            and plan.account == account
        ]
        yield from sorted(found + idle, key=lambda seat: (-seat.list_nanousd, seat.tool, seat.account))


def sum_of(found: Iterable[Seat]) -> Seat:
    """Return the sum of seats; its price is that of the seats with a plan."""
    requests = went_in = went_out = listed = 0
    price: int | None = None
    for seat in found:
        requests += seat.requests
        went_in += seat.input_tokens
        went_out += seat.output_tokens
        listed += seat.list_nanousd
        if seat.seat_nanousd is not None:
            price = (price or 0) + seat.seat_nanousd
    return Seat(0, "", "", "", requests, went_in, went_out, listed, price)


def _bounds(days: Days) -> tuple[int, int]:
    return days.first * DAY_NS, days.end * DAY_NS


def _seat(month: int, plan: AgentPlan | None, tool: str, account: str, row: Row[Any] | None = None) -> Seat:
    sums = (0,) * 4 if row is None else (row.requests, row.input_tokens, row.output_tokens, row.list_cost_nanousd)
    requests, went_in, went_out, listed = (int(figure or 0) for figure in sums)
    return Seat(
        month,
        tool,
        account,
        "" if plan is None else plan.plan,
        requests,
        went_in,
        went_out,
        listed,
        None if plan is None else plan.seat_nanousd_per_month,
    )
