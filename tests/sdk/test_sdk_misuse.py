"""What is wrong with how the SDK is used: each is one line that begins with ``farebox:`` and names the remedy."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import farebox
import grpc
import pytest
from farebox import attribution, span_attributes
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from sdk.sdk_support import Metered, OtlpReceiver

CLOSED = "http://127.0.0.1:9"


@contextmanager
def answering(status: int, body: bytes = b"{}") -> Iterator[str]:
    """An HTTP server that answers everything with this status."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


class Refusing(trace_service_pb2_grpc.TraceServiceServicer):
    """A collector that knows no key."""

    def Export(self, request: Any, context: grpc.ServicerContext) -> Any:
        context.abort(grpc.StatusCode.UNAUTHENTICATED, "unknown key")


@contextmanager
def refusing_over_grpc() -> Iterator[str]:
    server = grpc.server(futures.ThreadPoolExecutor(2))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(Refusing(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"http://127.0.0.1:{port}"
    server.stop(None).wait()


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name.startswith("farebox")]


def one_line(caplog: pytest.LogCaptureFixture, *parts: str) -> None:
    """The SDK logged one line; it names itself and what to do."""
    (line,) = lines(caplog)
    assert line.startswith("farebox: ")
    assert "\n" not in line
    for part in parts:
        assert part in line


def test_an_action_without_instrument(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attribution.MeteringState, "begun", False)
    for _ in range(3):
        with farebox.action("chat.reply", wallet="ada"):
            pass
    one_line(caplog, "farebox.instrument()")
    assert not farebox.flush(1)


def test_an_action_in_a_process_that_is_told_not_to_meter(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attribution.MeteringState, "begun", False)
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    farebox.instrument()
    with farebox.action("chat.reply", wallet="ada"):
        pass
    assert lines(caplog) == []


def test_a_call_without_a_wallet(metered: Metered, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2):
        metered.openai().chat.completions.create(model="gpt-4o-mini", messages=[{"role": "user", "content": "Hi"}])
        assert farebox.flush(10)
    one_line(caplog, "gpt-4o-mini", "unattributed", "wallet=")


def test_instrument_twice(metered: Metered, caplog: pytest.LogCaptureFixture) -> None:
    farebox.instrument()
    farebox.instrument(model_urls=[f"{metered.model_url}/v1"])
    assert lines(caplog) == [], "a library may turn it on as well"
    farebox.instrument(model_urls=["https://gateway.example/v1"], request_log=True)
    one_line(caplog, "model_urls, request_log", "ignored", "uninstrument()")


def meter_one_call(settings: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    provider = TracerProvider(shutdown_on_exit=False)
    farebox.instrument(tracer_provider=provider)
    try:
        with farebox.action("chat.reply", wallet="ada"):
            call: dict[str, Any] = {span_attributes.OPERATION_NAME: "chat", span_attributes.USAGE_INPUT: 1}
            provider.get_tracer("app").start_span("chat", attributes=call).end()
        assert not farebox.flush(3)
    finally:
        farebox.uninstrument(0)


@pytest.mark.parametrize("status", [401, 403])
def test_a_key_that_the_collector_refuses_over_http(
    status: int, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with answering(status) as url:
        settings = {"OTEL_EXPORTER_OTLP_ENDPOINT": url, "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}
        meter_one_call(settings, monkeypatch)
    refused = [line for line in lines(caplog) if "refuses the key" in line and "FAREBOX_API_KEY" in line]
    assert refused
    assert all(line.startswith("farebox: ") for line in lines(caplog))


def test_a_key_that_the_collector_refuses_over_grpc(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with refusing_over_grpc() as url:
        meter_one_call({"OTEL_EXPORTER_OTLP_ENDPOINT": url}, monkeypatch)
    assert any("refuses the key" in line and "FAREBOX_API_KEY" in line for line in lines(caplog))


def test_grpc_sent_to_the_http_port(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(200) as url:
        meter_one_call({"OTEL_EXPORTER_OTLP_ENDPOINT": url}, monkeypatch)
    assert any("OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf" in line and "4317" in line for line in lines(caplog))


def test_http_sent_to_the_grpc_port(
    receiver: OtlpReceiver, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}
    meter_one_call(settings, monkeypatch)
    assert any("OTEL_EXPORTER_OTLP_PROTOCOL=grpc" in line and "4318" in line for line in lines(caplog))


@pytest.mark.parametrize(
    ("protocol", "port", "remedy"),
    [
        ("grpc", 4318, "OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf"),
        ("http/protobuf", 4317, "OTEL_EXPORTER_OTLP_PROTOCOL=grpc"),
    ],
)
def test_the_other_protocols_port_is_told_at_the_start(
    protocol: str, port: int, remedy: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
    farebox.instrument(tracer_provider=TracerProvider(shutdown_on_exit=False))
    farebox.uninstrument(0)
    one_line(caplog, remedy, str(port))


def test_a_collector_that_does_not_answer_is_told_at_the_start(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", CLOSED)
    farebox.instrument(tracer_provider=TracerProvider(shutdown_on_exit=False))
    for thread in threading.enumerate():
        if thread.name == "farebox-probe":
            thread.join(10)
    farebox.uninstrument(0)
    one_line(caplog, "127.0.0.1:9", "farebox serve", "OTEL_EXPORTER_OTLP_ENDPOINT")


# --- Holds.


@pytest.mark.parametrize("status", [401, 403])
def test_a_hold_under_a_key_that_is_refused_is_not_granted(
    status: int, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with answering(status, b'{"detail": "unknown key"}') as url:
        monkeypatch.setenv("FAREBOX_API_URL", url)
        with (
            pytest.raises(farebox.HoldUnavailable, match=r"FAREBOX_API_KEY.*unknown key"),
            farebox.action("agent.run", wallet="ada", hold=5),
        ):
            pytest.fail("the action began")
        with farebox.action("agent.run", wallet="ada", hold=5, hold_key_refused="allow"):
            pass
    assert "goes on without a hold" in lines(caplog)[-1]


def test_a_hold_that_cannot_be_asked_for_raises_one_plain_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAREBOX_API_URL", CLOSED)
    with (
        pytest.raises(farebox.HoldUnavailable) as raised,
        farebox.action("agent.run", wallet="ada", hold=5, hold_unreachable="refuse"),
    ):
        pytest.fail("the action began")
    text = "".join(traceback.format_exception(raised.value))
    assert text.count("Traceback") == 1
    assert "127.0.0.1:9" in str(raised.value)
    assert "FAREBOX_API_URL" in str(raised.value)


@pytest.mark.parametrize("setting", ["hold_unreachable", "hold_key_refused"])
def test_a_policy_that_there_is_not(setting: str) -> None:
    misspelt: Any = {setting: "refused"}
    with pytest.raises(ValueError, match=f"{setting} must be 'allow' or 'refuse', not 'refused'"):
        farebox.action("agent.run", wallet="ada", hold=5, **misspelt)


# --- The end of a process.


def test_a_script_ends_in_time_while_the_collector_is_away(tmp_path: Path) -> None:
    code = f"""
import farebox, httpx
farebox.instrument(model_urls=["{CLOSED}/v1"])
with farebox.action("chat.reply", wallet="ada", hold=1):
    try:
        httpx.post("{CLOSED}/v1/chat/completions", json={{"model": "gpt-4o-mini"}})
    except httpx.ConnectError:
        pass
print(farebox.flush(1))
"""
    settings = {"OTEL_EXPORTER_OTLP_ENDPOINT": CLOSED, "FAREBOX_API_URL": CLOSED}
    began_s = time.monotonic()
    process = subprocess.run(
        [sys.executable, "-c", code], env=settings, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True
    )
    assert time.monotonic() - began_s < 8, "one second for the flush, half of one for the end, and the imports"
    assert process.stdout == "False\n"
    assert all(line.startswith("farebox: ") for line in process.stderr.splitlines())


def test_flush_says_whether_something_was_delivered(metered: Metered) -> None:
    assert farebox.flush(5)
    farebox.uninstrument()
    assert not farebox.flush(5)


def test_every_line_begins_with_the_name(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    caplog.set_level(logging.DEBUG, logger="farebox")
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "zipkin,none")
    monkeypatch.setenv("FAREBOX_TAGS", "departement=support")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "thrift")
    farebox.instrument(
        model_urls=["not a url"],
        tracer_provider=TracerProvider(shutdown_on_exit=False),
        http_spans="yes",  # type: ignore[arg-type]
    )
    farebox.report_quality(citation_rate=7)
    farebox.uninstrument()
    farebox.instrument(exporter=InMemorySpanExporter(), tracer_provider=TracerProvider(shutdown_on_exit=False))
    farebox.uninstrument()
    assert len(lines(caplog)) >= 4
    assert all(line.startswith("farebox: ") for line in lines(caplog))
