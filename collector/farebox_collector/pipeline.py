"""Take a request from bytes to verdicts. The stages, and the module of each:

    decode    bytes to spans                        intake.decoding
    read      span to usage record                  dialects
    price     usage record to priced call           pricing, with the tariffs of cache
    book      priced calls to records and sums      ledger.usage.arrivals, in one committing thread
    answer    verdicts, metrics and log lines       this module
    fold      sums to postings and totals           ledger.usage.folding, twice a second and before any reader

The first three are pure: `intake.reader` does them in the threads and the process of `intake.reading_threads`.
All requests that wait when a transaction begins share it (`intake.group_commit`): load makes batches larger, not
queues longer. `accept` returns after the commit: no queue lies between an acknowledgement and the ledger.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from sqlalchemy import Connection

from farebox_collector.admission.in_flight import Admission
from farebox_collector.intake.group_commit import GroupCommit
from farebox_collector.intake.notable_spans import log_notable_spans
from farebox_collector.intake.reader import ReadRequest, RequestReader
from farebox_collector.intake.reader_worker import ReaderWorker
from farebox_collector.intake.reading_threads import ExportRequest, ReadingThreads
from farebox_collector.ledger.storage.database import Database, is_storage_outage
from farebox_collector.ledger.usage.agent_meters import add_readings
from farebox_collector.ledger.usage.arrivals import Arrivals, BookingContext, book, book_storable
from farebox_collector.ledger.usage.batch import Calls
from farebox_collector.ledger.usage.folding import Folder, OpenTransactions
from farebox_collector.ledger.usage.running_totals import TotalLabels
from farebox_collector.ledger.usage.span_index import SPAN_INDEX
from farebox_collector.metrics.meters import Meters
from farebox_collector.model.records import DeadLetter
from farebox_collector.model.verdicts import Verdict
from farebox_collector.settings import Settings

__all__ = ["Batch", "ExportRequest", "Outcome", "Pipeline"]

_logger = logging.getLogger(__name__)

_TAIL = 12_000
"""Records outside the index by span that make an update due: larger updates write fewer pages, and take longer."""
_INDEX_WITHIN_NS = 60 * 10**9
"""Longest time that records stay outside the index, however few they are."""


class Outcome(NamedTuple):
    """The result of an acknowledged request."""

    verdicts: Counter[Verdict]
    rejections: tuple[str, ...]
    """Reasons of the rejected spans, without repetition."""


class Batch(NamedTuple):
    """One request on its way into the ledger."""

    request: ExportRequest
    received_at_ns: int
    read: ReadRequest


class Pipeline:
    """Accept OTLP requests and answer when their charges are durable.

    A receiver reserves room in `admission` for a request from its first byte to its answer; that raises Overloaded and
    ShuttingDown (retryable). `accept` raises RequestTooLarge and the errors of `decode` (permanent), and passes storage
    errors on (retryable). After an error nothing of the request is in the books.
    """

    def __init__(
        self,
        settings: Settings,
        database: Database,
        reader: RequestReader,
        meters: Meters,
        clock: Callable[[], int],
        worker: ReaderWorker | None = None,
    ) -> None:
        self._settings = settings
        self._database = database
        self._reader = reader
        self._meters = meters
        self._clock = clock
        labels = TotalLabels()
        self._folder = Folder(labels, meters.folded_batches)
        database.fold_with(self._folder)
        self._opened = OpenTransactions(labels)
        self._desk = BookingContext(labels, settings.dead_letter_days * 86_400 * 10**9, self._opened)
        self._indexed_at_ns = clock()
        self._counted_as_other = 0
        self._claims_next = False
        self._committer = GroupCommit(
            self._commit,
            self._commit_valid_calls,
            lambda batch: len(batch.read.calls),
            settings.commit_max_spans,
            is_storage_outage,
        )
        self._reading = ReadingThreads(reader, worker, self._committer.coming)
        self.admission = Admission(settings.queue_max_bytes, meters.queued)

    async def accept(self, request: ExportRequest) -> Outcome:
        """Decode, read, price and book one request, then answer. The class lists the errors."""
        received_at_ns = self._clock()
        async with self._reading.read(request, received_at_ns) as read:
            batch = Batch(request, received_at_ns, read)
            recorded = await self._committer.commit(batch) if read.calls or read.dead or read.reports else []
            return self._answer(batch, recorded)

    async def accept_metrics(self, request: ExportRequest) -> Outcome:
        """Take a request of metrics: its data points are counted, and none is charged. Raises what `accept` raises."""
        received_at_ns = self._clock()
        points, readings = await self._reading.read_metrics(request)
        if readings:

            def add(connection: Connection) -> None:
                add_readings(connection, request.tenant_id, readings, received_at_ns)

            await asyncio.to_thread(self._database.append, add)
        verdicts = Counter({Verdict.NOT_BILLABLE: points - len(readings)})
        self._meters.signalled("metrics", len(readings), verdicts[Verdict.NOT_BILLABLE])
        return Outcome(verdicts, ())

    def _commit(self, batches: Sequence[Batch]) -> list[list[Verdict]]:
        """Book several requests in one transaction, durable on return. Return a list of verdicts for each request."""
        started = time.perf_counter()
        verdicts = self._database.append(lambda connection: self._book(connection, batches))
        self._meters.committed(sum(len(batch.read.calls) for batch in batches), time.perf_counter() - started)
        return verdicts

    def fold_in_turns(self) -> None:
        """Prepare a fold and fold, in turns: commits wait for two short transactions with a pause between them."""
        with self._database.snapshot() as connection:
            self._folder.prepare(connection)
        self._claims_next = not self._claims_next
        if self._claims_next:
            self._folder.claimed(self._database.append(self._folder.claim))
        else:
            self.fold()
        self._index_spans()

    def _index_spans(self) -> None:
        """Bring the index of records by span up to date if many wait, or some have waited for long."""
        if self._database.shared:
            return  # There it is no late index.
        closed = self._opened.tail.closed
        with self._database.snapshot() as connection:
            waiting, upto = SPAN_INDEX.behind(connection), SPAN_INDEX.mark(connection)
        self._opened.tail.indexed(upto, closed)
        if not waiting:
            self._indexed_at_ns = self._clock()
        elif waiting >= _TAIL or not 0 <= self._clock() - self._indexed_at_ns < _INDEX_WITHIN_NS:
            self._database.append(SPAN_INDEX.complete)

    def fold(self) -> None:
        """Post what was appended since the last fold; see `ledger.usage.folding`."""
        self._database.fold()
        counted = self._desk.labels.folded
        self._meters.folded(counted - self._counted_as_other)
        self._counted_as_other = counted

    def _book(self, connection: Connection, batches: Sequence[Batch]) -> list[list[Verdict]]:
        """Book tenant by tenant. Return the verdicts in the order of the requests."""
        verdicts: dict[int, Iterator[Verdict]] = {}
        for tenant_id in sorted({batch.request.tenant_id for batch in batches}):
            own = [batch for batch in batches if batch.request.tenant_id == tenant_id]
            verdicts[tenant_id] = iter(book(connection, tenant_id, _together(own), self._desk))
        return [list(islice(verdicts[batch.request.tenant_id], len(batch.read.calls))) for batch in batches]

    def _commit_valid_calls(self, batch: Batch) -> list[Verdict]:
        """Book a request with calls that cannot be stored: these become dead letters, the other calls are booked."""
        request, read = batch.request, batch.read
        own: list[DeadLetter] = []

        def letter_of(place: int, reason: str) -> DeadLetter:
            spans = self._reader.spans(request.encoding, request.body)
            own.append(DeadLetter(spans[read.places[place]], reason))
            return own[-1]

        def attempt(connection: Connection) -> list[Verdict]:
            own.clear()  # The transaction may be retried.
            return book_storable(connection, request.tenant_id, _together([batch]), self._desk, letter_of)

        verdicts = self._database.append(attempt)
        read.dead.extend(own)
        return verdicts

    def _answer(self, batch: Batch, recorded: Sequence[Verdict]) -> Outcome:
        """Count and log the verdicts of a request."""
        read = batch.read
        verdicts = Counter(recorded)
        verdicts[Verdict.NOTED] += len(read.reports)
        verdicts[Verdict.REJECTED] = len(read.dead)
        if batch.request.encoding.tells_logs:
            # Log records that tell no call have a metric of their own: an application writes thousands of them.
            self._meters.signalled("logs", read.accepted, read.not_billable)
            self._meters.judged(verdicts)
            verdicts[Verdict.NOT_BILLABLE] += read.not_billable
        else:
            verdicts[Verdict.NOT_BILLABLE] += read.not_billable
            self._meters.judged(verdicts)
        self._meters.recorded(read.calls, batch.received_at_ns)
        self._meters.booked(read.calls, recorded)
        log_notable_spans(read.calls, recorded, read.dead)
        return Outcome(verdicts, tuple(dict.fromkeys(letter.reason for letter in read.dead)))

    async def settle(self) -> None:
        """Accept no more requests. Return when all accepted ones are answered, or after `drain_seconds`."""
        self.admission.close()
        try:
            await asyncio.wait_for(self.admission.wait_until_idle(), self._settings.drain_seconds)
        except TimeoutError:
            _logger.warning("stopped waiting for requests in progress: their clients get no answer and retry")

    async def close(self) -> None:
        """Commit the remaining requests and end the threads. Call it after all receivers have stopped."""
        await asyncio.to_thread(self._committer.close)
        await asyncio.to_thread(self.fold)
        await self._reading.close()


def _together(batches: Sequence[Batch]) -> Arrivals:
    """Combine several requests of one tenant."""
    return Arrivals(
        received_at_ns=max(batch.received_at_ns for batch in batches),
        calls=Calls.together([batch.read.calls for batch in batches]),
        reports=[report for batch in batches for report in batch.read.reports],
        dead=[letter for batch in batches for letter in batch.read.dead],
        accepted=sum(batch.read.accepted for batch in batches),
    )
