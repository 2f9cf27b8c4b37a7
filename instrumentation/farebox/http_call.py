"""A model call over plain HTTP, from the request to the span with its usage.

This module is independent of HTTP libraries; ``httpx_hooks`` calls it. Every method called by a hook is guarded: a
fault may cost the span attributes, but never the application its answer.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final

from opentelemetry import context, trace
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer

from farebox import span_attributes
from farebox.answers import total_in
from farebox.call_metrics import CallMetrics
from farebox.endpoints import DEFAULT_PROVIDERS, Endpoint, Shape, Url
from farebox.event_stream import FindFacts
from farebox.exposures import CLIENT_CLOSED, Arrived, ended, estimate, reason_of
from farebox.guard import fault, guarded, report
from farebox.later_answers import is_first
from farebox.model_paths import FETCH
from farebox.model_request import ModelRequest
from farebox.reading import Decode, Reading
from farebox.span_notes import note

_ADDED: Final = ("farebox.", "anthropic.", "gen_ai.usage.audio.", span_attributes.USAGE_TOTAL)
"""Prefixes of the attributes that are added to another instrumentation's span."""
_PORTS: Final = {"http": 80, "https": 443}
_CALLED_LATER: Final = "resp_", "run_"
"""Prefixes of the ids of answers that may be requested again."""


class HttpCall:
    """The span of a call, and the response as far as read.

    ``answered`` is called once, then ``body`` or any number of ``chunk``, then ``finish``; ``fail`` may be called at
    any time. Only the first end counts.
    """

    def __init__(self, endpoint: Endpoint, request: ModelRequest, span: Span, metrics: CallMetrics | None) -> None:
        """Read for a span. If ``metrics`` is None, another instrumentation opened the span and ends it."""
        self.span = span
        self.request = request
        self._endpoint = endpoint
        self._metrics = metrics
        self._reading = Reading(endpoint, request)
        self._reading.beside = metrics is None
        self._status: int | None = None
        self._ended = threading.Lock()
        self._started_s = time.perf_counter()
        self._first_chunk_awaited = False
        self._first_chunk_s: float | None = None
        self._usage_hidden = False
        self._facts: dict[str, Any] = {}
        self.sent: Any = None
        """The HTTP library's request, read again if the call's end is not observed."""
        self.expose_around: Callable[[Mapping[str, Any]], None] = _expose_nothing
        """Records an exposure for a span that is not ended here."""

    def current(self) -> AbstractContextManager[object]:
        """Make the span the current one, so that the transport's spans become its children."""
        return nullcontext() if self._metrics is None else _Current(self.span)

    def hides_usage(self) -> None:
        """Note that the span's owner will not see the stream's usage, so this call must record it."""
        self._usage_hidden = True

    def answered(self, status: int, headers: Iterable[tuple[bytes, bytes]], decode: Decode) -> None:
        """Read the status and headers.

        Args:
            status: the HTTP status.
            headers: the response's headers, as received.
            decode: decodes the content encoding of a whole body.
        """
        with guarded("reading the head of a model's answer"):
            self._status = status
            self._reading.head({name.lower(): value for name, value in headers}, decode)
            self._first_chunk_awaited = self._reading.events is not None

    def body(self, content: bytes) -> None:
        """Read the whole decoded body."""
        with guarded("reading a model's answer"):
            self._first_chunk_awaited = False
            self._reading.whole(content)
        self.finish()

    def chunk(self, raw: bytes) -> FindFacts | None:
        """Read bytes of a streamed body, as received, before the application gets them.

        Returns a search for chunks worth reading: following chunks that end an event and in which it finds nothing may
        be skipped. None if the next chunk must be read.
        """
        try:
            if self._first_chunk_awaited:
                self._first_chunk_awaited = False
                self._first_chunk_s = time.perf_counter() - self._started_s
            reading = self._reading
            if reading.chunk(raw) and self._metrics is None:
                # This event may make the instrumentation end its span.
                self._answer_to_span()
            return reading.skippable
        except Exception as error:
            fault("reading a model's stream", error)
        return None

    def finish(self) -> None:
        """Note the end of the body."""
        if not self._ended.acquire(blocking=False):
            return
        with guarded("reading the end of a model's answer"):
            self._reading.end()
        with guarded("noting what a call used"):
            self._answer_to_span()
        self._end_span(None)

    def leave(self, arrived: Arrived) -> None:
        """Note that the application stops reading, after this part ``arrived``."""
        if not self._ended.acquire(blocking=False):
            return
        with guarded("reading the end of a model's answer"):
            self._reading.end()
        with guarded("noting what a call used"):
            self._answer_to_span()
            if not arrived.at_end():
                self._expose(CLIENT_CLOSED, arrived)
        self._end_span(None)

    def fail(self, error: BaseException, arrived: Arrived | None = None) -> None:
        """Note that the request or the reading of the response raised, after this part of a stream ``arrived``."""
        if not self._ended.acquire(blocking=False):
            return
        error_type = None
        with guarded("reading what came of a model's answer"):
            self._reading.end()
        with guarded("noting the error of a call"):
            # Usage read before the error still counts.
            self._answer_to_span()
            kind = type(error)
            module = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
            error_type = f"{module}{kind.__qualname__}"
            if self._metrics is not None:
                self._mark_failed(error_type)
            if (reason := reason_of(error)) is not None:
                self._expose(reason, arrived)
        self._end_span(error_type)

    def _expose(self, reason: str, arrived: Arrived | None) -> None:
        """Record what the provider may bill, unless it answered with an error or the answer is complete."""
        refused = self._status is not None and not 200 <= self._status < 300
        if self._error() is not None or refused or self._endpoint.operation == FETCH:
            return
        request, body = self.request, b""
        if self.sent is not None:
            request = request if request.fields else ModelRequest.of(self.sent)
            body = self.sent.content if hasattr(self.sent, "_content") else b""
        makes_text = self._endpoint.operation in ("chat", "text_completion") or (
            self._endpoint.shape is Shape.GOOGLE and self._endpoint.operation != "embeddings"
        )
        if ended(self._facts, request.fields, talks=makes_text, usage_asked=self._usage_hidden):
            return
        came = arrived if self._reading.events is not None else None
        exposure = estimate(reason, body, request.fields, self._facts, came, makes_text=makes_text)
        if self._metrics is None:
            self.expose_around(exposure)
        else:
            self.span.set_attributes(exposure)

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

    def _answer_to_span(self) -> None:
        answer = self._reading.answer
        if self._endpoint.fetched is not None:
            answer.response_id = self._endpoint.fetched
        attributes: dict[str, Any] = dict(answer.attributes())
        if answer.unfinished:
            attributes[span_attributes.USAGE_MISSING] = span_attributes.IN_BACKGROUND
        elif not _has_usage_attributes(attributes) and answer.impossible:
            attributes[span_attributes.USAGE_MISSING] = "impossible_counts"
            report("counts", "farebox: an answer has impossible counts; the call is kept without its usage")
        self._facts = attributes
        if self._metrics is None:
            self._add_to_span(attributes)
            return
        if self._endpoint.operation == FETCH:
            attributes = self._fetched(attributes)
        elif answer.response_id and answer.response_id.startswith(_CALLED_LATER) and _has_usage_attributes(attributes):
            is_first(answer.response_id)
        if self._first_chunk_s is not None:
            attributes[span_attributes.TIME_TO_FIRST_CHUNK] = self._first_chunk_s
        if self._reading.events is not None:
            attributes[span_attributes.REQUEST_STREAM] = True
        if self._status is not None:
            attributes[span_attributes.HTTP_STATUS_CODE] = self._status
            if self._status >= _REFUSED:  # the id is that of the refusal: there is no answer under it
                attributes.pop(span_attributes.RESPONSE_ID, None)
        if not self._endpoint.certain and self._reading.shape is not self._endpoint.shape:
            attributes[span_attributes.PROVIDER_NAME] = DEFAULT_PROVIDERS[self._reading.shape]
        note(self.span, attributes)
        if (error := self._error()) is not None:
            self._mark_failed(error)

    def _add_to_span(self, attributes: dict[str, Any]) -> None:
        """Add to another instrumentation's span what that one does not read."""
        present = getattr(self.span, "attributes", None) or {}
        usage = self._usage_hidden and span_attributes.USAGE_INPUT not in present
        added = (*_ADDED, "gen_ai.usage.") if usage else _ADDED
        attributes = {key: value for key, value in attributes.items() if key.startswith(added)}
        if attributes and self.span.is_recording():
            note(self.span, attributes)

    def _fetched(self, attributes: dict[str, Any]) -> dict[str, Any]:
        """Return the attributes of a fetched answer: it counts as a call only when it first states its usage."""
        answer = self._reading.answer
        if answer.gave_up and not _has_usage_attributes(attributes):
            answer.error = answer.error or answer.gave_up
        elif not _has_usage_attributes(attributes) or not is_first(answer.response_id):
            return {key: attributes[key] for key in _OF_A_FETCH if key in attributes}
        self.span.update_name(f"chat {answer.model}" if answer.model else "chat")
        if answer.model:
            attributes[span_attributes.REQUEST_MODEL] = answer.model
        return {**attributes, span_attributes.OPERATION_NAME: "chat"}

    def _error(self) -> str | None:
        """Return the provider's error name, else the status."""
        error = self._reading.answer.error
        if error is None and self._status is not None and self._status >= _REFUSED:
            return str(self._status)
        return error

    def _mark_failed(self, error_type: str) -> None:
        self.span.set_attribute(span_attributes.ERROR_TYPE, error_type)
        self.span.set_status(Status(StatusCode.ERROR))


def _expose_nothing(_exposure: Mapping[str, Any]) -> None:
    """Do nothing: a span that is ended here records its own exposure."""


_REFUSED: Final = 400
"""The lowest HTTP status of a refused call."""
_OF_A_FETCH: Final = (span_attributes.RESPONSE_ID, span_attributes.RESPONSE_MODEL)


def _has_usage_attributes(attributes: Mapping[str, Any]) -> bool:
    return span_attributes.USAGE_INPUT in attributes or span_attributes.USAGE_OUTPUT in attributes


class _Current:
    """Makes a span the current one inside a ``with``, without recording errors."""

    __slots__ = ("_span", "_token")

    def __init__(self, span: Span) -> None:
        self._span = span

    def __enter__(self) -> None:
        self._token = context.attach(trace.set_span_in_context(self._span))

    def __exit__(self, *_: object) -> None:
        context.detach(self._token)


def start_call(tracer: Tracer, metrics: CallMetrics, endpoint: Endpoint, url: Url, request: ModelRequest) -> HttpCall:
    """Open the span of a call that no other instrumentation meters."""
    port = url.port or _PORTS.get(url.scheme)
    model = endpoint.model or request.model
    attributes: dict[str, Any] = {
        span_attributes.OPERATION_NAME: endpoint.operation,
        span_attributes.PROVIDER_NAME: endpoint.provider,
        span_attributes.SERVER_ADDRESS: url.host,
        **request.attributes(),
    }
    if port is not None:
        attributes[span_attributes.SERVER_PORT] = port
    if model:
        attributes[span_attributes.REQUEST_MODEL] = request.model = model
    if endpoint.region:
        attributes[span_attributes.CLOUD_REGION] = endpoint.region
    if endpoint.billed_region:
        attributes[span_attributes.USAGE_INFERENCE_REGION] = endpoint.billed_region
    name = f"{endpoint.operation} {model}" if model else endpoint.operation
    return HttpCall(endpoint, request, tracer.start_span(name, kind=SpanKind.CLIENT, attributes=attributes), metrics)


def note_address(span: Span, present: Mapping[str, Any], endpoint: Endpoint, url: Url) -> None:
    """Add the billing provider to another instrumentation's span, which has the ``present`` attributes."""
    added: dict[str, Any] = {}
    if endpoint.certain and present.get(span_attributes.PROVIDER_NAME) != endpoint.provider:
        added[span_attributes.PROVIDER_BY_ADDRESS] = endpoint.provider
    if span_attributes.SERVER_ADDRESS not in present:
        added[span_attributes.SERVER_ADDRESS] = url.host
        port = url.port or _PORTS.get(url.scheme)
        if port is not None:
            added[span_attributes.SERVER_PORT] = port
    if endpoint.billed_region:
        added[span_attributes.USAGE_INFERENCE_REGION] = endpoint.billed_region
    if added:
        note(span, added)


def note_total(span: Span, body: bytes) -> None:
    """Add a body's token total to another instrumentation's span."""
    if (total := total_in(body)) is not None:
        note(span, {span_attributes.USAGE_TOTAL: total})
