"""Hook httpx and httpx2, which pass every request through ``Client.send`` or ``AsyncClient.send``.

A request that is not a model call passes unchanged. A request within an instrumented client's GenAI span opens no
second span; what that instrumentation does not read is added to its span. The bytes of a response are read in passing
and not changed.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, NamedTuple

import wrapt
from opentelemetry import trace
from opentelemetry.instrumentation.utils import is_instrumentation_enabled
from opentelemetry.trace import Span, Tracer

from farebox import span_attributes
from farebox.answers import worth_adding
from farebox.call_metrics import CallMetrics
from farebox.endpoints import Endpoint, ModelEndpoints
from farebox.exposed_calls import ExposedCalls, send_exposed_attempt
from farebox.exposures import Exposure, reason_of
from farebox.guard import fault, guarded
from farebox.http_call import HttpCall, note_address, note_total, start_call
from farebox.model_request import ModelRequest
from farebox.span_merging import is_first_hand
from farebox.span_notes import attributes_of
from farebox.stream_usage import asking, asks_for_usage
from farebox.unknown_hosts import UnknownHosts
from farebox.watched_response import Response, watch


class HttpxHooks:
    """Meters a library's model calls between ``install`` and ``remove``."""

    def __init__(
        self,
        tracer: Tracer,
        metrics: CallMetrics,
        endpoints: ModelEndpoints,
        exposed: ExposedCalls,
        *,
        request_stream_usage: bool = False,
    ) -> None:
        """Hook nothing before ``install``. ``request_stream_usage`` requests usage that streams omit."""
        self._exposed = exposed
        self._tracer = tracer
        self._metrics = metrics
        self._endpoints = endpoints
        self._request_stream_usage = request_stream_usage
        self._unknown = UnknownHosts()
        self._installed: dict[str, list[tuple[type, wrapt.FunctionWrapper[..., Any]]]] = {}

    def install(self, library: str) -> None:
        """Hook ``httpx`` or ``httpx2``. Raises ImportError."""
        module = importlib.import_module(library)
        installed = self._installed.setdefault(library, [])
        for client, hook in ((module.Client, self._send), (module.AsyncClient, self._send_async)):
            wrapper = wrapt.FunctionWrapper(client.__dict__["send"], hook)
            client.send = wrapper
            installed.append((client, wrapper))

    def remove(self, library: str) -> None:
        """Remove the hooks. A hook that other code has wrapped since stays, and does nothing."""
        for client, wrapper in self._installed.pop(library, ()):
            if client.__dict__.get("send") is wrapper:
                client.send = wrapper.__wrapped__  # type: ignore[attr-defined]

    def _send(
        self,
        send: Callable[..., Response],
        _client: object,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Response:
        metered = self._metered(args, kwargs)
        if metered is None:
            return send(*args, **kwargs)
        call = metered.call
        if call is None:
            try:
                response = send(*args, **kwargs)
            except BaseException as error:
                self._lost(metered, error)
                raise
            self._watch_instrumented(metered, response)
            return response
        if metered.asking is not None:
            args, kwargs = _with_request(metered.asking, args, kwargs)
        with call.current():
            try:
                response = send(*args, **kwargs)
            except BaseException as error:
                call.fail(error)
                raise
        watch(call, response, hides=metered.asking is not None)
        return response

    async def _send_async(
        self,
        send: Callable[..., Awaitable[Response]],
        _client: object,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Response:
        metered = self._metered(args, kwargs)
        if metered is None:
            return await send(*args, **kwargs)
        call = metered.call
        if call is None:
            try:
                response = await send(*args, **kwargs)
            except BaseException as error:
                self._lost(metered, error)
                raise
            self._watch_instrumented(metered, response)
            return response
        if metered.asking is not None:
            args, kwargs = _with_request(metered.asking, args, kwargs)
        with call.current():
            try:
                response = await send(*args, **kwargs)
            except BaseException as error:
                call.fail(error)
                raise
        watch(call, response, hides=metered.asking is not None)
        return response

    def _metered(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Metered | None:
        try:
            request = args[0] if args else kwargs["request"]
            method = request.method
            if not self._installed or (method != "POST" and method != "GET"):
                return None
            url = request.url
            endpoint = self._endpoints.find(url, method)
            if endpoint is None and method == "POST":
                endpoint = self._unlisted(request)
            if endpoint is None or not is_instrumentation_enabled():
                return None
            around, present = _metered_call_around(endpoint)
            if around is not None:
                self._exposed.sent_again(around)
                note_address(around, present, endpoint, url)
            asks = self._request_stream_usage and kwargs.get("stream") is True
            if around is not None and not asks:
                return _Metered(endpoint, around, request, None, None, time.time_ns())
            fields = ModelRequest.of(request)
            if around is not None:
                call = HttpCall(endpoint, fields, around, None)
                call.expose_around = self._exposing(endpoint, around, time.time_ns())
            else:
                call = start_call(self._tracer, self._metrics, endpoint, url, fields)
                # A span that a sampler dropped records nothing; reading is useless.
                if not call.span.is_recording():
                    return None
            call.sent = request
            asking_request = None
            if asks and asks_for_usage(endpoint, fields, url.path):
                call.hides_usage()
                asking_request = asking(request, fields)
            return _Metered(endpoint, around, request, call, asking_request)
        except Exception as error:
            fault("looking at a request", error)
            return None

    def _unlisted(self, request: Any) -> Endpoint | None:
        """Return the endpoint of a call recognised only by its body; report one at an unknown address."""
        if not hasattr(request, "_content"):
            return None
        url = request.url
        if not self._unknown.looks_like_a_call(url, request.content):
            return None
        endpoint = self._endpoints.below_named(url)
        if endpoint is None and is_instrumentation_enabled() and _span_of_a_call()[0] is None:
            self._unknown.report(url)
            self._metrics.not_metered(url.host)
        return endpoint

    def _watch_instrumented(self, metered: _Metered, response: Response) -> None:
        """Add to an existing span; most answers have nothing to add."""
        try:
            assert metered.around is not None
            if response.is_stream_consumed:
                content = response.content
                note_total(metered.around, content)
                if not worth_adding(metered.endpoint, content):
                    return
            watch(self._reader_of(metered), response, hides=False)
        except Exception as error:
            fault("watching a model's answer", error)

    def _lost(self, metered: _Metered, error: BaseException) -> None:
        """Record that an attempt within an instrumented client's span raised."""
        with guarded("noting a call that was lost"):
            if reason_of(error) is not None:
                self._reader_of(metered).fail(error)

    def _reader_of(self, metered: _Metered) -> HttpCall:
        """Return the reader for an instrumented client's span."""
        endpoint, around, request = metered.endpoint, metered.around, metered.request
        assert around is not None
        # Non-chat calls may be billed by the request: speech by its characters.
        fields = ModelRequest.of(request) if endpoint.operation == "generate_content" else ModelRequest()
        call = HttpCall(endpoint, fields, around, None)
        call.sent = request
        call.expose_around = self._exposing(endpoint, around, metered.began_ns)
        return call

    def _exposing(self, endpoint: Endpoint, around: Span, began_ns: int) -> Callable[[Mapping[str, Any]], None]:
        """Return the function that records an attempt's exposure within an instrumented client's span."""

        known = attributes_of(around)

        def expose(attributes: Mapping[str, Any]) -> None:
            def send_apart() -> None:
                send_exposed_attempt(self._tracer, endpoint, around, known, attributes, began_ns)

            self._exposed.expose(around, Exposure(attributes, send_apart))

        return expose


class _Metered(NamedTuple):
    """A request that is a model call, and the span around it, if any."""

    endpoint: Endpoint
    around: Span | None
    request: Any
    call: HttpCall | None
    """None if the answer alone has everything needed."""
    asking: object | None
    """The request that replaces the caller's, if any."""
    began_ns: int = 0
    """Start in nanoseconds since the epoch, if there is a span around it."""


def _with_request(
    request: object, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return ((request, *args[1:]), kwargs) if args else (args, {**kwargs, "request": request})


_NO_CALL: Final[tuple[None, Mapping[str, Any]]] = (None, {})


def _span_of_a_call() -> tuple[Span | None, Mapping[str, Any]]:
    """Return the current span with a copy of its attributes, if it is a model call."""
    span = trace.get_current_span()
    if span.is_recording():
        attributes = span_attributes.copied(getattr(span, "attributes", None))
        if span_attributes.is_inference(attributes):
            return span, attributes
    return _NO_CALL


def _metered_call_around(endpoint: Endpoint) -> tuple[Span | None, Mapping[str, Any]]:
    """Return the span of the client's instrumentation for which this request is only the transport."""
    found = _span_of_a_call()
    span, _ = found
    if span is None:
        return found
    # OpenLLMetry and OpenInference also open spans for images and sound but do not read their billed units. Then our
    # span inside is the better account, and only one of the two is sent.
    if endpoint.operation == "generate_content" and not is_first_hand(span):
        return _NO_CALL
    return found
