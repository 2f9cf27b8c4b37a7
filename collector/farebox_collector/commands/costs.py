"""`farebox costs`: effective cost per 1,000 tokens."""

import time
from datetime import datetime
from typing import Annotated

import typer
from rich.table import Table

from farebox_collector.commands.tenants import TenantName, tenant_id_of
from farebox_collector.commands.terminal import (
    AsJson,
    DatabaseUrl,
    Limit,
    Stop,
    figure_table,
    moment_ns,
    print_json,
    print_table,
    reading_books,
)
from farebox_collector.ledger.reports.costs import Grouping, Period, costs
from farebox_collector.surfaces.api.costs import (
    Cost,
    end_of_day,
    first_of_last_days,
    show_costs,
)


def costs_command(
    by: Annotated[Grouping, typer.Option(help="Group by this.")] = Grouping.MODEL,
    since: Annotated[
        datetime | None, typer.Option("--from", help="From when, UTC (default: 30 days, including today).")
    ] = None,
    until: Annotated[datetime | None, typer.Option("--to", help="Until when, UTC (default: now).")] = None,
    tenant: TenantName = "default",
    limit: Limit = 30,
    database_url: DatabaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """Show the effective cost per 1,000 tokens and its drift from the list price."""
    to_ns = moment_ns(until)
    from_ns = first_of_last_days(to_ns) if since is None else moment_ns(since)
    if from_ns >= to_ns:
        raise Stop("--from must be before --to")
    period = Period(from_ns, end_of_day(to_ns) if until is None else to_ns)
    list_at_ns = min(to_ns, time.time_ns())
    with reading_books(database_url) as connection:
        found = costs(connection, tenant_id_of(connection, tenant), period, by, list_at_ns)
    shown = show_costs(found, Period(from_ns, to_ns), by, list_at_ns, limit)
    if as_json:
        print_json(shown.model_dump())
        return
    headings = (by.value, "USD in all", "USD ¹", "USD in", "USD out", "drift ²")
    table = figure_table(f"What 1,000 tokens cost by {by.value}", *headings)
    table.caption = "¹ in and out, with fees   ² of the tokens' cost from the list price, uncached"
    for cost in shown.items:
        _add(table, cost.key or "(none)", cost)
    table.add_section()
    _add(table, "all", shown.total)
    print_table(table, len(shown.items), limit)


def _add(table: Table, key: str, cost: Cost) -> None:
    drift = "" if cost.drift_percent is None else f"{cost.drift_percent} %"
    per_1k = (cost.cost_per_1k_usd, cost.input_cost_per_1k_usd, cost.output_cost_per_1k_usd)
    table.add_row(key, cost.cost_usd, *(figure or "" for figure in per_1k), drift)
