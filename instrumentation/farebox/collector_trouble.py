"""Explain why the collector does not accept spans, and the remedy."""

from __future__ import annotations

import os
import re
import socket
import threading
from typing import Final
from urllib.parse import urlsplit

from farebox.guard import guarded, report

PROBE_TIMEOUT_S: Final = 2.0
"""Timeout of the startup check's connection to the collector, which runs in its own thread."""

_PORTS: Final = {"grpc": 4317, "http/protobuf": 4318}
_NAMES: Final = {"grpc": "OTLP over gRPC", "http/protobuf": "OTLP over HTTP"}
_GRPC_TO_HTTP: Final = (
    "the endpoint speaks HTTP/1.1 and is sent gRPC. Set OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf, or name the "
    "collector's gRPC port (4317) in OTEL_EXPORTER_OTLP_ENDPOINT"
)
_HTTP_TO_GRPC: Final = (
    "the endpoint speaks gRPC and is sent HTTP. Set OTEL_EXPORTER_OTLP_PROTOCOL=grpc, or name the collector's HTTP "
    "port (4318) in OTEL_EXPORTER_OTLP_ENDPOINT"
)
_CAUSES: Final = (
    (
        re.compile(r"UNAUTHENTICATED|PERMISSION_DENIED|code: 40[13]\b"),
        "the collector refuses the key. Set FAREBOX_API_KEY to a key of this collector that may send spans",
    ),
    (re.compile(r"Failed parsing HTTP/2|http1\.x|HTTP/1\."), _GRPC_TO_HTTP),
    (re.compile(r"BadStatusLine\('\\x00\\x00|BadStatusLine\(\"\\x00\\x00"), _HTTP_TO_GRPC),
    (
        re.compile(r"code: 404\b|UNIMPLEMENTED"),
        "the endpoint is not a collector. Set OTEL_EXPORTER_OTLP_ENDPOINT to its address without a path, "
        "http://localhost:4317 for gRPC and http://localhost:4318 for HTTP",
    ),
    (
        re.compile(r"[Cc]onnection refused|UNAVAILABLE|[Nn]ame or service|resolution|timed out|DEADLINE_EXCEEDED"),
        "no collector answers. Start one with `farebox serve`, or set OTEL_EXPORTER_OTLP_ENDPOINT to its address",
    ),
)


def explained(logged: str) -> str:
    """Return an exporter's log text about a failure, preceded by the remedy if known."""
    for pattern, remedy in _CAUSES:
        if pattern.search(logged):
            return f"{remedy}. ({logged})"
    return logged


def protocol() -> str:
    """Return the environment's protocol: ``grpc`` (the default) or ``http/protobuf``."""
    named = os.environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL", "")
    return named.strip() or "grpc"


def check_at_start() -> None:
    """Report, from a new thread, if nothing listens at the collector's address or if the port is the other one."""
    with guarded("checking the collector's address"):
        host, port = _address()
        named = protocol()
        other = "http/protobuf" if named == "grpc" else "grpc"
        if named in _PORTS and port == _PORTS[other]:
            report("away", f"port {port} is {_NAMES[other]}: {_GRPC_TO_HTTP if named == 'grpc' else _HTTP_TO_GRPC}")
            return
        threading.Thread(target=_probe, args=(host, port), name="farebox-probe", daemon=True).start()


def _address() -> tuple[str, int]:
    named = os.environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") or os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT", "")
    default = _PORTS.get(protocol(), 4317)
    text = named.strip() or f"http://localhost:{default}"
    parts = urlsplit(text if "://" in text else f"http://{text}")
    return parts.hostname or "localhost", parts.port or (443 if parts.scheme == "https" else default)


def _probe(host: str, port: int) -> None:
    with guarded("checking the collector's address"):
        try:
            socket.create_connection((host, port), PROBE_TIMEOUT_S).close()
        except OSError as error:
            report(
                "away",
                f"no collector answers at {host}:{port} yet ({error}). Spans are kept and sent when it does. Start one "
                "with `farebox serve`, or set OTEL_EXPORTER_OTLP_ENDPOINT to its address",
            )
