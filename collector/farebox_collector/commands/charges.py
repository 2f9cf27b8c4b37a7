"""`farebox charges`: charges of a month."""

import time
from datetime import UTC, datetime
from typing import Annotated

import typer

from farebox_collector.commands.tenants import TenantName, tenant_id_of
from farebox_collector.commands.terminal import (
    AsJson,
    DatabaseUrl,
    Limit,
    Stop,
    figure_table,
    print_json,
    print_table,
    reading_books,
)
from farebox_collector.ledger.reports.charges import ChargedBy, charges_by
from farebox_collector.model.moments import Days
from farebox_collector.model.money import format_nano
from farebox_collector.surfaces.api.report_rows import EPOCH


def charges(
    month: Annotated[str | None, typer.Option(help="UTC month, such as 2026-04 (default: this month).")] = None,
    by: Annotated[ChargedBy, typer.Option(help="Group by this.")] = ChargedBy.EVENT,
    limit: Limit = 100,
    tenant: TenantName = "default",
    database_url: DatabaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """Show a month's charges and provider costs, most expensive first."""
    name, days = _month(month)
    with reading_books(database_url) as connection:
        rows = charges_by(connection, tenant_id_of(connection, tenant), by, days, limit)
    if as_json:
        shown = [
            {
                by.value: row.name,
                "calls": int(row.calls),
                "charge_credits": format_nano(int(row.charge_nanocredits)),
                "cost_usd": format_nano(int(row.cost_nanousd)),
            }
            for row in rows
        ]
        print_json({"month": name, "charges": shown})
        return
    total = sum(int(row.charge_nanocredits) for row in rows)
    table = figure_table(f"{name}: {format_nano(total)} credits charged", by.value, "calls", "credits", "USD cost")
    for row in rows:
        figures = format_nano(int(row.charge_nanocredits)), format_nano(int(row.cost_nanousd))
        table.add_row(row.name, f"{int(row.calls):,}", *figures)
    print_table(table, len(rows), limit)


def _month(text: str | None) -> tuple[str, Days]:
    """Return a month's name and days. Raises Stop."""
    chosen = text or datetime.fromtimestamp(time.time(), UTC).strftime("%Y-%m")
    try:
        first = datetime.strptime(chosen, "%Y-%m").replace(tzinfo=UTC).date()
        following = first.replace(year=first.year + first.month // 12, month=first.month % 12 + 1)
        days = Days((first - EPOCH).days, (following - EPOCH).days)
        if days.first < 0:
            raise ValueError
    except ValueError:
        raise Stop(f"{chosen!r} is not a month such as 2026-04") from None
    return chosen, days
