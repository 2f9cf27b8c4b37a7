"""`farebox charges`: what was charged in a month."""

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
from farebox_collector.ledger.simulation import charges_by
from farebox_collector.moments import format_ns, to_ns
from farebox_collector.money import format_nano

_COLUMNS = ("event", "wallet", "model", "provider", "dept", "project")


def charges(
    month: Annotated[str | None, typer.Option(help="Such as 2026-04, in UTC; this month by default.")] = None,
    by: Annotated[str, typer.Option(help=f"One of {', '.join(_COLUMNS)}.")] = "event",
    limit: Limit = 100,
    tenant: TenantName = "default",
    database_url: DatabaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """What was charged in a month, and what it cost us, dearest first."""
    if by not in _COLUMNS:
        raise Stop(f"--by is one of {', '.join(_COLUMNS)}")
    from_ns, to_ns_ = _month(month)
    with reading_books(database_url) as connection:
        rows = charges_by(connection, tenant_id_of(connection, tenant), by, from_ns, to_ns_, limit)
    name = format_ns(from_ns)[:7]
    if as_json:
        shown = [
            {
                by: row.name,
                "calls": row.calls,
                "charge_credits": format_nano(int(row.charge_nanocredits)),
                "cost_usd": format_nano(int(row.cost_nanousd)),
            }
            for row in rows
        ]
        print_json({"month": name, "charges": shown})
        return
    total = sum(int(row.charge_nanocredits) for row in rows)
    table = figure_table(f"{name}: {format_nano(total)} credits charged", by, "calls", "credits", "USD cost")
    for row in rows:
        figures = format_nano(int(row.charge_nanocredits)), format_nano(int(row.cost_nanousd))
        table.add_row(row.name, f"{row.calls:,}", *figures)
    print_table(table, len(rows), limit)


def _month(text: str | None) -> tuple[int, int]:
    """The half-open time of a month. Raises Stop."""
    chosen = text or datetime.fromtimestamp(time.time(), UTC).strftime("%Y-%m")
    try:
        first = datetime.strptime(chosen, "%Y-%m").replace(tzinfo=UTC)
        following = first.replace(year=first.year + first.month // 12, month=first.month % 12 + 1)
        return to_ns(first), to_ns(following)
    except ValueError:
        raise Stop(f"{chosen!r} is not a month such as 2026-04") from None
