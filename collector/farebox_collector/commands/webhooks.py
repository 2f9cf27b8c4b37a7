"""`farebox webhooks`: endpoints, messages and low-balance thresholds."""

import time
from typing import Annotated, Any

import typer

from farebox_collector.background.webhook_destinations import BadDestination, read_url
from farebox_collector.background.webhook_sender import shown_secret
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
    settings_from,
    writing,
)
from farebox_collector.ledger.journal import low_balances, outbox
from farebox_collector.ledger.journal.outbox import MessageState
from farebox_collector.model.moments import format_ns
from farebox_collector.model.money import AmountError, format_nano, parse_nano
from farebox_collector.model.pseudonyms import name_in_books

app = typer.Typer(help="Webhooks: endpoints, messages and low-balance thresholds.", no_args_is_help=True)

_HOUR_NS = 3600 * 10**9


@app.command("list")
def list_command(
    state: Annotated[MessageState | None, typer.Option(help="Only messages in this state.")] = None,
    limit: Limit = 100,
    tenant: TenantName = "default",
    database_url: DatabaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """List messages and their delivery state, newest first."""
    with reading_books(database_url) as connection:
        rows = outbox.messages_of(connection, tenant_id_of(connection, tenant), state or "", limit=limit)
    if as_json:
        print_json([_message(row) for row in rows])
        return
    table = figure_table("Webhook messages", "created", "message", "endpoint", "type", "state", "tried", "last answer")
    for row in rows:
        when, answer = format_ns(row.created_at_ns)[:19], row.last_error or (row.last_status and str(row.last_status))
        tried = str(row.attempts)
        table.add_row(when, row.message_id, str(row.endpoint_id), row.type, row.state, tried, answer or "")
    print_table(table, len(rows), limit)


@app.command("retry")
def retry_command(message_id: str, tenant: TenantName = "default", database_url: DatabaseUrl = None) -> None:
    """Send an undelivered message again. While a collector runs on SQLite, use its HTTP API."""
    with writing(database_url) as connection:
        count = outbox.retry(connection, tenant_id_of(connection, tenant), message_id, time.time_ns())
    if not count:
        raise Stop(f"there is no undelivered message {message_id!r}")
    out.print(f"{message_id} will be sent to {count} endpoint{'s' * (count > 1)} by the next running collector.")


@app.command("endpoints")
def endpoints_command(
    tenant: TenantName = "default", database_url: DatabaseUrl = None, as_json: AsJson = False
) -> None:
    """List the endpoints that receive messages."""
    with reading_books(database_url) as connection:
        rows = outbox.endpoints_of(connection, tenant_id_of(connection, tenant))
    if as_json:
        print_json([{"endpoint_id": str(row.id), "url": row.url} for row in rows])
        return
    table = figure_table("Webhook endpoints", "endpoint", "URL", "since")
    for row in rows:
        table.add_row(str(row.id), row.url, format_ns(row.created_at_ns)[:19])
    out.print(table)


@app.command("add")
def add_command(
    url: Annotated[str, typer.Argument(help="An https URL on the open internet.")],
    tenant: TenantName = "default",
    database_url: DatabaseUrl = None,
) -> None:
    """Send messages to a URL from now on, and print their signing secret. It is shown only once."""
    settings = settings_from(database_url=database_url)
    try:
        read_url(url, settings.webhook_private_hosts)
    except BadDestination as error:
        raise Stop(f"{url}: {error}") from None
    with writing(database_url) as connection:
        try:
            tenant_id = tenant_id_of(connection, tenant)
            endpoint_id, secret = outbox.add_endpoint(connection, tenant_id, url, time.time_ns())
        except outbox.TooManyEndpoints as error:
            raise Stop(str(error)) from None
    out.print(f"Endpoint {endpoint_id} has the signing secret", shown_secret(secret), soft_wrap=True)


@app.command("rotate")
def rotate_command(
    endpoint_id: int,
    overlap_hours: Annotated[int, typer.Option(min=0, max=24 * 90, help="How long the old secret also signs.")] = 24,
    tenant: TenantName = "default",
    database_url: DatabaseUrl = None,
) -> None:
    """Give an endpoint a new secret and print it; the old one also signs until the overlap ends."""
    with writing(database_url) as connection:
        tenant_id = tenant_id_of(connection, tenant)
        overlap_ns = overlap_hours * _HOUR_NS
        secret = outbox.rotate_secret(connection, tenant_id, endpoint_id, time.time_ns(), overlap_ns)
    if secret is None:
        raise Stop(f"there is no endpoint {endpoint_id}")
    out.print(f"Endpoint {endpoint_id} has the signing secret", shown_secret(secret), soft_wrap=True)


@app.command("remove")
def remove_command(endpoint_id: int, tenant: TenantName = "default", database_url: DatabaseUrl = None) -> None:
    """Stop sending messages to an endpoint."""
    with writing(database_url) as connection:
        tenant_id = tenant_id_of(connection, tenant)
        if not outbox.remove_endpoint(connection, tenant_id, endpoint_id, time.time_ns()):
            raise Stop(f"there is no endpoint {endpoint_id}")
    out.print(f"Endpoint {endpoint_id} is removed.")


@app.command("thresholds")
def thresholds_command(
    tenant: TenantName = "default", database_url: DatabaseUrl = None, as_json: AsJson = False
) -> None:
    """List the low-balance thresholds."""
    with reading_books(database_url) as connection:
        rows = low_balances.thresholds_in_force(connection, tenant_id_of(connection, tenant))
    shown = [(row, [format_nano(bound) for bound in low_balances.bounds_of(row)]) for row in rows]
    if as_json:
        print_json([{"wallet": row.wallet, "below_credits": bounds} for row, bounds in shown])
        return
    table = figure_table("Low balances", "wallet", "below", "since", "author", "reason")
    for row, bounds in shown:
        table.add_row(row.wallet, ", ".join(bounds), format_ns(row.recorded_at_ns)[:19], row.author, row.reason)
    out.print(table)


@app.command("warn")
def warn_command(
    wallet: Annotated[str, typer.Argument(help="Wallet; *: each without its own thresholds.")],
    below: Annotated[list[str] | None, typer.Option(help="Credits; repeatable. None ends the thresholds.")] = None,
    reason: Annotated[str, typer.Option(help="Why; kept with the thresholds.")] = "",
    author: Annotated[str, typer.Option(help="Who sets them; kept with the thresholds.")] = "cli",
    tenant: TenantName = "default",
    database_url: DatabaseUrl = None,
) -> None:
    """Send a message from now on when a wallet's balance falls below a threshold."""
    require_named(wallet, "a wallet's name")
    try:
        bounds = [parse_nano(text) for text in below or ()]
        with writing(database_url) as connection:
            low_balances.set_thresholds(
                connection,
                tenant_id_of(connection, tenant),
                name_in_books(wallet),
                bounds,
                author,
                reason,
                time.time_ns(),
            )
    except (AmountError, low_balances.BadThreshold) as error:
        raise Stop(str(error)) from None
    shown = ", ".join(format_nano(bound) for bound in sorted(bounds, reverse=True))
    out.print(f"{wallet}: a message below {shown} credits." if shown else f"{wallet}: no messages any more.")


def _message(row: Any) -> dict[str, Any]:
    return {
        "message_id": row.message_id,
        "endpoint_id": str(row.endpoint_id),
        "type": row.type,
        "state": row.state,
        "attempts": row.attempts,
        "last_status": row.last_status,
        "last_error": row.last_error,
        "body": row.body,
        "created_at": format_ns(row.created_at_ns),
    }
