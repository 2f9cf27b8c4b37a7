"""`farebox wallets lots` and `move`: list a wallet's lots, and move credits by hand."""

import json
import time
from contextlib import closing
from datetime import datetime
from typing import Annotated, Any

import typer
from sqlalchemy import Connection

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
    settings_from,
    writable_books,
)
from farebox_collector.ledger.credits.lot_rows import lots_of
from farebox_collector.ledger.credits.movements import (
    IdempotencyConflict,
    InvalidField,
    Kind,
    Moved,
    Movement,
    NoSuchLot,
    NoSuchWallet,
    NotEnough,
    metadata_text,
    move,
    require_valid,
)
from farebox_collector.model.moments import format_ns
from farebox_collector.model.money import AmountError, format_nano, parse_nano
from farebox_collector.model.pseudonyms import name_in_books

_OPTIONS = {
    "kind": "KIND",
    "amount_nanocredits": "--credits",
    "price_nanousd": "--price-usd",
    "to_wallet": "--to",
    "lot_id": "--lot",
    "expires_at_ns": "--expires",
}
"""Field of a movement → the option that states it."""


def lots_command(
    wallet: str,
    limit: Limit = 1_000,
    tenant: TenantName = "default",
    database_url: DatabaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """List a wallet's lots with origin and remaining credits, oldest first."""
    with reading_books(database_url) as connection:
        rows = lots_of(connection, tenant_id_of(connection, tenant), name_in_books(wallet), 0, limit)
    if as_json:
        print_json([_lot(row) for row in rows])
        return
    table = figure_table(f"Lots of {wallet}", "lot", "origin", "credits", "credits left", "USD paid", "expires")
    for row in rows:
        lot = _lot(row)
        figures = lot["amount_credits"], lot["remaining_credits"], lot["price_usd"]
        table.add_row(lot["lot_id"], row.origin, *figures, (lot["expires_at"] or "")[:19])
    print_table(table, len(rows), limit)


def move_command(
    wallet: str,
    kind: Annotated[Kind, typer.Argument(metavar="KIND", help="The kind of movement: grant, refund, transfer, ….")],
    key: Annotated[str, typer.Option(help="Idempotency key: repeating the same movement with it changes nothing.")],
    credits: Annotated[
        str, typer.Option(help="Credits; may be negative for an adjustment; default for a refund: all.")
    ] = "0",
    price_usd: Annotated[str, typer.Option(help="For a deposit: the price paid (default: the list price).")] = "",
    lot: Annotated[int, typer.Option(help="For a refund: the lot to take from.")] = 0,
    to_wallet: Annotated[str, typer.Option("--to", help="For a transfer: the receiving wallet.")] = "",
    expires: Annotated[datetime | None, typer.Option(help="When incoming credits expire, UTC.")] = None,
    priority: Annotated[int, typer.Option(min=0, max=1_000, help="Lots with a lower number are drawn first.")] = 100,
    memo: Annotated[str, typer.Option(help="A note, shown in the ledger.")] = "",
    metadata: Annotated[str, typer.Option(help="JSON object for reconciliation.")] = "",
    tenant: TenantName = "default",
    database_url: DatabaseUrl = None,
) -> None:
    """Move credits, once per key. While a collector runs on SQLite, use its HTTP API instead."""
    now_ns = time.time_ns()
    expires_ns = None if expires is None else moment_ns(expires)
    movement = Movement(
        kind,
        _wallet(wallet),
        _nano("--credits", credits),
        _nano("--price-usd", price_usd or "0"),
        lot,
        _wallet(to_wallet) if to_wallet else "",
        priority,
        expires_ns,
        memo,
        _metadata(metadata),
        at_list=kind is Kind.DEPOSIT and not price_usd,
    )
    try:
        require_valid(movement, now_ns)
    except InvalidField as error:
        hint = "; `farebox wallets lots` lists lots" if error.field == "lot_id" else ""
        raise Stop(f"{_OPTIONS[error.field]} {error.rule}{hint}") from None
    strict = settings_from(database_url=database_url).strict_wallets

    def work(connection: Connection) -> Moved:
        named = movement._replace(wallet=name_in_books(movement.wallet), to_wallet=name_in_books(movement.to_wallet))
        return move(connection, tenant_id_of(connection, tenant), named, key, now_ns, strict=strict)

    with closing(writable_books(database_url)) as database:
        try:
            made = database.transact(work)
        except IdempotencyConflict:
            raise Stop(f"the key {key!r} was already used for another movement; choose a new one") from None
        except (NotEnough, NoSuchLot, NoSuchWallet, AmountError) as error:
            raise Stop(str(error)) from None
    done = "moved before" if made.repeated else "moved"
    balance = format_nano(made.balance_nanocredits)
    out.print(f"{format_nano(made.amount_nanocredits)} credits {done}; {wallet} has {balance}.")


def _nano(option: str, text: str) -> int:
    try:
        return parse_nano(text)
    except AmountError as error:
        raise Stop(f"{option} {text!r}: {error}") from None


def _wallet(name: str) -> str:
    require_named(name, "a wallet's name")
    return name


def _metadata(text: str) -> str:
    try:
        value = json.loads(text) if text else {}
        if not isinstance(value, dict):
            raise Stop("--metadata must be a JSON object")
        return metadata_text(value)
    except ValueError as error:
        raise Stop(f"--metadata: {error}") from None


def _lot(row: Any) -> dict[str, Any]:
    return {
        "lot_id": str(row.id),
        "origin": row.origin,
        "amount_credits": format_nano(row.amount_nano),
        "remaining_credits": format_nano(row.remaining_nano),
        "price_usd": format_nano(row.price_nanousd),
        "recognised_usd": format_nano(row.recognised_nanousd),
        "returned_usd": format_nano(row.returned_nanousd),
        "priority": row.priority,
        "promotional": bool(row.promotional),
        "expires_at": None if row.expires_at_ns is None else format_ns(row.expires_at_ns),
    }
