"""Records what goes over the wire, as HAR files and cassettes are written."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
import yaml


@dataclass
class Recorder:
    """The exchanges so far, as plain facts."""

    host: str = ""
    exchanges: list[dict[str, Any]] = field(default_factory=list)

    def client(self) -> httpx2.Client:
        return httpx2.Client(transport=_Transport(self))

    def note(self, request: httpx2.Request, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.exchanges.append(
            {
                "method": request.method,
                "url": self.host + request.url.raw_path.decode(),
                "request_headers": [(name, value) for name, value in request.headers.items()],
                "request": request.content,
                "status": status,
                "headers": headers,
                "body": body,
            }
        )


class _Transport(httpx2.HTTPTransport):
    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self._recorder = recorder

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        request.read()
        response = super().handle_request(request)
        response.stream = _Tee(response.stream, self._recorder, request, response)
        return response


class _Tee(httpx2.SyncByteStream):
    def __init__(self, stream: Any, recorder: Recorder, request: httpx2.Request, response: httpx2.Response) -> None:
        self._stream, self._recorder = stream, recorder
        self._request, self._status = request, response.status_code
        self._headers = [(name, value) for name, value in response.headers.items()]
        self._body = b""

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._stream:
            self._body += chunk
            yield chunk

    def close(self) -> None:
        self._stream.close()
        self._recorder.note(self._request, self._status, self._headers, self._body)


def har(exchanges: list[dict[str, Any]], *, in_base64: bool = False) -> str:
    """A HAR file, as a browser or a proxy writes it."""
    entries = []
    for exchange in exchanges:
        body = exchange["body"]
        content: dict[str, Any] = {"size": len(body), "mimeType": dict(exchange["headers"]).get("content-type", "")}
        try:
            content["text"] = body.decode()
            binary = in_base64
        except UnicodeDecodeError:
            binary = True
        if binary:
            content |= {"text": base64.b64encode(body).decode(), "encoding": "base64"}
        entries.append(
            {
                "startedDateTime": datetime(2026, 11, 2, 10, tzinfo=UTC).isoformat(),
                "time": 812.5,
                "request": {
                    "method": exchange["method"],
                    "url": exchange["url"],
                    "headers": _named(exchange["request_headers"]),
                    "postData": {"mimeType": "application/json", "text": exchange["request"].decode()},
                },
                "response": {"status": exchange["status"], "headers": _named(exchange["headers"]), "content": content},
            }
        )
    return json.dumps({"log": {"version": "1.2", "creator": {"name": "test", "version": "1"}, "entries": entries}})


def cassette(exchanges: list[dict[str, Any]]) -> dict[str, Any]:
    """A cassette, as VCR.py writes it."""
    interactions = []
    for exchange in exchanges:
        try:
            body: Any = exchange["body"].decode()
        except UnicodeDecodeError:
            body = exchange["body"]
        interactions.append(
            {
                "request": {
                    "body": exchange["request"].decode(),
                    "headers": {name: [value] for name, value in exchange["request_headers"]},
                    "method": exchange["method"],
                    "uri": exchange["url"],
                },
                "response": {
                    "body": {"string": body},
                    "headers": {name: [value] for name, value in exchange["headers"]},
                    "status": {"code": exchange["status"], "message": "OK"},
                },
            }
        )
    return {"interactions": interactions, "version": 1}


def write_all(exchanges: list[dict[str, Any]], folder: Path) -> list[Path]:
    """The same conversations in each format."""
    texts = [{**exchange, "body": exchange["body"]} for exchange in exchanges]
    plain = [exchange for exchange in texts if _is_text(exchange["body"])]
    files = {
        "browser.har": har(texts),
        "proxy.har": har(texts, in_base64=True),
        "cassette.yaml": yaml.safe_dump(cassette(texts)),
        "cassette.json": json.dumps(cassette(plain)),
    }
    paths = []
    for name, text in files.items():
        path = folder / name
        path.write_text(text, encoding="utf-8")
        paths.append(path)
    return paths


def _named(headers: list[tuple[str, str]]) -> list[dict[str, str]]:
    return [{"name": name, "value": value} for name, value in headers]


def _is_text(body: bytes) -> bool:
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True
