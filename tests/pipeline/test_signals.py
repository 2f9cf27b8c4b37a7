"""All three signals over both transports: log records are charged, what tells no call is accepted and counted."""

import gzip
import json
import logging
import time
from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import grpc
import pytest
from blank import blank_sqlite
from farebox_collector.model.credentials import new_token
from google.protobuf import json_format
from harness import Collector, unary
from logs import LogSpec, genai_event, logs_as_json, logs_request
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter as GrpcLogExporter
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter as GrpcMetricExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcSpanExporter
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter as HttpLogExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter as HttpMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpSpanExporter
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from spans import llm_span, pairs, protobuf_body

KEY = new_token()
COST_NANO = 1000 * 150 + 200 * 600
JSON = "application/json"
SERVICES = "/opentelemetry.proto.collector"
pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collector]:
    """A collector that wants a key; the books must be clean at the end."""
    collector = Collector(blank_sqlite(tmp_path_factory.mktemp("signals")), key=KEY, max_request_spans=1000)
    yield collector
    assert collector.stop() == 0
    collector.audit()
    collector.close()


def event(wallet: str | None, **told: Any) -> LogSpec:
    """An event of a call of `COST_NANO`."""
    return genai_event(time.time_ns(), wallet=wallet, **told)


def over_grpc(collector: Collector, signal: str, body: bytes, key: str = KEY) -> bytes:
    """Export over gRPC; the signal's name as its service has it."""
    method = f"{SERVICES}.{signal.lower()}.v1.{signal}Service/Export"
    metadata = (("authorization", f"Bearer {key}"),) if key else ()
    answer: bytes = unary(collector.channel, method)(body, timeout=30, metadata=metadata)
    return answer


def charged(collector: Collector, wallet: str) -> list[tuple[str, str]]:
    """Dialect and cost of what was charged to a wallet."""
    return [(one["dialect"], one["cost_usd"]) for one in collector.usage(wallet=wallet) if one["verdict"] == "charged"]


@pytest.mark.parametrize("form", ["protobuf", "json", "gzip", "grpc"])
def test_a_call_that_a_log_record_tells_is_charged_once(guarded: Collector, form: str) -> None:
    wallet = f"log-{form}"
    request = logs_request([event(wallet)])
    body = request.SerializeToString()
    for _ in range(2):  # sent again, as after a lost answer
        if form == "grpc":
            assert over_grpc(guarded, "Logs", body) == b""
            continue
        if form == "json":
            answer = guarded.export_http(logs_as_json(request), JSON, "logs")
            assert answer.json() == {}
        elif form == "gzip":
            answer = guarded.export_http(gzip.compress(body), signal="logs", content_encoding="gzip")
        else:
            answer = guarded.export_http(body, signal="logs")
            assert answer.content == b""
        assert answer.status_code == 200
    assert charged(guarded, wallet) == [("genai_event", f"{COST_NANO / 1e9:.9f}")]
    assert guarded.metrics()['farebox_spans_total{verdict="duplicate"}'] >= 1


def test_the_acknowledgement_of_logs_means_charged(tmp_path: Path) -> None:
    collector = Collector(blank_sqlite(tmp_path))
    assert collector.export_http(logs_request([event("ada")]).SerializeToString(), signal="logs").status_code == 200
    collector.kill()
    collector.start()
    assert len(charged(collector, "ada")) == 1
    collector.close()


def test_the_resource_names_the_wallet(guarded: Collector) -> None:
    body = logs_request([event(None)], {"farebox.wallet": "platform-team", "farebox.dept": "platform"})
    assert guarded.export_http(body.SerializeToString(), signal="logs").status_code == 200
    (record,) = guarded.usage(wallet="platform-team")
    assert record["dept"] == "platform"


@pytest.mark.parametrize("first", ["span", "event"])
@pytest.mark.parametrize("response_id", [None, "resp_0123456789abcdef01234567"])
def test_an_event_and_its_span_are_one_call(guarded: Collector, response_id: str | None, first: str) -> None:
    wallet = f"both-{response_id}-{first}"
    same = response_id and response_id + first
    span = llm_span(wallet=wallet, response_id=same)
    told = event(wallet, trace_id=span.trace_id, span_id=span.span_id, response_id=same)
    told = told._replace(time_ns=span.end_ns - 1_000_000)
    bodies = {"traces": protobuf_body([span]), "logs": logs_request([told]).SerializeToString()}
    for signal in sorted(bodies, reverse=first == "span"):
        guarded.export_http(bodies[signal], signal=signal).raise_for_status()
    assert sorted(one["verdict"] for one in guarded.usage(wallet=wallet)) == ["charged", "covered"]


def test_a_record_that_cannot_be_booked_fails_alone(guarded: Collector) -> None:
    bad = event("alone", input_tokens=-5)
    answer = guarded.export_http(logs_as_json(logs_request([bad, event("alone")])), JSON, "logs")
    assert answer.status_code == 200
    partial = answer.json()["partialSuccess"]
    assert partial["rejectedLogRecords"] == "1"
    assert "negative" in partial["errorMessage"]
    assert len(charged(guarded, "alone")) == 1


def test_records_without_a_call_are_accepted_and_counted(guarded: Collector) -> None:
    secret = "do not keep this"
    before = guarded.metrics()
    records = [LogSpec({"prompt": secret}, body=secret * 1000), LogSpec({}, "app.started"), event("quiet")]
    body = logs_request(records).SerializeToString()
    answers = [ExportLogsServiceResponse.FromString(over_grpc(guarded, "Logs", body)) for _ in range(3)]
    assert [answer.partial_success.rejected_log_records for answer in answers] == [0, 0, 0]
    assert [bool(answer.partial_success.error_message) for answer in answers].count(True) <= 1
    after = guarded.metrics()
    told = {tells: f'farebox_signal_records_total{{signal="logs",tells="{tells}"}}' for tells in ("usage", "nothing")}
    assert {tells: after[name] - before[name] for tells, name in told.items()} == {"usage": 3, "nothing": 6}
    not_billable = 'farebox_spans_total{verdict="not_billable"}'
    assert after[not_billable] == before[not_billable]
    assert secret.encode() not in guarded.database.read_bytes()


def test_a_sender_is_warned_once(tmp_path: Path) -> None:
    collector = Collector(blank_sqlite(tmp_path))
    logs, points = logs_request([LogSpec({}, "app.started")]).SerializeToString(), metrics_body(3)
    for signal, body in (("logs", logs), ("metrics", points)):
        answers = [collector.export_http(body, signal=signal) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200] * 3
        response = ExportLogsServiceResponse if signal == "logs" else ExportMetricsServiceResponse
        warnings = [response.FromString(answer.content).partial_success.error_message for answer in answers]
        assert "not stored" in warnings[0]
        assert warnings[1:] == ["", ""]
    assert collector.usage() == []
    collector.close()


def metrics_body(points: int) -> bytes:
    """A request with a gauge, a sum and a histogram of an application."""
    request = ExportMetricsServiceRequest()
    metrics = request.resource_metrics.add().scope_metrics.add().metrics
    for number in range(points):
        metrics.add(name="app.queue").gauge.data_points.add(as_int=number)
        metrics.add(name="app.requests").sum.data_points.add(as_double=number)
        metrics.add(name="app.seconds").histogram.data_points.add(count=1, bucket_counts=[0, 1])
    return request.SerializeToString()


def test_data_points_are_counted_and_bounded(guarded: Collector) -> None:
    name = 'farebox_signal_records_total{signal="metrics",tells="nothing"}'
    before = guarded.metrics()[name]
    assert guarded.export_http(metrics_body(10), signal="metrics").status_code == 200
    over_grpc(guarded, "Metrics", metrics_body(10))
    document = b'{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"name":"a","gauge":{"dataPoints":[{},{}]}}]}]}]}'
    assert guarded.export_http(document, JSON, "metrics").status_code == 200
    assert guarded.metrics()[name] == before + 62
    assert guarded.export_http(metrics_body(334), signal="metrics").status_code == 413
    crowded = document.replace(b"{},{}", b"{}," * 1000 + b"{}")
    assert guarded.export_http(crowded, JSON, "metrics").status_code == 413


@pytest.mark.parametrize("signal", ["logs", "metrics"])
def test_the_same_doors_as_for_traces(guarded: Collector, signal: str) -> None:
    post = guarded.export_http
    assert post(b"\xff\xff", signal=signal).status_code == 400
    assert post(b"[]", JSON, signal).status_code == 400
    assert post(b"", "text/plain", signal).status_code == 415
    assert post(b"", signal=signal, content_encoding="br").status_code == 415
    assert post(b"junk", signal=signal, content_encoding="gzip").status_code == 400
    assert post(b"", signal=signal, authorization="Bearer wrong").status_code == 401
    assert guarded.otlp.get(f"/v1/{signal}").status_code == 405
    service = signal.capitalize()
    for body, key, code in (
        (b"\xff\xff", KEY, grpc.StatusCode.INVALID_ARGUMENT),
        (b"", "wrong", grpc.StatusCode.UNAUTHENTICATED),
        (b"", "", grpc.StatusCode.UNAUTHENTICATED),
    ):
        with pytest.raises(grpc.RpcError) as refused:
            over_grpc(guarded, service, body, key)
        assert refused.value.code() is code
    assert over_grpc(guarded, service, b"") == b""
    if signal == "logs":
        many = logs_request([LogSpec({}, "a")] * 1001).SerializeToString()
        assert post(many, signal="logs").status_code == 413


EXPORTERS: Mapping[str, tuple[Any, Any, Any]] = {
    "grpc": (GrpcSpanExporter, GrpcLogExporter, GrpcMetricExporter),
    "http": (HttpSpanExporter, HttpLogExporter, HttpMetricExporter),
}


@pytest.mark.parametrize("transport", EXPORTERS)
def test_an_sdk_with_all_three_exporters_logs_nothing(
    guarded: Collector, transport: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "opentelemetry")
    options: dict[str, Any] = {"headers": {"authorization": f"Bearer {KEY}"}}
    endpoints = {name: f"{guarded.otlp_url}/v1/{name}" for name in ("traces", "logs", "metrics")}
    if transport == "grpc":
        options["insecure"] = True
        endpoints = dict.fromkeys(endpoints, guarded.grpc_target)
    spans, logs, metrics = (
        exporter(endpoint=endpoint, **options)
        for exporter, endpoint in zip(EXPORTERS[transport], endpoints.values(), strict=True)
    )
    resource = Resource.create({"service.name": "an-app", "farebox.wallet": f"sdk-{transport}"})
    tracing, logging_, metering = (
        TracerProvider(resource=resource),
        LoggerProvider(resource=resource),
        MeterProvider([PeriodicExportingMetricReader(metrics, export_interval_millis=600_000)], resource=resource),
    )
    tracing.add_span_processor(BatchSpanProcessor(spans))
    logging_.add_log_record_processor(BatchLogRecordProcessor(logs))
    logger = logging_.get_logger("an-app")
    with tracing.get_tracer("an-app").start_as_current_span("work"):
        logger.emit(LogRecord(body="A message.", severity_number=SeverityNumber.ERROR))
        for number in range(3):
            told = dict(event("", response_id=f"r-{transport}-{number}").attributes)
            told.pop("farebox.wallet")
            logger.emit(LogRecord(event_name="gen_ai.client.inference.operation.details", attributes=told))
    metering.get_meter("an-app").create_counter("app.requests").add(1)
    for provider in (tracing, logging_, metering):
        assert provider.force_flush(10_000) is not False
        provider.shutdown()
    assert len(charged(guarded, f"sdk-{transport}")) == 3
    assert [record.getMessage() for record in caplog.records if record.name.startswith("opentelemetry")] == []


def agent_metrics(tokens: int, now_ns: int) -> bytes:
    """Metrics of Claude Code, as deltas of a minute."""
    request = ExportMetricsServiceRequest()
    metric = request.resource_metrics.add().scope_metrics.add().metrics.add(name="claude_code.token.usage")
    metric.sum.aggregation_temporality = 1  # type: ignore[assignment]  # an enum's number
    for kind, share in (("input", 1), ("cacheRead", 2), ("output", 1)):
        point = metric.sum.data_points.add(
            as_double=tokens * share, start_time_unix_nano=now_ns - 10**9, time_unix_nano=now_ns
        )
        told = {"type": kind, "session.id": "s1", "user.email": "ada@example.com", "model": "claude-sonnet-4-5"}
        point.attributes.extend(pairs(told))
    return request.SerializeToString()


def test_what_metrics_tell_and_no_event_is_exposure_and_no_cost(tmp_path: Path) -> None:
    collector = Collector(blank_sqlite(tmp_path))
    now_ns = time.time_ns()
    told = {
        "event.name": "api_request",
        "model": "claude-sonnet-4-5",
        "input_tokens": "100",
        "output_tokens": "100",
        "cache_read_tokens": "200",
        "user.email": "ada@example.com",
        "request_id": "req_0123456789abcdef01234567",
    }
    record = LogSpec(told, body="claude_code.api_request", time_ns=now_ns)
    request = logs_request([record], scope=("com.anthropic.claude_code.events", "2"))
    collector.export_http(request.SerializeToString(), signal="logs").raise_for_status()
    for _ in range(2):  # sent again
        collector.export_http(agent_metrics(100, now_ns), signal="metrics").raise_for_status()
    assert collector.api.get("/v1/reports/unreported").json()["items"] == []
    document = json_format.MessageToDict(ExportMetricsServiceRequest.FromString(agent_metrics(50, now_ns + 10**9)))
    collector.export_http(json.dumps(document).encode(), JSON, "metrics").raise_for_status()
    answer = collector.api.get("/v1/reports/unreported").json()
    (row,) = answer["items"]
    assert (row["tool"], row["developer"]) == ("claude_code", "ada@example.com")
    assert (row["metered_input_tokens"], row["metered_output_tokens"]) == (450, 150)
    assert (row["unreported_input_tokens"], row["unreported_output_tokens"]) == (150, 50)
    cost = Decimal(100 * 3_000 + 100 * 15_000 + 200 * 300) / 10**9
    assert Decimal(row["exposure_usd"]) == Decimal(answer["total"]["exposure_usd"]) == cost / 2
    assert [Decimal(one["cost_usd"]) for one in collector.usage()] == [cost]
    collector.close()
