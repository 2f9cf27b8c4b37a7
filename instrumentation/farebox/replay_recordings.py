"""Reads recorded requests and answers as if they happened now, and prints the spans: the SDK's side of
``farebox check-recordings``.

``python -m farebox.replay_recordings [--model-url URL[=PROVIDER]]…`` reads a line of JSON for each exchange::

    {"entry": 7, "method": "POST", "url": "https://…", "content_type": "application/json", "request": "<base64>",
     "status": 200, "headers": [["content-type", "application/json"]], "body": "<base64>", "began_ns": null,
     "took_ns": null}

and answers each with a line ``{"entry": 7, "otlp": {"resourceSpans": […]} | null, "said": ["…"]}``: the spans that
the SDK would send, as OTLP/JSON, and what it logged. An empty line, which ends a file, is answered with what was kept
back. Nothing leaves the process but these lines, and they hold no bodies.
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
"""Encodings that httpx reads only with another package, and these."""
_STREAMS: Final = ("text/event-stream", "application/stream+json", "application/x-ndjson", "application/vnd.amazon")


@dataclass
class _Answer:
    """What is answered to the next request."""

    status: int = 200
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytes = b""


def _transport(library: Any, answer: _Answer) -> Any:
    """A transport of httpx or httpx2 that answers with what was recorded."""

    def chunks(_stream: object) -> Iterator[bytes]:
        body = answer.body
        for start in range(0, len(body), CHUNK_BYTES):
            yield body[start : start + CHUNK_BYTES]

    stream_type = type("RecordedStream", (library.SyncByteStream,), {"__iter__": chunks})

    def handle_request(_transport: object, _request: object) -> Any:
        return library.Response(answer.status, headers=answer.headers, stream=stream_type())

    return type("Recorded", (library.BaseTransport,), {"handle_request": handle_request})()


class _Said(logging.Handler):
    """Keeps what the SDK logs."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage().removeprefix("farebox: "))


class Replay:
    """One process's worth of recordings, in their order: what comes later may belong to what came before."""

    def __init__(self, library: Any, model_urls: dict[str, str | None]) -> None:
        """Turn the metering on, into memory. ``library`` is httpx or httpx2."""
        self._exporter = InMemorySpanExporter()
        self._said = _Said()
        logger = logging.getLogger("farebox")
        logger.addHandler(self._said)
        logger.propagate = False
        provider = TracerProvider(resource=Resource({}), shutdown_on_exit=False)
        urls: Any = model_urls
        lifecycle.instrument(tracer_provider=provider, exporter=self._exporter, model_urls=urls, http_spans=False)
        self._unknown: dict[str, str] = {}
        self._answer = _Answer()
        self._client: Any = library.Client(transport=_transport(library, self._answer), trust_env=False)

    def exchange(self, recorded: dict[str, Any]) -> dict[str, Any]:
        """Replay one; returns the line to print."""
        self._said.lines.clear()
        guard.forget()
        try:
            self._send(recorded)
        except Exception as error:
            # An answer that cannot be decoded, a URL that is none: the recording's own, and worth a line.
            self._said.lines.append(f"the recording cannot be replayed: {type(error).__name__}: {error}"[:500])
        otlp = self._spans(recorded)
        self._tell_again(recorded, otlp)
        return {"entry": recorded.get("entry"), "otlp": otlp, "said": list(self._said.lines)}

    def rest(self) -> dict[str, Any]:
        """What is kept back, such as calls whose answers were to be fetched later."""
        self._said.lines.clear()
        if (processor := lifecycle.metering()) is not None:
            processor.release()
        return {"entry": None, "otlp": self._spans({}), "said": list(self._said.lines)}

    def _tell_again(self, recorded: dict[str, Any], otlp: dict[str, Any] | None) -> None:
        """Of an address that is not known the SDK tells once in a process; here it is told of each call to it."""
        origin = self._origin(recorded.get("url", ""))
        if otlp is None and self._said.lines:
            self._unknown.setdefault(origin, self._said.lines[0])
        elif otlp is None and origin in self._unknown and recorded.get("method") == "POST":
            url = self._client.build_request("POST", recorded["url"]).url
            if UnknownHosts().looks_like_a_call(url, base64.b64decode(recorded["request"])):
                self._said.lines.append(self._unknown[origin])

    def _origin(self, url: str) -> str:
        """Scheme, host and port of an address as the SDK tells them: without the port that the scheme has anyway."""
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
            self._said.lines.append(f"the body is compressed with {encoding}; install {needed[-1]} to read it")

    def _spans(self, recorded: dict[str, Any]) -> dict[str, Any] | None:
        lifecycle.flush(_FLUSH_S)
        spans = self._exporter.get_finished_spans()
        self._exporter.clear()
        return otlp_json(spans, recorded.get("began_ns"), recorded.get("took_ns")) if spans else None


def otlp_json(spans: tuple[ReadableSpan, ...], began_ns: int | None, took_ns: int | None) -> dict[str, Any]:
    """The spans as OTLP/JSON, moved to when they were recorded, where that is known."""
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
    """The headers that fit the body: recorders write bodies down decoded, and leave what the server said."""
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
    """Whichever of the two is installed."""
    for name in ("httpx2", "httpx"):
        if _is_there(name):
            return importlib.import_module(name)
    return None


def main(arguments: list[str], lines: TextIO, out: TextIO) -> int:
    """Replay the lines. Returns the status of the process."""
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
    # Settings of the user's own metering have no say here, and no content is captured.
    for variable in [name for name in os.environ if name.startswith(("OTEL_", "FAREBOX_"))]:
        del os.environ[variable]
    sys.exit(main(sys.argv[1:], sys.stdin, sys.stdout))
