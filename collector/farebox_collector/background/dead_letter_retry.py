"""Give dead letters a second chance, after a fix: read, priced as of their receipt, and booked like any other span."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row

from farebox_collector.intake.reader import SpanReader
from farebox_collector.ledger.storage.database import Database
from farebox_collector.ledger.usage import dead_letters
from farebox_collector.ledger.usage.batch import Calls
from farebox_collector.ledger.usage.booking import record_calls
from farebox_collector.ledger.usage.quality import keep_reports
from farebox_collector.ledger.usage.running_totals import TotalLabels
from farebox_collector.ledger.usage.span_counts import count_spans
from farebox_collector.model.records import NotBillable, QualityReport, Rejected
from farebox_collector.model.verdicts import Verdict


class Retried(NamedTuple):
    """What became of one dead letter."""

    letter_id: int
    verdict: Verdict
    reason: str


def retry(database: Database, reader: SpanReader, letters: Sequence[Row[Any]]) -> list[Retried]:
    """Try dead letters again, each in a transaction of its own; one that is booked now is taken out in the same."""
    labels = TotalLabels()
    return [
        database.transact(lambda connection, letter=letter: _retry(connection, reader, letter, labels))  # type: ignore[misc]
        for letter in letters
    ]


def _retry(connection: Connection, reader: SpanReader, letter: Row[Any], labels: TotalLabels) -> Retried:
    reading = reader.read(dead_letters.span_of(letter), letter.tenant_id, letter.received_at_ns)
    if isinstance(reading, Rejected):
        return Retried(letter.id, Verdict.REJECTED, reading.reason)
    dead_letters.remove(connection, letter.id)
    if isinstance(reading, NotBillable):
        verdict = Verdict.NOT_BILLABLE
    elif isinstance(reading, QualityReport):
        keep_reports(connection, letter.tenant_id, [reading], letter.received_at_ns, labels)
        verdict = Verdict.NOTED
    else:
        (verdict,) = record_calls(connection, letter.tenant_id, Calls.of([reading]), letter.received_at_ns, labels)
    # It was accepted when it came; now it has another verdict.
    count_spans(connection, letter.tenant_id, 0, {Verdict.REJECTED: -1, verdict: 1})
    return Retried(letter.id, verdict, "" if isinstance(reading, QualityReport) else reading.reason)
