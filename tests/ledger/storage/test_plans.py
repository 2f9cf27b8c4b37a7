"""On SQLite nothing that is done again and again looks through all records: its planner has no statistics to go by."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from blank import blank_sqlite
from calls import START_NS, call
from farebox_collector.assembly import open_books
from farebox_collector.background.settling import Settling
from farebox_collector.cache.tariffs import Tariffs
from farebox_collector.ledger.reports import statements
from farebox_collector.ledger.reports.price_gaps import gaps
from farebox_collector.ledger.reports.statements import UsageFilter
from farebox_collector.ledger.storage.database import Database
from farebox_collector.ledger.usage.booking import record_usage
from farebox_collector.ledger.usage.running_totals import TotalLabels
from farebox_collector.model.verdicts import Verdict
from farebox_collector.settings import Settings
from sqlalchemy import event
from sqlalchemy.engine import Engine

ALL_OF_A_TENANT = "ix_usage_records_priced_at_ns (tenant_id=?)"


@pytest.fixture
def books(tmp_path: Path) -> Iterator[Database]:
    with closing(open_books(Settings(database_url=blank_sqlite(tmp_path)), lambda: START_NS)) as database:
        yield database


@contextmanager
def seen() -> Iterator[list[tuple[str, Any]]]:
    """What is asked of usage records meanwhile, with its parameters."""
    found: list[tuple[str, Any]] = []

    def see(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if statement.startswith(("SELECT", "WITH")) and "usage_records" in statement:
            found.append((statement, parameters))

    event.listen(Engine, "before_cursor_execute", see)
    yield found
    event.remove(Engine, "before_cursor_execute", see)


def plans(database: Database, asked: list[tuple[str, Any]]) -> list[str]:
    with database.reading() as connection:
        return [
            row[3]
            for statement, parameters in asked
            for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
        ]


@pytest.fixture
def recorded(books: Database) -> Database:
    with books.transaction() as connection:
        record_usage(connection, 1, [call(2, trace=2, verdict=Verdict.UNPRICED)], START_NS, TotalLabels())
        for number in range(100, 180):
            # A transaction each: the planner thinks otherwise of many than of a few.
            record_usage(connection, 1, [call(number, response_id=str(number))], START_NS, TotalLabels())
    return books


def test_rounds_find_what_waits(recorded: Database) -> None:
    rounds = Settling(
        Settings(database_url="sqlite:///unused"),
        recorded,
        Tariffs(recorded, lambda: START_NS),
        lambda: START_NS + 10**15,
    )
    with seen() as asked:
        rounds.round()
        with recorded.reading() as connection:
            assert len(list(gaps(connection, START_NS, 10))) == 1
    steps = plans(recorded, asked)
    assert any("ix_usage_records_unsettled" in step for step in steps)
    assert not [step for step in steps if step == "SCAN usage_records" or ALL_OF_A_TENANT in step]


def test_lists_take_the_newest_as_they_come(recorded: Database) -> None:
    with seen() as asked, recorded.reading() as connection:
        for wanted in (
            UsageFilter(),
            UsageFilter(event="chat"),
            UsageFilter(verdict="charged"),
            UsageFilter(verdict="unpriced"),
            UsageFilter(wallet="ada"),
            UsageFilter(trace_id=bytes(16)),
        ):
            statements.usage(connection, 1, wanted)
            statements.usage(connection, 1, wanted, before_id=2)
        statements.ledger(connection, 1, kind="charge")
    assert not [step for step in plans(recorded, asked) if ALL_OF_A_TENANT in step]


def test_booking_looks_up_spans_by_their_index(recorded: Database) -> None:
    of_a_trace = [call(n, trace=2, response_id="") for n in range(300, 340)]
    known = [call(number, response_id=str(number)) for number in range(100, 180)]
    conflicting = [call(number, response_id=str(number), wallet="eve") for number in range(100, 110)]
    twins = [call(1_000 + number, trace=1_000 + number, response_id=str(number)) for number in range(100, 180)]
    with seen() as asked:
        for calls in (of_a_trace, known, conflicting, twins):
            with recorded.transaction() as connection:
                record_usage(connection, 1, calls, START_NS, TotalLabels())
    steps = plans(recorded, asked)
    assert any("record_spans" in step or "i USING PRIMARY KEY" in step for step in steps)
    assert not [step for step in steps if step.startswith("SCAN usage_records") or ALL_OF_A_TENANT in step]
