"""`farebox reconcile`: compare the books with the payment provider."""

import time
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from farebox_collector.commands.terminal import (
    AsJson,
    DatabaseUrl,
    Stop,
    figure_table,
    moment_ns,
    out,
    print_json,
    reading_books,
    settings_from,
)
from farebox_collector.model.minor_units import format_minor
from farebox_collector.model.records import DEFAULT_TENANT_ID
from farebox_collector.payments.reconciliation import (
    BadReport,
    Difference,
    differences,
    from_report,
    from_stripe,
    still_unpaid,
)
from farebox_collector.payments.stripe_client import GatewayRefused, GatewayUnavailable, StripeGateway

_FEES_LATER_NS = 3_600 * 10**9
"""How long a fee may be missing: it is fetched after the payment."""

app = typer.Typer(help="Reconcile the books with a payment provider.", no_args_is_help=True)


@app.callback()
def reconcile() -> None:
    """Reconcile the books with a payment provider."""


@app.command("stripe")
def stripe_command(
    start: Annotated[datetime, typer.Option("--from", help="Start of the period, UTC, such as 2026-11-01.")],
    end: Annotated[datetime, typer.Option("--to", help="End of the period (exclusive), UTC, such as 2026-12-01.")],
    report: Annotated[
        Path | None,
        typer.Option("--csv", help="Stripe's itemized balance report, instead of asking its API."),
    ] = None,
    database_url: DatabaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """List payments, refunds, disputes and fees that are only at Stripe, only in the books, different or unmatched.

    Status 1 if there are any.
    """
    start_ns, end_ns = moment_ns(start), moment_ns(end)
    if start_ns >= end_ns:
        raise Stop("--to must be after --from")
    try:
        found = _found(database_url, report, start_ns, end_ns)
    except (GatewayRefused, GatewayUnavailable, BadReport) as error:
        raise Stop(str(error)) from None
    except OSError as error:
        raise Stop(f"{report}: {error.strerror}") from None
    rows = [_shown(one) for one in found]
    if as_json:
        print_json({"agree": not rows, "differences": rows})
    elif rows:
        table = figure_table(f"{len(rows)} differences", "where", "what", "id", "payment", "amount", "why")
        for row in rows:
            table.add_row(row["where"], row["what"], row["id"], row["payment_intent"], row["amount"], row["why"])
        out.print(table)
    else:
        out.print("The books and Stripe agree.", style="green")
    if rows:
        raise typer.Exit(1)


def _found(database_url: str | None, report: Path | None, start_ns: int, end_ns: int) -> list[Difference]:
    gateway = None if report else _gateway()
    listed = from_report(report) if report else []
    if gateway:
        listed = from_stripe(gateway, start_ns, end_ns)
    with reading_books(database_url) as connection:
        fees_until_ns = time.time_ns() - _FEES_LATER_NS
        found = differences(connection, DEFAULT_TENANT_ID, listed, start_ns, end_ns, fees_until_ns)
    return list(still_unpaid(gateway, found)) if gateway else found


def _gateway() -> StripeGateway:
    settings = settings_from()
    if settings.stripe_api_key is None:
        raise Stop("set FAREBOX_STRIPE_API_KEY, or give a report with --csv")
    return StripeGateway(settings.stripe_api_key.get_secret_value(), settings.stripe_api_base)


def _shown(one: Difference) -> dict[str, Any]:
    return {
        "where": str(one.side),
        "what": one.kind,
        "id": one.id,
        "payment_intent": one.payment_intent,
        "amount": f"{format_minor(one.amount_minor, one.currency)} {one.currency}",
        "why": one.why,
    }
