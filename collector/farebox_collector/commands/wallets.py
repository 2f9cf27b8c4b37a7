"""`farebox wallets`: balances, deposits and history of wallets."""

import time
from contextlib import closing
from typing import Annotated, Any

import typer

from farebox_collector.commands.auto_topups import auto_topup_command
from farebox_collector.commands.movements import lots_command, move_command
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
    require_named,
    writable_books,
)
from farebox_collector.ledger.credits.deposits import IdempotencyConflict, deposit
from farebox_collector.ledger.credits.movements import NoSuchWallet
from farebox_collector.ledger.reports import statements
from farebox_collector.model.moments import format_ns
from farebox_collector.model.money import AmountError, format_nano, parse_nano
from farebox_collector.model.pseudonyms import name_in_books

app = typer.Typer(help="Wallets: prepaid credits of customers.", no_args_is_help=True)
app.command("lots")(lots_command)
app.command("move")(move_command)
app.command("auto-topup")(auto_topup_command)


@app.command("list")
def list_command(
    limit: Limit = 100, tenant: TenantName = "default", database_url: DatabaseUrl = None, as_json: AsJson = False
) -> None:
    """List wallets with balance and spending."""
    with reading_books(database_url) as connection:
        rows = statements.wallets(connection, tenant_id_of(connection, tenant), limit=limit)
    if as_json:
        print_json([_wallet(row) for row in rows])
        return
    table = figure_table("Wallets", "wallet", "balance, credits", "spent, credits", "last activity")
    for row in rows:
        shown = _wallet(row)
        table.add_row(row.name, shown["balance_credits"], shown["spent_credits"], (shown["last_activity"] or "")[:19])
    print_table(table, len(rows), limit)


@app.command("show")
def show_command(
    wallet: str, tenant: TenantName = "default", database_url: DatabaseUrl = None, as_json: AsJson = False
) -> None:
    """Show a wallet and its last movements."""
    with reading_books(database_url) as connection:
        tenant_id = tenant_id_of(connection, tenant)
        row = statements.wallet(connection, tenant_id, name_in_books(wallet))
        moves = statements.ledger(connection, tenant_id, name_in_books(wallet), limit=10)
    if row is None:
        raise Stop(f"there is no wallet {wallet!r}")
    if as_json:
        print_json(_wallet(row))
        return
    table = figure_table(f"{wallet}: {format_nano(row.balance_nano)} credits left", "when", "what", "event", "credits")
    for move in moves:
        table.add_row(format_ns(move.recorded_at_ns)[:19], move.type, move.event, format_nano(move.amount_nano))
    out.print(table)


@app.command("deposit")
def deposit_command(
    wallet: str,
    amount_credits: Annotated[str, typer.Argument(help="Credits, with at most nine decimals.")],
    key: Annotated[str, typer.Option(help="Idempotency key: repeating the same deposit with it changes nothing.")],
    memo: Annotated[str, typer.Option(help="A note, shown in the ledger.")] = "",
    tenant: TenantName = "default",
    database_url: DatabaseUrl = None,
) -> None:
    """Add credits to a wallet. While a collector runs on these books, use its HTTP API instead."""
    try:
        amount = parse_nano(amount_credits)
    except AmountError as error:
        raise Stop(f"{amount_credits!r}: {error}") from None
    if amount <= 0:
        raise Stop("a deposit must be positive")
    require_named(wallet, "a wallet's name")
    with closing(writable_books(database_url)) as database:
        try:
            made = database.transact(
                lambda connection: deposit(
                    connection,
                    tenant_id_of(connection, tenant),
                    name_in_books(wallet),
                    amount,
                    key,
                    time.time_ns(),
                    memo,
                )
            )
        except IdempotencyConflict:
            raise Stop(f"the key {key!r} was already used for another deposit; choose a new one") from None
        except NoSuchWallet as error:
            raise Stop(str(error)) from None
        except AmountError as error:
            raise Stop(f"{amount_credits}: {error}") from None
    done = "were already paid in" if made.repeated else "paid in"
    balance = format_nano(made.balance_nanocredits)
    out.print(f"{format_nano(amount)} credits {done}; {wallet} has {balance}.")


def _wallet(row: Any) -> dict[str, Any]:
    return {
        "wallet": row.name,
        "balance_credits": format_nano(row.balance_nano),
        "spent_credits": format_nano(row.spent_nano),
        "last_activity": None if row.last_activity_ns is None else format_ns(row.last_activity_ns),
    }
