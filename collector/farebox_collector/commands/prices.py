"""`farebox prices`: the price book."""

import time
from contextlib import closing
from datetime import datetime
from typing import Annotated

import typer

from farebox_collector import assembly
from farebox_collector.commands.terminal import (
    AsJson,
    DatabaseUrl,
    Limit,
    Stop,
    figure_table,
    moment_ns,
    out,
    positive_decimal,
    print_json,
    print_table,
    progress_bar,
    reading_books,
    writable_books,
)
from farebox_collector.ledger import statements
from farebox_collector.ledger.prices import BY_HAND, set_price
from farebox_collector.records import Buckets, CatalogueRow
from farebox_collector.surfaces.prices import show_price

app = typer.Typer(help="The price book: what providers charge us.", no_args_is_help=True)


@app.command("list")
def list_command(
    provider: Annotated[str, typer.Argument(help="Only this provider, such as openai.")] = "",
    model: Annotated[str, typer.Argument(help="Only this model, such as gpt-4o-mini.")] = "",
    at: Annotated[datetime | None, typer.Option(help="The moment, UTC (default: now).")] = None,
    limit: Limit = 100,
    database_url: DatabaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """Prices that hold at a moment, in US dollars per 1,000."""
    with reading_books(database_url) as connection:
        rows = statements.price_versions_at(connection, moment_ns(at), provider, model, limit=limit)
        shown = [show_price(row).model_dump() for row in rows]
    if as_json:
        print_json(shown)
        return
    table = figure_table("Price book", "model", "unit", "over ¹", "USD per 1k", "since", "source")
    table.caption = "¹ for calls with more input tokens than this"
    for row in shown:
        over = f"{row['over_input_tokens']:,}" if row["over_input_tokens"] else ""
        since = "" if row["valid_from"].startswith("1970") else row["valid_from"][:10]
        table.add_row(f"{row['provider']}/{row['model']}", row["unit"], over, row["usd_per_1k"], since, row["source"])
    print_table(table, len(rows), limit)


@app.command("import")
def import_command(database_url: DatabaseUrl = None, as_json: AsJson = False) -> None:
    """Bring the price book up to the installed genai-prices. The past stays; prices set by hand stay."""
    with closing(writable_books(database_url)) as database, progress_bar("importing prices") as progress:
        change = assembly.import_catalogue(database, progress=progress)
    if as_json:
        print_json(change._asdict())
    else:
        out.print(f"{change.added} price versions added, {change.closed} closed.")


@app.command("set")
def set_command(
    provider: Annotated[str, typer.Argument(help="Provider in the price book, such as openai.")],
    model: Annotated[str, typer.Argument(help="Model in the price book; a new one is matched by its exact name.")],
    unit: Annotated[str, typer.Argument(help="input, cache_read, cache_write, cache_write_1h, output, …")],
    usd_per_1k: Annotated[str, typer.Argument(help="US dollars per 1,000, such as 0.00015.")],
    valid_from: Annotated[datetime | None, typer.Option("--from", help="From when, UTC (default: now).")] = None,
    over_input_tokens: Annotated[int, typer.Option("--over", min=0, help="For calls with more input than this.")] = 0,
    author: Annotated[str, typer.Option(help="Who sets it; kept with the price.")] = "cli",
    database_url: DatabaseUrl = None,
) -> None:
    """Set one price from a moment on. What was charged before stays as it was; imports leave it alone."""
    if unit not in {*Buckets._fields, "output_reasoning", "requests"} - {"reasoning"}:
        raise Stop(f"{unit!r} is no unit of the price book")
    row = CatalogueRow(
        provider, model, unit, over_input_tokens, 0, 0, positive_decimal(usd_per_1k), moment_ns(valid_from), None
    )
    with closing(writable_books(database_url)) as database, database.transaction() as connection:
        change = set_price(connection, row, author, time.time_ns())
    out.print(f"{change.added} price version added, {change.closed} closed (source: {BY_HAND} {author}).")
