"""Book what one tenant sent: its calls, quality reports and dead letters, and the counts of all of them.

Every way into the books goes through `book`: requests, requests of which something cannot be stored, and dead letters
that are tried again.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

from sqlalchemy import Connection

from farebox_collector.ledger.storage.database import is_storage_outage
from farebox_collector.ledger.usage import dead_letters
from farebox_collector.ledger.usage.batch import Calls
from farebox_collector.ledger.usage.booking import record_calls
from farebox_collector.ledger.usage.quality import keep_reports
from farebox_collector.ledger.usage.running_totals import TotalLabels
from farebox_collector.ledger.usage.span_counts import count_spans
from farebox_collector.model.records import DeadLetter, PricedUsage, QualityReport
from farebox_collector.model.verdicts import Verdict


class Arrivals(NamedTuple):
    """Spans of one tenant that were read and priced."""

    received_at_ns: int
    calls: Calls
    reports: Sequence[QualityReport] = ()
    dead: Sequence[DeadLetter] = ()
    """Spans that could not be read."""
    accepted: int = 0
    """How many spans to count as accepted; 0 for spans that were counted before."""


class Desk(NamedTuple):
    """What booking needs besides the spans themselves."""

    labels: TotalLabels
    dead_letter_lifetime_ns: int


def book(connection: Connection, tenant_id: int, arrivals: Arrivals, desk: Desk) -> list[Verdict]:
    """Book everything in the transaction of `connection`. Returns a verdict for each call, in order."""
    verdicts = record_calls(connection, tenant_id, arrivals.calls, arrivals.received_at_ns, desk.labels)
    _book_the_rest(connection, tenant_id, arrivals, verdicts, arrivals.dead, desk)
    return verdicts


def book_what_can_be(
    connection: Connection,
    tenant_id: int,
    arrivals: Arrivals,
    desk: Desk,
    letter_of: Callable[[int, str], DeadLetter],
) -> list[Verdict]:
    """Book everything but the calls that cannot be stored: each becomes a dead letter and is rejected.

    `letter_of` makes the dead letter of a call, by its place and the reason. Returns a verdict for each call, in order.
    Storage outages are raised.
    """
    dead = list(arrivals.dead)

    def halve(calls: Sequence[PricedUsage], first: int) -> list[Verdict]:
        """Halve what fails until it is a single call."""
        try:
            with connection.begin_nested():
                return record_calls(connection, tenant_id, Calls.of(calls), arrivals.received_at_ns, desk.labels)
        except Exception as error:
            if is_storage_outage(error):
                raise
            if len(calls) <= 1:
                dead.append(letter_of(first, f"cannot be stored ({type(error).__name__})"))
                return [Verdict.REJECTED]
            middle = len(calls) // 2
            return [*halve(calls[:middle], first), *halve(calls[middle:], first + middle)]

    verdicts = halve(arrivals.calls, 0)
    _book_the_rest(connection, tenant_id, arrivals, verdicts, dead, desk)
    return verdicts


def _book_the_rest(
    connection: Connection,
    tenant_id: int,
    arrivals: Arrivals,
    verdicts: Sequence[Verdict],
    dead: Sequence[DeadLetter],
    desk: Desk,
) -> None:
    keep_reports(connection, tenant_id, arrivals.reports, arrivals.received_at_ns, desk.labels)
    dead_letters.keep(connection, tenant_id, dead, arrivals.received_at_ns, desk.dead_letter_lifetime_ns)
    others = {Verdict.NOTED: len(arrivals.reports), Verdict.REJECTED: len(arrivals.dead)}
    # Last: other transactions wait for these rows.
    count_spans(connection, tenant_id, arrivals.accepted, Counter(verdicts) + Counter(others))
