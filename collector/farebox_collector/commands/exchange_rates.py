"""`farebox prices rate`: exchange rates to US dollars."""

import time
from datetime import datetime
from typing import Annotated

import typer

from farebox_collector.commands.terminal import (
    AsJson,
    DatabaseUrl,
    Stop,
    figure_table,
    moment_ns,
    out,
    positive_decimal,
    print_json,
    reading_books,
    writing,
)
from farebox_collector.ledger.tariffs import exchange_rates
from farebox_collector.model.moments import format_ns
from farebox_collector.pricing.currencies import ExchangeRate

app = typer.Typer(help="Exchange rates, for prices in other currencies.", no_args_is_help=True)


@app.command("set")
def set_command(
    currency: Annotated[str, typer.Argument(help="Three letters, such as EUR.")],
    usd: Annotated[str, typer.Argument(help="US dollars per unit, such as 1.08.")],
    valid_from: Annotated[datetime | None, typer.Option("--from", help="From when, UTC (default: now).")] = None,
    author: Annotated[str, typer.Option(help="Who sets it; kept with the rate.")] = "cli",
    database_url: DatabaseUrl = None,
) -> None:
    """Record an exchange rate from a time on. Recorded prices stay; later ones use it."""
    rate = ExchangeRate(currency.upper(), positive_decimal(usd), moment_ns(valid_from))
    try:
        with writing(database_url) as connection:
            exchange_rates.set_rate(connection, rate, author, time.time_ns())
    except ValueError as error:
        raise Stop(str(error)) from None
    out.print(f"1 {rate.currency} = {rate.usd_per_currency} USD from {format_ns(rate.valid_from_ns)[:19]}Z on.")


@app.command("list")
def list_command(database_url: DatabaseUrl = None, as_json: AsJson = False) -> None:
    """List all recorded exchange rates."""
    with reading_books(database_url) as connection:
        rows = exchange_rates.rates(connection)
    if as_json:
        print_json(
            [
                {
                    "currency": row.currency,
                    "usd_per_currency": row.usd_per_currency,
                    "valid_from": format_ns(row.valid_from_ns),
                    "author": row.author,
                    "recorded_at": format_ns(row.recorded_at_ns),
                }
                for row in rows
            ]
        )
        return
    table = figure_table("Exchange rates", "currency", "USD for one", "from", "author")
    for row in rows:
        table.add_row(row.currency, row.usd_per_currency, format_ns(row.valid_from_ns)[:19], row.author)
    out.print(table)
