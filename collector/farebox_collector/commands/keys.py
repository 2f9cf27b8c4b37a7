"""`farebox keys`: API keys and their scopes."""

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
    require_named,
    writing,
)
from farebox_collector.ledger.access import keys
from farebox_collector.ledger.access.keys import Issued, NoActiveKey
from farebox_collector.model.credentials import Scope, new_token
from farebox_collector.model.pseudonyms import name_in_books
from farebox_collector.surfaces.api.keys import show_key

app = typer.Typer(help="API keys to report usage, read, move credits or administer.", no_args_is_help=True)

KeyId = Annotated[str, typer.Argument(help="The 16 digits after fbx_, as in `farebox keys list`.")]

_HOUR_NS = 3600 * 10**9


@app.command("create")
def create_command(
    name: Annotated[str, typer.Argument(help="The key's purpose, such as gateway.")],
    scope: Annotated[list[Scope], typer.Option(help="What the key may do; repeatable.")],
    wallet: Annotated[str, typer.Option(help="Restrict the key to reading this wallet.")] = "",
    days: Annotated[int | None, typer.Option(min=1, max=36_500, help="Days until it expires (default: never).")] = None,
    key_file: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="Read the key from this file, written by `farebox keys generate`. Prints no key; a stored key stays"
            " unchanged.",
        ),
    ] = None,
    tenant: TenantName = "default",
    database_url: DatabaseUrl = None,
) -> None:
    """Create an API key and print it. It is shown only once."""
    for text in filter(None, (name, wallet)):
        require_named(text, "a name")
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
        out.print(f"{name}: {'created' if made else 'already exists'}.")


@app.command("list")
def list_command(
    limit: Limit = 100, tenant: TenantName = "default", database_url: DatabaseUrl = None, as_json: AsJson = False
) -> None:
    """List a tenant's keys: purpose, scopes, last use."""
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
    overlap_hours: Annotated[int, typer.Option(min=0, max=2160, help="How long the old key keeps working.")] = 24,
    tenant: TenantName = "default",
    database_url: DatabaseUrl = None,
) -> None:
    """Create a key with the same scopes and print it; the old one works until the overlap ends."""
    with writing(database_url) as connection:
        tenant_id = tenant_id_of(connection, tenant)
        try:
            issued = keys.rotate_key(connection, tenant_id, key_id, time.time_ns(), overlap_hours * _HOUR_NS)
        except NoActiveKey:
            raise Stop(f"there is no working key {key_id}") from None
    _print_key(issued)


@app.command("revoke")
def revoke_command(key_id: KeyId, tenant: TenantName = "default", database_url: DatabaseUrl = None) -> None:
    """Revoke a key; running collectors refuse it within a second."""
    with writing(database_url) as connection:
        try:
            changed = keys.revoke_key(connection, tenant_id_of(connection, tenant), key_id, time.time_ns())
        except NoActiveKey:
            raise Stop(f"there is no key {key_id}") from None
    out.print(f"{key_id} is revoked." if changed else f"{key_id} was already revoked.")


@app.command("generate")
def generate_command() -> None:
    """Print a new key for FAREBOX_BOOTSTRAP_KEY without storing it."""
    sys.stdout.write(new_token() + "\n")


def _print_key(issued: Issued) -> None:
    print_once(issued.token, "Save it now: only its hash is stored, and it is not shown again.")
