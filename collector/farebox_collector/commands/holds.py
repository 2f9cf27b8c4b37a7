"""`farebox holds`: credits reserved before an action."""

import time
from contextlib import closing
from typing import Annotated, Any

import typer
from sqlalchemy import Connection, Row

from farebox_collector.commands.tenants import TenantName, tenant_id_of
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
    writable_books,
)
from farebox_collector.ledger.access.audit_log import note
from farebox_collector.ledger.credits.hold_release import HoldState, standing_of, void_hold
from farebox_collector.ledger.credits.holds import holds_of
from farebox_collector.model.moments import format_ns
from farebox_collector.model.money import format_nano
from farebox_collector.model.pseudonyms import name_in_books

app = typer.Typer(help="Holds: credits reserved before an action.", no_args_is_help=True)


@app.command("list")
def list_command(
    wallet: Annotated[str, typer.Option(help="Only holds of this wallet.")] = "",
    state: Annotated[HoldState | None, typer.Option(help="Only holds in this state.")] = None,
    limit: Limit = 100,
    tenant: TenantName = "default",
    database_url: DatabaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """List holds and their states, newest first."""
    now_ns = time.time_ns()
    with reading_books(database_url) as connection:
        rows = holds_of(
            connection, tenant_id_of(connection, tenant), name_in_books(wallet), state or "", None, limit, now_ns
        )
    if as_json:
        print_json([_hold(row, now_ns) for row in rows])
        return
    table = figure_table("Holds", "hold", "wallet", "event", "action", "credits", "credits open", "state", "until")
    for row in rows:
        hold = _hold(row, now_ns)
        figures = hold["amount_credits"], hold["open_credits"]
        table.add_row(hold["hold_id"], row.wallet, row.event, row.action_id or "", *figures, hold["state"], _until(row))
    print_table(table, len(rows), limit)


@app.command("void")
def void_command(hold_id: int, tenant: TenantName = "default", database_url: DatabaseUrl = None) -> None:
    """Release what a hold still reserves. While a collector runs on SQLite, use its HTTP API."""
    with closing(writable_books(database_url)) as database:
        found = database.transact(lambda connection: _void(connection, tenant_id_of(connection, tenant), hold_id))
    if found is None:
        raise Stop(f"there is no hold {hold_id}")
    if found.state != HoldState.VOIDED:
        raise Stop(f"hold {hold_id} is already {found.state}: it reserves nothing")
    out.print(f"Hold {hold_id} is voided; {found.wallet} has the credits again.")


def _void(connection: Connection, tenant_id: int, hold_id: int) -> Row[Any] | None:
    now_ns = time.time_ns()
    found = void_hold(connection, tenant_id, hold_id, now_ns)
    if found is not None and found.ended_at_ns == now_ns:
        note(connection, tenant_id, "hold.void", hold_id, now_ns, after={"wallet": found.wallet})
    return found


def _until(row: Any) -> str:
    return format_ns(row.expires_at_ns if row.ended_at_ns is None else row.ended_at_ns)[:19]


def _hold(row: Any, at_ns: int) -> dict[str, Any]:
    state, open_nano, _ = standing_of(row, at_ns)
    return {
        "hold_id": str(row.id),
        "wallet": row.wallet,
        "user": row.user_id,
        "dept": row.dept,
        "project": row.project,
        "event": row.event,
        "action_id": row.action_id,
        "amount_credits": format_nano(row.amount_nano),
        "open_credits": format_nano(open_nano),
        "state": state,
        "charged_credits": format_nano(row.settled_nano),
        "expires_at": format_ns(row.expires_at_ns),
    }
