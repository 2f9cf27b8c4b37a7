"""Retry dead letters after a fix: read them, price them as of their receipt, and book them like other spans."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row

from farebox_collector.intake.reader import SpanReader
from farebox_collector.ledger.storage.database import Database
from farebox_collector.ledger.usage import dead_letters
from farebox_collector.ledger.usage.arrivals import Arrivals, BookingContext, book
from farebox_collector.ledger.usage.batch import Calls
from farebox_collector.ledger.usage.running_totals import TotalLabels
from farebox_collector.ledger.usage.span_counts import count_spans
from farebox_collector.model.records import NotBillable, QualityReport, Rejected
from farebox_collector.model.verdicts import Verdict


class Retried(NamedTuple):
    """The result for one dead letter."""

    letter_id: int
    verdict: Verdict
    reason: str


def retry(database: Database, reader: SpanReader, letters: Sequence[Row[Any]]) -> list[Retried]:
    """Retry dead letters, each in a separate transaction, which also removes the letter if it is booked."""
    desk = BookingContext(TotalLabels(), 0)
    return [
        database.transact(lambda connection, letter=letter: _retry(connection, reader, letter, desk))  # type: ignore[misc]
        for letter in letters
    ]


def _retry(connection: Connection, reader: SpanReader, letter: Row[Any], desk: BookingContext) -> Retried:
    reading = reader.read(dead_letters.span_of(letter), letter.tenant_id, letter.received_at_ns)
    if isinstance(reading, Rejected):
        return Retried(letter.id, Verdict.REJECTED, reading.reason)
    dead_letters.remove(connection, letter.id)
    reason = "" if isinstance(reading, QualityReport) else reading.reason
    # At its arrival it was counted as accepted and rejected; now it has another verdict.
    if isinstance(reading, NotBillable):
        count_spans(connection, letter.tenant_id, 0, {Verdict.REJECTED: -1, Verdict.NOT_BILLABLE: 1})
        return Retried(letter.id, Verdict.NOT_BILLABLE, reason)
    if isinstance(reading, QualityReport):
        arrivals = Arrivals(letter.received_at_ns, Calls(), reports=[reading])
    else:
        arrivals = Arrivals(letter.received_at_ns, Calls.of([reading]))
    (verdict,) = book(connection, letter.tenant_id, arrivals, desk) or [Verdict.NOTED]
    count_spans(connection, letter.tenant_id, 0, {Verdict.REJECTED: -1})
    return Retried(letter.id, verdict, reason)
