"""`farebox keys`: who may report usage, read, move credits, and administer."""

import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from farebox_collector.commands.tenants import TenantName, tenant_id_of
from farebox_collector.commands.terminal import (
    AsJson,
    DatabaseUrl,
    Limit,
    Stop,
    figure_table,
    out,
    print_json,
    print_once,
    print_table,
    reading_books,
    writing,
)
from farebox_collector.dialects.text import MAX_TEXT, is_clean
from farebox_collector.ledger.access import keys
from farebox_collector.ledger.access.keys import Issued, KeyGone
from farebox_collector.model.credentials import Scope, new_token
from farebox_collector.model.pseudonyms import name_in_books
from farebox_collector.surfaces.api.keys import show_key

app = typer.Typer(help="API keys: who may report usage, read, move credits, administer.", no_args_is_help=True)

KeyId = Annotated[str, typer.Argument(help="The 16 digits after fbx_, as `farebox keys list` shows them.")]

_HOUR_NS = 3600 * 10**9


@app.command("create")
def create_command(
    name: Annotated[str, typer.Argument(help="What it is for, such as gateway.")],
    scope: Annotated[list[Scope], typer.Option(help="What it may do; may be given several times.")],
    wallet: Annotated[str, typer.Option(help="Let it read this wallet only.")] = "",
    days: Annotated[int | None, typer.Option(min=1, max=36_500, help="How long it works (default: for good).")] = None,
    key_file: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="Take the key from this file, where `farebox keys generate` wrote it; nothing is printed, and a key"
            " that is in the books already stays as it is.",
        ),
    ] = None,
    tenant: TenantName = "default",
    database_url: DatabaseUrl = None,
) -> None:
    """Make an API key, and print it: the only time that it is shown."""
    for text in filter(None, (name, wallet)):
        if not is_clean(text):
            raise Stop(f"a name has 1 to {MAX_TEXT} printable characters")
    now_ns = time.time_ns()
    with writing(database_url) as connection:
        tenant_id, wallet = tenant_id_of(connection, tenant), name_in_books(wallet)
        expires_at_ns = None if days is None else now_ns + days * 24 * _HOUR_NS
        try:
            if key_file is not None:
                token = key_file.read_text(encoding="utf-8").strip()
                made = keys.provide_key(connection, tenant_id, name, scope, now_ns, token, wallet, expires_at_ns)
            else:
                issued = keys.create_key(
                    connection, tenant_id, name, scope, now_ns, wallet=wallet, expires_at_ns=expires_at_ns
                )
        except ValueError as error:
            raise Stop(str(error)) from None
    if key_file is None:
        _print_key(issued)
    else:
        out.print(f"{name}: {'made' if made else 'there already'}.")


@app.command("list")
def list_command(
    limit: Limit = 100, tenant: TenantName = "default", database_url: DatabaseUrl = None, as_json: AsJson = False
) -> None:
    """A tenant's keys: what they are for, what they may do, when they were used last."""
    with reading_books(database_url) as connection:
        rows = keys.keys_of(connection, tenant_id_of(connection, tenant), limit=limit)
    shown = [show_key(row) for row in rows]
    if as_json:
        print_json([key.model_dump() for key in shown])
        return
    table = figure_table("API keys", "key", "for", "may", "wallet", "last used", "ends")
    for key in shown:
        ends = f"revoked {key.revoked_at[:10]}" if key.revoked_at else (key.expires_at or "")[:19]
        table.add_row(key.key_id, key.name, " ".join(key.scopes), key.wallet, (key.last_used_at or "")[:19], ends)
    print_table(table, len(shown), limit)


@app.command("rotate")
def rotate_command(
    key_id: KeyId,
    overlap_hours: Annotated[int, typer.Option(min=0, max=2160, help="How long the old key goes on working.")] = 24,
    tenant: TenantName = "default",
    database_url: DatabaseUrl = None,
) -> None:
    """Make a key that may do the same, and print it; the old one works until the overlap is over."""
    with writing(database_url) as connection:
        tenant_id = tenant_id_of(connection, tenant)
        try:
            issued = keys.rotate_key(connection, tenant_id, key_id, time.time_ns(), overlap_hours * _HOUR_NS)
        except KeyGone:
            raise Stop(f"there is no key {key_id} that still works") from None
    _print_key(issued)


@app.command("revoke")
def revoke_command(key_id: KeyId, tenant: TenantName = "default", database_url: DatabaseUrl = None) -> None:
    """Let a key work no more; collectors that run know within a second."""
    with writing(database_url) as connection:
        try:
            changed = keys.revoke_key(connection, tenant_id_of(connection, tenant), key_id, time.time_ns())
        except KeyGone:
            raise Stop(f"there is no key {key_id}") from None
    out.print(f"{key_id} works no more." if changed else f"{key_id} had been revoked before.")


@app.command("generate")
def generate_command() -> None:
    """Print a new key that is in no books yet, for FAREBOX_BOOTSTRAP_KEY."""
    sys.stdout.write(new_token() + "\n")


def _print_key(issued: Issued) -> None:
    print_once(issued.token, "Keep it now: the books have its hash only, and it is not shown again.")
