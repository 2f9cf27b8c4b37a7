"""Looking many keys up costs as much in large books as in small ones."""

from hashlib import blake2b
from typing import Any

from calls import SECOND_NS, START_NS
from farebox_collector.ledger.storage import bulk_insert
from farebox_collector.ledger.storage.database import Database
from farebox_collector.ledger.usage.claims import Held, held, slots
from sqlalchemy import event
from sqlalchemy.engine import Engine

MANY = 20_000
ASKED = 600
"""More than one statement of SQLite's."""


def claims() -> list[tuple[bytes, int, int]]:
    """Key, start and latency of calls."""
    keys = (blake2b(number.to_bytes(4, "big"), digest_size=16).digest() for number in range(MANY))
    return [(key, START_NS + number * SECOND_NS, SECOND_NS) for number, key in enumerate(keys)]


def test_claims_are_looked_up_by_their_key(database: Database) -> None:
    made = claims()
    rows = [(1, slots(key, start, latency)[0], key, number) for number, (key, start, latency) in enumerate(made)]
    with database.transaction() as connection:
        bulk_insert.load(connection, "call_claims", ("tenant_id", "slot", "call_key", "usage_record_id"), rows)
    asked: list[tuple[str, Any]] = []

    def see(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        asked.append((statement, parameters))

    with database.reading() as connection:
        event.listen(Engine, "before_cursor_execute", see)
        try:
            found = held(connection, 1, made[:: MANY // ASKED])
        finally:
            event.remove(Engine, "before_cursor_execute", see)
        assert found == {Held(number, made[number][0], None, None) for number in range(0, MANY, MANY // ASKED)}
        assert held(connection, 2, made[:ASKED]) == set()
        explain = "EXPLAIN QUERY PLAN" if connection.dialect.name == "sqlite" else "EXPLAIN"
        steps = [
            str(row[-1])
            for statement, parameters in asked
            for row in connection.exec_driver_sql(f"{explain} {statement}", parameters)
        ]
    assert asked
    # Each claim is found by its whole key; PostgreSQL has no statistics yet, and must not need them.
    assert any("call_key = k.call_key" in step or "call_key=?" in step for step in steps), steps
    assert not [step for step in steps if "Seq Scan" in step or "Bitmap" in step or "Join" in step or step == "SCAN t"]
