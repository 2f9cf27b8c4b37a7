"""The way of a request, from bytes to verdicts. This page is the whole of it.

    body ─ decode ─▶ Span ─ dialects.read ─▶ UsageRecord ─ price ─▶ PricedUsage ─ record_usage ─▶ Verdict ─▶ answer
    └── admission ─┘└────────────── two reading threads, pure ────────────┘└─ one committing thread ─┘

Reading and committing overlap: while one transaction waits for the disk, the next requests are read. Large requests
have a reading thread of their own, which gives way to the other, so that nobody waits for somebody else's. Whatever is
waiting when a transaction begins goes into it together, so that load makes batches larger rather than queues longer.
`accept` returns after the commit and not before; there is no queue between an acknowledgement and the ledger.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import NamedTuple

from sqlalchemy import Connection

from farebox_collector.admission import Admission
from farebox_collector.findings import log_findings
from farebox_collector.giving_way import GivingWay, Pause, no_pause
from farebox_collector.group_commit import GroupCommit
from farebox_collector.ledger import dead_letters
from farebox_collector.ledger.database import Database, is_storage_outage
from farebox_collector.ledger.intake import count_spans
from farebox_collector.ledger.quality import keep_reports
from farebox_collector.ledger.totals import TotalLabels
from farebox_collector.ledger.usage import record_calls
from farebox_collector.metrics.meters import Meters
from farebox_collector.reading import SpanReader
from farebox_collector.records import DeadLetter, NotBillable, PricedUsage, QualityReport, Rejected, Span
from farebox_collector.settings import Settings
from farebox_collector.tariffs import Tariffs
from farebox_collector.verdicts import Verdict

_LARGE_BYTES = 256 * 2**10
"""A request that takes longer to read than others should have to wait: some hundred spans with their prompts."""
_SPANS_A_PAUSE = 50
"""What a millisecond or so is enough for."""

_logger = logging.getLogger(__name__)


class RequestTooLarge(Exception):
    """The request is over a limit and always will be; the message says which."""


class ExportRequest(NamedTuple):
    """One OTLP export as a receiver took it: not yet decoded, its tenant known from whom it came."""

    tenant_id: int
    transport: str
    body: bytes
    decode: Callable[[bytes, Pause], Iterable[Span]]
    """Bytes to spans, pausing now and then; raises the receiver's own exception for a body that is not OTLP."""


class Outcome(NamedTuple):
    """What became of a request that was acknowledged."""

    verdicts: Counter[Verdict]
    rejections: tuple[str, ...]
    """Reasons of the rejected spans, each once."""


class Batch(NamedTuple):
    """The calls of one request, read and priced."""

    tenant_id: int
    received_at_ns: int
    spans: list[Span]
    calls: list[PricedUsage]
    """What the spans came to, one each."""
    verdicts: Counter[Verdict]
    """Verdicts that were reached without the ledger."""
    dead: list[DeadLetter]
    reports: list[QualityReport]
    accepted: int = 0
    """How many of the request's spans are the ledger's business."""


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
        tariffs: Tariffs,
        meters: Meters,
        clock: Callable[[], int],
    ) -> None:
        self._settings = settings
        self._database = database
        self._tariffs = tariffs
        self._meters = meters
        self._clock = clock
        self._labels = TotalLabels()
        self._dead_letter_lifetime_ns = settings.dead_letter_days * 86_400 * 10**9
        self._reader = SpanReader(settings, tariffs)
        self._reading = ThreadPoolExecutor(1, thread_name_prefix="read")
        self._reading_large = ThreadPoolExecutor(1, thread_name_prefix="read-large")
        self._giving_way = GivingWay()
        self._committer = GroupCommit(
            self._commit, self._rescue, lambda batch: len(batch.calls), settings.commit_max_spans, is_storage_outage
        )
        self.admission = Admission(settings.queue_max_bytes, meters.queued)

    async def accept(self, request: ExportRequest) -> Outcome:
        """Take one request through the house; see the class for what it raises."""
        if len(request.body) >= _LARGE_BYTES:
            return await self._take(request, self._reading_large, self._giving_way.pause)
        with self._giving_way.small():
            return await self._take(request, self._reading, no_pause)

    async def _take(self, request: ExportRequest, thread: Executor, pause: Pause) -> Outcome:
        batch = await asyncio.get_running_loop().run_in_executor(thread, self._read, request, pause)
        recorded = await self._committer.commit(batch) if batch.calls or batch.dead or batch.reports else []
        verdicts = batch.verdicts + Counter(recorded)
        verdicts[Verdict.REJECTED] = len(batch.dead)
        self._meters.judged(verdicts)
        self._meters.recorded(batch.calls, batch.received_at_ns)
        log_findings(batch.calls, recorded, batch.dead)
        return Outcome(verdicts, tuple(dict.fromkeys(letter.reason for letter in batch.dead)))

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

    def _read(self, request: ExportRequest, pause: Pause) -> Batch:
        """Decode, read and price every span of a request."""
        self._tariffs.refresh()
        batch = Batch(request.tenant_id, self._clock(), [], [], Counter(), [], [])
        number = 0
        for number, span in enumerate(request.decode(request.body, pause), start=1):
            if number > self._settings.max_request_spans:
                raise RequestTooLarge(f"more than {self._settings.max_request_spans} spans in one request")
            if number % _SPANS_A_PAUSE == 0:
                pause()
            reading = self._reader.read(span, batch.tenant_id, batch.received_at_ns)
            if isinstance(reading, NotBillable):
                batch.verdicts[Verdict.NOT_BILLABLE] += 1
            elif isinstance(reading, QualityReport):
                batch.verdicts[Verdict.NOTED] += 1
                batch.reports.append(reading)
            elif isinstance(reading, Rejected):
                batch.dead.append(DeadLetter(span, reading.reason))
            else:
                batch.spans.append(span)
                batch.calls.append(reading)
        return batch._replace(accepted=number - batch.verdicts[Verdict.NOT_BILLABLE])

    def _commit(self, batches: Sequence[Batch]) -> list[list[Verdict]]:
        """Record the calls of several requests in one transaction; durable on return. A verdict list a request."""
        started = time.perf_counter()
        folded_before = self._labels.folded
        verdicts = self._database.transact(lambda connection: self._record(connection, batches))
        self._meters.committed(sum(len(batch.calls) for batch in batches), time.perf_counter() - started)
        self._meters.folded(self._labels.folded - folded_before)
        return verdicts

    def _record(self, connection: Connection, batches: Sequence[Batch]) -> list[list[Verdict]]:
        """Record the calls tenant by tenant; hand the verdicts out again in the order of the requests."""
        verdicts: dict[int, Iterator[Verdict]] = {}
        for tenant_id in sorted({batch.tenant_id for batch in batches}):
            own = [batch for batch in batches if batch.tenant_id == tenant_id]
            calls = [call for batch in own for call in batch.calls]
            received_at_ns = max(batch.received_at_ns for batch in own)
            recorded = record_calls(connection, tenant_id, calls, received_at_ns, self._labels)
            verdicts[tenant_id] = iter(recorded)
            reports = [report for batch in own for report in batch.reports]
            keep_reports(connection, tenant_id, reports, received_at_ns, self._labels)
            dead = [letter for batch in own for letter in batch.dead]
            dead_letters.keep(connection, tenant_id, dead, received_at_ns, self._dead_letter_lifetime_ns)
            others = {Verdict.NOTED: len(reports), Verdict.REJECTED: len(dead)}
            count_spans(
                connection, tenant_id, sum(batch.accepted for batch in own), Counter(recorded) + Counter(others)
            )
        return [[next(verdicts[batch.tenant_id]) for _ in batch.calls] for batch in batches]

    def _rescue(self, batch: Batch) -> list[Verdict]:
        """Record a request with a call that cannot be stored: that becomes a dead letter, the others are booked."""

        def rescue(connection: Connection) -> list[Verdict]:
            del batch.dead[already_dead:]  # this may be the second attempt
            verdicts = self._record_what_can_be(connection, batch, 0, len(batch.calls))
            keep_reports(connection, batch.tenant_id, batch.reports, batch.received_at_ns, self._labels)
            dead_letters.keep(
                connection, batch.tenant_id, batch.dead, batch.received_at_ns, self._dead_letter_lifetime_ns
            )
            others = {Verdict.NOTED: len(batch.reports), Verdict.REJECTED: already_dead}
            count_spans(connection, batch.tenant_id, batch.accepted, Counter(verdicts) + Counter(others))
            return verdicts

        already_dead = len(batch.dead)
        return self._database.transact(rescue)

    def _record_what_can_be(self, connection: Connection, batch: Batch, first: int, end: int) -> list[Verdict]:
        """Halve what fails until it is a single call."""
        calls = batch.calls[first:end]
        try:
            with connection.begin_nested():
                return record_calls(connection, batch.tenant_id, calls, batch.received_at_ns, self._labels)
        except Exception as error:
            if is_storage_outage(error):
                raise
            if len(calls) <= 1:
                batch.dead.append(DeadLetter(batch.spans[first], f"cannot be stored ({type(error).__name__})"))
                return [Verdict.REJECTED]
            middle = (first + end) // 2
            return [
                *self._record_what_can_be(connection, batch, first, middle),
                *self._record_what_can_be(connection, batch, middle, end),
            ]
