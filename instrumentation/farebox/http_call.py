"""One call of a model over plain HTTP: from the request to the span that says what it used.

Nothing here knows an HTTP library; ``httpx_hooks`` feeds it. Every method that a hook calls is guarded: a
fault costs the span some of its attributes, and never the application its answer.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any, Final

from opentelemetry import context, trace
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer

from farebox import span_attributes
from farebox.answers import LARGE_BODY_BYTES, answer_in, worth_adding
from farebox.aws_event_stream import AwsEventStream
from farebox.call_metrics import CallMetrics
from farebox.endpoints import Endpoint
from farebox.event_stream import EventStream, Tells
from farebox.guard import fault, guarded, report
from farebox.model_request import ModelRequest

COLLECTED_BYTES_MAX: Final = 4 * 1024 * 1024
"""How much of a streamed body that is not a plain event stream is held back for reading at its end."""

_ADDED: Final = ("farebox.", "anthropic.", "gen_ai.usage.audio.")
"""Beginnings of the attributes that are added to the span of another instrumentation."""

Decode = Callable[[bytes], bytes]


class HttpCall:
    """The span of one call, and what is read of the response so far.

    ``answered`` comes once, then ``body`` or any number of ``chunk``, then ``finish``; ``fail`` may come at
    any time. Only the first end counts.
    """

    def __init__(self, endpoint: Endpoint, request: ModelRequest, span: Span, metrics: CallMetrics | None) -> None:
        """Read along for a span. One that somebody else opened, told by ``metrics`` being None, is not ended here."""
        self.span = span
        self.request = request
        self._endpoint = endpoint
        self._metrics = metrics
        self._answer = answer_in(endpoint.shape)
        pattern = self._answer.telling
        self._tells: Tells | None = None if pattern is None else pattern.search
        self._events: EventStream | AwsEventStream | None = None
        self._collected: list[bytes] = []
        self._collected_bytes = 0
        self._decode: Decode | None = None
        self._status: int | None = None
        self._ended = threading.Lock()
        self._started_s = time.perf_counter()
        self._first_chunk_awaited = False
        self._first_chunk_s: float | None = None
        self._usage_hidden = False
        self._facts: dict[str, Any] = {}

    def current(self) -> AbstractContextManager[object]:
        """Makes the span the current one, so that the spans of the transport become its children."""
        return nullcontext() if self._metrics is None else _Current(self.span)

    def hides_usage(self) -> None:
        """Whoever opened the span will not see the stream's usage, so it is for this call to note."""
        self._usage_hidden = True

    def answered(self, status: int, headers: Iterable[tuple[bytes, bytes]], decode: Decode) -> None:
        """The status and the headers are here.

        Args:
            status: the HTTP status.
            headers: the response's headers, as they came.
            decode: undoes the content encoding of a whole body.
        """
        with guarded("reading the head of a model's answer"):
            self._status = status
            known = {name.lower(): value for name, value in headers}
            self._answer.read_request(self.request.fields)
            self._answer.read_headers(known)
            if known.get(b"content-encoding", b"identity") != b"identity":
                self._decode = decode
            content_type = known.get(b"content-type", b"")
            if content_type.startswith(b"text/event-stream"):
                self._events = EventStream(self._tells)
            elif content_type.startswith(b"application/vnd.amazon.eventstream"):
                self._events = AwsEventStream()
            self._first_chunk_awaited = self._events is not None

    def body(self, content: bytes) -> None:
        """The whole body, its content encoding already undone."""
        with guarded("reading a model's answer"):
            self._decode = None
            self._first_chunk_awaited = False
            if self._metrics is not None or self._events is not None or worth_adding(self._endpoint, content):
                self._collected = [content]
        self.finish()

    def chunk(self, raw: bytes) -> Tells | None:
        """Some bytes of a streamed body, as they came over the wire, before the application gets them.

        Returns what finds in a chunk anything worth reading: the next chunks in which it finds nothing, and which end
        an event, need not come here. None when the next one is to come in any case.
        """
        try:
            if self._first_chunk_awaited:
                self._first_chunk_awaited = False
                self._first_chunk_s = time.perf_counter() - self._started_s
            events = self._events
            if events is not None and self._decode is None:
                for payload in events.feed(raw):
                    self._answer.read(payload)
                    if self._metrics is None:
                        # Whoever opened the span may end it on the very event that this is.
                        self._answer_to_span()
                return self._tells if events.between else None
            if self._collected_bytes <= COLLECTED_BYTES_MAX:
                self._collected.append(raw)
                self._collected_bytes += len(raw)
        except Exception as error:
            fault("reading a model's stream", error)
        return None

    def finish(self) -> None:
        """The body is at its end, or the application reads no further."""
        if not self._ended.acquire(blocking=False):
            return
        with guarded("reading the end of a model's answer"):
            self._read_collected()
        with guarded("noting what a call used"):
            self._answer_to_span()
        self._end_span(None)

    def fail(self, error: BaseException) -> None:
        """The request or the reading of the response raised."""
        if not self._ended.acquire(blocking=False):
            return
        error_type = None
        with guarded("noting the error of a call"):
            # What was read up to the error was used all the same.
            self._answer_to_span()
            kind = type(error)
            module = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
            error_type = f"{module}{kind.__qualname__}"
            if self._metrics is not None:
                self._mark_failed(error_type)
        self._end_span(error_type)

    def _end_span(self, error_type: str | None) -> None:
        if self._metrics is None:
            return
        with guarded("ending the span of a call"):
            self.span.end()
        with guarded("counting a call"):
            seconds = time.perf_counter() - self._started_s
            self._metrics.record(
                self._endpoint,
                self.request.model,
                self._facts,
                seconds,
                self._first_chunk_s,
                error_type or self._error(),
            )

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
        elif content[:1] in (b"{", b"[", b" ", b"\n", b"\r", b"\t"):
            # A body that is no JSON, as a proxy's error page or a sound, has nothing to say about usage.
            with suppress(ValueError):
                self._answer.read(json.loads(content))

    def _answer_to_span(self) -> None:
        attributes: dict[str, Any] = dict(self._answer.attributes())
        self._facts = attributes
        if self._metrics is None:
            present = getattr(self.span, "attributes", None) or {}
            usage = self._usage_hidden and span_attributes.USAGE_INPUT not in present
            added = (*_ADDED, "gen_ai.usage.") if usage else _ADDED
            attributes = {key: value for key, value in attributes.items() if key.startswith(added)}
            if attributes and self.span.is_recording():
                self.span.set_attributes(attributes)
            return
        if self._first_chunk_s is not None:
            attributes[span_attributes.TIME_TO_FIRST_CHUNK] = self._first_chunk_s
        if self._events is not None:
            attributes[span_attributes.REQUEST_STREAM] = True
        if self._status is not None:
            attributes[span_attributes.HTTP_STATUS_CODE] = self._status
        self.span.set_attributes(attributes)
        if (error := self._error()) is not None:
            self._mark_failed(error)

    def _error(self) -> str | None:
        """As the provider names it, else the status."""
        if self._answer.error is None and self._status is not None and self._status >= 400:
            return str(self._status)
        return self._answer.error

    def _mark_failed(self, error_type: str) -> None:
        self.span.set_attribute(span_attributes.ERROR_TYPE, error_type)
        self.span.set_status(Status(StatusCode.ERROR))


class _Current:
    """Makes a span the current one inside a ``with``, and nothing else; what fails is for others to note."""

    __slots__ = ("_span", "_token")

    def __init__(self, span: Span) -> None:
        self._span = span

    def __enter__(self) -> None:
        self._token = context.attach(trace.set_span_in_context(self._span))

    def __exit__(self, *_: object) -> None:
        context.detach(self._token)


def start_call(
    tracer: Tracer, metrics: CallMetrics, endpoint: Endpoint, host: str, port: int | None, request: ModelRequest
) -> HttpCall:
    """Open the span of a call that no other instrumentation meters."""
    model = endpoint.model or request.model
    attributes: dict[str, Any] = {
        span_attributes.OPERATION_NAME: endpoint.operation,
        span_attributes.PROVIDER_NAME: endpoint.provider,
        span_attributes.SERVER_ADDRESS: host,
        **request.attributes(),
    }
    if port is not None:
        attributes[span_attributes.SERVER_PORT] = port
    if model:
        attributes[span_attributes.REQUEST_MODEL] = request.model = model
    if endpoint.region:
        attributes[span_attributes.CLOUD_REGION] = endpoint.region
    name = f"{endpoint.operation} {model}" if model else endpoint.operation
    return HttpCall(endpoint, request, tracer.start_span(name, kind=SpanKind.CLIENT, attributes=attributes), metrics)
