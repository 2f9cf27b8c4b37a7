"""Book what one tenant sent: its calls, quality reports and dead letters, and the counts of all of them.

Every path into the books uses `book`: requests, requests with parts that cannot be stored, and retried dead letters.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

from sqlalchemy import Connection

from farebox_collector.ledger.storage.database import is_storage_outage
from farebox_collector.ledger.usage import dead_letters
from farebox_collector.ledger.usage.appending import append_calls
from farebox_collector.ledger.usage.batch import Calls
from farebox_collector.ledger.usage.booking import record_calls
from farebox_collector.ledger.usage.folding import OpenTransactions
from farebox_collector.ledger.usage.quality import keep_reports
from farebox_collector.ledger.usage.running_totals import TotalLabels
from farebox_collector.ledger.usage.span_counts import by_outcome, count_spans
from farebox_collector.model.records import DeadLetter, PricedUsage, QualityReport
from farebox_collector.model.verdicts import Verdict


class Arrivals(NamedTuple):
    """Spans of one tenant after reading and pricing."""

    received_at_ns: int
    calls: Calls
    reports: Sequence[QualityReport] = ()
    dead: Sequence[DeadLetter] = ()
    """Spans that could not be read."""
    accepted: int = 0
    """The number of spans to count as accepted; 0 for spans that were counted before."""


class BookingContext(NamedTuple):
    """The context that booking needs besides the spans."""

    labels: TotalLabels
    dead_letter_lifetime_ns: int
    opened: OpenTransactions | None = None
    """Where ordinary calls are appended, to be folded later; without it they are posted at once."""


def book(connection: Connection, tenant_id: int, arrivals: Arrivals, context: BookingContext) -> list[Verdict]:
    """Book everything in the transaction of `connection`. Returns a verdict for each call, in order."""
    if context.opened is not None:
        appended = _append(connection, tenant_id, arrivals, context, context.opened)
        if appended is not None:
            return appended
    calls, at_ns = arrivals.calls, arrivals.received_at_ns
    verdicts = record_calls(connection, tenant_id, calls, at_ns, context.labels, context.opened)
    _book_remainder(connection, tenant_id, arrivals, verdicts, arrivals.dead, context)
    return verdicts


def book_storable(
    connection: Connection,
    tenant_id: int,
    arrivals: Arrivals,
    context: BookingContext,
    letter_of: Callable[[int, str], DeadLetter],
) -> list[Verdict]:
    """Book everything except the calls that cannot be stored: each of them becomes a dead letter and is rejected.

    `letter_of` makes the dead letter of a call from its index and the reason. Returns a verdict for each call, in
    order. Raises on storage outages.
    """
    dead = list(arrivals.dead)

    def halve(calls: Sequence[PricedUsage], first: int) -> list[Verdict]:
        """Halve a failing batch until it is a single call."""
        try:
            with connection.begin_nested():
                return record_calls(connection, tenant_id, Calls.of(calls), arrivals.received_at_ns, context.labels)
        except Exception as error:
            if is_storage_outage(error):
                raise
            if len(calls) <= 1:
                dead.append(letter_of(first, f"cannot be stored ({type(error).__name__})"))
                return [Verdict.REJECTED]
            middle = len(calls) // 2
            return [*halve(calls[:middle], first), *halve(calls[middle:], first + middle)]

    verdicts = halve(arrivals.calls, 0)
    _book_remainder(connection, tenant_id, arrivals, verdicts, dead, context)
    return verdicts


def _append(
    connection: Connection, tenant_id: int, arrivals: Arrivals, context: BookingContext, opened: OpenTransactions
) -> list[Verdict] | None:
    """Append everything if all calls are ordinary. Return a verdict for each, in order; None with nothing written."""
    spans = by_outcome(arrivals.accepted, _others(arrivals))
    calls, at_ns = arrivals.calls, arrivals.received_at_ns
    verdicts = append_calls(connection, tenant_id, calls, at_ns, opened, spans)
    if verdicts is not None:
        keep_reports(connection, tenant_id, arrivals.reports, at_ns, context.labels)
        dead_letters.keep(connection, tenant_id, arrivals.dead, at_ns, context.dead_letter_lifetime_ns)
    return verdicts


def _others(arrivals: Arrivals) -> dict[Verdict, int]:
    """Return the number of spans that are not calls, by verdict."""
    return {Verdict.NOTED: len(arrivals.reports), Verdict.REJECTED: len(arrivals.dead)}


def _book_remainder(
    connection: Connection,
    tenant_id: int,
    arrivals: Arrivals,
    verdicts: Sequence[Verdict],
    dead: Sequence[DeadLetter],
    context: BookingContext,
) -> None:
    keep_reports(connection, tenant_id, arrivals.reports, arrivals.received_at_ns, context.labels)
    dead_letters.keep(connection, tenant_id, dead, arrivals.received_at_ns, context.dead_letter_lifetime_ns)
    # Last: other transactions wait for these rows.
    count_spans(connection, tenant_id, arrivals.accepted, Counter(verdicts) + Counter(_others(arrivals)))
