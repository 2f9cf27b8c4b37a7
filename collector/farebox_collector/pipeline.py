"""The way of a request, from bytes to verdicts. This page is the whole of it.

    body ─ decode ─▶ Span ─ dialects.read ─▶ UsageRecord ─ price ─▶ PricedUsage ─ record_usage ─▶ Verdict ─▶ answer
    └── admission ─┘└────────────── one reading thread, pure ─────────────┘└─ one committing thread ─┘

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
from typing import NamedTuple

from sqlalchemy import Connection

from farebox_collector import dialects
from farebox_collector.admission import Admission
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
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="read")
        self._committer = GroupCommit(
            self._commit, lambda batch: len(batch.calls), settings.commit_max_spans, is_storage_outage
        )
        self.admission = Admission(settings.queue_max_bytes, meters.queued)

    async def accept(self, request: ExportRequest) -> Outcome:
        """Take one request through the house; see the class for what it raises."""
        batch = await asyncio.get_running_loop().run_in_executor(self._reader, self._read, request)
        recorded = await self._committer.commit(batch) if batch.calls else []
        verdicts = batch.verdicts + Counter(recorded)
        self._meters.judged(verdicts)
        self._meters.charged(c for c, verdict in zip(batch.calls, recorded, strict=True) if verdict is Verdict.CHARGED)
        log_findings(batch.calls, recorded, batch.rejections)
        return Outcome(verdicts, tuple(dict.fromkeys(rejection.reason for rejection in batch.rejections)))

    async def drain(self) -> None:
        """Return when everything taken is answered, or the time for it is up."""
        self.admission.close()
        try:
            await asyncio.wait_for(self.admission.wait_until_idle(), self._settings.drain_seconds)
        except TimeoutError:
            _logger.warning("gave up waiting for requests; their clients got no answer and will send them again")
        await asyncio.to_thread(self._committer.close)
        self._reader.shutdown(wait=True)

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
