"""`farebox incidents`: alerts that fired, with a snapshot of the books."""

from typing import Annotated

import typer

from farebox_collector.commands.terminal import (
    AsJson,
    DatabaseUrl,
    Limit,
    Stop,
    figure_table,
    out,
    print_json,
    print_table,
    reading_books,
)
from farebox_collector.ledger.incidents.incidents import incident, incidents_of
from farebox_collector.model.records import DEFAULT_TENANT_ID
from farebox_collector.surfaces.api.alerts import report_of, summary_of

app = typer.Typer(help="Incidents: alerts that fired, with a snapshot of the books.", no_args_is_help=True)


def _minute(moment: str) -> str:
    """Format an API time to the minute."""
    return moment[:16].replace("T", " ")


@app.command("list")
def list_command(
    firing: Annotated[bool, typer.Option("--firing", help="Only incidents that fire now.")] = False,
    limit: Limit = 100,
    database_url: DatabaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """List incidents, last recorded first."""
    with reading_books(database_url) as connection:
        rows = incidents_of(connection, DEFAULT_TENANT_ID, limit=limit, open_only=firing)
        shown = [summary_of(row) for row in rows]
    if as_json:
        print_json(shown)
        return
    table = figure_table("Incidents", "id", "since", "until", "severity", "alert", "what")
    for row in shown:
        until = _minute(row["ended_at"]) if row["ended_at"] else "firing"
        table.add_row(str(row["id"]), _minute(row["started_at"]), until, row["severity"], row["alert"], row["summary"])
    print_table(table, len(rows), limit)


@app.command("show")
def show_command(incident_id: int, database_url: DatabaseUrl = None, as_json: AsJson = False) -> None:
    """Show an incident: contributors, prices and rules in force, where to look."""
    with reading_books(database_url) as connection:
        row = incident(connection, DEFAULT_TENANT_ID, incident_id)
    if row is None:
        raise Stop(f"there is no incident {incident_id}")
    report = report_of(row)
    if as_json:
        print_json(report)
        return
    until = f"until {_minute(report['ended_at'])}" if report["ended_at"] else "firing"
    out.print(f"{report['alert']} ({report['severity']}): {report['summary']}", style="bold", soft_wrap=True)
    out.print(f"Since {_minute(report['started_at'])} UTC, {until}. {report['description']}", soft_wrap=True)
    taken = report["snapshot"]
    if not taken["calls"]:
        out.print("No call in the incident's window matches its labels.")
    else:
        out.print(
            f"Price book edition {taken['price_book_edition']}, charge rule edition {taken['charge_rule_edition']}."
        )
        for title, key, names in (
            ("Who contributed", "contributors", ("dept", "event", "provider", "model")),
            ("Wallets", "wallets", ("wallet",)),
        ):
            table = figure_table(title, *names, "calls", "errors", "USD")
            for line in taken[key]:
                table.add_row(
                    *(line[name] for name in names), str(line["calls"]), str(line["errors"]), line["cost_usd"]
                )
            out.print(table)
        table = figure_table("Dearest calls", "trace", "event", "model", "USD", "ms", "error")
        for call in taken["calls"]:
            figures = (call["cost_usd"] or "", str(call["latency_ms"]), call["error"])
            table.add_row(call["trace_id"], call["event"], call["model"], *figures)
        out.print(table)
    out.print(report["annotations"].get("runbook_url", ""), soft_wrap=True)
