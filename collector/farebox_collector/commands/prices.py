"""`farebox prices`: the price book."""

import time
from collections.abc import Sequence
from contextlib import closing
from datetime import datetime
from decimal import Decimal
from itertools import islice
from typing import Annotated

import typer
from sqlalchemy import Connection

from farebox_collector.commands import exchange_rates, price_imports
from farebox_collector.commands.tenants import tenant_id_of
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
    reading_books,
    writable_books,
)
from farebox_collector.ledger.reports import missing_prices, price_gaps, statements
from farebox_collector.ledger.reports.missing_prices import MissingPrice
from farebox_collector.ledger.tariffs.effective_times import CannotBegin, begin
from farebox_collector.ledger.tariffs.prices import MANUAL, BookChange, state_price
from farebox_collector.model.moments import format_ns
from farebox_collector.model.records import STANDARD, CatalogueRow
from farebox_collector.pricing.conditions import canonical
from farebox_collector.pricing.currencies import USD
from farebox_collector.pricing.price_csv import hours_of_day
from farebox_collector.pricing.weekdays import weekdays_of
from farebox_collector.surfaces.api.prices import Price, show_price

app = typer.Typer(help="The price book: what providers charge.", no_args_is_help=True)
app.command("import")(price_imports.import_command)
app.add_typer(exchange_rates.app, name="rate")

Tenant = Annotated[str, typer.Option("--tenant", help="The tenant that negotiated the price (default: a list price).")]


@app.command("list")
def list_command(
    provider: Annotated[str, typer.Argument(help="Only this provider, such as openai.")] = "",
    model: Annotated[str, typer.Argument(help="Only this model, such as gpt-4o-mini.")] = "",
    at: Annotated[datetime | None, typer.Option(help="The time, UTC (default: now).")] = None,
    tenant: Annotated[str, typer.Option(help="Include this tenant's negotiated prices.")] = "default",
    limit: Limit = 100,
    database_url: DatabaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """List the prices in force at a time, in US dollars per 1,000."""
    with reading_books(database_url) as connection:
        tenant_id = tenant_id_of(connection, tenant)
        rows = statements.price_versions_at(connection, tenant_id, moment_ns(at), provider, model, limit=limit)
        shown = [show_price(row) for row in rows]
    if as_json:
        print_json([price.model_dump() for price in shown])
        return
    models = {f"{price.provider}/{price.model}" for price in shown}
    # A single model goes into the title, to save width on narrow terminals.
    title, headings = (f"Price book: {models.pop()}", ()) if len(models) == 1 else ("Price book", ("model",))
    table = figure_table(title, *headings, "unit", "for calls", "USD per 1k", "since", "source")
    table.columns[-2].no_wrap = True
    for price in shown:
        since = "" if price.valid_from.startswith("1970") else price.valid_from[:10]
        source = f"{price.source} ({price.scope})" if price.scope != "list" else price.source
        name = (f"{price.provider}/{price.model}",) if headings else ()
        table.add_row(*name, price.unit, _calls(price), price.usd_per_1k, since, source)
    print_table(table, len(rows), limit)


def _calls(price: Price) -> str:
    """Return the calls that a price is for; empty for all."""
    parts = [] if price.condition == STANDARD else [price.condition]
    if price.over_input_tokens:
        parts.append(f"over {price.over_input_tokens:,} in")
    if price.daily_from and price.daily_to:
        parts.append(f"{price.daily_from[:5]}-{price.daily_to[:5]}")
    if price.weekdays:
        parts.append(price.weekdays)
    return ", ".join(parts)


@app.command("set")
def set_command(
    provider: Annotated[str, typer.Argument(help="Provider in the price book, such as openai.")],
    model: Annotated[str, typer.Argument(help="Model in the price book; a new one is matched by its exact name.")],
    unit: Annotated[str, typer.Argument(help="input, cache_read, cache_write, output, requests, web_searches, …")],
    price_per_1k: Annotated[str, typer.Argument(help="The price of 1,000, such as 0.00015.")],
    valid_from: Annotated[datetime | None, typer.Option("--from", help="From when, UTC (default: now).")] = None,
    over_input_tokens: Annotated[int, typer.Option("--over", min=0, help="For calls with more input than this.")] = 0,
    condition: Annotated[
        str, typer.Option(help="For calls of this service tier, speed or region: batch, fast, standard@us, …")
    ] = STANDARD,
    hours: Annotated[str, typer.Option(help="For these hours of the day, UTC: 22:00-06:00.")] = "",
    weekdays: Annotated[str, typer.Option(help="For these days of the week, UTC: mon-fri.")] = "",
    free: Annotated[bool, typer.Option("--free", help="Allow a price of zero: calls cost nothing.")] = False,
    currency: Annotated[str, typer.Option(help="The price's currency; converted to US dollars at its rate.")] = USD,
    tenant: Tenant = "",
    author: Annotated[str, typer.Option(help="Who sets it; kept with the price.")] = "cli",
    database_url: DatabaseUrl = None,
) -> None:
    """Set a price from a time on. Earlier charges are unchanged; imports do not overwrite it."""
    price = Decimal(0) if free and price_per_1k.strip("0.") == "" else positive_decimal(price_per_1k)
    try:
        daily = hours_of_day(hours)
        name, days = (provider, model, unit, over_input_tokens), weekdays_of(weekdays)
        bare = CatalogueRow(*name, *daily, Decimal(0), 0, None, canonical(condition), weekdays=days)

        def put(connection: Connection, at_ns: int, begins_ns: int) -> BookChange:
            tenant_id = tenant_id_of(connection, tenant) if tenant else None
            row = bare._replace(valid_from_ns=begins_ns)
            return state_price(connection, row, price, currency.upper(), author, at_ns, tenant_id, free)

        with closing(writable_books(database_url)) as database:
            change = begin(database, time.time_ns, None if valid_from is None else moment_ns(valid_from), put)
    except (ValueError, CannotBegin) as error:
        raise Stop(str(error)) from None
    out.print(f"{change.added} price version added, {change.closed} closed (source: {MANUAL} {author}).")


@app.command("check")
def check_command(limit: Limit = 100, database_url: DatabaseUrl = None, as_json: AsJson = False) -> None:
    """Find gaps in the price book and models in use without a price. Exits with status 1 if there are any."""
    with reading_books(database_url) as connection:
        gaps = list(price_gaps.gaps(connection, time.time_ns(), limit))
        lacking = list(islice(missing_prices.missing_prices(connection), limit))
    if as_json:
        print_json([*(gap._asdict() for gap in gaps), *(lack._asdict() for lack in lacking)])
        _end(gaps, lacking)
    if gaps:
        table = figure_table("Gaps in the price book", "what", "model", "unit", "from", "to")
        for gap in gaps:
            start = "" if gap.from_ns is None else format_ns(gap.from_ns)[:19]
            end = "" if gap.to_ns is None else format_ns(gap.to_ns)[:19]
            table.add_row(gap.what, f"{gap.provider}/{gap.model}", gap.unit, start, end)
        print_table(table, len(gaps), limit)
    if lacking:
        _show_lacking(lacking, limit)
    if not gaps and not lacking:
        out.print("No gaps.")
    _end(gaps, lacking)


def _show_lacking(lacking: Sequence[MissingPrice], limit: int) -> None:
    """Show units of models in use that lack a price, and the command that adds it."""
    table = figure_table("What the book lacks for models in use", "what", "model", "unit", "calls", "remedy")
    for lack in lacking:
        model = f"{lack.provider}/{lack.model}" if lack.model else ""
        unit = lack.unit if lack.condition in ("", STANDARD) else f"{lack.unit}, {lack.condition}"
        table.add_row(lack.what, model, unit, f"{lack.calls:,}" if lack.calls else "", lack.remedy)
    print_table(table, len(lacking), limit)


def _end(*found: Sequence[object]) -> None:
    raise typer.Exit(1 if any(found) else 0)
