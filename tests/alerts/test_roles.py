"""deploy/roles.sql and deploy/grants.sql on a real PostgreSQL: who may do what to the books."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from farebox_collector import assembly
from farebox_collector.ledger.credits.deposits import deposit
from farebox_collector.settings import Settings

DEPLOY = Path(__file__).parents[2] / "deploy"


def test_the_writer_adds_postings_and_never_changes_one_and_the_reader_sees_no_secret(
    new_url: Callable[[str], str],
) -> None:
    url = new_url("postgresql")
    plain = url.replace("+psycopg", "")
    with psycopg.connect(plain, autocommit=True) as superuser:
        for _ in range(2):
            superuser.execute((DEPLOY / "roles.sql").read_bytes())
    as_role = {name: url.replace("farebox@", f"farebox_{name}@") for name in ("migrate", "write", "read")}
    assembly.open_books(Settings(database_url=as_role["migrate"])).close()
    with psycopg.connect(as_role["migrate"].replace("+psycopg", ""), autocommit=True) as migrator:
        migrator.execute((DEPLOY / "grants.sql").read_bytes())
    writing = assembly.open_books(Settings(database_url=as_role["write"]))
    with closing(writing), writing.transaction() as connection:
        deposit(connection, 1, "ada", 5 * 10**9, "pay", 1_790_000_000_000_000_000)
    with psycopg.connect(as_role["write"].replace("+psycopg", ""), autocommit=True) as writer:
        for statement in (
            b"UPDATE postings SET amount_nano = 0",
            b"DELETE FROM postings",
            b"TRUNCATE postings",
            b"DROP TABLE lots",
            b"CREATE TABLE mine (id int)",
            b"UPDATE alembic_version SET version_num = '0001'",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                writer.execute(statement)
    with psycopg.connect(as_role["read"].replace("+psycopg", ""), autocommit=True) as reader:
        counted = reader.execute(b"SELECT count(*) FROM postings").fetchone()
        assert counted is not None
        assert counted[0] >= 2
        for statement in (
            b"SELECT * FROM link_secrets",
            b"SELECT * FROM api_keys",
            b"SELECT * FROM people",
            b"DELETE FROM lots",
            b"INSERT INTO watermarks (name, value) VALUES ('x', 1)",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                reader.execute(statement)
