"""The audit log: one chain a tenant, in the transaction of each change; a gap, a change and a cut are found."""

import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest
from farebox_collector.ledger.access.actors import Actor, acting_as
from farebox_collector.ledger.access.audit_log import (
    MAX_PART,
    LogFilter,
    entries_of,
    forget,
    note,
    retire_entries,
)
from farebox_collector.ledger.access.audit_log_chain import (
    Head,
    compare_chains,
    heads,
    move_anchor,
)
from farebox_collector.ledger.access.keys import create_key, revoke_key
from farebox_collector.ledger.access.refusals import (
    EVERY_NS,
    MOST_KINDS,
    Attempt,
    Refusals,
)
from farebox_collector.ledger.storage.connect import open_database
from farebox_collector.ledger.storage.database import Database
from farebox_collector.ledger.storage.sqlite import SqliteDatabase
from farebox_collector.model.credentials import Scope
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, text

NOW_NS = 1_780_000_000 * 10**9
ADA = Actor("person:1", "192.0.2.7", 1, "ada")


def act(database: Database, count: int = 1, tenant_id: int = 1, subject: str = "ada") -> None:
    """Note so many things, each in a transaction of its own."""
    for number in range(count):
        with database.transaction() as connection, acting_as(ADA):
            note(connection, tenant_id, "test.act", subject, NOW_NS + number, after={"number": number})


def log(database: Database, tenant_id: int = 1, **wanted: Any) -> list[Any]:
    with database.reading() as connection:
        return list(entries_of(connection, tenant_id, LogFilter(**wanted), limit=1_000))


def broken(database: Database, *, from_scratch: bool = True) -> list[str]:
    with database.reading() as connection:
        return [str(mismatch) for mismatch in compare_chains(connection, from_scratch=from_scratch)]


def anchor(database: Database) -> None:
    """What the upkeep of a collector does after it looked at the chains."""
    found: list[Head] = []
    with database.reading() as connection:
        assert list(compare_chains(connection, found.append, from_scratch=False)) == []
    with database.transaction() as connection:
        for head in found:
            move_anchor(connection, head, NOW_NS)


def tamper(database: Database, *statements: str) -> None:
    for statement in statements:
        if isinstance(database, SqliteDatabase):
            with closing(sqlite3.connect(database.path)) as file, file:
                file.execute(statement)
        else:
            with database.transaction() as connection:
                connection.execute(text(statement))


def test_a_change_and_its_entry_are_one_transaction(database: Database) -> None:
    before = len(log(database))

    def fail(connection: Connection) -> None:
        create_key(connection, 1, "gateway", [Scope.READ], NOW_NS)
        raise RuntimeError

    with pytest.raises(RuntimeError):
        database.transact(fail)
    assert len(log(database)) == before
    with database.transaction() as connection, acting_as(ADA):
        key_id = create_key(connection, 1, "gateway", [Scope.READ], NOW_NS).key_id
        revoke_key(connection, 1, key_id, NOW_NS)
        assert len(entries_of(connection, 1, LogFilter())) == before, "written at the end, so that locks are short"
    (revoked, created) = log(database, subject=key_id)
    assert (created.action, created.actor, created.address) == ("key.create", "person:1", "192.0.2.7")
    assert '"scopes":["read"]' in created.details
    assert revoked.action == "key.revoke"
    assert revoked.number == created.number + 1
    assert broken(database) == []


def test_a_connection_that_would_lose_entries_refuses_them(database: Database) -> None:
    with database.reading() as connection, pytest.raises(KeyError):
        note(connection, 1, "test.act", "", NOW_NS)


def test_chains_of_tenants_are_apart(database: Database) -> None:
    act(database, 3)
    act(database, 2, tenant_id=7)
    assert [entry.number for entry in log(database, 7)] == [2, 1]
    with database.transaction() as connection:
        for tenant_id in (7, 1, 7):
            note(connection, tenant_id, "test.act", "", NOW_NS)
    assert [entry.number for entry in log(database, 7)] == [4, 3, 2, 1]
    assert broken(database) == []


def test_writers_at_once_make_one_chain(new_books: Callable[..., str], tmp_path: Any) -> None:
    """Eight writers on PostgreSQL: no entry is lost, none has another's number."""
    database = open_database(new_books("postgresql", tmp_path))
    with closing(database):
        before = len(log(database))
        threads = [threading.Thread(target=act, args=(database, 10)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [entry.number for entry in log(database)] == list(range(before + 80, 0, -1))
        assert broken(database) == []


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_log SET actor = 'person:2' WHERE number = {n}",
        "UPDATE audit_log SET address = '' WHERE number = {n}",
        "UPDATE audit_log SET action = 'test.other' WHERE number = {n}",
        "UPDATE audit_log SET outcome = 'refused' WHERE number = {n}",
        "UPDATE audit_log SET at_ns = at_ns + 1 WHERE number = {n}",
        "UPDATE audit_log SET subject = 'bob' WHERE number = {n}",
        "UPDATE audit_log SET details = '' WHERE number = {n}",
        "DELETE FROM audit_log WHERE number = {n}",
        "UPDATE audit_log SET number = number + 100 WHERE number = {n}",
        "DELETE FROM audit_log WHERE number >= {n}",
        "UPDATE audit_log_heads SET last_number = last_number + 1",
        "DELETE FROM audit_log_heads",
    ],
)
@pytest.mark.parametrize("from_scratch", [True, False])
def test_a_gap_a_change_and_a_cut_are_found(database: Database, statement: str, from_scratch: bool) -> None:
    anchor(database)
    act(database, 4)
    newest = log(database)[0].number
    assert broken(database, from_scratch=from_scratch) == []
    tamper(database, statement.format(n=newest - 1))
    assert broken(database, from_scratch=from_scratch)


def test_a_cut_with_its_head_is_found_by_the_anchor(database: Database) -> None:
    act(database, 4)
    anchor(database)
    kept = log(database)[2]
    tamper(
        database,
        f"DELETE FROM audit_log WHERE number > {kept.number}",
        f"UPDATE audit_log_heads SET last_number = {kept.number}, last_sha256 ="
        f" (SELECT sha256 FROM audit_log WHERE number = {kept.number})",
    )
    assert broken(database)
    assert broken(database, from_scratch=False)
    # Also when as many entries are written again, which are others.
    act(database, 2)
    assert broken(database)


def test_everything_deleted_is_found_by_the_anchor(database: Database) -> None:
    act(database)
    anchor(database)
    tamper(database, "DELETE FROM audit_log", "DELETE FROM audit_log_heads")
    assert broken(database)


def test_content_is_forgotten_and_the_chain_stays_whole(database: Database) -> None:
    act(database, 2, subject="ada@example.com")
    act(database, 1, subject="bob")
    with database.transaction() as connection:
        assert forget(connection, 1, "ada@example.com", NOW_NS) == 2
    assert broken(database) == []
    assert "ada@example.com" not in repr([tuple(entry) for entry in log(database)])
    assert log(database)[0].action == "audit_log.forget"
    assert len(log(database, subject="bob")) == 1
    # What was forgotten cannot be made up again.
    tamper(database, "UPDATE audit_log SET subject = 'eve' WHERE subject = '' AND action = 'test.act'")
    assert broken(database)


def test_retention_keeps_the_chain_verifiable(database: Database) -> None:
    act(database, 5)
    anchor(database)
    last = log(database)[0]
    with database.transaction() as connection:
        assert retire_entries(connection, 1, NOW_NS + 3, NOW_NS) == last.number - 2
    assert [entry.action for entry in log(database)] == ["audit_log.retire", "test.act", "test.act"]
    assert broken(database) == []
    assert broken(database, from_scratch=False) == []
    tamper(database, f"DELETE FROM audit_log WHERE number = {last.number - 1}")
    assert broken(database)


def test_heads_can_be_kept_elsewhere(database: Database) -> None:
    act(database)
    with database.reading() as connection:
        (head,) = heads(connection)
    newest = log(database)[0]
    assert head == (1, newest.number, bytes(newest.sha256))


def test_filters(database: Database) -> None:
    act(database, 3)
    with database.transaction() as connection:
        note(connection, 1, "testing.act", "bob", NOW_NS, outcome="refused")
    assert len(log(database, action="test")) == 3
    assert len(log(database, action="test.act")) == 3
    assert len(log(database, actor="person:1")) == 3
    assert len(log(database, outcome="refused")) == 1
    assert [entry.at_ns for entry in log(database, action="test", from_ns=NOW_NS + 1, to_ns=NOW_NS + 2)] == [NOW_NS + 1]
    # No wildcard of SQL gets through.
    assert log(database, action="te%") == log(database, action="test_act") == []


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.text(max_size=50), st.dictionaries(st.text(max_size=20), st.text() | st.integers() | st.none(), max_size=4))
def test_any_content_is_kept_and_verified(database: Database, subject: str, facts: dict[str, Any]) -> None:
    with database.transaction() as connection:
        note(connection, 1, "test.act", subject, NOW_NS, before=facts, after={"long": "x" * MAX_PART})
    assert len(log(database)[0].details) < 2 * MAX_PART
    assert broken(database, from_scratch=False) == []
    anchor(database)


def test_refused_attempts_are_counted_and_bounded(database: Database) -> None:
    """A flood is an entry at once and one a minute; many different attempts are counted together."""
    now_ns = NOW_NS
    refusals = Refusals(database, lambda: now_ns)
    attempt = Attempt(1, "key:ab", "POST /v1/rules", "not allowed")
    for _ in range(1_000):
        refusals.count(attempt, "192.0.2.1")
        refusals.write()
    refused = log(database, outcome="refused")
    assert [(entry.actor, entry.address, entry.subject) for entry in refused] == [
        ("key:ab", "192.0.2.1", "POST /v1/rules")
    ]
    now_ns += EVERY_NS
    refusals.write()
    assert '"times":999' in log(database, outcome="refused")[0].details
    now_ns += EVERY_NS
    refusals.write()
    for number in range(3 * MOST_KINDS):
        refusals.count(attempt._replace(what=str(number)), "192.0.2.1")
    refusals.write(everything=True)
    assert len(log(database, outcome="refused")) == 2 + MOST_KINDS + 1
    assert broken(database) == []
