"""The way of a request, from bytes to verdicts. This page is the whole of it.

    body ─ decode ─▶ Span ─ dialects.read ─▶ UsageRecord ─ price ─▶ PricedUsage ─ record_usage ─▶ Verdict ─▶ answer
    └── admitted ──┘└────────────── one reading thread, pure ─────────────┘└─ one committing thread ─┘

Reading and committing overlap: while one transaction waits for the disk, the next requests are read. Whatever is
waiting when a transaction begins goes into it together, so that load makes batches larger rather than queues longer.
`accept` returns after the commit and not before; there is no queue between an acknowledgement and the ledger.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import NamedTuple

from sqlalchemy import Connection

from farebox_collector import dialects
from farebox_collector.findings import Rejection, log_findings
from farebox_collector.group_commit import GroupCommit
from farebox_collector.ledger.database import Database, is_storage_outage
from farebox_collector.ledger.totals import TotalLabels
from farebox_collector.ledger.usage import record_usage
from farebox_collector.metrics.meters import Meters
from farebox_collector.pricing.price import price
from farebox_collector.records import NotBillable, PricedUsage, Rejected, Span
from farebox_collector.settings import Settings
from farebox_collector.tariffs import Tariffs
from farebox_collector.verdicts import Verdict

_logger = logging.getLogger(__name__)


class Overloaded(Exception):
    """Too much is being worked on already; the same request will be taken later."""


class ShuttingDown(Exception):
    """This process is draining; the same request will be taken by its successor."""


class RequestTooLarge(Exception):
    """The request is over a limit and always will be; the message says which."""


class ExportRequest(NamedTuple):
    """One OTLP export as a receiver took it: not yet decoded, its tenant known from whom it came."""

    tenant_id: int
    transport: str
    body: bytes
    decode: Callable[[bytes], Iterable[Span]]
    """Bytes to spans; raises the receiver's own exception for a body that is not OTLP."""


class Outcome(NamedTuple):
    """What became of a request that was acknowledged."""

    verdicts: Counter[Verdict]
    rejections: tuple[str, ...]
    """Reasons of the rejected spans, each once."""


class Batch(NamedTuple):
    """The calls of one request, read and priced."""

    tenant_id: int
    received_at_ns: int
    calls: list[PricedUsage]
    verdicts: Counter[Verdict]
    """Verdicts that were reached without the ledger."""
    rejections: list[Rejection]


class Pipeline:
    """Takes OTLP requests and answers when their charges are durable.

    `accept` raises Overloaded and ShuttingDown (try again), RequestTooLarge and what `decode` raises (don't), and lets
    storage errors through. Not one of them leaves anything of the request in the books.
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
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="read")
        self._committer = GroupCommit(
            self._commit, lambda batch: len(batch.calls), settings.commit_max_spans, is_storage_outage
        )
        self._in_hand_bytes = 0
        self._draining = False
        self._idle = asyncio.Event()
        self._idle.set()

    async def accept(self, request: ExportRequest) -> Outcome:
        """Take one request through the house; see the class for what it raises."""
        with self._admitted(len(request.body)):
            batch = await asyncio.get_running_loop().run_in_executor(self._reader, self._read, request)
            recorded = await self._committer.commit(batch) if batch.calls else []
        verdicts = batch.verdicts + Counter(recorded)
        self._meters.judged(verdicts)
        self._meters.charged(c for c, verdict in zip(batch.calls, recorded, strict=True) if verdict is Verdict.CHARGED)
        log_findings(batch.calls, recorded, batch.rejections)
        return Outcome(verdicts, tuple(dict.fromkeys(rejection.reason for rejection in batch.rejections)))

    def stop_taking(self) -> None:
        """Turn every new request away, from now on."""
        self._draining = True

    async def drain(self) -> None:
        """Return when everything taken is answered, or the time for it is up."""
        self.stop_taking()
        try:
            await asyncio.wait_for(self._idle.wait(), self._settings.drain_seconds)
        except TimeoutError:
            _logger.warning("gave up waiting for requests; their clients got no answer and will send them again")
        await asyncio.to_thread(self._committer.close)
        self._reader.shutdown(wait=True)

    @contextmanager
    def _admitted(self, size_bytes: int) -> Iterator[None]:
        """Hold a place for a request, or turn it away."""
        if self._draining:
            raise ShuttingDown("shutting down")
        if self._in_hand_bytes and self._in_hand_bytes + size_bytes > self._settings.queue_max_bytes:
            raise Overloaded("too much is being worked on")
        self._in_hand_bytes += size_bytes
        self._meters.queued(self._in_hand_bytes)
        self._idle.clear()
        try:
            yield
        finally:
            self._in_hand_bytes -= size_bytes
            self._meters.queued(self._in_hand_bytes)
            if not self._in_hand_bytes:
                self._idle.set()

    def _read(self, request: ExportRequest) -> Batch:
        """Decode, read and price every span of a request."""
        self._tariffs.refresh()
        book, rules = self._tariffs.book, self._tariffs.rules
        wallet_attributes = self._settings.wallet_attributes
        max_age_ns = self._settings.max_span_age_hours * 3600 * 10**9
        received_at_ns = self._clock()
        calls: list[PricedUsage] = []
        verdicts: Counter[Verdict] = Counter()
        rejections: list[Rejection] = []
        for number, span in enumerate(request.decode(request.body), start=1):
            if number > self._settings.max_request_spans:
                raise RequestTooLarge(f"more than {self._settings.max_request_spans} spans in one request")
            reading = dialects.read(span, wallet_attributes)
            if isinstance(reading, NotBillable):
                verdicts[Verdict.NOT_BILLABLE] += 1
            elif isinstance(reading, Rejected):
                verdicts[Verdict.REJECTED] += 1
                rejections.append(Rejection(span.trace_id, reading.reason))
            else:
                calls.append(price(reading, received_at_ns, max_age_ns, book, rules))
        return Batch(request.tenant_id, received_at_ns, calls, verdicts, rejections)

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
            verdicts[tenant_id] = iter(record_usage(connection, tenant_id, calls, received_at_ns, self._labels))
        return [[next(verdicts[batch.tenant_id]) for _ in batch.calls] for batch in batches]
