"""Upgrade a database to the newest schema.

Alembic is imported only for an upgrade; other starts and reading commands only check the revision.
"""

import functools
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, inspect, text

from farebox_collector.ledger.storage.database import Database

if TYPE_CHECKING:
    from alembic.config import Config

APPLICATION = "farebox"
"""Prefix of the application name of collectors in PostgreSQL."""
_MIGRATIONS = Path(__file__).parents[1] / "migrations"


_NOT_BESIDE_OLDER = frozenset(
    f"{number:04}" for number in (13, 15, 16, 17, 18, 20, 22, 23, 24, 25, 30, 32, 34, 35, 38, 39, 44)
)
"""Revisions that add sums, claims on calls or keys of retired spans, which an older collector would not write."""
_REVISION = text("SELECT version_num FROM alembic_version")
_OTHERS = text(
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE :farebox"
    " AND application_name <> current_setting('application_name')"
)


class OldCollectors(Exception):
    """Collectors of an older version write these books, and would omit new data; the message says so."""


class SchemaMissing(Exception):
    """The database has no books, or books of another version; the message says which."""


def alembic_config(connection: Connection) -> "Config":
    """Return Alembic's configuration for the migrations, on an open connection."""
    from alembic.config import Config

    config = Config()
    # ConfigParser would interpolate a %.
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def migrate(database: Database) -> None:
    """Create or upgrade the schema, in one transaction; does nothing if it is up to date. Raises OldCollectors."""
    with database.appending() as connection:
        found = _revision(connection)
        if found == newest_revision():
            return
        from alembic import command

        config = alembic_config(connection)
        if found is not None:
            _require_to_be_alone(connection, config, found)
        command.upgrade(config, "head")


@functools.cache
def newest_revision() -> str:
    """Return the schema of this version: files of migrations begin with their numbers."""
    return max(path.name for path in (_MIGRATIONS / "versions").glob("[0-9]*.py")).partition("_")[0]


def _revision(connection: Connection) -> str | None:
    """Return the schema of these books; None if there are no books."""
    if not has_table(connection, "alembic_version"):
        return None
    revision: str | None = connection.execute(_REVISION).scalar_one_or_none()
    return revision


def _require_to_be_alone(connection: Connection, config: "Config", found: str) -> None:
    """Raise OldCollectors if the upgrade adds data that a running older collector would omit."""
    from alembic.script import ScriptDirectory

    # SQLite has one writer.
    if connection.dialect.name != "postgresql":
        return
    script = ScriptDirectory.from_config(config)
    to_come = {revision.revision for revision in script.iterate_revisions("head", found)}
    if to_come & _NOT_BESIDE_OLDER and connection.execute(_OTHERS, {"farebox": f"{APPLICATION}%"}).scalar_one():
        raise OldCollectors(
            "collectors of an older version still write these books, and would omit data that this version adds: stop"
            " them first"
        )


def require_current(connection: Connection) -> None:
    """Raise SchemaMissing unless the schema is the one of this version."""
    found, newest = _revision(connection), newest_revision()
    if found != newest:
        raise SchemaMissing(
            f"the schema is at {found or 'nothing'}, this version reads {newest}: run `farebox serve` once"
        )


def has_table(connection: Connection, name: str) -> bool:
    """Return whether a table exists, in books of any version or without books."""
    return inspect(connection).has_table(name)
