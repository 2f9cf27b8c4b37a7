"""The command `farebox`: run the collector, audit and back up the books. The other commands are in `commands/`."""

import asyncio
import json
import os
import sys
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import typer
from sqlalchemy.exc import DBAPIError

from farebox_collector import logs
from farebox_collector.commands.on_demand import OnDemand
from farebox_collector.commands.terminal import (
    AsJson,
    DatabaseUrl,
    Stop,
    err,
    out,
    print_json,
    progress_bar,
    reading_books,
    settings_from,
)
from farebox_collector.ledger.access.actors import SYSTEM, set_actor
from farebox_collector.ledger.audit import books_audit as ledger_audit
from farebox_collector.ledger.privacy.pseudonym_key import WrongPseudonymKey
from farebox_collector.ledger.storage.connect import open_database
from farebox_collector.ledger.storage.database import DatabaseInUse, NotADatabase, UseServerTools, has_unfolded
from farebox_collector.ledger.storage.migrate import (
    OldCollectors,
    SchemaMissing,
    migrate,
    newest_revision,
)
from farebox_collector.ledger.storage.throttle import Throttle
from farebox_collector.ledger.usage.corrections import are_frozen
from farebox_collector.ledger.usage.folding import fold_waiting
from farebox_collector.ledger.usage.tombstones import DetailRetired
from farebox_collector.model.secret_box import WrongSecretsKey

app = typer.Typer(
    cls=OnDemand,
    help="Farebox prices the LLM calls that arrive as OpenTelemetry spans and debits prepaid wallets exactly once.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

_FROZEN = (
    "Corrections are frozen: an audit by a collector found a mismatch. They resume after a collector's full audit finds"
    " none; while they are frozen it runs one every hour."
)

_UNUSABLE_BOOKS = (DatabaseInUse, NotADatabase, SchemaMissing, OldCollectors)


def main() -> None:
    """Run the command. Print an error that the user can fix as one sentence on stderr, and exit with status 2."""
    try:
        app()
    except (
        Stop,
        DatabaseInUse,
        DetailRetired,
        NotADatabase,
        SchemaMissing,
        OldCollectors,
        WrongPseudonymKey,
        WrongSecretsKey,
        FileNotFoundError,
    ) as error:
        err.print(f"farebox: {error}", style="bold red")
        sys.exit(2)
    except DBAPIError as error:
        err.print(f"farebox: the books cannot be used: {str(error.orig).strip()}", style="bold red")
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
    settings = settings_from(
        database_url=database_url,
        grpc_address=grpc_address,
        otlp_http_address=otlp_http_address,
        api_address=api_address,
        metrics_address=metrics_address,
        log_level=log_level,
    )
    # Imported here: the other commands start faster without it.
    from farebox_collector import assembly
    from farebox_collector.receivers.http_ports import CannotListen

    def announce(listening: assembly.Listening) -> None:
        """Print the ports on stdout, as one line of JSON that a script can wait for."""
        sys.stdout.write(json.dumps({"ready": True, "pid": os.getpid(), **listening._asdict()}) + "\n")
        sys.stdout.flush()

    # The audit log names the system as the actor of background work.
    set_actor(SYSTEM)
    logs.configure(settings.log_level)
    try:
        _event_loop_runner()(assembly.serve(settings, announce))
    except CannotListen as error:
        raise Stop(str(error)) from None


@app.command("migrate")
def migrate_command(database_url: DatabaseUrl = None) -> None:
    """Create or upgrade the schema of the books, post calls that wait, and exit. For a role that owns the tables."""
    with closing(open_database(settings_from(database_url=database_url).database_url)) as database, database.alone():
        migrate(database)
        fold_waiting(database)
    out.print(f"The schema is at {newest_revision()}.")


@app.command()
def audit(
    database_url: DatabaseUrl = None,
    as_json: AsJson = False,
    share: Annotated[
        float, typer.Option(min=0.01, max=1, help="Share of the time to work; less leaves more to other processes.")
    ] = 1.0,
) -> None:
    """Recompute every balance, total and charge from its sources. Print each mismatch; exit with status 1 if any."""
    with reading_books(database_url) as connection, progress_bar("auditing") as progress:
        if has_unfolded(connection):
            raise Stop(
                "acknowledged calls wait to be added to the accounts, and no collector adds them: start a collector, or"
                " run `farebox migrate`, and audit again"
            )
        mismatches = list(ledger_audit.audit(connection, progress, Throttle(share).pause))
        frozen = are_frozen(connection)
    if as_json:
        checks = [check.name for check in ledger_audit.CHECKS]
        found = [row._asdict() for row in mismatches]
        print_json({"clean": not mismatches, "checks": checks, "corrections_frozen": frozen, "mismatches": found})
    else:
        for mismatch in mismatches:
            out.print(str(mismatch), style="red", soft_wrap=True)
        if not mismatches:
            out.print(f"The books are clean: {len(ledger_audit.CHECKS)} checks, no mismatch.", style="green")
        if frozen:
            out.print(_FROZEN, style="yellow", soft_wrap=True)
    if mismatches:
        raise typer.Exit(1)


@app.command()
def backup(
    target: Annotated[Path, typer.Argument(help="Path of a new file.")],
    database_url: DatabaseUrl = None,
) -> None:
    """Copy SQLite books to a file while the collector runs, and audit the copy. To restore, replace the books by it."""
    with closing(open_database(settings_from(database_url=database_url).database_url, writable=False)) as database:
        try:
            database.back_up(target)
        except (FileExistsError, UseServerTools) as error:
            raise Stop(str(error)) from None
    # What the collector had not folded yet is folded in the copy, which is complete then.
    with closing(open_database(f"sqlite:///{target}")) as copy:
        fold_waiting(copy)
    Path(f"{target}.lock").unlink(missing_ok=True)
    with reading_books(f"sqlite:///{target}") as connection, progress_bar("auditing the copy") as progress:
        mismatches = list(ledger_audit.audit(connection, progress))
    if mismatches:
        raise Stop(f"the copy at {target} is not clean: {mismatches[0]}")
    out.print(f"{target} holds the books, and they are clean.", style="green", soft_wrap=True)


def _event_loop_runner() -> Any:
    try:
        import uvloop
    except ImportError:  # uvloop does not support Windows
        return asyncio.run
    return uvloop.run


if __name__ == "__main__":
    main()
