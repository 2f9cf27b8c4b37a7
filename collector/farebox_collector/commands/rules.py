"""`farebox rules`: what an event costs its wallet."""

import time
from contextlib import closing
from typing import Annotated, Any

import typer

from farebox_collector.commands.terminal import (
    AsJson,
    DatabaseUrl,
    Stop,
    figure_table,
    out,
    positive_decimal,
    print_json,
    reading_books,
    writable_books,
)
from farebox_collector.dialects.text import MAX_TEXT, is_clean
from farebox_collector.ledger import statements
from farebox_collector.ledger.rules import set_rule
from farebox_collector.moments import format_ns
from farebox_collector.records import DEFAULT_TENANT_ID

app = typer.Typer(help="Charge rules: what an event costs its wallet.", no_args_is_help=True)


@app.command("list")
def list_command(database_url: DatabaseUrl = None, as_json: AsJson = False) -> None:
    """Every version of every charge rule."""
    with reading_books(database_url) as connection:
        rows = [_rule(row) for row in statements.charge_rules_of(connection, DEFAULT_TENANT_ID)]
    if as_json:
        print_json(rows)
        return
    table = figure_table("Charge rules", "event", "rule", "from", "to", "author", "reason")
    for row in rows:
        since = "" if row["valid_from"].startswith("1970") else row["valid_from"][:19]
        table.add_row(
            row["event"],
            f"cost × {row['multiplier']}",
            since,
            (row["valid_to"] or "")[:19],
            row["author"],
            row["reason"],
        )
    out.print(table)


@app.command("set")
def set_command(
    event: Annotated[str, typer.Argument(help="Event, such as chat.reply; * is every event without a rule.")],
    multiplier: Annotated[str, typer.Option(help="Charge the provider's cost times this, such as 1.5.")],
    reason: Annotated[str, typer.Option(help="Why; kept with the rule.")],
    author: Annotated[str, typer.Option(help="Who sets it; kept with the rule.")] = "cli",
    database_url: DatabaseUrl = None,
) -> None:
    """Charge an event its cost times a multiplier from now on. The version before stays in the books."""
    if not event or not is_clean(event):
        raise Stop(f"an event's name has 1 to {MAX_TEXT} printable characters")
    with closing(writable_books(database_url)) as database, database.transaction() as connection:
        factor = positive_decimal(multiplier)
        version = set_rule(connection, DEFAULT_TENANT_ID, event, factor, author, reason, time.time_ns())
    out.print(f"{event} is charged its cost times {multiplier} from now on (rule version {version}).")


def _rule(row: Any) -> dict[str, Any]:
    return {
        "version_id": row.id,
        "event": row.event,
        "kind": row.kind,
        "multiplier": row.multiplier,
        "usd_per_credit": row.usd_per_credit,
        "valid_from": format_ns(row.valid_from_ns),
        "valid_to": None if row.valid_to_ns is None else format_ns(row.valid_to_ns),
        "author": row.author,
        "reason": row.reason,
    }
