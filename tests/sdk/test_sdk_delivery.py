"""The delivery never makes the application wait, and loses nothing that it said it would hold."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from farebox import delivery
from farebox.delivery import Delivery
from farebox.exporters import ExporterLog, otlp_exporter_type
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult


class Collector(SpanExporter):
    """Takes batches as its ``accepts`` says; keeps the names of what it took."""

    def __init__(self) -> None:
        self.accepts: Callable[[Sequence[ReadableSpan]], bool] = lambda _: True
        self.attempts: list[list[str]] = []
        self.taken: list[str] = []
        self.stopped = threading.Event()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        names = [span.name for span in spans]
        self.attempts.append(names)
        if not self.accepts(spans):
            return SpanExportResult.FAILURE
        self.taken.extend(names)
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        self.stopped.set()


@pytest.fixture
def collector() -> Collector:
    return Collector()


@pytest.fixture
def line(collector: Collector) -> Iterator[Delivery]:
    """A line so patient that only a full batch or a flush sends anything."""
    line = Delivery(lambda: collector, max_spans=20, max_batch_spans=4, delay_s=3600)
    yield line
    line.close(5)


def put(line: Delivery, *names: str) -> None:
    for name in names:
        line.put(lambda name=name: ReadableSpan(name))  # type: ignore[misc]


def signal(event: threading.Event) -> bool:
    """Set an event; always true."""
    event.set()
    return True


def test_spans_are_delivered_in_order_and_once(line: Delivery, collector: Collector) -> None:
    put(line, *"abcdefghij")
    assert line.flush(5)
    assert collector.taken == list("abcdefghij")
    assert line.flush(5)
    assert collector.taken == list("abcdefghij")


def test_a_full_batch_goes_out_by_itself(line: Delivery, collector: Collector) -> None:
    gone = threading.Event()
    collector.accepts = lambda _: signal(gone)
    put(line, *"abcd")
    assert gone.wait(5)


def test_the_delay_sends_the_rest(collector: Collector) -> None:
    gone = threading.Event()
    collector.accepts = lambda _: signal(gone)
    line = Delivery(lambda: collector, delay_s=0.01)
    put(line, "a")
    assert gone.wait(5)
    assert line.close(5)


def test_nothing_is_lost_while_the_collector_is_away(line: Delivery, collector: Collector) -> None:
    collector.accepts = lambda _: False
    put(line, *"abcdefgh")
    assert not line.flush(0.05)
    assert collector.taken == []
    collector.accepts = lambda _: True
    assert line.flush(5)
    assert sorted(collector.taken) == list("abcdefgh")


def test_the_line_is_bounded_and_says_what_it_drops(
    line: Delivery, collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    collector.accepts = lambda _: False
    put(line, *(str(number) for number in range(25)))
    assert not line.flush(0.05)
    collector.accepts = lambda _: True
    assert line.flush(5)
    assert sorted(collector.taken, key=int) == [str(number) for number in range(20)]
    assert "20 spans are already held" in caplog.text


def test_putting_never_waits_for_the_collector(line: Delivery, collector: Collector) -> None:
    entered, leave = threading.Event(), threading.Event()
    collector.accepts = lambda _: signal(entered) and leave.wait(5)
    put(line, *"abcd")
    assert entered.wait(5)
    put(line, *"efghijklmnopqrst")  # with a call under way that never returns, as far as this thread can tell
    assert not line.flush(0)
    leave.set()
    assert line.flush(5)
    assert len(collector.taken) == 20


def test_one_span_that_the_collector_refuses_does_not_hold_up_the_others(
    collector: Collector, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def accepts(spans: Sequence[ReadableSpan]) -> bool:
        if any(span.name == "poison" for span in spans):
            return False
        progress.set()
        return True

    monkeypatch.setattr(delivery, "PAUSE_MIN_S", 0.0)
    progress, collector.accepts = threading.Event(), accepts
    line = Delivery(lambda: collector, max_batch_spans=4, delay_s=3600)
    put(line, "a", "poison", "b", "c")
    others = iter(range(1000))
    while line._dropped == 0:
        # Only while others get through is it known that the batch is at fault, and not the collector.
        progress.clear()
        put(line, str(next(others)))
        line.flush(0)
        assert progress.wait(5)
    line.close(5)
    assert "poison" not in collector.taken
    assert {"a", "b", "c", *map(str, range(next(others)))} == set(collector.taken)
    assert "the collector refuses them" in caplog.text


def test_a_collector_that_takes_nothing_is_away_and_no_batch_is_at_fault(
    line: Delivery, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "PAUSE_MIN_S", 0.0)
    often = threading.Event()
    collector.accepts = lambda _: len(collector.attempts) > 20 and not signal(often)
    put(line, *"abcdefgh")
    assert often.wait(5)
    collector.accepts = lambda _: True
    assert line.flush(5)
    assert sorted(collector.taken) == list("abcdefgh")


def test_an_exporter_that_raises_is_one_that_failed(
    line: Delivery, collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    def burst(_: object) -> bool:
        raise OSError("burst pipe")

    collector.accepts = burst
    put(line, "a")
    assert not line.flush(0.05)
    collector.accepts = lambda _: True
    assert line.flush(5)
    assert collector.taken == ["a"]
    assert "burst pipe" in caplog.text


def test_an_exporter_that_cannot_be_made_is_tried_again(collector: Collector) -> None:
    made: Iterator[Any] = iter([ValueError("bad certificate"), collector])

    def make() -> SpanExporter:
        result = next(made)
        if isinstance(result, ValueError):
            raise result
        exporter: SpanExporter = result
        return exporter

    line = Delivery(make, delay_s=3600)
    put(line, "a")
    assert not line.flush(0.05)
    assert line.flush(5)
    assert line.close(5)
    assert collector.taken == ["a"]


def test_closing_delivers_what_is_held_and_stops_the_exporter(line: Delivery, collector: Collector) -> None:
    put(line, "a")
    assert line.close(5)
    assert collector.taken == ["a"]
    assert collector.stopped.is_set()
    put(line, "too late")
    assert line.close(5)
    assert collector.taken == ["a"]


def test_closing_does_not_wait_for_a_collector_that_is_away(
    line: Delivery, collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    collector.accepts = lambda _: collector.stopped.wait(5) and False
    put(line, *"abcdefgh")
    assert not line.close(0.05)
    assert "8 spans are dropped" in caplog.text


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_delivers_its_own_spans_and_not_its_parents(line: Delivery, collector: Collector) -> None:
    put(line, "parent")
    child = os.fork()
    if child == 0:
        put(line, "child")
        os._exit(0 if line.flush(5) and collector.taken == ["child"] else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert line.flush(5)
    assert collector.taken == ["parent"]


@pytest.mark.parametrize(
    ("variable", "protocol", "exporter"),
    [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "", GrpcExporter),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", GrpcExporter),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf", HttpExporter),
        ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/protobuf", HttpExporter),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "carrier pigeon", GrpcExporter),
    ],
)
def test_the_protocol_is_the_environments(
    monkeypatch: pytest.MonkeyPatch, variable: str, protocol: str, exporter: type[SpanExporter]
) -> None:
    monkeypatch.setenv(variable, protocol)
    assert otlp_exporter_type() is exporter


def test_the_reason_of_a_failure_is_what_the_exporter_logged(caplog: pytest.LogCaptureFixture) -> None:
    import logging

    log, logger = ExporterLog(), logging.getLogger("opentelemetry.exporter.otlp.proto.grpc.exporter")
    log.attach()
    logger.error("no route to %s", "host")
    other = threading.Thread(target=logger.error, args=("of the application's own exporter",))
    other.start()
    other.join()
    log.detach()
    logger.error("afterwards")
    assert log.last == "no route to host"
    assert caplog.messages == ["of the application's own exporter", "afterwards"]
