"""The three signals of OTLP: their addresses, the forms of their bodies, and their answers."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from google.protobuf.message import Message
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from farebox_collector.intake.reader import Encoding

PROTOBUF, JSON = "application/x-protobuf", "application/json"
_SERVICES = "/opentelemetry.proto.collector"


class Signal(NamedTuple):
    """One signal."""

    name: str
    path: str
    """Of OTLP/HTTP."""
    method: str
    """Of OTLP/gRPC."""
    encodings: Mapping[str, Encoding]
    """By content type."""
    response: type[Any]
    rejected_field: str
    """The field of `partial_success` that counts what was refused."""
    without_call: str = ""
    """The warning for senders of what tells no call; empty: no warning."""

    def answer(self, rejected: int = 0, message: str = "") -> Message:
        """Return the answer to an accepted request. With nothing rejected, a message is a warning."""
        answer: Message = self.response()
        if rejected or message:
            partial_success = answer.partial_success  # type: ignore[attr-defined]  # all three have it
            setattr(partial_success, self.rejected_field, rejected)
            partial_success.error_message = message
        return answer


TRACES = Signal(
    "traces",
    "/v1/traces",
    f"{_SERVICES}.trace.v1.TraceService/Export",
    {PROTOBUF: Encoding.PROTOBUF, JSON: Encoding.JSON},
    ExportTraceServiceResponse,
    "rejected_spans",
)
LOGS = Signal(
    "logs",
    "/v1/logs",
    f"{_SERVICES}.logs.v1.LogsService/Export",
    {PROTOBUF: Encoding.LOGS_PROTOBUF, JSON: Encoding.LOGS_JSON},
    ExportLogsServiceResponse,
    "rejected_log_records",
    "some log records tell no model call; they were counted and not stored",
)
METRICS = Signal(
    "metrics",
    "/v1/metrics",
    f"{_SERVICES}.metrics.v1.MetricsService/Export",
    {PROTOBUF: Encoding.METRICS_PROTOBUF, JSON: Encoding.METRICS_JSON},
    ExportMetricsServiceResponse,
    "rejected_data_points",
    "some metrics tell no model usage; their data points were counted and not stored",
)
SIGNALS = (TRACES, LOGS, METRICS)
