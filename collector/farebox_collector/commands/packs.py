"""`farebox packs`: credits sold at a price."""

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
from farebox_collector.ledger.payments.packs import (
    BadPack,
    PackTerms,
    pack_versions,
    packs_in_force,
    set_pack,
    withdraw_pack,
)
from farebox_collector.model.minor_units import format_minor, parse_minor
from farebox_collector.model.moments import format_ns
from farebox_collector.model.money import AmountError, format_nano, parse_nano
from farebox_collector.model.records import DEFAULT_TENANT_ID
from farebox_collector.pricing.currencies import NoExchangeRate, is_currency

app = typer.Typer(help="Packs: credits sold at a price, for top-ups.", no_args_is_help=True)

Author = Annotated[str, typer.Option(help="Who sets it; kept with the version.")]
Reason = Annotated[str, typer.Option(help="Why; kept with the version.")]


@app.command("list")
def list_command(
    history: Annotated[bool, typer.Option("--history", help="List every version of every pack.")] = False,
    database_url: DatabaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """List packs on sale, cheapest first."""
    with reading_books(database_url) as connection:
        read = pack_versions if history else packs_in_force
        rows = [_pack(row) for row in read(connection, DEFAULT_TENANT_ID)]
    if as_json:
        print_json(rows)
        return
    table = figure_table("Packs", "pack", "credits", "price", "expires after", "since", "author", "reason")
    for row in rows:
        expiry = f"{row['expires_days']} days" if row["expires_days"] else "never"
        credits = row["credits"] if row["on_sale"] else "no longer sold"
        price = f"{row['price']} {row['currency']}"
        table.add_row(row["pack"], credits, price, expiry, row["since"][:19], row["author"], row["reason"])
    out.print(table)


@app.command("set")
def set_command(
    pack: Annotated[str, typer.Argument(help="The pack's name.")],
    credits: Annotated[str, typer.Argument(help="Credits in it, with at most nine decimals.")],
    price: Annotated[str, typer.Argument(help="What it costs, such as 10.00.")],
    currency: Annotated[str, typer.Option(help="ISO 4217, three capital letters.")] = "USD",
    expires_days: Annotated[int, typer.Option(help="Days until the credits expire; 0 is never.")] = 0,
    author: Author = "cli",
    reason: Reason = "",
    database_url: DatabaseUrl = None,
) -> None:
    """Sell a pack on these terms from now on. While a collector runs on SQLite, use its HTTP API."""
    require_named(pack, "a pack's name")
    if not is_currency(currency):
        raise Stop(f"{currency!r} is not a currency; use three capital letters, such as EUR")
    try:
        terms = PackTerms(pack, parse_nano(credits), currency, parse_minor(price, currency), expires_days)
    except AmountError as error:
        raise Stop(f"{credits} for {price}: {error}") from None
    with writing(database_url) as connection:
        try:
            set_pack(connection, DEFAULT_TENANT_ID, terms, author, reason, time.time_ns())
        except (BadPack, NoExchangeRate) as error:
            raise Stop(str(error)) from None
    out.print(f"{pack}: {format_nano(terms.credits_nano)} credits for {price} {currency} from now on.")


@app.command("withdraw")
def withdraw_command(
    pack: Annotated[str, typer.Argument(help="The pack's name.")],
    author: Author = "cli",
    reason: Reason = "",
    database_url: DatabaseUrl = None,
) -> None:
    """Stop selling a pack; its versions are kept."""
    with writing(database_url) as connection:
        if not withdraw_pack(connection, DEFAULT_TENANT_ID, pack, author, reason, time.time_ns()):
            raise Stop(f"there is no pack {pack!r}")
    out.print(f"{pack} is no longer sold.")


def _pack(row: Any) -> dict[str, Any]:
    return {
        "pack": row.name,
        "on_sale": bool(row.credits_nano),
        "credits": format_nano(row.credits_nano),
        "price": format_minor(row.amount_minor, row.currency),
        "currency": row.currency,
        "expires_days": row.expires_days,
        "since": format_ns(row.recorded_at_ns),
        "author": row.author,
        "reason": row.reason,
    }
