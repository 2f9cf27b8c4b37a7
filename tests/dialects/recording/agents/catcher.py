"""Takes logs, metrics and spans over OTLP/HTTP (protobuf and JSON) and OTLP/gRPC, and keeps them."""

import base64
import gzip
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

import grpc
from google.protobuf import json_format
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2, logs_service_pb2_grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

REQUESTS = {
    "logs": logs_service_pb2.ExportLogsServiceRequest,
    "metrics": metrics_service_pb2.ExportMetricsServiceRequest,
    "traces": trace_service_pb2.ExportTraceServiceRequest,
}
IDS = ("traceId", "spanId", "parentSpanId")


class Caught(NamedTuple):
    """What arrived: by signal, one request a batch, as OTLP JSON; and how each batch was encoded."""

    batches: list[tuple[str, str, dict[str, Any]]]
    """(signal, encoding, request)"""
    http: str
    grpc: str


def as_otlp_json(request: Any) -> dict[str, Any]:
    """A protobuf request in OTLP's JSON encoding, whose ids are hexadecimal."""
    whole: dict[str, Any] = json_format.MessageToDict(request)
    for resource in (*whole.get("resourceLogs", ()), *whole.get("resourceSpans", ())):
        for scope in (*resource.get("scopeLogs", ()), *resource.get("scopeSpans", ())):
            for record in (*scope.get("logRecords", ()), *scope.get("spans", ())):
                for key in IDS:
                    if key in record:
                        record[key] = base64.b64decode(record[key]).hex()
    return whole


@contextmanager
def otlp_catcher() -> Iterator[Caught]:
    """Listen on loopback over both transports."""
    batches: list[tuple[str, str, dict[str, Any]]] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            length = self.headers.get("content-length")
            body = self._chunks() if length is None else self.rfile.read(int(length))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            signal = self.path.rpartition("/")[2]
            as_json = self.headers.get("content-type", "").startswith("application/json")
            if as_json:
                batches.append((signal, "http/json", json.loads(body)))
            else:
                batches.append((signal, "http/protobuf", as_otlp_json(REQUESTS[signal].FromString(body))))
            answer = b"{}" if as_json else b""
            self.send_response(200)
            self.send_header("content-type", self.headers.get("content-type", ""))
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def _chunks(self) -> bytes:
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body

        def log_message(self, *_arguments: object) -> None:
            pass

    def servicer(signal: str, base: type, answer: Any) -> Any:
        def export(_self: object, request: Any, _context: object) -> Any:
            batches.append((signal, "grpc", as_otlp_json(request)))
            return answer()

        return type(base.__name__, (base,), {"Export": export})()

    rpc = grpc.server(ThreadPoolExecutor(4))
    logs, metrics, traces = logs_service_pb2, metrics_service_pb2, trace_service_pb2
    logs_service_pb2_grpc.add_LogsServiceServicer_to_server(
        servicer("logs", logs_service_pb2_grpc.LogsServiceServicer, logs.ExportLogsServiceResponse), rpc
    )
    metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(
        servicer("metrics", metrics_service_pb2_grpc.MetricsServiceServicer, metrics.ExportMetricsServiceResponse), rpc
    )
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(
        servicer("traces", trace_service_pb2_grpc.TraceServiceServicer, traces.ExportTraceServiceResponse), rpc
    )
    port = rpc.add_insecure_port("127.0.0.1:0")
    rpc.start()
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield Caught(batches, f"http://127.0.0.1:{server.server_port}", f"http://127.0.0.1:{port}")
        finally:
            server.shutdown()
            thread.join()
            rpc.stop(None)
