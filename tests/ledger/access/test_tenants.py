"""Tenants and ids: what was inserted with an id of its own never takes the place of what comes next."""

from collections.abc import Callable
from contextlib import closing
from decimal import Decimal

import pytest
from alembic import command
from blank import JANUARY_NS
from farebox_collector import assembly
from farebox_collector.ledger.access.tenants import TenantExists, create_tenant, tenant_of
from farebox_collector.ledger.storage import bulk_insert
from farebox_collector.ledger.storage.database import Database
from farebox_collector.ledger.storage.migrate import alembic_config
from farebox_collector.ledger.tables import metadata
from farebox_collector.ledger.tables.books import tenants
from farebox_collector.settings import Settings
from harness import farebox
from sqlalchemy import insert, inspect, select, text
from sqlalchemy.exc import IntegrityError

BOTH = ("sqlite", "postgresql")


@pytest.mark.parametrize("kind", BOTH)
def test_the_first_tenant_is_made_at_the_first_try(kind: str, new_url: Callable[[str], str]) -> None:
    url = new_url(kind)
    for name in ("acme", "globex"):
        made = farebox("tenants", "create", name, "--database-url", url)
        assert made.returncode == 0, made.stderr
    again = farebox("tenants", "create", "acme", "--database-url", url)
    assert again.returncode == 2
    assert "already" in again.stderr


@pytest.mark.parametrize("kind", BOTH)
def test_books_from_before_go_on_after_the_id_that_was_given_by_hand(kind: str, new_url: Callable[[str], str]) -> None:
    settings = Settings(database_url=new_url(kind))
    with closing(assembly.open_books(settings, lambda: JANUARY_NS)) as database, database.transaction() as connection:
        if kind == "postgresql":
            connection.execute(text("ALTER SEQUENCE tenants_id_seq RESTART WITH 1"))
        command.downgrade(alembic_config(connection), "0028")
    with closing(assembly.open_books(settings, lambda: JANUARY_NS)) as database:
        assert database.transact(lambda connection: create_tenant(connection, "acme", Decimal(1), JANUARY_NS)) > 1


def test_a_name_that_is_taken_is_told_apart_from_an_id_that_is(database: Database) -> None:
    def create(name: str) -> int:
        return database.transact(lambda connection: create_tenant(connection, name, Decimal(1), JANUARY_NS))

    create("acme")
    with pytest.raises(TenantExists):
        create("acme")
    taken = {"id": 1, "name": "other", "usd_per_credit": "1", "created_at_ns": JANUARY_NS}
    columns = tuple(taken)
    with pytest.raises(IntegrityError), database.transaction() as connection:
        bulk_insert.insert_ignoring_conflicts(connection, "tenants", columns, [tuple(taken.values())], on=("name",))
    with database.reading() as connection:
        assert tenant_of(connection, "other") is None


def test_ids_given_by_hand_are_skipped(database: Database) -> None:
    with database.transaction() as connection:
        row = {"id": 500, "name": "far", "usd_per_credit": "1", "created_at_ns": JANUARY_NS}
        connection.execute(insert(tenants).values(row))
        bulk_insert.skip_taken_ids(connection, "tenants")
        assert create_tenant(connection, "next", Decimal(1), JANUARY_NS) == 501
        bulk_insert.skip_taken_ids(connection, "tenants")
        assert create_tenant(connection, "and next", Decimal(1), JANUARY_NS) == 502


def test_no_sequence_is_behind_its_table(database: Database) -> None:
    """Of every table in new books: the next id is one that is free."""
    with database.reading() as connection:
        if connection.dialect.name != "postgresql":
            return
        for table in metadata.sorted_tables:
            if "id" not in table.c or not inspect(connection).has_table(table.name):
                continue
            sequence = connection.execute(text(f"SELECT pg_get_serial_sequence('{table.name}', 'id')")).scalar()
            last = connection.execute(select(table.c.id).order_by(table.c.id.desc()).limit(1)).scalar() or 0
            if sequence is not None and last:
                assert connection.execute(text(f"SELECT last_value FROM {sequence}")).scalar_one() >= last, table.name
