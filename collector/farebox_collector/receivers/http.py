"""OTLP/HTTP: POST /v1/traces, protobuf or JSON, plain or gzip, as an ASGI application."""

import math
import time
import zlib
from collections.abc import Callable, Iterable

from google.protobuf import json_format
from google.protobuf.message import Message
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from farebox_collector.pipeline import RequestTooLarge
from farebox_collector.receivers.intake import Intake, Refused
from farebox_collector.receivers.otlp_json import JsonDecoder
from farebox_collector.receivers.protobuf import ProtobufDecoder
from farebox_collector.receivers.status import (
    RETRY_DELAY_MS,
    Failure,
    MalformedRequest,
    UnsupportedEncoding,
    status_message,
)
from farebox_collector.records import Span

_PROTOBUF = "application/x-protobuf"
_JSON = "application/json"
_TRANSPORT = "http"
_GZIP_WINDOW = 16 + zlib.MAX_WBITS


def application(
    intake: Intake, decode_protobuf: ProtobufDecoder, decode_json: JsonDecoder, max_request_bytes: int
) -> Starlette:
    """The ASGI application of the OTLP/HTTP port."""
    decoders: dict[str, Callable[[bytes], Iterable[Span]]] = {_PROTOBUF: decode_protobuf, _JSON: decode_json}

    async def export(request: Request) -> Response:
        started = time.perf_counter()
        content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        try:
            if content_type not in decoders:
                raise UnsupportedEncoding(f"the content type must be {_PROTOBUF} or {_JSON}")
            body = await _body(request, max_request_bytes)
        except ClientDisconnect:
            return Response(status_code=400)
        except (MalformedRequest, UnsupportedEncoding, RequestTooLarge) as error:
            refusal = intake.refusal(_TRANSPORT, error, time.perf_counter() - started)
            return _failure(refusal.failure, content_type)
        try:
            response = await intake.take(_TRANSPORT, body, decoders[content_type])
        except Refused as refused:
            return _failure(refused.failure, content_type)
        return _answer(response, content_type, 200)

    return Starlette(routes=[Route("/v1/traces", export, methods=["POST"])])


async def _body(request: Request, limit: int) -> bytes:
    """The body, decompressed, read no further than the limit. Raises RequestTooLarge, Malformed…, Unsupported…."""
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("identity", "gzip", ""):
        raise UnsupportedEncoding("the content encoding must be identity or gzip")
    inflate = zlib.decompressobj(_GZIP_WINDOW) if encoding == "gzip" else None
    parts: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        if inflate is not None:
            try:
                # One byte more than allowed is enough to know; a bomb never unfolds.
                chunk = inflate.decompress(chunk, limit - size + 1)
            except zlib.error as error:
                raise MalformedRequest("the body is not gzip") from error
        size += len(chunk)
        if size > limit:
            raise RequestTooLarge(f"the body is over {limit} bytes")
        parts.append(chunk)
    if inflate is not None and not inflate.eof:
        raise MalformedRequest("the body is not whole")
    return b"".join(parts)


def _failure(failure: Failure, content_type: str) -> Response:
    response = _answer(status_message(failure), content_type, failure.http_status)
    if failure.retryable:
        response.headers["Retry-After"] = str(math.ceil(RETRY_DELAY_MS / 1000))
    return response


def _answer(message: Message, content_type: str, status: int) -> Response:
    if content_type == _JSON:
        return Response(json_format.MessageToJson(message, indent=None), status, media_type=_JSON)
    return Response(message.SerializeToString(), status, media_type=_PROTOBUF)
