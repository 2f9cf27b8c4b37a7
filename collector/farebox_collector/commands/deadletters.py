"""`farebox deadletters`: the dead-letter queue of spans that could not be booked."""

import json
import time
from contextlib import closing
from typing import Annotated, Any

import typer
from sqlalchemy import Connection

from farebox_collector.background.dead_letter_retry import retry
from farebox_collector.cache.tariffs import Tariffs
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
    settings_from,
    writable_books,
)
from farebox_collector.intake.reader import SpanReader
from farebox_collector.ledger.access.audit_log import note
from farebox_collector.ledger.usage import dead_letters
from farebox_collector.model.moments import format_ns
from farebox_collector.model.records import DEFAULT_TENANT_ID

app = typer.Typer(help="The dead-letter queue: spans that could not be booked.", no_args_is_help=True)

_PAGE = 500


@app.command("list")
def list_command(limit: Limit = 100, database_url: DatabaseUrl = None, as_json: AsJson = False) -> None:
    """List dead letters with their reason, oldest first."""
    with reading_books(database_url) as connection:
        rows = dead_letters.letters(connection, DEFAULT_TENANT_ID, limit=limit)
    if as_json:
        print_json([_shown(row) for row in rows])
        return
    table = figure_table("Dead letters", "id", "received", "trace", "reason")
    for row in rows:
        table.add_row(str(row.id), format_ns(row.received_at_ns)[:19], row.trace_id.hex(), row.reason)
    print_table(table, len(rows), limit)


@app.command("show")
def show_command(letter_id: int, database_url: DatabaseUrl = None) -> None:
    """Print a dead letter with the kept part of its span, as JSON."""
    with reading_books(database_url) as connection:
        row = dead_letters.letter(connection, DEFAULT_TENANT_ID, letter_id)
    if row is None:
        raise Stop(f"there is no dead letter {letter_id}")
    print_json({**_shown(row), "span": json.loads(row.span)})


@app.command("retry")
def retry_command(
    letter_id: Annotated[int | None, typer.Argument(help="Only this one (default: all).")] = None,
    database_url: DatabaseUrl = None,
) -> None:
    """Read, price and book dead letters again as of when they were received; booked ones are removed."""
    settings = settings_from(database_url=database_url)
    with closing(writable_books(database_url)) as database:
        reader = SpanReader(settings, Tariffs(database, time.time_ns, settings.charge_exposed))
        after, tried, open_still = (letter_id or 1) - 1, 0, 0
        while True:
            with database.reading() as connection:
                limit = 1 if letter_id else _PAGE
                rows = dead_letters.letters(connection, DEFAULT_TENANT_ID, after, limit)
            if not rows or (letter_id and rows[0].id != letter_id):
                break
            for retried in retry(database, reader, rows):
                tried += 1
                open_still += retried.verdict == "rejected"
                out.print(f"{retried.letter_id}: {retried.verdict} {retried.reason}".strip())
            after = rows[-1].id
            if letter_id:
                break
        if tried:
            after_it = {"tried": tried, "still_dead": open_still}
            database.transact(
                lambda connection: note(
                    connection, DEFAULT_TENANT_ID, "dead_letters.retry", letter_id or "", time.time_ns(), after=after_it
                )
            )
    if letter_id and not tried:
        raise Stop(f"there is no dead letter {letter_id}")
    out.print(f"{tried} tried, {tried - open_still} resolved, {open_still} still dead.")


@app.command("purge")
def purge_command(
    everything: Annotated[bool, typer.Option("--all", help="Also letters that have not expired.")] = False,
    database_url: DatabaseUrl = None,
) -> None:
    """Delete expired dead letters."""
    with closing(writable_books(database_url)) as database:
        removed = database.transact(lambda connection: _purge(connection, everything=everything))
    out.print(f"{removed} dead letters deleted.")


def _purge(connection: Connection, *, everything: bool) -> int:
    now_ns = time.time_ns()
    removed = dead_letters.purge(connection, None if everything else now_ns)
    after = {"letters": removed, "everything": everything}
    note(connection, DEFAULT_TENANT_ID, "dead_letters.purge", "", now_ns, after=after)
    return removed


def _shown(row: Any) -> dict[str, Any]:
    return {
        "id": row.id,
        "received_at": format_ns(row.received_at_ns),
        "expires_at": format_ns(row.expires_at_ns),
        "trace_id": row.trace_id.hex(),
        "span_id": row.span_id.hex(),
        "reason": row.reason,
    }
