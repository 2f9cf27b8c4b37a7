"""Replay recorded requests and answers and print their spans: the SDK's side of ``farebox check-recordings``.

``python -m farebox.replay_recordings [--model-url URL[=PROVIDER]]…`` reads a line of JSON per exchange::

    {"entry": 7, "method": "POST", "url": "https://…", "content_type": "application/json", "request": "<base64>",
     "status": 200, "headers": [["content-type", "application/json"]], "body": "<base64>", "began_ns": null,
     "took_ns": null}

and answers each with a line ``{"entry": 7, "otlp": {"resourceSpans": […]} | null, "said": ["…"]}``: the spans that
the SDK would send, as OTLP/JSON, and its log lines. An empty line ends a file and is answered with the held calls.
Only these lines leave the process, and they contain no bodies.
"""

from __future__ import annotations

import argparse
import base64
import importlib
import json
import logging
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, Final, TextIO

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from farebox import guard, lifecycle, scopes
from farebox.endpoints import named_urls
from farebox.unknown_hosts import UnknownHosts

WALLET: Final = "recordings"
EVENT: Final = "recorded"
CHUNK_BYTES: Final = 16 * 1024
_FLUSH_S: Final = 30.0
_DECODERS: Final = {"br": ("brotlicffi", "brotli"), "zstd": ("compression.zstd", "backports.zstd", "zstandard")}
"""Encodings that httpx decodes only with another package, and these packages."""
_STREAMS: Final = ("text/event-stream", "application/stream+json", "application/x-ndjson", "application/vnd.amazon")


@dataclass
class _Answer:
    """The answer to the next request."""

    status: int = 200
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytes = b""


def _transport(library: Any, answer: _Answer) -> Any:
    """Return a transport of httpx or httpx2 that returns the recorded answer."""

    def chunks(_stream: object) -> Iterator[bytes]:
        body = answer.body
        for start in range(0, len(body), CHUNK_BYTES):
            yield body[start : start + CHUNK_BYTES]

    stream_type = type("RecordedStream", (library.SyncByteStream,), {"__iter__": chunks})

    def handle_request(_transport: object, _request: object) -> Any:
        return library.Response(answer.status, headers=answer.headers, stream=stream_type())

    return type("Recorded", (library.BaseTransport,), {"handle_request": handle_request})()


class _LogLines(logging.Handler):
    """Collects the SDK's log lines."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage().removeprefix("farebox: "))


class Replay:
    """Replays recordings in order in one process: later ones may belong to earlier ones."""

    def __init__(self, library: Any, model_urls: dict[str, str | None]) -> None:
        """Turn on metering into memory. ``library`` is httpx or httpx2."""
        self._exporter = InMemorySpanExporter()
        self._log = _LogLines()
        logger = logging.getLogger("farebox")
        logger.addHandler(self._log)
        logger.propagate = False
        provider = TracerProvider(resource=Resource({}), shutdown_on_exit=False)
        urls: Any = model_urls
        lifecycle.instrument(tracer_provider=provider, exporter=self._exporter, model_urls=urls, http_spans=False)
        self._unknown: dict[str, str] = {}
        self._answer = _Answer()
        self._client: Any = library.Client(transport=_transport(library, self._answer), trust_env=False)

    def exchange(self, recorded: dict[str, Any]) -> dict[str, Any]:
        """Replay an exchange and return the line to print."""
        self._log.lines.clear()
        guard.forget()
        try:
            self._send(recorded)
        except Exception as error:
            # An undecodable answer or an invalid URL is the recording's fault; report it in a line.
            self._log.lines.append(f"the recording cannot be replayed: {type(error).__name__}: {error}"[:500])
        otlp = self._spans(recorded)
        self._report_again(recorded, otlp)
        return {"entry": recorded.get("entry"), "otlp": otlp, "said": list(self._log.lines)}

    def rest(self) -> dict[str, Any]:
        """Return held calls, such as those whose answers would be fetched later."""
        self._log.lines.clear()
        if (processor := lifecycle.metering()) is not None:
            processor.release()
        return {"entry": None, "otlp": self._spans({}), "said": list(self._log.lines)}

    def _report_again(self, recorded: dict[str, Any], otlp: dict[str, Any] | None) -> None:
        """Report an unknown address for each call; the SDK reports it once per process."""
        origin = self._origin(recorded.get("url", ""))
        if otlp is None and self._log.lines:
            self._unknown.setdefault(origin, self._log.lines[0])
        elif otlp is None and origin in self._unknown and recorded.get("method") == "POST":
            url = self._client.build_request("POST", recorded["url"]).url
            if UnknownHosts().looks_like_a_call(url, base64.b64decode(recorded["request"])):
                self._log.lines.append(self._unknown[origin])

    def _origin(self, url: str) -> str:
        """Return scheme, host and port of an address as the SDK logs them: without the scheme's default port."""
        try:
            parsed = self._client.build_request("GET", url).url
            return f"{parsed.scheme}://{parsed.host}:{parsed.port}"
        except Exception:
            return url

    def _send(self, recorded: dict[str, Any]) -> None:
        answer = self._answer
        answer.body = base64.b64decode(recorded["body"])
        answer.status = recorded["status"]
        raw = [
            (name.encode("latin-1", "replace"), value.encode("latin-1", "replace"))
            for name, value in recorded["headers"]
        ]
        answer.headers = list(_readable(raw, answer.body))
        if encoding := _encoding(answer.headers):
            self._check_decoder(encoding)
        headers = {"content-type": recorded["content_type"]} if recorded.get("content_type") else {}
        request = self._client.build_request(
            recorded["method"], recorded["url"], headers=headers, content=base64.b64decode(recorded["request"])
        )
        content_type = dict(answer.headers).get(b"content-type", b"").decode("latin-1")
        streams = content_type.startswith(_STREAMS)
        with scopes.action(EVENT, wallet=WALLET):
            response = self._client.send(request, stream=streams)
            if streams:
                for _ in response.iter_raw():
                    pass
            response.close()

    def _check_decoder(self, encoding: str) -> None:
        needed = {"br": ("brotli", "brotlicffi"), "zstd": ("compression.zstd", "zstandard", "backports.zstd")}.get(
            encoding
        )
        if needed and not any(_is_there(name) for name in needed):
            self._log.lines.append(f"the body is compressed with {encoding}; install {needed[-1]} to read it")

    def _spans(self, recorded: dict[str, Any]) -> dict[str, Any] | None:
        lifecycle.flush(_FLUSH_S)
        spans = self._exporter.get_finished_spans()
        self._exporter.clear()
        return otlp_json(spans, recorded.get("began_ns"), recorded.get("took_ns")) if spans else None


def otlp_json(spans: tuple[ReadableSpan, ...], began_ns: int | None, took_ns: int | None) -> dict[str, Any]:
    """Return the spans as OTLP/JSON, shifted to the time of recording if known."""
    from google.protobuf.json_format import MessageToDict
    from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans

    message: dict[str, Any] = MessageToDict(encode_spans(spans), use_integers_for_enums=True)
    for of_resource in message["resourceSpans"]:
        for of_scope in of_resource["scopeSpans"]:
            for span in of_scope["spans"]:
                for key in ("traceId", "spanId", "parentSpanId"):
                    if key in span:
                        span[key] = base64.b64decode(span[key]).hex()
                if began_ns is not None:
                    took = took_ns if took_ns is not None else 0
                    span["startTimeUnixNano"], span["endTimeUnixNano"] = str(began_ns), str(began_ns + took)
    return message


def _readable(headers: list[tuple[bytes, bytes]], body: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the headers that match the body: recorders store decoded bodies with the original headers."""
    compressed = body[:2] == b"\x1f\x8b" or body[:1] == b"\x78"
    text = body.lstrip()[:1] in (b"", b"{", b"[", b"d", b"e", b"i", b":", b'"')
    for name, value in headers:
        lower = name.lower()
        if lower in (b"transfer-encoding", b"content-length"):
            continue
        if lower == b"content-encoding" and ((value in (b"gzip", b"deflate") and not compressed) or text):
            continue
        yield lower, value


def _bytes(text: str) -> bytes:
    return text.encode("latin-1", "replace")


def _encoding(headers: list[tuple[bytes, bytes]]) -> str:
    return dict(headers).get(b"content-encoding", b"").decode("latin-1").strip().lower()


def _is_there(module: str) -> bool:
    try:
        importlib.import_module(module)
    except ImportError:
        return False
    return True


def http_library() -> ModuleType | None:
    """Return httpx or httpx2, whichever is installed."""
    for name in ("httpx2", "httpx"):
        if _is_there(name):
            return importlib.import_module(name)
    return None


def main(arguments: list[str], lines: TextIO, out: TextIO) -> int:
    """Replay the lines. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m farebox.replay_recordings")
    parser.add_argument("--model-url", action="append", default=[], help="a base URL of a model API, or url=provider")
    named = parser.parse_args(arguments).model_url
    library = http_library()
    if library is None:
        out.write(json.dumps({"missing": "httpx"}) + "\n")
        return 3
    out.write(json.dumps({"ready": True, "library": library.__name__}) + "\n")
    out.flush()
    replay = Replay(library, named_urls((), ",".join(named)))
    for line in lines:
        answer = replay.exchange(json.loads(line)) if line.strip() else replay.rest()
        out.write(json.dumps(answer) + "\n")
        out.flush()
    return 0


if __name__ == "__main__":
    # The user's own metering settings do not apply here, and no content is captured.
    for variable in [name for name in os.environ if name.startswith(("OTEL_", "FAREBOX_"))]:
        del os.environ[variable]
    sys.exit(main(sys.argv[1:], sys.stdin, sys.stdout))
