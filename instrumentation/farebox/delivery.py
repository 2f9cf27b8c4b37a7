"""Deliver spans to the collector from a separate thread, buffering them while the collector is away.

Contract: ``put`` never waits. A span is held until the exporter has accepted it. At most ``max_spans`` are held; more
are dropped, counted and reported. A failed batch goes to the end of the queue and is retried after a pause. A batch
that fails while others succeed is halved, until a span that the collector refuses is alone; it is dropped and reported.
"""

from __future__ import annotations

import math
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from opentelemetry.instrumentation.utils import suppress_instrumentation
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from farebox.collector_trouble import explained
from farebox.exporters import ExporterLog
from farebox.guard import report

PAUSE_MIN_S: Final = 1.0
"""The first pause after a failed export; each further pause is twice as long."""
PAUSE_MAX_S: Final = 30.0
"""The longest pause between failing exports."""
SECOND_FLUSH_S: Final = 0.5
"""Maximum wait at process exit for a collector that an earlier flush could not reach."""
REFUSALS_MAX: Final = 2
"""How often a batch may fail while others succeed before it is halved or dropped."""

# Makes the span to send, or returns None; runs in the delivery thread.
Prepare = Callable[[], ReadableSpan | None]


class _Waiting(NamedTuple):
    number: int
    since_s: float
    prepare: Prepare


class _Yielding(list[ReadableSpan]):
    """A list of spans that yields to other threads before each span.

    The exporters encode a whole batch without a break, for some 40 ms. An application thread that returns from the
    network would wait 5 ms at a time for the interpreter; this way it waits for one span.
    """

    def __iter__(self) -> Iterator[ReadableSpan]:
        for span in super().__iter__():
            time.sleep(0)
            yield span


@dataclass
class _Batch:
    first_number: int
    size: int
    waiting: Sequence[_Waiting]
    spans: list[ReadableSpan] = field(default_factory=list)
    refusals: int = 0
    delivered_before: int | None = None

    def prepare(self) -> list[ReadableSpan]:
        """Return the spans, made at the first attempt."""
        if self.waiting:
            self.spans = _Yielding()
            for waiting in self.waiting:
                time.sleep(0)
                if (span := waiting.prepare()) is not None:
                    self.spans.append(span)
            self.waiting = ()
        return self.spans

    def halves(self) -> list[_Batch]:
        middle = self.size // 2
        parts = (self.spans[:middle], self.spans[middle:])
        return [_Batch(self.first_number, len(part), (), _Yielding(part)) for part in parts]


class Delivery:
    """A bounded queue of spans and the thread that exports them."""

    def __init__(
        self,
        make_exporter: Callable[[], SpanExporter],
        *,
        max_spans: int = 10_000,
        max_batch_spans: int = 512,
        delay_s: float = 1.0,
    ) -> None:
        """Prepare. The thread and the exporter start with the first span.

        Args:
            make_exporter: called in the delivery thread, once per process.
            max_spans: maximum number of held spans.
            max_batch_spans: maximum number of spans per export.
            delay_s: how long a span may wait to be batched, in seconds.
        """
        self._make_exporter = make_exporter
        self._max_spans = max_spans
        self._max_batch_spans = max_batch_spans
        self._delay_s = delay_s
        self._exporter_log = ExporterLog()
        self._dropped = 0
        self._begin()
        # After a fork the parent keeps its spans; the child starts empty, with its own thread and connection.
        begin = weakref.WeakMethod(self._begin)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=lambda: (method := begin()) and method())

    def _begin(self) -> None:
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._waiting: deque[_Waiting] = deque()
        self._batches: deque[_Batch] = deque()
        self._in_flight: _Batch | None = None
        self._held = 0
        self._last_number = 0
        self._flush_up_to = 0
        self._delivered_batches = 0
        self._flushed_in_vain: int | None = None
        self._pause_s = 0.0
        self._resume_at_s = 0.0
        self._closing = False
        self._exporter: SpanExporter | None = None
        self._thread: threading.Thread | None = None

    def put(self, prepare: Prepare) -> None:
        """Queue a span for delivery; ``prepare`` makes it. Never waits for the collector."""
        with self._lock:  # faster than the condition itself
            accepted = not self._closing and self._held < self._max_spans
            if accepted:
                self._held += 1
                self._last_number += 1
                self._waiting.append(_Waiting(self._last_number, time.monotonic(), prepare))
                if self._thread is None:
                    thread = threading.Thread(target=self._run, name="farebox-delivery", daemon=True)
                    thread.start()
                    self._thread = thread
                elif len(self._waiting) in (1, self._max_batch_spans):
                    self._changed.notify_all()
            else:
                self._dropped += 1
        # Do not log while holding the lock: a slow log handler must not block other threads.
        if not accepted:
            _report_dropped(1, "metering has ended" if self._closing else f"{self._max_spans} spans are already held")

    def flush(self, timeout_s: float) -> bool:
        """Deliver the held spans. Returns whether all were delivered within the timeout."""
        with self._changed:
            up_to, dropped = self._last_number, self._dropped
            self._flush_up_to = up_to
            self._pause_s = self._resume_at_s = 0.0
            self._changed.notify_all()
            emptied = self._changed.wait_for(lambda: self._oldest_number() > up_to, timeout_s)
            self._flushed_in_vain = None if emptied else self._delivered_batches
            return emptied and self._dropped == dropped

    def close(self, timeout_s: float) -> bool:
        """Flush, then stop. Spans not delivered within the timeout are dropped. Returns as ``flush``.

        If a flush has timed out and nothing was delivered since, this waits at most ``SECOND_FLUSH_S``.
        """
        if self._flushed_in_vain == self._delivered_batches:
            timeout_s = min(timeout_s, SECOND_FLUSH_S)
        until_s = time.monotonic() + timeout_s
        delivered = self.flush(timeout_s)
        with self._changed:
            self._closing = True
            lost, self._held = self._held, 0
            self._dropped += lost
            self._waiting.clear()
            self._batches.clear()
            self._changed.notify_all()
            thread, exporter = self._thread, self._exporter
        if lost:
            _report_dropped(
                lost, f"metering ended before the collector accepted them. {explained(self._exporter_log.last)}"
            )
        if exporter is not None:
            exporter.shutdown()
        if thread is not None:
            thread.join(max(0.0, until_s - time.monotonic()) + 0.1)
        self._exporter_log.detach()
        return delivered

    def _oldest_number(self) -> float:
        numbers = [batch.first_number for batch in self._batches]
        if self._waiting:
            numbers.append(self._waiting[0].number)
        if self._in_flight is not None:
            numbers.append(self._in_flight.first_number)
        return min(numbers, default=math.inf)

    # The following methods run in the delivery thread.

    def _run(self) -> None:
        self._exporter_log.attach()
        with suppress_instrumentation():
            while (batch := self._next_batch()) is not None:
                self._settle(batch, self._export(batch))

    def _next_batch(self) -> _Batch | None:
        with self._changed:
            while not self._closing:
                now_s = time.monotonic()
                fresh_at_s = self._fresh_at_s()
                due_at_s = max(now_s if self._batches else fresh_at_s, self._resume_at_s)
                if due_at_s > now_s:
                    self._changed.wait(None if due_at_s == math.inf else due_at_s - now_s)
                    continue
                if fresh_at_s <= now_s:
                    # Queue new spans after retried ones, so that neither kind starves.
                    count = min(len(self._waiting), self._max_batch_spans)
                    taken = [self._waiting.popleft() for _ in range(count)]
                    self._batches.append(_Batch(taken[0].number, count, taken))
                self._in_flight = self._batches.popleft()
                return self._in_flight
            return None

    def _fresh_at_s(self) -> float:
        """Return when the spans that wait to be batched are due."""
        if not self._waiting:
            return math.inf
        first = self._waiting[0]
        if len(self._waiting) >= self._max_batch_spans or first.number <= self._flush_up_to:
            return 0.0
        return first.since_s + self._delay_s

    def _export(self, batch: _Batch) -> bool:
        try:
            if self._exporter is None:
                self._exporter = self._make_exporter()
            return self._exporter.export(batch.prepare()) is SpanExportResult.SUCCESS
        except Exception as error:
            self._exporter_log.last = repr(error)
            return False

    def _settle(self, batch: _Batch, delivered: bool) -> None:
        refused = 0
        with self._changed:
            self._in_flight = None
            if self._closing:
                return
            if delivered:
                self._held -= batch.size
                self._delivered_batches += 1
                self._pause_s = 0.0
            else:
                self._pause_s = min(max(self._pause_s * 2, PAUSE_MIN_S), PAUSE_MAX_S)
                self._resume_at_s = time.monotonic() + self._pause_s
                refused = self._requeue(batch)
                self._held -= refused
                self._dropped += refused
            held = self._held
            self._changed.notify_all()
        if refused:
            _report_dropped(refused, f"the collector refuses them. {explained(self._exporter_log.last)}")
        elif not delivered:
            report("away", f"{held} spans wait: {explained(self._exporter_log.last)}")

    def _requeue(self, batch: _Batch) -> int:
        """Queue a failed batch or its halves again. Returns the number of spans given up."""
        if batch.delivered_before is not None and self._delivered_batches > batch.delivered_before:
            batch.refusals += 1
        batch.delivered_before = self._delivered_batches
        if batch.refusals < REFUSALS_MAX:
            self._batches.append(batch)
        elif batch.size > 1:
            self._batches.extend(batch.halves())
        else:
            return 1
        return 0


def _report_dropped(spans: int, why: str) -> None:
    report("dropped", f"{spans} spans are dropped and their calls are not metered: {why}")
