"""Choose the official OTLP exporter as OpenTelemetry specifies, and capture why an export failed."""

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

# An exporter only returns that it failed. It logs the reason here, at each retry.
_LOGGERS: Final = (
    "opentelemetry.exporter.otlp.proto.grpc.exporter",
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
)


class NoExporter(SpanExporter):
    """Discards all spans: ``OTEL_TRACES_EXPORTER=none``."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Discard the spans."""
        return SpanExportResult.SUCCESS


def exporter_maker() -> Callable[[], SpanExporter]:
    """Return the factory of the exporter in ``OTEL_TRACES_EXPORTER``: ``otlp`` (the default), ``console`` or ``none``.

    Of several, separated by commas, the first known one is used. Call it early in the process, as
    :func:`otlp_exporter_type`.
    """
    for name in _named():
        if name == "none":
            return NoExporter
        if name == "console":
            return ConsoleSpanExporter
        if name == "otlp":
            break
        report("exporter", f"OTEL_TRACES_EXPORTER={name!r} is unknown; set it to otlp, console or none")
    make = otlp_exporter_type()
    headers = _headers()
    return make if headers is None else functools.partial(make, headers=headers)


def sends_otlp() -> bool:
    """Return whether the environment's exporter sends to a collector."""
    return next((name for name in _named() if name in ("none", "console", "otlp")), "otlp") == "otlp"


def _named() -> list[str]:
    names = os.environ.get("OTEL_TRACES_EXPORTER", "").split(",")
    return [name.strip() for name in names if name.strip()]


def _headers() -> dict[str, str] | None:
    """Return the environment's headers with the key in ``FAREBOX_API_KEY``; None leaves them to the exporter."""
    key = os.environ.get(API_KEY, "").strip()
    if not key:
        return None
    named = os.environ.get("OTEL_EXPORTER_OTLP_TRACES_HEADERS") or os.environ.get("OTEL_EXPORTER_OTLP_HEADERS", "")
    headers = dict(parse_env_headers(named, liberal=True))
    if "authorization" in {name.lower() for name in headers}:
        return None
    return {**headers, "authorization": f"Bearer {key}"}


def otlp_exporter_type() -> Callable[..., SpanExporter]:
    """Return the exporter of ``OTEL_EXPORTER_OTLP_(TRACES_)PROTOCOL``: ``grpc`` (the default) or ``http/protobuf``.

    Call it early in the process: the exporters' imports fail during interpreter shutdown, which is when a short process
    delivers. Creating the exporter later opens the connection.

    The exporter reads the other ``OTEL_EXPORTER_OTLP_…`` settings itself; by default it sends to localhost, to port
    4317 with gRPC and 4318 with HTTP. Raises the exporters' errors for invalid settings.
    """
    protocol = collector_trouble.protocol()
    if protocol == "http/protobuf":
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter

        return HttpExporter
    if protocol != "grpc":
        report(
            "protocol",
            f"OTEL_EXPORTER_OTLP_PROTOCOL is {protocol!r}; set it to grpc or http/protobuf. Using grpc",
        )
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter

    return GrpcExporter


class ExporterLog(logging.Filter):
    """Captures the exporters' last log text in one thread instead of passing it to handlers.

    While the collector is away, they would log several lines per batch; the delivery reports once a minute.
    """

    def __init__(self) -> None:
        """Capture nothing until ``attach``."""
        super().__init__()
        self.last = ""
        self._thread_id: int | None = None

    def attach(self) -> None:
        """Start capturing in the calling thread."""
        self._thread_id = threading.get_ident()
        for name in _LOGGERS:
            logging.getLogger(name).addFilter(self)

    def detach(self) -> None:
        """Stop capturing."""
        for name in _LOGGERS:
            logging.getLogger(name).removeFilter(self)

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the record goes to the handlers."""
        if record.thread != self._thread_id:
            return True
        message = record.getMessage()
        # The HTTP exporter's last line omits the cause that the line before it states.
        if "due to timeout, max retries" not in message or not self.last:
            self.last = message
        return False
