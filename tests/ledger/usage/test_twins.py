"""Second spans of calls, many at once: booked in bulk as they are when each is looked at by itself."""

import random
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from blank import JANUARY_NS
from calls import SECOND_NS, START_NS, call
from farebox_collector.assembly import open_books
from farebox_collector.ledger.audit.books_audit import audit
from farebox_collector.ledger.storage.database import Database
from farebox_collector.ledger.tables.books import usage_records
from farebox_collector.ledger.usage.arrivals import Arrivals, BookingContext, book
from farebox_collector.ledger.usage.batch import Calls
from farebox_collector.ledger.usage.booking import record_calls, record_usage
from farebox_collector.ledger.usage.folding import Folder, OpenTransactions
from farebox_collector.ledger.usage.running_totals import TotalLabels
from farebox_collector.model.records import UNATTRIBUTED, Buckets, PricedUsage
from farebox_collector.model.verdicts import Verdict
from farebox_collector.settings import Settings
from sqlalchemy import select

Book = Callable[[Sequence[PricedUsage]], list[Verdict]]
_CHANGING = {"id", "transaction_id", "received_at_ns"}


def appending(database: Database) -> Book:
    """Books batches as the pipeline does."""
    labels = TotalLabels()
    database.fold_with(Folder(labels))
    context = BookingContext(labels, 0, OpenTransactions(labels))

    def append(calls: Sequence[PricedUsage]) -> list[Verdict]:
        come = Arrivals(START_NS, Calls.of(calls), accepted=len(calls))
        return database.append(lambda connection: book(connection, 1, come, context))

    return append


def looking_at_each(database: Database) -> Book:
    """Books batches where no second spans are expected, so that each of them is looked at by itself."""

    def record(calls: Sequence[PricedUsage]) -> list[Verdict]:
        with database.transaction() as connection:
            return record_usage(connection, 1, calls, START_NS, TotalLabels())

    return record


def records(database: Database) -> list[dict[str, Any]]:
    """What the books have of each span; the audit finds nothing."""
    with database.reading() as connection:
        assert list(audit(connection)) == []
        rows = connection.execute(select(usage_records).order_by(usage_records.c.trace_id)).mappings().all()
        return [{name: value for name, value in row.items() if name not in _CHANGING} for row in rows]


def batches(seed: int) -> list[list[PricedUsage]]:
    """Spans of few responses, of which some know more; some ids are unique for ever, others while spans overlap."""
    chosen = random.Random(seed)
    made, number = [], 0
    for _ in range(6):
        batch = []
        for name in chosen.sample(range(30), chosen.choice((3, 20))):
            number += 1
            batch.append(
                call(
                    number,
                    trace=number,
                    wallet=chosen.choice(("ada", "ada", "ada", UNATTRIBUTED)),
                    response_id=f"chatcmpl-{name:020d}" if name % 2 else f"r{name}",
                    start_ns=START_NS + chosen.choice((0, 0, 0, 100)) * SECOND_NS,
                    latency_ns=chosen.choice((1, 1, 200)) * SECOND_NS,
                    buckets=Buckets(input=10, output=chosen.choice((5, 5, 5, 6))),
                )
            )
        made.append(batch)
    return made


@pytest.mark.parametrize("seed", range(4))
def test_in_bulk_they_are_booked_as_if_each_was_looked_at(
    database: Database, new_books: Callable[[str, Path], str], tmp_path: Path, seed: int
) -> None:
    beside = tmp_path / "beside"
    beside.mkdir()
    with closing(open_books(Settings(database_url=new_books("sqlite", beside)), lambda: JANUARY_NS)) as other:
        append, record = appending(database), looking_at_each(other)
        for batch in batches(seed):
            assert append(batch) == record(batch)
        assert records(database) == records(other)


def test_a_burst_is_not_looked_at_one_by_one(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    append = appending(database)
    individually = 0

    def counting(*arguments: Any) -> list[Verdict]:
        nonlocal individually
        individually += 1
        return record_calls(*arguments)

    monkeypatch.setattr("farebox_collector.ledger.usage.arrivals.record_calls", counting)

    def spans(first: int, output: int = 5) -> list[PricedUsage]:
        return [
            call(first + n, trace=first + n, response_id=f"r{n}", buckets=Buckets(input=10, output=output))
            for n in range(50)
        ]

    assert append(spans(0)) == [Verdict.CHARGED] * 50
    for first, output in ((100, 5), (200, 5), (300, 3)):
        assert append(spans(first, output)) == [Verdict.COVERED] * 50
    assert individually == 1, "the first of a burst"
    assert append(spans(400, 9)) == [Verdict.CHARGED] * 50
    assert individually == 2, "these know more"
    assert [row["verdict"] for row in records(database)].count(Verdict.CHARGED) == 50
