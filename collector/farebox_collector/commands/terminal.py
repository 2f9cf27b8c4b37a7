"""Shared by all commands: opening the books, printing, and stopping with an error."""

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from sqlalchemy import Connection

from farebox_collector.ledger.privacy.pseudonym_key import require_pseudonym_key
from farebox_collector.ledger.storage.connect import open_database
from farebox_collector.ledger.storage.database import Database
from farebox_collector.ledger.storage.migrate import require_current
from farebox_collector.model.moments import to_ns
from farebox_collector.model.names import InvalidName, require_name
from farebox_collector.model.pseudonyms import use_pseudonyms
from farebox_collector.settings import Settings

# Names are external input, not markup.
out = Console(markup=False, highlight=False, emoji=False)
err = Console(stderr=True, markup=False, highlight=False, emoji=False)

DatabaseUrl = Annotated[
    str | None,
    typer.Option("--database-url", help="The books' database (default: FAREBOX_DATABASE_URL, else .farebox/)."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Limit = Annotated[int, typer.Option(min=1, max=100_000, help="Maximum rows to print.")]


class Stop(Exception):
    """The command cannot continue; the message tells why and what to do."""


def require_named(name: str, subject: str) -> None:
    """Raise Stop for a name that no record can have; `subject` begins the message."""
    try:
        require_name(name, subject)
    except InvalidName as error:
        raise Stop(str(error)) from None


def settings_from(**flags: Any) -> Settings:
    """Return the settings overridden by these flags. Raises Stop for an invalid one."""
    try:
        return Settings(**{name: value for name, value in flags.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"])) or "settings"
        raise Stop(f"{name}: {first['msg'].removeprefix('Value error, ')}") from None


def writable_books(database_url: str | None) -> Database:
    """Open the books for writing, creating and migrating them if needed."""
    # Imported here: commands that only read do not need it.
    from farebox_collector import assembly

    return assembly.open_books(settings_from(database_url=database_url))


@contextmanager
def writing(database_url: str | None) -> Iterator[Connection]:
    """Open the books as `writable_books` does and commit one transaction at the end of the block."""
    with closing(writable_books(database_url)) as database, database.transaction() as connection:
        yield connection


@contextmanager
def reading_books(database_url: str | None) -> Iterator[Connection]:
    """Open a snapshot of existing books."""
    settings = settings_from(database_url=database_url)
    with (
        closing(open_database(settings.database_url, writable=False)) as database,
        database.reading() as connection,
    ):
        require_readable(connection, settings)
        yield connection


def print_once(secret: str, what_to_do: str) -> None:
    """Print a secret alone on stdout for scripts, and the advice on stderr."""
    sys.stdout.write(secret + "\n")
    sys.stdout.flush()
    err.print(what_to_do)


def require_readable(connection: Connection, settings: Settings) -> None:
    """Check that this version and these settings can read the books, and use their pseudonyms from now on.

    Raises SchemaMissing and WrongPseudonymKey.
    """
    pseudonyms = settings.pseudonyms()
    require_current(connection)
    require_pseudonym_key(connection, pseudonyms, writable=False)
    use_pseudonyms(pseudonyms)


@contextmanager
def progress_bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """Show a progress bar on stderr if that is a terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as bar:
        task = bar.add_task(what)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def moment_ns(moment: datetime | None) -> int:
    """Return a time in nanoseconds, UTC if it has no zone; the current time for None. Raises Stop."""
    if moment is None:
        return time.time_ns()
    try:
        return to_ns(moment if moment.tzinfo else moment.replace(tzinfo=UTC))
    except ValueError as error:
        raise Stop(str(error)) from None


def positive_decimal(text: str) -> Decimal:
    """Return a positive decimal number. Raises Stop."""
    try:
        price = Decimal(text) if len(text) <= 40 else Decimal("NaN")
    except InvalidOperation:
        price = Decimal("NaN")
    if not price.is_finite() or price <= 0:
        raise Stop(f"{text!r} is not a positive decimal number")
    return price


def figure_table(title: str, *headings: str) -> Table:
    """Return a table for a terminal; columns of figures are right-aligned and never truncated."""
    table = Table(title=title, box=SIMPLE_HEAD, title_justify="left", caption_justify="left")
    for heading in headings:
        figures = heading.startswith(("USD", "over", "credits", "balance", "spent"))
        table.add_column(heading, justify="right" if figures else "left", overflow="fold", no_wrap=figures)
    return table


def print_table(table: Table, rows: int, limit: int) -> None:
    """Print a table, with a note if there may be more rows."""
    if rows == limit:
        table.caption = f"the first {limit}; --limit shows more"
    out.print(table)


def print_json(value: Any) -> None:
    """Print a value as JSON."""
    sys.stdout.write(json.dumps(value, indent=2) + "\n")
