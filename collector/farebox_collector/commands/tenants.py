"""`farebox tenants`: businesses with their own books in this installation."""

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
    require_named,
    writable_books,
)
from farebox_collector.ledger.access import tenants
from farebox_collector.surfaces.api.keys import show_tenant

app = typer.Typer(help="Tenants: businesses with their own books in this installation.", no_args_is_help=True)

TenantName = Annotated[str, typer.Option("--tenant", envvar="FAREBOX_TENANT", help="Whose books.")]


def tenant_id_of(connection: Connection, name: str) -> int:
    """Return the id of a tenant. Raises Stop if there is none of this name."""
    tenant_id = tenants.tenant_of(connection, name)
    if tenant_id is None:
        raise Stop(f"there is no tenant {name!r}; `farebox tenants list` shows all tenants")
    return tenant_id


@app.command("create")
def create_command(
    name: Annotated[str, typer.Argument(help="The tenant's name; requests name it by their key only.")],
    usd_per_credit: Annotated[str, typer.Option(help="The price of one credit in US dollars.")] = "1",
    database_url: DatabaseUrl = None,
) -> None:
    """Create a tenant with its own wallets, keys and charge rules; by default events are charged at cost."""
    require_named(name, "a tenant's name")
    with closing(writable_books(database_url)) as database, database.transaction() as connection:
        try:
            tenants.create_tenant(connection, name, positive_decimal(usd_per_credit), time.time_ns())
        except tenants.TenantExists:
            raise Stop(f"the tenant {name!r} already exists") from None
    out.print(f"Created {name}. Its first key: farebox keys create NAME --scope admin --tenant {name}")


@app.command("list")
def list_command(limit: Limit = 100, database_url: DatabaseUrl = None, as_json: AsJson = False) -> None:
    """List tenants and the price of their credits."""
    with reading_books(database_url) as connection:
        shown = [show_tenant(row) for row in tenants.tenants_after(connection, limit=limit)]
    if as_json:
        print_json([tenant.model_dump() for tenant in shown])
        return
    table = figure_table("Tenants", "tenant", "USD a credit", "since")
    for tenant in shown:
        table.add_row(tenant.tenant, tenant.usd_per_credit, tenant.created_at[:19])
    print_table(table, len(shown), limit)
