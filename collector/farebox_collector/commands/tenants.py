"""`farebox tenants`: the businesses that one installation keeps books for."""

import time
from contextlib import closing
from typing import Annotated

import typer
from sqlalchemy import Connection

from farebox_collector.commands.terminal import (
    AsJson,
    DatabaseUrl,
    Limit,
    Stop,
    figure_table,
    out,
    positive_decimal,
    print_json,
    print_table,
    reading_books,
    writable_books,
)
from farebox_collector.dialects.text import MAX_TEXT, is_clean
from farebox_collector.ledger.access import tenants
from farebox_collector.surfaces.api.keys import show_tenant

app = typer.Typer(help="Tenants: the businesses that these books are kept for.", no_args_is_help=True)

TenantName = Annotated[str, typer.Option("--tenant", envvar="FAREBOX_TENANT", help="Whose books.")]


def tenant_id_of(connection: Connection, name: str) -> int:
    """The id of a tenant. Raises Stop if there is none of this name."""
    tenant_id = tenants.tenant_of(connection, name)
    if tenant_id is None:
        raise Stop(f"there is no tenant {name!r}: `farebox tenants list` shows those there are")
    return tenant_id


@app.command("create")
def create_command(
    name: Annotated[str, typer.Argument(help="Its name; only its keys say so on the wire.")],
    usd_per_credit: Annotated[str, typer.Option(help="What one credit sells for, in US dollars.")] = "1",
    database_url: DatabaseUrl = None,
) -> None:
    """Create a tenant with wallets, keys and charge rules of its own; at first every event is charged what it costs."""
    if not name or not is_clean(name):
        raise Stop(f"a tenant's name has 1 to {MAX_TEXT} printable characters")
    with closing(writable_books(database_url)) as database, database.transaction() as connection:
        try:
            tenants.create_tenant(connection, name, positive_decimal(usd_per_credit), time.time_ns())
        except tenants.TenantExists:
            raise Stop(f"there is a tenant {name!r} already") from None
    out.print(f"Created {name}. Its first key: farebox keys create NAME --scope admin --tenant {name}")


@app.command("list")
def list_command(limit: Limit = 100, database_url: DatabaseUrl = None, as_json: AsJson = False) -> None:
    """Tenants, and what a credit of theirs sells for."""
    with reading_books(database_url) as connection:
        shown = [show_tenant(row) for row in tenants.tenants_after(connection, limit=limit)]
    if as_json:
        print_json([tenant.model_dump() for tenant in shown])
        return
    table = figure_table("Tenants", "tenant", "USD a credit", "since")
    for tenant in shown:
        table.add_row(tenant.tenant, tenant.usd_per_credit, tenant.created_at[:19])
    print_table(table, len(shown), limit)
