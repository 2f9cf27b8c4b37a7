"""The command `farebox`: run the collector, look at prices and wallets, audit the books."""

import asyncio
import json
import os
import sys
import time
from collections.abc import Iterator
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
from sqlalchemy.exc import DBAPIError

from farebox_collector import assembly, logs
from farebox_collector.dialects.text import MAX_TEXT, is_clean
from farebox_collector.ledger import audit as ledger_audit
from farebox_collector.ledger import statements
from farebox_collector.ledger.connect import open_database
from farebox_collector.ledger.database import Database, DatabaseInUse, NotADatabase
from farebox_collector.ledger.prices import BY_HAND, set_price
from farebox_collector.ledger.rules import set_rule
from farebox_collector.ledger.schema import SchemaMissing, require_current
from farebox_collector.ledger.wallets import IdempotencyConflict, deposit
from farebox_collector.moments import format_ns, to_ns
from farebox_collector.money import AmountError, format_nano, parse_nano
from farebox_collector.records import DEFAULT_TENANT_ID, Buckets, CatalogueRow
from farebox_collector.settings import Settings
from farebox_collector.surfaces.prices import show_price

app = typer.Typer(
    help="Farebox prices the LLM calls that arrive as OpenTelemetry spans and debits prepaid wallets exactly once.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
prices_app = typer.Typer(help="The price book: what providers charge us.", no_args_is_help=True)
rules_app = typer.Typer(help="Charge rules: what an event costs its wallet.", no_args_is_help=True)
wallets_app = typer.Typer(help="Wallets: what customers pay from.", no_args_is_help=True)
app.add_typer(prices_app, name="prices")
app.add_typer(wallets_app, name="wallets")
app.add_typer(rules_app, name="rules")

# Names come from outside: none of them is markup.
_out = Console(markup=False, highlight=False, emoji=False)
_err = Console(stderr=True, markup=False, highlight=False, emoji=False)

DatabaseUrl = Annotated[
    str | None,
    typer.Option("--database-url", help="Where the books are (default: FAREBOX_DATABASE_URL, else .farebox/)."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for scripts instead of a table.")]
Limit = Annotated[int, typer.Option(min=1, max=100_000, help="Most rows to print.")]


class Stop(Exception):
    """The command cannot go on; the message says why and what to do."""


def main() -> None:
    """Entry point: errors that a person can do something about are one sentence on stderr and status 2."""
    try:
        app()
    except (Stop, assembly.CannotListen, DatabaseInUse, NotADatabase, SchemaMissing, FileNotFoundError) as error:
        _err.print(f"farebox: {error}", style="bold red")
        sys.exit(2)
    except DBAPIError as error:
        _err.print(f"farebox: the books cannot be used: {str(error.orig).strip()}", style="bold red")
        sys.exit(2)


@app.command()
def serve(
    database_url: DatabaseUrl = None,
    grpc_address: Annotated[str | None, typer.Option(help="OTLP/gRPC, host:port (default 127.0.0.1:4317).")] = None,
    otlp_http_address: Annotated[str | None, typer.Option(help="OTLP/HTTP (default 127.0.0.1:4318).")] = None,
    api_address: Annotated[str | None, typer.Option(help="HTTP API (default 127.0.0.1:8080).")] = None,
    metrics_address: Annotated[str | None, typer.Option(help="Prometheus (default 127.0.0.1:9464).")] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error.")] = None,
) -> None:
    """Run the collector until SIGTERM or Ctrl-C. Every setting is also FAREBOX_… in the environment."""
    settings = _settings(
        database_url=database_url,
        grpc_address=grpc_address,
        otlp_http_address=otlp_http_address,
        api_address=api_address,
        metrics_address=metrics_address,
        log_level=log_level,
    )
    logs.configure(settings.log_level)
    _event_loop_runner()(assembly.serve(settings, _announce))


@app.command()
def audit(database_url: DatabaseUrl = None, as_json: AsJson = False) -> None:
    """Recompute every balance, total and charge from what they came from. Status 1 and a line for each mismatch."""
    with _reading(database_url) as connection, _progress("auditing") as progress:
        mismatches = list(ledger_audit.audit(connection, progress))
    if as_json:
        checks = [check.name for check in ledger_audit.CHECKS]
        _print_json({"clean": not mismatches, "checks": checks, "mismatches": [row._asdict() for row in mismatches]})
    else:
        for mismatch in mismatches:
            _out.print(str(mismatch), style="red", markup=False, highlight=False, soft_wrap=True)
        if not mismatches:
            _out.print(f"The books are clean: {len(ledger_audit.CHECKS)} checks, no mismatch.", style="green")
    if mismatches:
        raise typer.Exit(1)


@prices_app.command("list")
def prices_list(
    provider: Annotated[str, typer.Argument(help="Only this provider, such as openai.")] = "",
    model: Annotated[str, typer.Argument(help="Only this model, such as gpt-4o-mini.")] = "",
    at: Annotated[datetime | None, typer.Option(help="The moment, UTC (default: now).")] = None,
    limit: Limit = 100,
    database_url: DatabaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """Prices that hold at a moment, in US dollars per 1,000."""
    with _reading(database_url) as connection:
        rows = statements.price_versions_at(connection, _moment_ns(at), provider, model, limit=limit)
        shown = [show_price(row).model_dump() for row in rows]
    if as_json:
        _print_json(shown)
        return
    table = _table("Price book", "model", "unit", "over ¹", "USD per 1k", "since", "source")
    table.caption = "¹ for calls with more input tokens than this"
    for row in shown:
        over = f"{row['over_input_tokens']:,}" if row["over_input_tokens"] else ""
        since = "" if row["valid_from"].startswith("1970") else row["valid_from"][:10]
        table.add_row(f"{row['provider']}/{row['model']}", row["unit"], over, row["usd_per_1k"], since, row["source"])
    _print_table(table, len(rows), limit)


@prices_app.command("import")
def prices_import(database_url: DatabaseUrl = None, as_json: AsJson = False) -> None:
    """Bring the price book up to the installed genai-prices. The past stays; prices set by hand stay."""
    with closing(_writable(database_url)) as database, _progress("importing prices") as progress:
        change = assembly.import_catalogue(database, progress=progress)
    if as_json:
        _print_json(change._asdict())
    else:
        _out.print(f"{change.added} price versions added, {change.closed} closed.")


@prices_app.command("set")
def prices_set(
    provider: Annotated[str, typer.Argument(help="Provider in the price book, such as openai.")],
    model: Annotated[str, typer.Argument(help="Model in the price book; a new one is matched by its exact name.")],
    unit: Annotated[str, typer.Argument(help="input, cache_read, cache_write, cache_write_1h, output, …")],
    usd_per_1k: Annotated[str, typer.Argument(help="US dollars per 1,000, such as 0.00015.")],
    valid_from: Annotated[datetime | None, typer.Option("--from", help="From when, UTC (default: now).")] = None,
    over_input_tokens: Annotated[int, typer.Option("--over", min=0, help="For calls with more input than this.")] = 0,
    author: Annotated[str, typer.Option(help="Who sets it; kept with the price.")] = "cli",
    database_url: DatabaseUrl = None,
) -> None:
    """Set one price from a moment on. What was charged before stays as it was; imports leave it alone."""
    if unit not in {*Buckets._fields, "output_reasoning", "requests"} - {"reasoning"}:
        raise Stop(f"{unit!r} is no unit of the price book")
    row = CatalogueRow(
        provider, model, unit, over_input_tokens, 0, 0, _positive_decimal(usd_per_1k), _moment_ns(valid_from), None
    )
    with closing(_writable(database_url)) as database, database.transaction() as connection:
        change = set_price(connection, row, author, time.time_ns())
    _out.print(f"{change.added} price version added, {change.closed} closed (source: {BY_HAND} {author}).")


@wallets_app.command("list")
def wallets_list(limit: Limit = 100, database_url: DatabaseUrl = None, as_json: AsJson = False) -> None:
    """Wallets with what is left and what was spent."""
    with _reading(database_url) as connection:
        rows = statements.wallets(connection, DEFAULT_TENANT_ID, limit=limit)
    if as_json:
        _print_json([_wallet(row) for row in rows])
        return
    table = _table("Wallets", "wallet", "balance, credits", "spent, credits", "last activity")
    for row in rows:
        shown = _wallet(row)
        table.add_row(row.name, shown["balance_credits"], shown["spent_credits"], (shown["last_activity"] or "")[:19])
    _print_table(table, len(rows), limit)


@wallets_app.command("show")
def wallets_show(wallet: str, database_url: DatabaseUrl = None, as_json: AsJson = False) -> None:
    """One wallet, and what moved it last."""
    with _reading(database_url) as connection:
        row = statements.wallet(connection, DEFAULT_TENANT_ID, wallet)
        moves = statements.ledger(connection, DEFAULT_TENANT_ID, wallet, limit=10)
    if row is None:
        raise Stop(f"there is no wallet {wallet!r}")
    if as_json:
        _print_json(_wallet(row))
        return
    table = _table(f"{wallet}: {format_nano(row.balance_nano)} credits left", "when", "what", "event", "credits")
    for move in moves:
        table.add_row(format_ns(move.recorded_at_ns)[:19], move.type, move.event, format_nano(move.amount_nano))
    _out.print(table)


@wallets_app.command("deposit")
def wallets_deposit(
    wallet: str,
    amount_credits: Annotated[str, typer.Argument(help="Credits, with at most nine decimals.")],
    key: Annotated[str, typer.Option(help="Idempotency key: the same deposit again under it changes nothing.")],
    memo: Annotated[str, typer.Option(help="What it is for; shown in the ledger.")] = "",
    database_url: DatabaseUrl = None,
) -> None:
    """Put credits into a wallet. While a collector runs on these books, use its HTTP API instead."""
    try:
        amount = parse_nano(amount_credits)
    except AmountError as error:
        raise Stop(f"{amount_credits!r}: {error}") from None
    if amount <= 0:
        raise Stop("a deposit is positive")
    if not wallet or not is_clean(wallet):
        raise Stop(f"a wallet's name has 1 to {MAX_TEXT} printable characters")
    with closing(_writable(database_url)) as database:
        try:
            made = database.transact(
                lambda connection: deposit(connection, DEFAULT_TENANT_ID, wallet, amount, key, time.time_ns(), memo)
            )
        except IdempotencyConflict:
            raise Stop(f"the key {key!r} was used before, for another deposit") from None
        except AmountError as error:
            raise Stop(f"{amount_credits}: {error}") from None
    done = "were already paid in" if made.repeated else "paid in"
    balance = format_nano(made.balance_nanocredits)
    _out.print(f"{format_nano(amount)} credits {done}; {wallet} has {balance}.")


@rules_app.command("list")
def rules_list(database_url: DatabaseUrl = None, as_json: AsJson = False) -> None:
    """Every version of every charge rule."""
    with _reading(database_url) as connection:
        rows = [_rule(row) for row in statements.charge_rules_of(connection, DEFAULT_TENANT_ID)]
    if as_json:
        _print_json(rows)
        return
    table = _table("Charge rules", "event", "rule", "from", "to", "author", "reason")
    for row in rows:
        since = "" if row["valid_from"].startswith("1970") else row["valid_from"][:19]
        table.add_row(
            row["event"],
            f"cost × {row['multiplier']}",
            since,
            (row["valid_to"] or "")[:19],
            row["author"],
            row["reason"],
        )
    _out.print(table)


@rules_app.command("set")
def rules_set(
    event: Annotated[str, typer.Argument(help="Event, such as chat.reply; * is every event without a rule.")],
    multiplier: Annotated[str, typer.Option(help="Charge the provider's cost times this, such as 1.5.")],
    reason: Annotated[str, typer.Option(help="Why; kept with the rule.")],
    author: Annotated[str, typer.Option(help="Who sets it; kept with the rule.")] = "cli",
    database_url: DatabaseUrl = None,
) -> None:
    """Charge an event its cost times a multiplier from now on. The version before stays in the books."""
    if not event or not is_clean(event):
        raise Stop(f"an event's name has 1 to {MAX_TEXT} printable characters")
    with closing(_writable(database_url)) as database, database.transaction() as connection:
        factor = _positive_decimal(multiplier)
        version = set_rule(connection, DEFAULT_TENANT_ID, event, factor, author, reason, time.time_ns())
    _out.print(f"{event} is charged its cost times {multiplier} from now on (rule version {version}).")


def _settings(**flags: Any) -> Settings:
    try:
        return Settings(**{name: value for name, value in flags.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"])) or "settings"
        raise Stop(f"{name}: {first['msg'].removeprefix('Value error, ')}") from None


def _announce(listening: assembly.Listening) -> None:
    """Say where everything is, on stdout: a line of JSON that a script can wait for."""
    sys.stdout.write(json.dumps({"ready": True, "pid": os.getpid(), **listening._asdict()}) + "\n")
    sys.stdout.flush()


def _event_loop_runner() -> Any:
    try:
        import uvloop
    except ImportError:  # not made for Windows
        return asyncio.run
    return uvloop.run


def _writable(database_url: str | None) -> Database:
    return assembly.open_books(_settings(database_url=database_url))


@contextmanager
def _reading(database_url: str | None) -> Iterator[Connection]:
    with (
        closing(open_database(_settings(database_url=database_url).database_url, writable=False)) as database,
        database.reading() as connection,
    ):
        require_current(connection)
        yield connection


@contextmanager
def _progress(what: str) -> Iterator[assembly.Progress]:
    """A progress bar on stderr, where that is a terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=_err, transient=True, disable=not _err.is_terminal) as bar:
        task = bar.add_task(what)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _moment_ns(moment: datetime | None) -> int:
    if moment is None:
        return time.time_ns()
    try:
        return to_ns(moment if moment.tzinfo else moment.replace(tzinfo=UTC))
    except ValueError as error:
        raise Stop(str(error)) from None


def _positive_decimal(text: str) -> Decimal:
    try:
        price = Decimal(text) if len(text) <= 40 else Decimal("NaN")
    except InvalidOperation:
        price = Decimal("NaN")
    if not price.is_finite() or price <= 0:
        raise Stop(f"{text!r} is not a positive decimal number")
    return price


def _rule(row: Any) -> dict[str, Any]:
    return {
        "version_id": row.id,
        "event": row.event,
        "kind": row.kind,
        "multiplier": row.multiplier,
        "usd_per_credit": row.usd_per_credit,
        "valid_from": format_ns(row.valid_from_ns),
        "valid_to": None if row.valid_to_ns is None else format_ns(row.valid_to_ns),
        "author": row.author,
        "reason": row.reason,
    }


def _wallet(row: Any) -> dict[str, Any]:
    return {
        "wallet": row.name,
        "balance_credits": format_nano(row.balance_nano),
        "spent_credits": format_nano(row.spent_nano),
        "last_activity": None if row.last_activity_ns is None else format_ns(row.last_activity_ns),
    }


def _table(title: str, *headings: str) -> Table:
    table = Table(title=title, box=SIMPLE_HEAD, title_justify="left", caption_justify="left")
    for heading in headings:
        figures = heading.startswith(("USD", "over", "credits", "balance", "spent"))
        table.add_column(heading, justify="right" if figures else "left", overflow="fold", no_wrap=figures)
    return table


def _print_table(table: Table, rows: int, limit: int) -> None:
    if rows == limit:
        table.caption = f"the first {limit}; --limit shows more"
    _out.print(table)


def _print_json(value: Any) -> None:
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


if __name__ == "__main__":
    main()
