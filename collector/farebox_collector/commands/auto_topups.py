"""`farebox wallets auto-topup`: show a wallet's automatic top-up, or resume it."""

import time
from contextlib import closing
from typing import Annotated, Any

import typer
from sqlalchemy import Connection, Row

from farebox_collector.commands.tenants import TenantName, tenant_id_of
from farebox_collector.commands.terminal import (
    AsJson,
    DatabaseUrl,
    Stop,
    out,
    print_json,
    reading_books,
    writable_books,
)
from farebox_collector.ledger.payments.auto_topups import BadAutoTopup, auto_topup, resume
from farebox_collector.model.minor_units import format_minor
from farebox_collector.model.moments import format_ns
from farebox_collector.model.money import format_nano
from farebox_collector.model.pseudonyms import name_in_books


def auto_topup_command(
    wallet: str,
    again: Annotated[
        bool, typer.Option("--resume", help="Switch the top-up on again with its previous terms.")
    ] = False,
    author: Annotated[str, typer.Option(help="Who resumes it; kept with the version.")] = "cli",
    reason: Annotated[str, typer.Option(help="Why; kept with the version.")] = "",
    tenant: TenantName = "default",
    database_url: DatabaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """Show a wallet's automatic top-up and why it is off. While a collector runs on SQLite, resume over HTTP."""
    if again:
        _resume(database_url, tenant, wallet, author, reason)
    with reading_books(database_url) as connection:
        row = auto_topup(connection, tenant_id_of(connection, tenant), name_in_books(wallet))
    if row is None:
        raise Stop(f"wallet {wallet!r} has no automatic top-up: set one with PUT /v1/wallets/{wallet}/auto-topup")
    shown = _shown(row)
    if as_json:
        print_json(shown)
        return
    state = "on" if row.enabled else "paused" if row.paused else "off"
    out.print(f"{wallet}: {state} since {shown['since'][:19]}, by {row.author}: {row.reason or 'no reason given'}")
    out.print(f"buys {row.pack} below {shown['below_credits']} credits, at most {shown['month_cap']} a UTC month")


def _resume(database_url: str | None, tenant: str, wallet: str, author: str, reason: str) -> None:
    def work(connection: Connection) -> None:
        resume(connection, tenant_id_of(connection, tenant), name_in_books(wallet), author, reason, time.time_ns())

    with closing(writable_books(database_url)) as database:
        try:
            database.transact(work)
        except BadAutoTopup as error:
            raise Stop(str(error)) from None


def _shown(row: Row[Any]) -> dict[str, Any]:
    return {
        "wallet": row.wallet,
        "enabled": bool(row.enabled),
        "paused": bool(row.paused),
        "pack": row.pack,
        "below_credits": format_nano(row.below_nano),
        "month_cap": f"{format_minor(row.month_cap_minor, row.currency)} {row.currency}",
        "since": format_ns(row.recorded_at_ns),
        "author": row.author,
        "reason": row.reason,
    }
