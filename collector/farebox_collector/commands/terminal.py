"""What all commands share: how they open the books, print, and stop."""

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
from farebox_collector.model.pseudonyms import use_pseudonyms
from farebox_collector.settings import Settings

# Names come from outside: none of them is markup.
out = Console(markup=False, highlight=False, emoji=False)
err = Console(stderr=True, markup=False, highlight=False, emoji=False)

DatabaseUrl = Annotated[
    str | None,
    typer.Option("--database-url", help="Where the books are (default: FAREBOX_DATABASE_URL, else .farebox/)."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for scripts instead of a table.")]
Limit = Annotated[int, typer.Option(min=1, max=100_000, help="Most rows to print.")]


class Stop(Exception):
    """The command cannot go on; the message says why and what to do."""


def settings_from(**flags: Any) -> Settings:
    """Settings with these flags on top. Raises Stop for one that cannot be."""
    try:
        return Settings(**{name: value for name, value in flags.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"])) or "settings"
        raise Stop(f"{name}: {first['msg'].removeprefix('Value error, ')}") from None


def writable_books(database_url: str | None) -> Database:
    """The books, opened for writing: created, migrated."""
    # Commands that only read need none of what it puts together.
    from farebox_collector import assembly

    return assembly.open_books(settings_from(database_url=database_url))


@contextmanager
def writing(database_url: str | None) -> Iterator[Connection]:
    """One transaction of a command in the books: created, migrated; committed at the end of the block."""
    with closing(writable_books(database_url)) as database, database.transaction() as connection:
        yield connection


@contextmanager
def reading_books(database_url: str | None) -> Iterator[Connection]:
    """A snapshot of books that exist."""
    settings = settings_from(database_url=database_url)
    with (
        closing(open_database(settings.database_url, writable=False)) as database,
        database.reading() as connection,
    ):
        require_readable(connection, settings)
        yield connection


def print_once(secret: str, what_to_do: str) -> None:
    """A secret alone on stdout, so that a script can take it; what to do with it beside, on stderr."""
    sys.stdout.write(secret + "\n")
    sys.stdout.flush()
    err.print(what_to_do)


def require_readable(connection: Connection, settings: Settings) -> None:
    """Check that this version and these settings read these books, and use their pseudonyms from now on.

    Raises SchemaMissing and WrongPseudonymKey.
    """
    pseudonyms = settings.pseudonyms()
    require_current(connection)
    require_pseudonym_key(connection, pseudonyms, writable=False)
    use_pseudonyms(pseudonyms)


@contextmanager
def progress_bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on stderr, where that is a terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as bar:
        task = bar.add_task(what)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def moment_ns(moment: datetime | None) -> int:
    """A moment in nanoseconds, taken for UTC if it does not say; now if there is none. Raises Stop."""
    if moment is None:
        return time.time_ns()
    try:
        return to_ns(moment if moment.tzinfo else moment.replace(tzinfo=UTC))
    except ValueError as error:
        raise Stop(str(error)) from None


def positive_decimal(text: str) -> Decimal:
    """A positive decimal number. Raises Stop."""
    try:
        price = Decimal(text) if len(text) <= 40 else Decimal("NaN")
    except InvalidOperation:
        price = Decimal("NaN")
    if not price.is_finite() or price <= 0:
        raise Stop(f"{text!r} is not a positive decimal number")
    return price


def figure_table(title: str, *headings: str) -> Table:
    """A table for a terminal; columns of figures are right-aligned and never cut."""
    table = Table(title=title, box=SIMPLE_HEAD, title_justify="left", caption_justify="left")
    for heading in headings:
        figures = heading.startswith(("USD", "over", "credits", "balance", "spent"))
        table.add_column(heading, justify="right" if figures else "left", overflow="fold", no_wrap=figures)
    return table


def print_table(table: Table, rows: int, limit: int) -> None:
    """Print a table, and say if there may be more."""
    if rows == limit:
        table.caption = f"the first {limit}; --limit shows more"
    out.print(table)


def print_json(value: Any) -> None:
    """Print a value for scripts."""
    sys.stdout.write(json.dumps(value, indent=2) + "\n")
