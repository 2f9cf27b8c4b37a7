"""OTLP/HTTP: POST /v1/traces, /v1/logs and /v1/metrics, protobuf or JSON, plain or gzip, as an ASGI application."""

import asyncio
import math
import zlib
from collections.abc import Iterator
from http import HTTPStatus

from google.protobuf import json_format
from google.protobuf.message import Message
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from farebox_collector.admission.connections import note_key
from farebox_collector.admission.in_flight import Hold
from farebox_collector.intake.decoding.errors import MalformedRequest, RequestTooLarge
from farebox_collector.model.credentials import Caller, token_in
from farebox_collector.receivers.intake import Intake, Refused
from farebox_collector.receivers.signals import JSON, PROTOBUF, SIGNALS, Signal
from farebox_collector.receivers.status import (
    Failure,
    TooSlow,
    UnsupportedEncoding,
    status_message,
)

_TRANSPORT = "http"
_INFLATED_AT_ONCE = 256 * 2**10
"""Bytes decompressed before other requests get a turn: one or two milliseconds."""
_GZIP_WINDOW = 16 + zlib.MAX_WBITS


def application(
    intake: Intake,
    max_request_bytes: int,
    request_seconds: float,
) -> Starlette:
    """The ASGI application of the OTLP/HTTP port. A request that arrives slower than `request_seconds` is cut off."""

    async def export(signal: Signal, request: Request) -> Response:
        content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()

        async def arriving(caller: Caller, hold: Hold) -> bytes:
            note_key(request.scope, caller)
            if content_type not in signal.encodings:
                raise UnsupportedEncoding(f"the Content-Type must be {PROTOBUF} or {JSON}")
            try:
                async with asyncio.timeout(request_seconds):
                    return await _body(request, max_request_bytes, hold)
            except TimeoutError:
                raise TooSlow(f"the request did not arrive within {request_seconds:g} s") from None

        try:
            token = token_in(request.headers.get("authorization"), request.headers.get("x-api-key"))
            address = request.client.host if request.client else ""
            encoding = signal.encodings.get(content_type, signal.encodings[PROTOBUF])
            response = await intake.take(_TRANSPORT, signal, token, arriving, encoding, address)
        except ClientDisconnect:
            return Response(status_code=400)
        except Refused as refused:
            return _failure(refused.failure, content_type)
        return _answer(response, content_type, 200)

    def route(signal: Signal) -> Route:
        async def endpoint(request: Request) -> Response:
            return await export(signal, request)

        return Route(signal.path, endpoint, methods=["POST"])

    return Starlette(routes=[route(signal) for signal in SIGNALS])


async def _body(request: Request, limit: int, hold: Hold) -> bytes:
    """Read and decompress the body. Reading stops when either form exceeds the limit.

    Raises RequestTooLarge, MalformedRequest, UnsupportedEncoding, Overloaded.
    """
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("identity", "gzip", ""):
        raise UnsupportedEncoding("the Content-Encoding must be identity or gzip")
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > limit:
        raise RequestTooLarge(f"the body is over {limit} bytes; send smaller batches")
    inflate = _Inflate() if encoding == "gzip" else None
    parts: list[bytes] = []
    compressed = size = 0
    async for chunk in request.stream():
        compressed += len(chunk)
        for part in inflate.parts(chunk, _INFLATED_AT_ONCE) if inflate else (chunk,):
            size += len(part)
            # A decompression bomb stops here: parts over the limit are not kept.
            if max(compressed, size) > limit:
                raise RequestTooLarge(f"the body is over {limit} bytes; send smaller batches")
            hold.grow(len(part))
            parts.append(part)
            if inflate:
                await asyncio.sleep(0)
    if inflate is not None and not inflate.is_complete:
        raise MalformedRequest("the gzip body is incomplete")
    return b"".join(parts)


class _Inflate:
    """Decompress gzip piece by piece, also several members in a row (RFC 1952)."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(_GZIP_WINDOW)

    @property
    def is_complete(self) -> bool:
        """Whether the last member is complete."""
        return self._member.eof

    def parts(self, chunk: bytes, most: int) -> Iterator[bytes]:
        """Decompress a piece into parts of at most `most` bytes. Raises MalformedRequest."""
        while chunk:
            if self._member.eof:
                self._member = zlib.decompressobj(_GZIP_WINDOW)
            try:
                yield self._member.decompress(chunk, most)
            except zlib.error as error:
                raise MalformedRequest("the body is not gzip") from error
            chunk = self._member.unconsumed_tail or self._member.unused_data


def _failure(failure: Failure, content_type: str) -> Response:
    response = _answer(status_message(failure), content_type, failure.http_status)
    if failure.http_status == HTTPStatus.UNAUTHORIZED:
        response.headers["WWW-Authenticate"] = "Bearer"
    if failure.retryable:
        response.headers["Retry-After"] = str(math.ceil(failure.delay_ms / 1000))
    return response


def _answer(message: Message, content_type: str, status: int) -> Response:
    if content_type == JSON:
        return Response(json_format.MessageToJson(message, indent=None), status, media_type=JSON)
    return Response(message.SerializeToString(), status, media_type=PROTOBUF)
