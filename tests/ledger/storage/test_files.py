"""Files that we make are for their owner alone, and logs have no parameters of statements."""

import os
import stat
from contextlib import closing
from pathlib import Path

import pytest
from farebox_collector import assembly
from farebox_collector.ledger.storage.database import Database
from farebox_collector.ledger.storage.sqlite import SqliteDatabase
from farebox_collector.settings import Settings
from harness import Collector, farebox
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_books_backups_and_reports_are_private_under_any_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        books = tmp_path / "books" / "farebox.db"
        collector = Collector(books, log=tmp_path / "farebox.log")
        try:
            made = {path.name: mode(path) for path in books.parent.iterdir()}
            assert {"farebox.db", "farebox.db-wal", "farebox.db-shm", "farebox.db.lock"} <= set(made)
            assert set(made.values()) == {0o600}, made
            assert mode(books.parent) == 0o700
            database = ("--database-url", collector.database_url)
            assert farebox("backup", str(tmp_path / "copy.db"), *database).returncode == 0
            assert mode(tmp_path / "copy.db") == 0o600
            written = farebox("report", "usage", "--format", "csv", "--output", str(tmp_path / "usage.csv"), *database)
            assert written.returncode == 0, written.stderr
            assert mode(tmp_path / "usage.csv") == 0o600
            assert "other users" not in collector.log.read_text(encoding="utf-8")
            assert collector.stop() == 0

            books.chmod(0o644)
            collector.start()
            assert f"chmod 600 {books}" in collector.log.read_text(encoding="utf-8")
        finally:
            collector.close()
    finally:
        os.umask(before)


def test_books_opened_by_a_program_are_private(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        path = tmp_path / "new" / "farebox.db"
        with closing(assembly.open_books(Settings(database_url=f"sqlite:///{path}"))) as database:
            assert isinstance(database, SqliteDatabase)
            database.back_up(tmp_path / "copy.db")
            assert {mode(file) for file in (*database.files(), tmp_path / "copy.db")} == {0o600}
    finally:
        os.umask(before)


def test_a_failed_statement_does_not_tell_its_parameters(database: Database) -> None:
    statement = text("INSERT INTO no_such_table VALUES (:secret)")
    with pytest.raises(DBAPIError) as failed, database.transaction() as connection:
        connection.execute(statement, {"secret": "whsec_of_a_customer"})
    assert "whsec_of_a_customer" not in str(failed.value)
    with pytest.raises(DBAPIError) as failed, database.reading() as connection:
        connection.execute(text("SELECT * FROM no_such_table WHERE x = :secret"), {"secret": "whsec_of_a_customer"})
    assert "whsec_of_a_customer" not in str(failed.value)
