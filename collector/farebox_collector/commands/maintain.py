"""`farebox maintain`: apply retention to the detail of old calls."""

import time
from contextlib import closing
from datetime import datetime
from typing import Annotated

import typer

from farebox_collector.background.retention_job import (
    AlreadyRunning,
    Retired,
    TooRecent,
    preview_retirement,
    require_age,
    retire_all,
)
from farebox_collector.commands.terminal import (
    AsJson,
    DatabaseUrl,
    Stop,
    figure_table,
    moment_ns,
    out,
    print_json,
    progress_bar,
    settings_from,
    writable_books,
)
from farebox_collector.ledger.access.audit_log import note
from farebox_collector.ledger.storage.connect import open_database
from farebox_collector.ledger.storage.database import Database
from farebox_collector.ledger.storage.migrate import require_current
from farebox_collector.ledger.storage.throttle import Throttle
from farebox_collector.ledger.usage.retention import (
    Kept,
    RetentionFrozen,
    Size,
    books_size,
)
from farebox_collector.model.moments import format_ns
from farebox_collector.model.records import DEFAULT_TENANT_ID

_DAY_NS = 86_400 * 10**9
_WHY = {
    Kept.OPEN: "waiting for a price, for usage or for an agent's calls",
    Kept.BESIDE_OPEN: "in a trace with an open record",
    Kept.CORRECTED: "corrected",
    Kept.OF_ACTION: "charged as part of an action",
    Kept.AGENT: "an agent span that was charged for its calls",
    Kept.NEWEST: "the newest record",
}


def maintain_command(
    before: Annotated[
        datetime | None,
        typer.Option(
            formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"],
            help="Retire calls received before this UTC day (default: FAREBOX_RETENTION_DAYS ago).",
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count without retiring.")] = False,
    share: Annotated[
        float, typer.Option(min=0.01, max=1, help="Share of the time to work; lower it to leave room for other load.")
    ] = 1.0,
    database_url: DatabaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """Retire the detail of old calls: charges, sums and reports stay, and a resent span is still a duplicate."""
    settings = settings_from(database_url=database_url)
    now_ns = time.time_ns()
    if before is None and not settings.retention_days:
        raise Stop("give --before or set FAREBOX_RETENTION_DAYS; without either, records are kept permanently")
    before_ns = now_ns - settings.retention_days * _DAY_NS if before is None else moment_ns(before)
    try:
        require_age(before_ns, now_ns, settings)
        with closing(_books(database_url, writable=not dry_run)) as database:
            size = _size(database)
            with progress_bar("counting" if dry_run else "retiring") as progress:
                if dry_run:
                    done = preview_retirement(database, before_ns, progress)
                else:
                    done = retire_all(database, before_ns, progress, Throttle(share).pause)
                    after_it = {"before_ns": before_ns, "records": done.retired}
                    database.transact(
                        lambda connection: note(
                            connection, DEFAULT_TENANT_ID, "records.retire", "", now_ns, after=after_it
                        )
                    )
            after = _size(database)
    except (TooRecent, AlreadyRunning, RetentionFrozen) as error:
        raise Stop(str(error)) from None
    if as_json:
        print_json(_shown(done, before_ns, size, after, dry_run=dry_run))
    else:
        _show(done, before_ns, size, after, dry_run=dry_run)


def _books(database_url: str | None, *, writable: bool) -> Database:
    if writable:
        return writable_books(database_url)
    database = open_database(settings_from(database_url=database_url).database_url, writable=False)
    with database.reading() as connection:
        require_current(connection)
    return database


def _size(database: Database) -> Size:
    with database.reading() as connection:
        return books_size(connection)


def _shown(done: Retired, before_ns: int, size: Size, after: Size, *, dry_run: bool) -> dict[str, object]:
    return {
        "before": format_ns(before_ns),
        "to_retire": done.retired,
        "retired": 0 if dry_run else done.retired,
        "kept": {str(reason): done.kept[reason] for reason in Kept},
        "database_bytes_before": size.database_bytes,
        "database_bytes_after": after.database_bytes,
        "free_bytes_before": size.free_bytes,
        "free_bytes_after": after.free_bytes,
    }


def _show(done: Retired, before_ns: int, size: Size, after: Size, *, dry_run: bool) -> None:
    table = figure_table(f"Calls received before {format_ns(before_ns)[:19]}", "", "over")
    table.columns[1].header = "records"
    table.add_row("to retire" if dry_run else "retired", f"{done.retired:,}")
    for reason, records in sorted(done.kept.items()):
        table.add_row(f"kept: {_WHY[reason]}", f"{records:,}")
    out.print(table)
    if dry_run:
        out.print("Nothing is retired.")
        return
    out.print(f"Database: {size.database_bytes:,} bytes before, {after.database_bytes:,} after.")
    if after.free_bytes is None:
        out.print("PostgreSQL's autovacuum frees the space for later records.", soft_wrap=True)
    else:
        out.print(f"{after.free_bytes:,} bytes of it are free pages for later records.", soft_wrap=True)
