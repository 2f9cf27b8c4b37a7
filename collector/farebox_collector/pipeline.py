"""The way of a request, from bytes to verdicts. This page is the whole of it.

    body ─ decode ─▶ Span ─ dialects.read ─▶ UsageRecord ─ price ─▶ PricedUsage ─ record_calls ─▶ Verdict ─▶ answer
    └── admission ─┘└─────────────────── RequestReader, pure ─────────────┘└─ one committing thread ─┘

What the books will have of ordinary calls, their rows and sums, the reader makes as well (`ledger.prepared`).
Reading and committing overlap: while one transaction is committed, the next requests are read, under load in a process
beside this one (`ReaderWorker`). Large requests have a reading thread of their own, which gives way to everything else,
so that nobody waits for somebody else's. Whatever is waiting when a transaction begins goes into it together, so that
load makes batches larger rather than queues longer.
`accept` returns after the commit and not before; there is no queue between an acknowledgement and the ledger.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from itertools import islice
from typing import NamedTuple

from sqlalchemy import Connection

from farebox_collector.admission.in_flight import Admission
from farebox_collector.intake.group_commit import GroupCommit
from farebox_collector.intake.notable_spans import log_notable_spans
from farebox_collector.intake.reader import Encoding, ReadRequest, RequestReader
from farebox_collector.intake.reader_wire import Task
from farebox_collector.intake.reader_worker import ReaderWorker
from farebox_collector.intake.yielding import Yielding
from farebox_collector.ledger.storage.database import Database, is_storage_outage
from farebox_collector.ledger.usage import dead_letters
from farebox_collector.ledger.usage.batch import Calls
from farebox_collector.ledger.usage.booking import record_calls
from farebox_collector.ledger.usage.quality import keep_reports
from farebox_collector.ledger.usage.running_totals import TotalLabels
from farebox_collector.ledger.usage.span_counts import count_spans
from farebox_collector.metrics.meters import Meters
from farebox_collector.model.records import DeadLetter
from farebox_collector.model.verdicts import Verdict
from farebox_collector.settings import Settings

_LARGE_BYTES = 256 * 2**10
"""A request that takes longer to read than others should have to wait: some hundred spans with their prompts."""

_logger = logging.getLogger(__name__)


class ExportRequest(NamedTuple):
    """One OTLP export as a receiver took it: not yet decoded, its tenant known from whom it came."""

    tenant_id: int
    encoding: Encoding
    body: bytes


class Outcome(NamedTuple):
    """What became of a request that was acknowledged."""

    verdicts: Counter[Verdict]
    rejections: tuple[str, ...]
    """Reasons of the rejected spans, each once."""


class Batch(NamedTuple):
    """One request on its way into the ledger."""

    request: ExportRequest
    received_at_ns: int
    read: ReadRequest


class Pipeline:
    """Takes OTLP requests and answers when their charges are durable.

    A receiver holds room in `admission` for a request from its first byte to its answer, which raises Overloaded and
    ShuttingDown (try again). `accept` raises RequestTooLarge and what `decode` raises (don't), and lets storage errors
    through (do). Not one of them leaves anything of the request in the books.
    """

    def __init__(
        self,
        settings: Settings,
        database: Database,
        reader: RequestReader,
        meters: Meters,
        clock: Callable[[], int],
        aside: ReaderWorker | None = None,
    ) -> None:
        self._settings = settings
        self._database = database
        self._reader = reader
        self._aside = aside
        self._meters = meters
        self._clock = clock
        self._labels = TotalLabels()
        self._dead_letter_lifetime_ns = settings.dead_letter_days * 86_400 * 10**9
        self._reading = ThreadPoolExecutor(1, thread_name_prefix="read")
        self._reading_large = ThreadPoolExecutor(1, thread_name_prefix="read-large")
        self._giving_way = Yielding()
        self._committer = GroupCommit(
            self._commit,
            self._rescue,
            lambda batch: len(batch.read.calls),
            settings.commit_max_spans,
            is_storage_outage,
        )
        self.admission = Admission(settings.queue_max_bytes, meters.queued)

    async def accept(self, request: ExportRequest) -> Outcome:
        """Take one request through the house; see the class for what it raises."""
        if len(request.body) >= _LARGE_BYTES:
            # No transaction is held back for it.
            return await self._finish(await self._in(self._reading_large, self._read_large, request))
        with self._giving_way.small():
            with self._committer.coming() as others:
                if others and self._aside is not None:
                    self._aside.requests_wait()
                batch = await self._in(self._reading, self._read, request)
            return await self._finish(batch)

    async def _in(
        self, thread: Executor, read: Callable[[ExportRequest, int], ReadRequest], request: ExportRequest
    ) -> Batch:
        """Read a request in one of the reading threads."""
        received_at_ns = self._clock()
        read_request = await asyncio.get_running_loop().run_in_executor(thread, read, request, received_at_ns)
        return Batch(request, received_at_ns, read_request)

    def _read(self, request: ExportRequest, received_at_ns: int) -> ReadRequest:
        if self._aside is not None and self._aside.ready:
            return self._aside.read(Task(request.encoding, request.body, request.tenant_id, received_at_ns))
        return self._reader.read(request.encoding, request.body, request.tenant_id, received_at_ns)

    def _read_large(self, request: ExportRequest, received_at_ns: int) -> ReadRequest:
        return self._reader.read(
            request.encoding, request.body, request.tenant_id, received_at_ns, self._giving_way.pause
        )

    async def _finish(self, batch: Batch) -> Outcome:
        """Commit what was read and say what became of it."""
        read = batch.read
        something = read.calls or read.dead or read.reports
        recorded = await self._committer.commit(batch) if something else []
        verdicts = Counter(recorded)
        verdicts[Verdict.NOT_BILLABLE] += read.not_billable
        verdicts[Verdict.NOTED] += len(read.reports)
        verdicts[Verdict.REJECTED] = len(read.dead)
        self._meters.judged(verdicts)
        self._meters.recorded(read.calls, batch.received_at_ns)
        self._meters.booked(read.calls, recorded)
        log_notable_spans(read.calls, recorded, read.dead)
        return Outcome(verdicts, tuple(dict.fromkeys(letter.reason for letter in read.dead)))

    async def settle(self) -> None:
        """Take no more, and return when everything taken is answered or the time for it is up."""
        self.admission.close()
        try:
            await asyncio.wait_for(self.admission.wait_until_idle(), self._settings.drain_seconds)
        except TimeoutError:
            _logger.warning("gave up waiting for requests; their clients got no answer and will send them again")

    async def close(self) -> None:
        """Commit what is left and end the threads; to be called when no receiver runs any more."""
        await asyncio.to_thread(self._committer.close)
        for thread in (self._reading, self._reading_large):
            thread.shutdown(wait=True)
        if self._aside is not None:
            await asyncio.to_thread(self._aside.close)

    def _commit(self, batches: Sequence[Batch]) -> list[list[Verdict]]:
        """Record the calls of several requests in one transaction; durable on return. A verdict list a request."""
        started = time.perf_counter()
        folded_before = self._labels.folded
        verdicts = self._database.transact(lambda connection: self._record(connection, batches))
        self._meters.committed(sum(len(batch.read.calls) for batch in batches), time.perf_counter() - started)
        self._meters.folded(self._labels.folded - folded_before)
        return verdicts

    def _record(self, connection: Connection, batches: Sequence[Batch]) -> list[list[Verdict]]:
        """Record the calls tenant by tenant; hand the verdicts out again in the order of the requests."""
        verdicts: dict[int, Iterator[Verdict]] = {}
        for tenant_id in sorted({batch.request.tenant_id for batch in batches}):
            own = [batch for batch in batches if batch.request.tenant_id == tenant_id]
            calls = Calls.together([batch.read.calls for batch in own])
            received_at_ns = max(batch.received_at_ns for batch in own)
            recorded = record_calls(connection, tenant_id, calls, received_at_ns, self._labels)
            verdicts[tenant_id] = iter(recorded)
            reports = [report for batch in own for report in batch.read.reports]
            keep_reports(connection, tenant_id, reports, received_at_ns, self._labels)
            dead = [letter for batch in own for letter in batch.read.dead]
            dead_letters.keep(connection, tenant_id, dead, received_at_ns, self._dead_letter_lifetime_ns)
            others = {Verdict.NOTED: len(reports), Verdict.REJECTED: len(dead)}
            accepted = sum(batch.read.accepted for batch in own)
            count_spans(connection, tenant_id, accepted, Counter(recorded) + Counter(others))
        return [list(islice(verdicts[batch.request.tenant_id], len(batch.read.calls))) for batch in batches]

    def _rescue(self, batch: Batch) -> list[Verdict]:
        """Record a request with a call that cannot be stored: that becomes a dead letter, the others are booked."""

        tenant_id, read, received_at_ns = batch.request.tenant_id, batch.read, batch.received_at_ns
        already_dead = len(read.dead)

        def rescue(connection: Connection) -> list[Verdict]:
            del read.dead[already_dead:]  # this may be the second attempt
            verdicts = self._record_what_can_be(connection, batch, 0, len(read.calls))
            keep_reports(connection, tenant_id, read.reports, received_at_ns, self._labels)
            dead_letters.keep(connection, tenant_id, read.dead, received_at_ns, self._dead_letter_lifetime_ns)
            others = {Verdict.NOTED: len(read.reports), Verdict.REJECTED: already_dead}
            count_spans(connection, tenant_id, read.accepted, Counter(verdicts) + Counter(others))
            return verdicts

        return self._database.transact(rescue)

    def _record_what_can_be(self, connection: Connection, batch: Batch, first: int, end: int) -> list[Verdict]:
        """Halve what fails until it is a single call."""
        calls = Calls.of(batch.read.calls[first:end])
        try:
            with connection.begin_nested():
                return record_calls(connection, batch.request.tenant_id, calls, batch.received_at_ns, self._labels)
        except Exception as error:
            if is_storage_outage(error):
                raise
            if len(calls) <= 1:
                spans = self._reader.spans(batch.request.encoding, batch.request.body)
                reason = f"cannot be stored ({type(error).__name__})"
                batch.read.dead.append(DeadLetter(spans[batch.read.places[first]], reason))
                return [Verdict.REJECTED]
            middle = (first + end) // 2
            return [
                *self._record_what_can_be(connection, batch, first, middle),
                *self._record_what_can_be(connection, batch, middle, end),
            ]
