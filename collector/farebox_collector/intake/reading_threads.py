"""Read requests in a thread, large ones in a second thread, and under load in a second process.

Reading and committing overlap: while one transaction commits, the next requests are read. The thread for large
requests yields to small ones.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, asynccontextmanager
from typing import NamedTuple

from farebox_collector.intake.reader import Encoding, ReadMetrics, ReadRequest, RequestReader
from farebox_collector.intake.reader_wire import Task
from farebox_collector.intake.reader_worker import ReaderWorker
from farebox_collector.intake.yielding import Yielding

_LARGE_BYTES = 256 * 2**10
"""A request of this size delays others too long on their thread: some hundred spans with their prompts."""


class ExportRequest(NamedTuple):
    """One OTLP export from a receiver: not decoded yet, with the tenant of its key."""

    tenant_id: int
    encoding: Encoding
    body: bytes


class ReadingThreads:
    """Read requests. Call the methods on the event loop's thread."""

    def __init__(
        self, reader: RequestReader, worker: ReaderWorker | None, coming: Callable[[], AbstractContextManager[int]]
    ) -> None:
        """`coming` announces a request to the committing thread and yields how many others are announced."""
        self._reader = reader
        self._worker = worker
        self._coming = coming
        self._small = ThreadPoolExecutor(1, thread_name_prefix="read")
        self._large = ThreadPoolExecutor(1, thread_name_prefix="read-large")
        self._yielding = Yielding()

    @asynccontextmanager
    async def read(self, request: ExportRequest, received_at_ns: int) -> AsyncIterator[ReadRequest]:
        """Decode, read and price a request. While the block runs, large requests yield to it if it is small.

        Raises what `RequestReader.read` raises.
        """
        loop = asyncio.get_running_loop()
        if len(request.body) >= _LARGE_BYTES:
            # Transactions do not wait for large requests.
            yield await loop.run_in_executor(self._large, self._read_large, request, received_at_ns)
            return
        with self._yielding.small():
            with self._coming() as others:
                if others and self._worker is not None:
                    self._worker.requests_wait()
                read = await loop.run_in_executor(self._small, self._read_small, request, received_at_ns)
            yield read

    async def read_metrics(self, request: ExportRequest) -> ReadMetrics:
        """Read a request of metrics, beside those that bring calls. Raises what `RequestReader.metrics` raises."""
        loop = asyncio.get_running_loop()
        tenant_id, encoding, body = request
        return await loop.run_in_executor(
            self._large, self._reader.metrics, encoding, body, tenant_id, self._yielding.pause
        )

    def _read_small(self, request: ExportRequest, received_at_ns: int) -> ReadRequest:
        if self._worker is not None and self._worker.ready:
            return self._worker.read(Task(request.encoding, request.body, request.tenant_id, received_at_ns))
        return self._reader.read(request.encoding, request.body, request.tenant_id, received_at_ns)

    def _read_large(self, request: ExportRequest, received_at_ns: int) -> ReadRequest:
        return self._reader.read(
            request.encoding, request.body, request.tenant_id, received_at_ns, self._yielding.pause
        )

    async def close(self) -> None:
        """End the threads and the process. Call it when no request is being read."""
        for thread in (self._small, self._large):
            thread.shutdown(wait=True)
        if self._worker is not None:
            await asyncio.to_thread(self._worker.close)
