"""Bring a database to the newest schema."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect

from farebox_collector.ledger.database import Database


class SchemaMissing(Exception):
    """The database has no books in it, or books of another version; the message says which."""


def alembic_config(connection: Connection) -> Config:
    """Alembic's configuration for our migrations, on a connection that is already open."""
    config = Config()
    # Through ConfigParser, which takes a % for an interpolation.
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def migrate(database: Database) -> None:
    """Create or upgrade the schema, in one transaction; does nothing when it is up to date."""
    with database.transaction() as connection:
        command.upgrade(alembic_config(connection), "head")


def require_current(connection: Connection) -> None:
    """Raise SchemaMissing unless the schema is the one this version reads."""
    found = MigrationContext.configure(connection).get_current_revision()
    newest = ScriptDirectory.from_config(alembic_config(connection)).get_current_head()
    if found != newest:
        raise SchemaMissing(
            f"the schema is at {found or 'nothing'}, this version reads {newest}: run `farebox serve` once"
        )


def has_table(connection: Connection, name: str) -> bool:
    """Whether a table is there, in books of any version or in none."""
    return inspect(connection).has_table(name)
