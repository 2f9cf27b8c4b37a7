"""`farebox budgets`: monthly budgets of departments."""

import time
from typing import Annotated, Any

import typer

from farebox_collector.commands.terminal import (
    AsJson,
    DatabaseUrl,
    Stop,
    figure_table,
    out,
    print_json,
    reading_books,
    require_named,
    writing,
)
from farebox_collector.ledger.credits.budgets import budgets_in_force, set_budget
from farebox_collector.model.moments import format_ns
from farebox_collector.model.money import AmountError, format_nano, parse_nano
from farebox_collector.model.records import DEFAULT_TENANT_ID

app = typer.Typer(help="Monthly budgets of departments.", no_args_is_help=True)


@app.command("list")
def list_command(database_url: DatabaseUrl = None, as_json: AsJson = False) -> None:
    """List the budget of each department that has one."""
    with reading_books(database_url) as connection:
        rows = [_budget(row) for row in budgets_in_force(connection, DEFAULT_TENANT_ID)]
    if as_json:
        print_json(rows)
        return
    table = figure_table("Budgets", "dept", "USD a month", "since", "author", "reason")
    for row in rows:
        table.add_row(row["dept"], row["usd_per_month"], row["since"][:19], row["author"], row["reason"])
    out.print(table)


@app.command("set")
def set_command(
    dept: Annotated[str, typer.Argument(help="Department, as in `farebox.dept`.")],
    usd_per_month: Annotated[str, typer.Argument(help="US dollars per month, such as 2500; 0 ends the budget.")],
    reason: Annotated[str, typer.Option(help="Why; kept with the budget.")] = "",
    author: Annotated[str, typer.Option(help="Who sets it; kept with the budget.")] = "cli",
    database_url: DatabaseUrl = None,
) -> None:
    """Set a department's monthly budget from now on. While a collector runs on SQLite, use its HTTP API."""
    require_named(dept, "a department's name")
    try:
        amount = parse_nano(usd_per_month)
    except AmountError as error:
        raise Stop(f"{usd_per_month!r}: {error}") from None
    with writing(database_url) as connection:
        try:
            set_budget(connection, DEFAULT_TENANT_ID, dept, amount, author, reason, time.time_ns())
        except ValueError as error:
            raise Stop(str(error)) from None
    out.print(f"{dept} may spend {format_nano(amount)} USD a month from now on.")


def _budget(row: Any) -> dict[str, Any]:
    return {
        "dept": row.dept,
        "usd_per_month": format_nano(row.nanousd_per_month),
        "since": format_ns(row.recorded_at_ns),
        "author": row.author,
        "reason": row.reason,
    }
