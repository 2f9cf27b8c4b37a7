"""Record an exposure on the span of an instrumented client, or send it separately.

A client's instrumentation opens one span per call, regardless of the number of attempts. The exposure of the last
attempt belongs on that span. That of an earlier one is sent as a separate span when the client retries, because the
provider may bill both.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, Final

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import Link, NonRecordingSpan, Span, SpanContext, SpanKind, Status, StatusCode, Tracer

from farebox import span_attributes
from farebox.endpoints import Endpoint
from farebox.exposures import Exposure
from farebox.span_merging import Account, OpenCall

ENDED_MAX: Final = 64
"""Maximum kept calls that ended with an error or a stream; such a stream is closed right afterwards."""

_TAKEN_OVER: Final = (
    span_attributes.REQUEST_MODEL,
    span_attributes.SERVER_ADDRESS,
    span_attributes.SERVER_PORT,
    span_attributes.WALLET,
    span_attributes.EVENT,
    span_attributes.ACTION_ID,
    span_attributes.DEPT,
    span_attributes.PROJECT,
    span_attributes.TASK,
    span_attributes.ROUTE,
)


class ExposedCalls:
    """The calls on which an exposure may be recorded, by span id."""

    def __init__(self, open_call: Callable[[int], OpenCall | None] = lambda _span_id: None) -> None:
        """Start empty. ``open_call`` finds the call of an open span by the span's id."""
        self._lock = threading.Lock()
        self._open_call = open_call
        self._ended: OrderedDict[int, Account] = OrderedDict()

    def ended(self, span: ReadableSpan, attributes: Mapping[str, Any], call: OpenCall) -> None:
        """Record the end of a call. A client that ends its span first may still close the stream afterwards."""
        with self._lock:
            call.over = True
            account = call.account
            if account is None:
                return
            if call.exposure is not None:
                account.exposure = call.exposure.attributes
            if span_attributes.REQUEST_STREAM not in attributes and span_attributes.ERROR_TYPE not in attributes:
                return
            context = span.get_span_context()
            if context is not None:
                self._ended[context.span_id] = account
                if len(self._ended) > ENDED_MAX:
                    self._ended.popitem(last=False)

    def expose(self, around: Span, exposure: Exposure) -> None:
        """Record that an attempt within this span may be billed."""
        span_id = around.get_span_context().span_id
        with self._lock:
            call = self._open_call(span_id)
            if call is not None and not call.over:
                call.exposure = exposure
                return
            account = self._ended.pop(span_id, None)
        if account is None or not account.expose(exposure.attributes):
            exposure.send_apart()

    def sent_again(self, around: Span) -> None:
        """Note a further request within this span: the previous attempt's exposure is sent separately."""
        call = self._open_call(around.get_span_context().span_id)
        if call is not None and call.exposure is not None:
            exposure, call.exposure = call.exposure, None
            exposure.send_apart()


def send_exposed_attempt(
    tracer: Tracer,
    endpoint: Endpoint,
    around: Span,
    known: Mapping[str, Any],
    exposure: Mapping[str, Any],
    began_ns: int,
) -> None:
    """Create the span of an attempt that began at ``began_ns``, nanoseconds since the epoch.

    ``known`` are the attributes of the enclosing span.

    The span is a sibling of the call's span and links to it. As a child it would be another account of the same call,
    and the collector charges only one of those.
    """
    attributes: dict[str, Any] = {
        span_attributes.OPERATION_NAME: endpoint.operation,
        span_attributes.PROVIDER_NAME: endpoint.provider,
        span_attributes.ERROR_TYPE: exposure[span_attributes.EXPOSURE],
        **{key: known[key] for key in _TAKEN_OVER if key in known},
        **exposure,
    }
    model = known.get(span_attributes.REQUEST_MODEL) or endpoint.model
    name = f"{endpoint.operation} {model}" if model else endpoint.operation
    parent: SpanContext | None = getattr(around, "parent", None)
    span = tracer.start_span(
        name,
        Context() if parent is None else trace.set_span_in_context(NonRecordingSpan(parent), Context()),
        SpanKind.CLIENT,
        attributes=attributes,
        links=[Link(around.get_span_context())],
        start_time=began_ns,
    )
    span.set_status(Status(StatusCode.ERROR))
    span.end()
