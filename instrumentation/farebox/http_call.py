"""One call of a model over plain HTTP: from the request to the span that says what it used.

Nothing here knows an HTTP library; ``httpx_hooks`` feeds it. Every method that a hook calls is guarded: a
fault costs the span some of its attributes, and never the application its answer.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, suppress
from typing import Final

from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer

from farebox import span_attributes
from farebox.endpoints import Endpoint
from farebox.event_stream import EventStream
from farebox.guard import guarded, report
from farebox.provider_answers import LARGE_BODY_BYTES, answer_in

COLLECTED_BYTES_MAX: Final = 4 * 1024 * 1024
"""How much of a streamed body that is not a plain event stream is held back for reading at its end."""

_REQUEST_PARSED_BYTES_MAX: Final = 64 * 1024
_MODEL: Final = re.compile(rb'"model"\s*:\s*"([^"\\]{1,256})"')
_STREAM: Final = re.compile(rb'"stream"\s*:\s*true')

Decode = Callable[[bytes], bytes]


class HttpCall:
    """The span of one call, and what is read of the response so far.

    ``answered`` comes once, then ``body`` or any number of ``chunk``, then ``finish``; ``fail`` may come at
    any time. Only the first end counts.
    """

    def __init__(self, tracer: Tracer, endpoint: Endpoint, host: str, port: int | None, request_body: bytes) -> None:
        """Start the span. An empty ``request_body`` is one that cannot be known."""
        self._answer = answer_in(endpoint.shape)
        self._events: EventStream | None = None
        self._collected: list[bytes] = []
        self._collected_bytes = 0
        self._decode: Decode | None = None
        self._ended = threading.Lock()
        self._first_chunk_awaited = False
        model, streams = _read_request(request_body)
        attributes: dict[str, str | int | bool] = {
            span_attributes.OPERATION_NAME: endpoint.operation,
            span_attributes.PROVIDER_NAME: endpoint.provider,
            span_attributes.SERVER_ADDRESS: host,
        }
        if port is not None:
            attributes[span_attributes.SERVER_PORT] = port
        if model := endpoint.model or model:
            attributes[span_attributes.REQUEST_MODEL] = model
        if streams:
            attributes[span_attributes.REQUEST_STREAM] = True
        name = f"{endpoint.operation} {model}" if model else endpoint.operation
        self._started_s = time.perf_counter()
        self.span: Span = tracer.start_span(name, kind=SpanKind.CLIENT, attributes=attributes)

    def current(self) -> AbstractContextManager[Span]:
        """Makes the span the current one, so that the spans of the transport become its children."""
        return trace.use_span(self.span, end_on_exit=False, record_exception=False, set_status_on_exception=False)

    def answered(self, status: int, headers: Mapping[str, str], decode: Decode) -> None:
        """The status and the headers are here.

        Args:
            status: the HTTP status.
            headers: the response's headers, by their names in any case.
            decode: undoes the content encoding of a whole body.
        """
        with guarded("reading the head of a model's answer"):
            self.span.set_attribute(span_attributes.HTTP_STATUS_CODE, status)
            if status >= 400:
                self._mark_failed(str(status))
            if headers.get("content-encoding", "identity") != "identity":
                self._decode = decode
            if headers.get("content-type", "").startswith("text/event-stream"):
                self._events = EventStream()
                self._first_chunk_awaited = True
                self.span.set_attribute(span_attributes.REQUEST_STREAM, True)

    def body(self, content: bytes) -> None:
        """The whole body, its content encoding already undone."""
        with guarded("reading a model's answer"):
            self._decode = None
            self._first_chunk_awaited = False
            self._collected = [content]
        self.finish()

    def chunk(self, raw: bytes) -> None:
        """Some bytes of a streamed body, as they came over the wire, before the application gets them."""
        with guarded("reading a model's stream"):
            if self._first_chunk_awaited:
                self._first_chunk_awaited = False
                self.span.set_attribute(span_attributes.TIME_TO_FIRST_CHUNK, time.perf_counter() - self._started_s)
            if self._events is not None and self._decode is None:
                for payload in self._events.feed(raw):
                    self._answer.read(payload)
            elif self._collected_bytes <= COLLECTED_BYTES_MAX:
                self._collected.append(raw)
                self._collected_bytes += len(raw)

    def finish(self) -> None:
        """The body is at its end, or the application reads no further."""
        if not self._ended.acquire(blocking=False):
            return
        with guarded("reading the end of a model's answer"):
            self._read_collected()
        with guarded("noting what a call used"):
            self._answer_to_span()
        self._end_span()

    def fail(self, error: BaseException) -> None:
        """The request or the reading of the response raised."""
        if not self._ended.acquire(blocking=False):
            return
        with guarded("noting the error of a call"):
            # What was read up to the error was used all the same.
            self._answer_to_span()
            kind = type(error)
            module = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
            self._mark_failed(f"{module}{kind.__qualname__}")
        self._end_span()

    def _end_span(self) -> None:
        with guarded("ending the span of a call"):
            self.span.end()

    def _read_collected(self) -> None:
        if self._collected_bytes > COLLECTED_BYTES_MAX:
            report("large", f"a streamed answer of more than {COLLECTED_BYTES_MAX} bytes is not read for usage")
            return
        content = b"".join(self._collected)
        self._collected = []
        if self._decode is not None:
            content = self._decode(content)
        if self._events is not None:
            for payload in (*self._events.feed(content), *self._events.end()):
                self._answer.read(payload)
        elif len(content) > LARGE_BODY_BYTES:
            self._answer.read_large_body(content)
        else:
            # A body that is no JSON, as a proxy's error page, has nothing to say about usage.
            with suppress(ValueError):
                self._answer.read(json.loads(content))

    def _answer_to_span(self) -> None:
        self.span.set_attributes(self._answer.attributes())
        if self._answer.error is not None:
            self._mark_failed(self._answer.error)

    def _mark_failed(self, error_type: str) -> None:
        self.span.set_attribute(span_attributes.ERROR_TYPE, error_type)
        self.span.set_status(Status(StatusCode.ERROR))


def _read_request(body: bytes) -> tuple[str | None, bool]:
    """The model and whether a stream is asked for, as far as the request says so."""
    if len(body) > _REQUEST_PARSED_BYTES_MAX:
        # A picture may make the body megabytes; inside a JSON string a quote is escaped, so these are keys.
        found = _MODEL.search(body)
        return found.group(1).decode() if found else None, _STREAM.search(body) is not None
    try:
        request: object = json.loads(body)
    except ValueError:
        return None, False
    if not isinstance(request, dict):
        return None, False
    model = request.get("model")
    return model if isinstance(model, str) and model else None, request.get("stream") is True
