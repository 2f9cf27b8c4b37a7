"""Bulk inserts: on every path, rows arrive unchanged and errors are those of a plain statement."""

import pytest
from farebox_collector.ledger.storage import bulk_insert
from farebox_collector.ledger.storage.database import Database
from farebox_collector.ledger.storage.postgresql import PostgresqlDatabase
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError, IntegrityError

NAMES = ("plain", "a\tb", "\\N", "\\.", 'quo"te\n', "", "größer", "𝄞")
COLUMNS = ("id", "name", "data", "amount")


@pytest.fixture
def things(database: Database) -> Database:
    of_postgresql = isinstance(database, PostgresqlDatabase)
    number, data, strict = ("BIGINT", "BYTEA", "") if of_postgresql else ("INTEGER", "BLOB", "STRICT")
    columns = f"id {number} PRIMARY KEY, name TEXT NOT NULL, data {data}, amount {number}"
    with database.transaction() as connection:
        connection.execute(text(f"CREATE TABLE things ({columns}) {strict}"))
    return database


def rows(count: int, first: int = 0) -> list[tuple[int, str, bytes | None, int | None]]:
    return [
        (first + n, NAMES[n % len(NAMES)], None if n % 5 == 0 else bytes([n % 256, 0, 92]), None if n % 3 == 0 else -n)
        for n in range(count)
    ]


def stored(database: Database) -> list[tuple[int, str, bytes | None, int | None]]:
    with database.reading() as connection:
        found = connection.execute(text("SELECT id, name, data, amount FROM things ORDER BY id"))
        return [(row[0], row[1], None if row[2] is None else bytes(row[2]), row[3]) for row in found]


@pytest.mark.parametrize("count", [1, 15, 16, 700])
def test_rows_arrive_as_they_are_and_those_that_are_known_stay_out(things: Database, count: int) -> None:
    with things.transaction() as connection:
        half = bulk_insert.insert_ignoring_conflicts(connection, "things", COLUMNS, rows(count // 2))
        rest = bulk_insert.insert_ignoring_conflicts(connection, "things", COLUMNS, rows(count))
    assert (half, rest) == (count // 2, count - count // 2)
    assert stored(things) == rows(count)


def test_figures_are_added_and_what_they_come_to_is_returned(things: Database) -> None:
    tail = " ON CONFLICT (id) DO UPDATE SET amount = things.amount + excluded.amount RETURNING id, amount"
    given = [(n, "name", n) for n in range(100)]
    with things.transaction() as connection:
        for turn in (1, 2, 3):
            returned = bulk_insert.upsert_returning(connection, "things", ("id", "name", "amount"), tail, given)
            assert sorted(returned) == [(n, turn * n) for n in range(100)]


def test_rows_of_a_transaction_that_was_undone_are_gone(things: Database) -> None:
    with things.transaction() as connection:
        undone = connection.begin_nested()
        bulk_insert.insert(connection, "things", COLUMNS, rows(50))
        undone.rollback()
    with pytest.raises(IntegrityError), things.transaction() as connection:
        bulk_insert.insert(connection, "things", COLUMNS, [*rows(50), *rows(1)])
    with things.transaction() as connection:
        bulk_insert.insert(connection, "things", COLUMNS, rows(20, first=1000))
    assert stored(things) == rows(20, first=1000)


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_a_connection_that_is_lost_on_the_way_is_a_reason_to_try_again(things: Database) -> None:
    attempts = 0

    def work(connection: Connection) -> int:
        nonlocal attempts
        attempts += 1
        if attempts == 1:
            own = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
            with things.transaction() as other:
                other.execute(text("SELECT pg_terminate_backend(:own)"), {"own": own})
        return bulk_insert.insert_ignoring_conflicts(connection, "things", COLUMNS, rows(100))

    assert things.transact(work) == 100
    assert attempts == 2
    assert stored(things) == rows(100)


def test_rows_that_no_column_can_hold_are_an_error_of_the_database(things: Database) -> None:
    far_too_large = [(n, "name", b"", 2**70) for n in range(20)]
    with pytest.raises((DBAPIError, OverflowError)):
        things.transact(lambda connection: bulk_insert.insert(connection, "things", COLUMNS, far_too_large))
    assert stored(things) == []
