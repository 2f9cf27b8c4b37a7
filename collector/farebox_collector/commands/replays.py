"""`farebox replay`: reprice past calls; show the difference, then post it."""

import time
from contextlib import closing
from datetime import datetime
from typing import Annotated

import typer

from farebox_collector.background.replay import Replay, ReplayReport
from farebox_collector.commands.tenants import TenantName, tenant_id_of
from farebox_collector.commands.terminal import (
    AsJson,
    DatabaseUrl,
    Stop,
    figure_table,
    moment_ns,
    out,
    print_json,
    progress_bar,
    require_readable,
    settings_from,
    writable_books,
)
from farebox_collector.ledger.reports.replay_difference import Difference, Largest
from farebox_collector.ledger.storage.connect import open_database
from farebox_collector.ledger.storage.database import Database
from farebox_collector.ledger.usage.corrections import CorrectionsFrozen
from farebox_collector.ledger.usage.replay_candidates import ReplayScope
from farebox_collector.model.money import AmountError, format_nano
from farebox_collector.model.pseudonyms import name_in_books
from farebox_collector.surfaces.api.replays import show_report

_NOTHING_YET = "Not posted; use --yes."


def replay_command(
    since: Annotated[datetime, typer.Option("--from", help="From this time on, UTC.")],
    until: Annotated[datetime, typer.Option("--to", help="Before this time, UTC.")],
    wallet: Annotated[str, typer.Option(help="Only calls of this wallet.")] = "",
    provider: Annotated[str, typer.Option(help="Only calls of this provider.")] = "",
    model: Annotated[str, typer.Option(help="Only calls of this model, as reported or as in the price book.")] = "",
    event: Annotated[str, typer.Option(help="Only calls of this event.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the difference and post nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Post the difference without asking.")] = False,
    tenant: TenantName = "default",
    database_url: DatabaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """Reprice past calls at the prices of their time: show the difference, then post it. Safe to repeat."""
    scope = ReplayScope(moment_ns(since), moment_ns(until), wallet, provider, model, event)
    if scope.from_ns >= scope.to_ns:
        raise Stop("--from must be before --to")
    if dry_run and yes:
        raise Stop("use either --dry-run or --yes")
    ask = not yes and not dry_run and not as_json and out.is_terminal
    with closing(_books(database_url, writable=yes or ask)) as database:
        with database.reading() as connection:
            tenant_id = tenant_id_of(connection, tenant)
        scope = scope._replace(wallet=name_in_books(wallet))
        wanted = settings_from(database_url=database_url).charge_exposed
        replay = Replay(database, tenant_id, scope, time.time_ns, charge_exposed=wanted)
        with progress_bar("comparing") as progress:
            report = replay.compare(progress)
        if not as_json:
            _show(report)
        if not yes and not (ask and report.total.records and typer.confirm("Post the difference?")):
            if as_json:
                print_json({"posted": False, **show_report(report).model_dump(exclude={"next_cursor"})})
            elif report.total.records and not ask:
                out.print("Nothing is posted." if dry_run else _NOTHING_YET)
            return
        try:
            with progress_bar("posting") as progress:
                posted = replay.post(progress)
        except (CorrectionsFrozen, AmountError) as error:
            raise Stop(str(error)) from None
    if as_json:
        print_json({"posted": True, **show_report(posted).model_dump(exclude={"next_cursor"})})
    else:
        out.print(f"Corrections posted: {posted.total.records:,}; {_movement(posted.total)}.")


def _books(database_url: str | None, *, writable: bool) -> Database:
    if writable:
        return writable_books(database_url)
    settings = settings_from(database_url=database_url)
    database = open_database(settings.database_url, writable=False)
    with database.reading() as connection:
        require_readable(connection, settings)
    return database


def _show(report: ReplayReport) -> None:
    if report.total.records:
        _table("By model", "model", report.models)
        _table("By wallet", "wallet", report.wallets)
    out.print(f"{report.looked_at:,} records read, {report.total.records:,} change: {_movement(report.total)}.")
    if report.without_price:
        out.print(f"{report.without_price:,} charged records have no price now and stay unchanged.")
    if report.still_unpriced:
        out.print(f"{report.still_unpriced:,} records still wait for a price.")


def _table(title: str, heading: str, largest: Largest) -> None:
    table = figure_table(title, heading, "over", "USD", "credits")
    table.columns[1].header = "records"
    rows = [*largest.shown, largest.rest] if largest.rest.records else largest.shown
    for row in rows:
        cost_before, cost_after, charge_before, charge_after = (format_nano(nano) for nano in row[2:])
        # Stack the amounts: four and a name do not fit in one row.
        figures = f"{cost_before}\n→ {cost_after}", f"{charge_before}\n→ {charge_after}"
        table.add_row(row.name, f"{row.records:,}", *figures)
    out.print(table)


def _movement(total: Difference) -> str:
    cost = total.cost_after_nanousd - total.cost_before_nanousd
    charge = total.charge_after_nanocredits - total.charge_before_nanocredits
    return f"cost {_signed(cost)} USD, charge {_signed(charge)} credits"


def _signed(nano: int) -> str:
    return f"{'+' if nano > 0 else ''}{format_nano(nano)}"
