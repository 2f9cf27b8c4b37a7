"""The index of records by span, which commits in SQLite leave behind: nothing is charged twice for that."""

from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest
from blank import blank_sqlite
from calls import START_NS, call
from farebox_collector.ledger.audit.books_audit import audit
from farebox_collector.ledger.reports.statements import UsageFilter, usage, usage_record
from farebox_collector.ledger.storage.connect import open_database
from farebox_collector.ledger.storage.database import Database
from farebox_collector.ledger.usage import span_index
from farebox_collector.ledger.usage.arrivals import Arrivals, BookingContext, book
from farebox_collector.ledger.usage.batch import Calls
from farebox_collector.ledger.usage.booking import record_usage
from farebox_collector.ledger.usage.folding import Folder, OpenTransactions
from farebox_collector.ledger.usage.retention import retire
from farebox_collector.ledger.usage.running_totals import TotalLabels
from farebox_collector.ledger.usage.span_index import SPAN_INDEX
from farebox_collector.model.records import PricedUsage
from farebox_collector.model.verdicts import Verdict
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

CHARGED, DUPLICATE = Verdict.CHARGED, Verdict.DUPLICATE


class Writer:
    """The part of a collector that appends, over books in a file."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.start()

    def start(self) -> None:
        """Begin without memory, as a process does."""
        labels = TotalLabels()
        self.database.fold_with(Folder(labels))
        self.opened = OpenTransactions(labels)
        self._context = BookingContext(labels, 0, self.opened)

    def append(self, *calls: PricedUsage) -> list[Verdict]:
        arrivals = Arrivals(START_NS, Calls.of(calls), accepted=len(calls))
        return self.database.append(lambda connection: book(connection, 1, arrivals, self._context))

    def index(self) -> None:
        """Bring the index up to date, and tell the appender, as the pipeline's job does."""
        closed = self.opened.tail.closed
        self.database.append(SPAN_INDEX.complete)
        with self.database.snapshot() as connection:
            self.opened.tail.indexed(SPAN_INDEX.mark(connection), closed)

    def behind(self) -> int:
        with self.database.snapshot() as connection:
            return SPAN_INDEX.behind(connection)


def one(number: int) -> PricedUsage:
    return call(number, trace=number, response_id=f"r{number}")


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[Writer]:
    with closing(open_database(blank_sqlite(tmp_path))) as database:
        yield Writer(database)
        with database.reading() as connection:
            assert list(audit(connection)) == []


def test_ordinary_calls_stay_out_of_the_index_until_it_is_due(writer: Writer) -> None:
    assert writer.append(one(1), one(2)) == [CHARGED, CHARGED]
    assert writer.behind() == 2
    writer.index()
    assert writer.behind() == 0


def test_a_span_that_the_index_lacks_is_known(writer: Writer) -> None:
    writer.append(one(1), one(2))
    assert writer.append(one(2), one(3)) == [DUPLICATE, CHARGED]


def test_a_span_that_the_index_lacks_is_known_after_a_crash(writer: Writer) -> None:
    writer.append(one(1))
    writer.start()
    assert writer.behind() == 1
    assert writer.append(one(1), one(2)) == [DUPLICATE, CHARGED]


def test_what_others_book_in_between_is_known(writer: Writer) -> None:
    writer.append(one(1))
    booked = writer.database.transact(lambda connection: record_usage(connection, 1, [one(2)], START_NS, TotalLabels()))
    assert booked == [CHARGED]
    assert writer.append(one(2), one(1)) == [DUPLICATE, DUPLICATE]


def test_what_a_rolled_back_transaction_indexed_is_still_known(writer: Writer) -> None:
    writer.append(one(1))
    with suppress(ZeroDivisionError), writer.database.appending() as connection:
        SPAN_INDEX.complete(connection)
        raise ZeroDivisionError
    assert writer.append(one(1)) == [DUPLICATE]


def test_ids_that_are_given_again_are_indexed_again(writer: Writer) -> None:
    writer.append(one(1), one(2))
    writer.index()
    with writer.database.appending() as connection:
        newest = int(connection.exec_driver_sql("SELECT max(id) FROM usage_records").scalar_one())
        before = SPAN_INDEX.mark(connection)
        attempt = connection.begin_nested()
        connection.exec_driver_sql("PRAGMA defer_foreign_keys = ON")
        connection.exec_driver_sql("DELETE FROM usage_records WHERE id = ?", (newest,))
        assert (before, SPAN_INDEX.mark(connection)) == (newest, newest - 1)
        attempt.rollback()
        assert SPAN_INDEX.mark(connection) == newest


def test_a_record_with_an_id_that_is_given_again_is_known(writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(span_index, "_GENERATION", 1)
    writer.append(one(1), one(2))
    writer.index()
    with writer.database.appending() as connection:
        connection.exec_driver_sql("PRAGMA defer_foreign_keys = ON")
        newest = connection.exec_driver_sql("SELECT * FROM usage_records ORDER BY id DESC LIMIT 1").one()
        connection.exec_driver_sql("DELETE FROM usage_records WHERE id = ?", (newest.id,))
        # Kept for the audit, which knows of a record of this span.
        marks = ", ".join("?" * len(newest))
        connection.exec_driver_sql(f"INSERT INTO usage_records VALUES ({marks})", tuple(newest))
    for number in (3, 4, 5):
        writer.append(one(number))
    assert writer.append(*(one(number) for number in range(1, 6))) == [DUPLICATE] * 5


def test_readers_find_what_the_index_lacks(writer: Writer) -> None:
    writer.append(one(1))
    writer.index()
    writer.append(one(2))
    with writer.database.reading() as connection:
        for number in (1, 2):
            wanted = one(number).usage
            found = usage_record(connection, 1, wanted.trace_id, wanted.span_id)
            assert found is not None
            assert [row.id for row in usage(connection, 1, UsageFilter(trace_id=wanted.trace_id))] == [found.id]
        assert usage_record(connection, 2, one(1).usage.trace_id, one(1).usage.span_id) is None


def test_a_retired_record_leaves_the_index(writer: Writer) -> None:
    writer.append(one(1), one(2), one(3))
    batch = writer.database.transact(lambda connection: retire(connection, 0, START_NS + 1, 2))
    assert batch.retired == 2
    with writer.database.snapshot() as connection:
        left = connection.exec_driver_sql("SELECT count(*) FROM record_spans").scalar_one()
        assert (left, SPAN_INDEX.behind(connection)) in {(0, 1), (1, 0)}
    assert writer.append(one(1), one(3), one(4)) == [DUPLICATE, DUPLICATE, CHARGED]


STEP: st.SearchStrategy[tuple[str, list[int]]] = st.one_of(
    st.tuples(st.just("append"), st.lists(st.integers(1, 12), min_size=1, max_size=6)),
    st.tuples(st.just("book"), st.lists(st.integers(1, 12), min_size=1, max_size=3)),
    st.tuples(st.sampled_from(("index", "start", "lose")), st.just([])),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(STEP, max_size=14))
def test_each_span_is_charged_once_however_far_the_index_has_come(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, list[int]]]
) -> None:
    generation = span_index._GENERATION
    span_index._GENERATION = 3
    try:
        with closing(open_database(blank_sqlite(tmp_path_factory.mktemp("books")))) as database:
            _play(Writer(database), steps)
            with database.reading() as connection:
                assert list(audit(connection)) == []
    finally:
        span_index._GENERATION = generation


def _play(writer: Writer, steps: list[tuple[str, list[int]]]) -> None:
    """Do the steps, and compare each verdict with a set of what was booked."""
    booked: set[int] = set()
    for kind, numbers in steps:
        calls = [one(number) for number in numbers]
        if kind == "index":
            writer.index()
        elif kind == "start":
            writer.start()
        elif kind == "lose":
            with suppress(ZeroDivisionError), writer.database.appending() as connection:
                record_usage(connection, 1, [one(13)], START_NS, TotalLabels())
                raise ZeroDivisionError
        else:
            expected = []
            for number in numbers:
                expected.append(DUPLICATE if number in booked else CHARGED)
                booked.add(number)
            if kind == "append":
                assert writer.append(*calls) == expected
            else:
                work = lambda connection, calls=calls: record_usage(connection, 1, calls, START_NS, TotalLabels())  # noqa: E731
                assert writer.database.transact(work) == expected
