"""The official OTLP exporters, chosen as the OpenTelemetry specification says, and why an export failed."""

from __future__ import annotations

import functools
import logging
import os
import threading
from collections.abc import Callable, Sequence
from typing import Final

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SpanExporter, SpanExportResult
from opentelemetry.util.re import parse_env_headers

from farebox import collector_trouble
from farebox.guard import report
from farebox.holds import API_KEY

# An exporter returns that it failed; the reason it only logs, here, and at each retry.
_LOGGERS: Final = (
    "opentelemetry.exporter.otlp.proto.grpc.exporter",
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
)


class NoExporter(SpanExporter):
    """Takes everything and sends nothing: ``OTEL_TRACES_EXPORTER=none``."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Let them go."""
        return SpanExportResult.SUCCESS


def exporter_maker() -> Callable[[], SpanExporter]:
    """What makes the exporter that ``OTEL_TRACES_EXPORTER`` names: ``otlp``, the default, ``console`` or ``none``.

    Of several, between commas, the first that is known. To be called while the process is young, as
    :func:`otlp_exporter_type`.
    """
    for name in _named():
        if name == "none":
            return NoExporter
        if name == "console":
            return ConsoleSpanExporter
        if name == "otlp":
            break
        report("exporter", f"OTEL_TRACES_EXPORTER names {name!r}, which is none of otlp, console and none")
    make = otlp_exporter_type()
    headers = _headers()
    return make if headers is None else functools.partial(make, headers=headers)


def sends_otlp() -> bool:
    """Whether the exporter of the environment is one that sends to a collector."""
    return next((name for name in _named() if name in ("none", "console", "otlp")), "otlp") == "otlp"


def _named() -> list[str]:
    names = os.environ.get("OTEL_TRACES_EXPORTER", "").split(",")
    return [name.strip() for name in names if name.strip()]


def _headers() -> dict[str, str] | None:
    """The headers of the environment and the key in ``FAREBOX_API_KEY``; None leaves them to the exporter."""
    key = os.environ.get(API_KEY, "").strip()
    if not key:
        return None
    named = os.environ.get("OTEL_EXPORTER_OTLP_TRACES_HEADERS") or os.environ.get("OTEL_EXPORTER_OTLP_HEADERS", "")
    headers = dict(parse_env_headers(named, liberal=True))
    if "authorization" in {name.lower() for name in headers}:
        return None
    return {**headers, "authorization": f"Bearer {key}"}


def otlp_exporter_type() -> Callable[..., SpanExporter]:
    """The exporter of ``OTEL_EXPORTER_OTLP_(TRACES_)PROTOCOL``: ``grpc``, the default, or ``http/protobuf``.

    To be called while the process is young: what the exporters import cannot be imported once the interpreter is
    about to end, which is when a short process delivers. Making the exporter, later, opens the connection.

    It reads the other ``OTEL_EXPORTER_OTLP_…`` settings itself; without them it sends to localhost, to port
    4317 with gRPC and to 4318 with HTTP. Raises what the exporters raise for settings that they cannot
    read.
    """
    protocol = collector_trouble.protocol()
    if protocol == "http/protobuf":
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter

        return HttpExporter
    if protocol != "grpc":
        report(
            "protocol",
            f"OTEL_EXPORTER_OTLP_PROTOCOL is {protocol!r}, neither grpc nor http/protobuf; using grpc",
        )
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter

    return GrpcExporter


class ExporterLog(logging.Filter):
    """Keeps the last thing that the exporters logged in one thread, instead of letting it through.

    While the collector is away they would log several lines a batch; the delivery reports it once a minute.
    """

    def __init__(self) -> None:
        """Keep nothing until ``attach``."""
        super().__init__()
        self.last = ""
        self._thread_id: int | None = None

    def attach(self) -> None:
        """Begin, for the calling thread."""
        self._thread_id = threading.get_ident()
        for name in _LOGGERS:
            logging.getLogger(name).addFilter(self)

    def detach(self) -> None:
        """Let everything through again."""
        for name in _LOGGERS:
            logging.getLogger(name).removeFilter(self)

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record goes on to the handlers."""
        if record.thread != self._thread_id:
            return True
        message = record.getMessage()
        # The HTTP exporter ends with a line that leaves out the cause that the line before it gave.
        if "due to timeout, max retries" not in message or not self.last:
            self.last = message
        return False
