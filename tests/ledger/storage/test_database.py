"""The database keeps its word: one writer, durable commits, the schema that the migrations build."""

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from farebox_collector import assembly
from farebox_collector.ledger.storage.database import Database, DatabaseInUse
from farebox_collector.ledger.storage.migrate import SchemaMissing, migrate, require_current
from farebox_collector.ledger.storage.sqlite import SqliteDatabase
from farebox_collector.ledger.tables import metadata
from farebox_collector.ledger.tables.columns import is_on
from farebox_collector.settings import Settings
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError


@pytest.fixture
def sqlite(new_url: Callable[[str], str]) -> Iterator[SqliteDatabase]:
    """New books in SQLite."""
    database = assembly.open_books(Settings(database_url=new_url("sqlite")))
    assert isinstance(database, SqliteDatabase)
    yield database
    database.close()


def test_migrations_build_what_the_tables_say(database: Database) -> None:
    with database.transaction() as connection:
        dialect = connection.dialect.name
        compared: dict[str, Any] = {"compare_type": True, "compare_server_default": True}
        compared["include_object"] = lambda item, *_: is_on(dialect, item)
        context = MigrationContext.configure(connection, opts=compared)
        assert compare_metadata(context, metadata) == []


def test_migrating_again_changes_nothing(database: Database) -> None:
    migrate(database)
    with database.reading() as connection:
        require_current(connection)


def test_every_table_of_ours_is_strict(sqlite: SqliteDatabase) -> None:
    with sqlite.reading() as connection:
        loose = connection.execute(
            text("SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'table' AND strict = 0")
        ).scalars()
        assert {name for name in loose if not name.startswith("sqlite_")} == {"alembic_version"}


def test_an_amount_that_overflows_is_an_error_not_a_float(database: Database) -> None:
    columns = "tenant_id, kind, name, commodity, created_at_ns, balance_nano"
    values = "1, 'wallet', 'x', 'CREDIT', 0, 9223372036854775807"
    with database.transaction() as connection:
        connection.execute(text(f"INSERT INTO accounts ({columns}) VALUES ({values})"))
        with pytest.raises(DBAPIError, match="REAL|out of range"):  # noqa: RUF043
            connection.execute(text("UPDATE accounts SET balance_nano = balance_nano + 1"))


def test_commits_are_durable_before_they_return(database: Database) -> None:
    with database.transaction() as connection:
        if isinstance(database, SqliteDatabase):
            assert connection.execute(text("PRAGMA journal_mode")).scalar_one() == "wal"
            assert connection.execute(text("PRAGMA synchronous")).scalar_one() == 2  # FULL
        else:
            assert connection.execute(text("SHOW synchronous_commit")).scalar_one() == "on"
            assert connection.execute(text("SHOW fsync")).scalar_one() == "on"


def test_a_second_writer_is_told_who_the_first_is(sqlite: SqliteDatabase) -> None:
    with pytest.raises(DatabaseInUse, match="one writing process"):
        SqliteDatabase(f"sqlite:///{sqlite.path}")


def test_readers_cannot_write(database: Database) -> None:
    with pytest.raises(Exception, match=r"readonly|read-only"), database.reading() as connection:
        connection.execute(text("DELETE FROM tenants"))


def test_a_failed_transaction_leaves_nothing(database: Database) -> None:
    def change_and_fail() -> None:
        with database.transaction() as connection:
            connection.execute(text("UPDATE tenants SET name = 'changed'"))
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        change_and_fail()
    with database.reading() as connection:
        assert connection.execute(text("SELECT name FROM tenants")).scalar_one() == "default"


def test_closing_leaves_one_file_without_a_log(tmp_path: Path) -> None:
    database = SqliteDatabase(f"sqlite:///{tmp_path}/new.db")
    migrate(database)
    database.close()
    assert not (tmp_path / "new.db-wal").exists()


def test_a_file_of_somebody_else_is_not_read_as_books(tmp_path: Path) -> None:
    sqlite3.connect(tmp_path / "other.db").close()
    database = SqliteDatabase(f"sqlite:///{tmp_path}/other.db", writable=False)
    with pytest.raises(SchemaMissing, match="farebox serve"), database.reading() as connection:
        require_current(connection)
    database.close()
