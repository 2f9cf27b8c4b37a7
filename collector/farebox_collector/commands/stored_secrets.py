"""`farebox secrets`: the keys that encrypt stored secrets."""

import time
from contextlib import closing

import typer

from farebox_collector.commands.terminal import (
    DatabaseUrl,
    Stop,
    out,
    settings_from,
    writable_books,
)
from farebox_collector.ledger.access.stored_secrets import seal_everything
from farebox_collector.model.secret_box import new_secrets_key

app = typer.Typer(help="Keys that encrypt the secrets of links and webhooks.", no_args_is_help=True)


@app.command("generate")
def generate_command() -> None:
    """Print a new key for FAREBOX_SECRETS_KEY. Store it apart from the books and their backups."""
    out.print(new_secrets_key(), soft_wrap=True)


@app.command("rotate")
def rotate_command(database_url: DatabaseUrl = None) -> None:
    """Encrypt every secret again with the first key; afterwards remove the other keys."""
    if not settings_from(database_url=database_url).secret_box().has_key:
        raise Stop("no key: set FAREBOX_SECRETS_KEY to the new key, a comma, and the previous key")
    # Opening the books encrypts all secrets with the first key.
    with closing(writable_books(database_url)) as database, database.transaction() as connection:
        sealing = seal_everything(connection, time.time_ns())
    out.print(
        f"All {sealing.secrets} secrets are encrypted with the first key; no other key is needed for these books.",
        style="green",
        soft_wrap=True,
    )
