"""Extend OpenTelemetry's instrumentation of httpx and httpx2: HTTP spans and trace context of outgoing requests.

:func:`farebox.instrument` turns it on unless the application has. Additions to the official one:

- It is inactive per request if the application's own instrumentation is on, whichever was turned on first.
- Baggage is sent only to the application's own hosts (``own_hosts``); trace context to every host.
- Secrets in headers and query strings are removed from spans.
- If only Farebox reads the spans, none are made: the request only gets its trace context.

The official hooks expose neither bodies nor streams; ``httpx_hooks`` reads those.
"""

from __future__ import annotations

import functools
import importlib
import operator
import sys
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from enum import Enum
from typing import Any, Final, cast

import wrapt
from opentelemetry import baggage, context, propagate, trace
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import Context
from opentelemetry.metrics import MeterProvider
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.trace import INVALID_SPAN_CONTEXT, Span, SpanContext, SpanKind, Tracer, TracerProvider
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.http import get_excluded_urls

from farebox import span_attributes
from farebox.guard import fault
from farebox.own_hosts import OwnHosts
from farebox.propagation import FOREIGN_HOST, TagPropagator
from farebox.span_processor import HTTP_SCOPE
from farebox.span_secrets import secret_headers, without_secrets

HTTP_SPANS: Final = "FAREBOX_HTTP_SPANS"
RESEND_COUNT: Final = "http.request.resend_count"
COUNTED_CALLS_MAX: Final = 1_000
"""Maximum open calls whose requests are counted."""

_PLAIN: Final = {TraceContextTextMapPropagator, W3CBaggagePropagator, TagPropagator}
"""OpenTelemetry's default propagators, which write W3C trace context and baggage."""
_SUPPRESSED: Final = (
    context._SUPPRESS_INSTRUMENTATION_KEY,
    context._SUPPRESS_HTTP_INSTRUMENTATION_KEY,
    "suppress_instrumentation",
)
"""The keys that ``is_http_instrumentation_enabled`` reads, here in one look-up; a test compares them."""
_TRACEPARENT: Final = b"traceparent"
_NAME_OF_ENTRY: Final = operator.itemgetter(1)
_WROTE_BAGGAGE: Final = "farebox.baggage"
_TRANSPORTS: Final = (("HTTPTransport", "handle_request"), ("AsyncHTTPTransport", "handle_async_request"))
_OFFICIAL: Final = {
    "httpx": ("HTTPXClientInstrumentor", "SyncOpenTelemetryTransport", "AsyncOpenTelemetryTransport"),
    "httpx2": ("HTTPX2ClientInstrumentor", "SyncOpenTelemetryTransportHttpx2", "AsyncOpenTelemetryTransportHttpx2"),
}


class _Way(Enum):
    """How to trace a request."""

    PASS = 1
    HEADERS = 2
    SPAN = 3


class HttpSpans:
    """HTTP spans of both libraries, between ``install`` and ``remove``."""

    def __init__(
        self,
        provider: TracerProvider,
        own_hosts: OwnHosts,
        *,
        meter_provider: MeterProvider | None = None,
        always: bool = False,
    ) -> None:
        """Change nothing yet.

        Args:
            provider: the tracer provider of the spans.
            own_hosts: the hosts that receive baggage.
            meter_provider: records the duration of requests; None for the global one.
            always: make spans even if only Farebox's processor reads them.
        """
        self._provider = provider
        self._own_hosts = own_hosts
        self._meter_provider = meter_provider
        self._always = always
        self._excluded = get_excluded_urls("HTTPX")
        self._excludes = bool(getattr(self._excluded, "_excluded_urls", True))
        self._textmap: object = None
        self._plain = self._tags_travel = False
        self._installed: dict[str, list[tuple[Any, str, Any]]] = {}
        self._official: dict[str, tuple[Any, Any]] = {}

    def install(self, library: str) -> None:
        """Install in ``httpx`` or ``httpx2``. Raises ImportError."""
        if library in self._installed or _turned_on_by_the_application(library):
            return
        module = importlib.import_module(library)
        self._installed[library] = installed = []
        for name, method in _TRANSPORTS:
            owner: Any = getattr(module, name)
            wrapper = wrapt.FunctionWrapper(owner.__dict__[method], self._hook(library, method))
            setattr(owner, method, wrapper)
            installed.append((owner, method, wrapper))

    def remove(self, library: str) -> None:
        """Remove. A wrapper that another instrumentation has wrapped since stays, and does nothing."""
        for owner, method, wrapper in self._installed.pop(library, ()):
            if owner.__dict__.get(method) is wrapper:
                setattr(owner, method, wrapper.__wrapped__)

    def _hook(self, library: str, method: str) -> Callable[..., Any]:
        def send(send: Callable[..., Any], _transport: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if self._way(library, args) is not _Way.SPAN:
                return send(*args, **kwargs)
            with self._reach(args[0]):
                return self._traced(library)[0].handle_request(*args, **kwargs, send=send)

        async def send_async(
            send: Callable[..., Awaitable[Any]], _transport: object, args: tuple[Any, ...], kwargs: dict[str, Any]
        ) -> Any:
            if self._way(library, args) is not _Way.SPAN:
                return await send(*args, **kwargs)
            with self._reach(args[0]):
                return await self._traced(library)[1].handle_async_request(*args, **kwargs, send=send)

        return send_async if method == "handle_async_request" else send

    def _way(self, library: str, args: tuple[Any, ...]) -> _Way:
        try:
            now = context.get_current()
            if (
                library not in self._installed
                or not args
                or any(map(now.get, _SUPPRESSED))
                or (HTTP_SCOPE in sys.modules and _turned_on_by_the_application(library))
            ):
                return _Way.PASS
            span = trace.get_current_span(now)
            if _is_http_span(span):
                return _Way.PASS
            if self._always or _has_other_reader(self._provider):
                self._traced(library)
                return _Way.SPAN
            self._write_headers(args[0], span)
            return _Way.HEADERS
        except Exception as error:
            fault("tracing an HTTP request", error)
            return _Way.PASS

    def _traced(self, library: str) -> tuple[Any, Any]:
        """Return the official transports, one for all clients of a library; each call brings its next transport."""
        traced = self._official.get(library)
        if traced is None:
            module = importlib.import_module(HTTP_SCOPE)  # imports both libraries, so import it late
            _, sync_name, async_name = _OFFICIAL[library]
            settings: Any = {"tracer_provider": _Redacting(self._provider), "meter_provider": self._meter_provider}
            traced = (
                getattr(module, sync_name)(_Passing(), **settings),
                getattr(module, async_name)(_Passing(), **settings),
            )
            self._official[library] = traced
        return traced

    def _write_headers(self, request: Any, span: Span) -> None:
        if self._excludes and self._excluded.url_disabled(str(request.url)):
            return
        own = self._own_hosts.includes(request.url.host)
        if self._writes_trace_context_only(own):
            if not own:
                _take_baggage_back(request)
            _write_trace_context(request.headers, span.get_span_context())
        else:
            propagate.inject(request.headers, self._context(request))

    def _writes_trace_context_only(self, own: bool) -> bool:
        """Return whether the process's propagators write only W3C trace context into a request to such a host."""
        textmap = propagate.get_global_textmap()
        if textmap is not self._textmap:
            kinds = {type(part) for part in _propagators(textmap)}
            self._plain = kinds <= _PLAIN and TraceContextTextMapPropagator in kinds
            self._tags_travel = TagPropagator in kinds
            self._textmap = textmap
        return self._plain and not (own and (self._tags_travel or baggage.get_all()))

    @contextmanager
    def _reach(self, request: Any) -> Iterator[None]:
        token = context.attach(self._context(request) or context.get_current())
        try:
            yield
        finally:
            context.detach(token)

    def _context(self, request: Any) -> Context | None:
        """Return the context of a request's headers; None for the current one."""
        if self._own_hosts.includes(request.url.host):
            request.extensions[_WROTE_BAGGAGE] = True
            return None
        _take_baggage_back(request)
        return context.set_value(FOREIGN_HOST, True, baggage.clear())


def _take_baggage_back(request: Any) -> None:
    """Remove baggage: a redirect to a third party repeats the first request's headers."""
    if request.extensions.pop(_WROTE_BAGGAGE, None):
        request.headers.pop("baggage", None)


def _write_trace_context(headers: Any, sent: SpanContext) -> None:
    """Write what OpenTelemetry's W3C trace context propagator writes; a test compares them."""
    if sent == INVALID_SPAN_CONTEXT:
        return
    traceparent = f"00-{sent.trace_id:032x}-{sent.span_id:016x}-{sent.trace_flags:02x}"
    entries: list[tuple[bytes, bytes, bytes]] = getattr(headers, "_list", [])
    if not _takes_entries(cast(Any, type(headers))) or _TRACEPARENT in map(_NAME_OF_ENTRY, entries):
        headers["traceparent"] = traceparent
    else:  # setting a header through the libraries takes longer than all else here
        entries.append((_TRACEPARENT, _TRACEPARENT, traceparent.encode()))
    if sent.trace_state:
        headers["tracestate"] = sent.trace_state.to_header()


@functools.cache
def _takes_entries(headers: Any) -> bool:
    """Return whether headers of this class are a list of (name, name in lower case, value)."""
    try:
        entries: object = headers({"Traceparent": "00"})._list
        return entries == [(b"Traceparent", _TRACEPARENT, b"00")]
    except Exception:
        return False


def _propagators(textmap: object) -> Iterator[object]:
    """Yield the parts of a composite propagator."""
    if type(textmap) is CompositePropagator:
        for part in textmap._propagators:
            yield from _propagators(part)
    else:
        yield textmap


class _Passing:
    """The transport below the official one: sends the request with the ``send`` that it brought."""

    def handle_request(self, request: Any, *, send: Callable[..., Any]) -> Any:
        return send(request)

    async def handle_async_request(self, request: Any, *, send: Callable[..., Awaitable[Any]]) -> Any:
        return await send(request)


class _Redacting(TracerProvider):
    """A tracer provider that removes secrets from request spans."""

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider

    def get_tracer(self, *args: Any, **kwargs: Any) -> Tracer:
        return _RedactingTracer(self._provider.get_tracer(*args, **kwargs))


class _RedactingTracer(Tracer):
    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer
        self._sent: OrderedDict[int, int] = OrderedDict()

    def start_span(self, *args: Any, **kwargs: Any) -> Span:
        return self._tracer.start_span(*args, **kwargs)

    @contextmanager
    def start_as_current_span(  # type: ignore[override]
        self,
        name: str,
        context: Context | None = None,
        kind: SpanKind = SpanKind.CLIENT,
        attributes: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> Iterator[Span]:
        clean = {**without_secrets(attributes or {}), **self._resent()}
        with self._tracer.start_as_current_span(name, context, kind, clean, **kwargs) as span:
            try:
                yield span
            finally:
                if span.is_recording():
                    span.set_attributes(secret_headers(getattr(span, "attributes", None) or {}))

    def _resent(self) -> dict[str, int]:
        """Return the attribute with the number of earlier requests of the same call, after a retry or redirect."""
        call = trace.get_current_span()
        if not span_attributes.is_inference(getattr(call, "attributes", None)):
            return {}
        span_id = call.get_span_context().span_id
        before = self._sent.get(span_id, 0)
        self._sent[span_id] = before + 1
        if len(self._sent) > COUNTED_CALLS_MAX:
            self._sent.popitem(last=False)
        return {RESEND_COUNT: before} if before else {}


def _turned_on_by_the_application(library: str) -> bool:
    module: Any = sys.modules.get(HTTP_SCOPE)
    if module is None:
        return False
    instrumentor = getattr(module, _OFFICIAL[library][0], None)
    return instrumentor is not None and cast(bool, instrumentor().is_instrumented_by_opentelemetry)


def _is_http_span(span: Span) -> bool:
    scope = getattr(span, "instrumentation_scope", None)
    return scope is not None and scope.name == HTTP_SCOPE


def _has_other_reader(provider: TracerProvider) -> bool:
    """Return whether a provider has a processor besides Farebox's; True if unknown."""
    processors = getattr(getattr(provider, "_active_span_processor", None), "_span_processors", None)
    return processors is None or len(processors) > 1
