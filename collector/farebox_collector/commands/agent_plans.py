"""`farebox agent-plans`: which accounts of coding agents a subscription pays, and what a seat costs."""

import time
from contextlib import closing
from datetime import datetime
from typing import Annotated

import typer

from farebox_collector.commands.tenants import TenantName, tenant_id_of
from farebox_collector.commands.terminal import (
    AsJson,
    DatabaseUrl,
    Limit,
    Stop,
    figure_table,
    moment_ns,
    out,
    print_json,
    print_table,
    reading_books,
    require_named,
    writable_books,
)
from farebox_collector.ledger.tariffs.agent_plans import BadPlan, plans_in_force, set_plan
from farebox_collector.ledger.tariffs.effective_times import CannotBegin, begin
from farebox_collector.model.moments import format_ns
from farebox_collector.model.money import AmountError, parse_nano
from farebox_collector.model.pseudonyms import name_in_books
from farebox_collector.pricing.agent_plans import EACH, AgentPlan
from farebox_collector.surfaces.api.agent_plans import show_plan

app = typer.Typer(help="Accounts of coding agents that a subscription pays, and their seats.", no_args_is_help=True)

ToolName = Annotated[str, typer.Argument(help="Coding agent, such as claude_code; *: each without its own plan.")]
Account = Annotated[str, typer.Argument(help="Developer; *: each logged-in account without its own plan.")]
Reason = Annotated[str, typer.Option(help="Why; kept with the plan.")]
Author = Annotated[str, typer.Option(help="Who sets it; kept with the plan.")]
From = Annotated[datetime | None, typer.Option("--from", help="When, UTC (default: now).")]


@app.command("list")
def list_command(
    limit: Limit = 1_000,
    tenant: TenantName = "default",
    database_url: DatabaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """List the plans in force."""
    with reading_books(database_url) as connection:
        rows = plans_in_force(connection, tenant_id_of(connection, tenant), time.time_ns(), limit=limit)
    shown = [show_plan(row) for row in rows]
    if as_json:
        print_json([plan.model_dump() for plan in shown])
        return
    table = figure_table("Plans of coding agents", "tool", "account", "plan", "USD a month", "from", "why")
    for plan in shown:
        since, why = plan.valid_from[:16], f"{plan.reason} ({plan.author})"
        table.add_row(plan.tool, plan.account, plan.plan, plan.seat_usd_per_month, since, why)
    print_table(table, len(shown), limit)


@app.command("set")
def set_command(
    tool: ToolName,
    account: Account,
    plan: Annotated[str, typer.Argument(help="The plan's name, such as max-5x.")],
    reason: Reason,
    seat: Annotated[str, typer.Option(help="US dollars a month for one seat, such as 100.")],
    author: Author = "cli",
    valid_from: From = None,
    tenant: TenantName = "default",
    database_url: DatabaseUrl = None,
) -> None:
    """Let a subscription pay an account's calls, from now or a later time on."""
    require_named(plan, "a plan's name")
    try:
        price_nano = parse_nano(seat)
    except AmountError as error:
        raise Stop(f"--seat {seat!r}: {error}") from None
    begins_ns = _set(AgentPlan(0, tool, account, plan, price_nano, 0), author, reason, valid_from, tenant, database_url)
    out.print(f"The plan {plan} pays {account} with {tool} from {format_ns(begins_ns)[:19]} on.", soft_wrap=True)


@app.command("end")
def end_command(
    tool: ToolName,
    account: Account,
    reason: Reason,
    author: Author = "cli",
    valid_from: From = None,
    tenant: TenantName = "default",
    database_url: DatabaseUrl = None,
) -> None:
    """End a plan, now or at a later time: the account pays by the call, even if * has a plan."""
    begins_ns = _set(AgentPlan(0, tool, account, "", 0, 0), author, reason, valid_from, tenant, database_url)
    out.print(f"The plan of {account} with {tool} ends at {format_ns(begins_ns)[:19]}.", soft_wrap=True)


def _set(
    plan: AgentPlan, author: str, reason: str, valid_from: datetime | None, tenant: str, database_url: str | None
) -> int:
    """Append a version; returns its start. Raises Stop."""
    require_named(plan.account, "an account")
    require_named(reason, "a reason")
    start_ns = None if valid_from is None else moment_ns(valid_from)
    with closing(writable_books(database_url)) as database:
        account = plan.account if plan.account == EACH else name_in_books(plan.account)
        stated = plan._replace(account=account)
        try:
            return begin(
                database,
                time.time_ns,
                start_ns,
                lambda connection, at_ns, begins_ns: (
                    set_plan(
                        connection,
                        tenant_id_of(connection, tenant),
                        stated._replace(valid_from_ns=begins_ns),
                        author,
                        reason,
                        at_ns,
                    ),
                    begins_ns,
                ),
            )[1]
        except (BadPlan, CannotBegin) as error:
            raise Stop(str(error)) from None
