"""The span processor: tags GenAI spans when they start, and hands them to the delivery when they end.

What was seen of the anthropic client 2.11 beside its official instrumentation 1.3b0: one call ends two
spans, the client's own (scope ``com.anthropic.sdk.python``) inside the official one, with the same response
id and the same counts. Both are sent on purpose. Only the client's own says how much of a cache write is
kept for an hour, which costs more; only the official one has finish reasons, and the output counted so far
of a stream that was broken off. Which of them ends first, and whether the outer one ends at all, depends on
how the application treats the stream. The collector charges one of them, by the response id.
"""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Mapping
from typing import Final

from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor

from farebox import attribution, span_attributes
from farebox.delivery import Delivery
from farebox.estimates import cost_attributes, started_at
from farebox.guard import guarded, report

UNRECOGNISED_MAX: Final = 10_000
"""How many open spans are remembered whose first attributes do not yet say whether they are GenAI spans."""


class MeterProcessor(SpanProcessor):
    """Meters one tracer provider. A provider keeps its processors for good, so this one can be idle."""

    def __init__(self) -> None:
        """Idle until it is given a delivery."""
        self.delivery: Delivery | None = None
        self._unrecognised: OrderedDict[int, Mapping[str, str]] = OrderedDict()

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Tag the span with what the current action says; explicit attributes of the span stay."""
        with guarded("tagging a span"):
            now = attribution.current()
            if self.delivery is None or now is None:
                return
            attributes = span.attributes
            if span_attributes.is_genai(attributes):
                span.set_attributes(_missing(now.attributes, attributes))
            elif (context := span.get_span_context()) is not None:
                # Some instrumentations say what a span is only later. Its tags are those of its start.
                self._unrecognised[context.span_id] = now.attributes
                if len(self._unrecognised) > UNRECOGNISED_MAX:
                    self._unrecognised.popitem(last=False)

    def on_end(self, span: ReadableSpan) -> None:
        """Hand a GenAI span to the delivery, sampled or not; leave all others alone."""
        with guarded("taking a span"):
            context = span.get_span_context()
            late = self._unrecognised.pop(context.span_id, None) if context is not None else None
            if self.delivery is not None and span_attributes.is_genai(span.attributes):
                self.delivery.put(functools.partial(_span_to_send, span, late or {}))

    def shutdown(self) -> None:
        """The provider ends: deliver what there is, for a few seconds at most."""
        with guarded("shutting down"):
            if self.delivery is not None:
                self.delivery.close(EXIT_FLUSH_S)

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Deliver what there is. Returns whether that was done in time."""
        with guarded("flushing"):
            return self.delivery is None or self.delivery.flush(timeout_millis / 1000)
        return False


EXIT_FLUSH_S: Final = 5.0
"""How long the end of the process waits for the collector at most."""


def _missing(attributes: Mapping[str, str], present: Mapping[str, object] | None) -> dict[str, str]:
    return {key: value for key, value in attributes.items() if key not in (present or {})}


def _span_to_send(span: ReadableSpan, late: Mapping[str, str]) -> ReadableSpan:
    """The span with its estimate and the tags that came too late for it. Runs in the delivery thread."""
    with guarded("completing a span"):
        present = span.attributes or {}
        attributes = {
            **present,
            **_missing(late, present),
            **cost_attributes(present, started_at(span.start_time)),
        }
        _hint_at_missing_usage(attributes)
        if len(attributes) == len(present):
            return span
        return ReadableSpan(
            name=span.name,
            context=span.get_span_context(),
            parent=span.parent,
            resource=span.resource,
            attributes=attributes,
            events=span.events,
            links=span.links,
            kind=span.kind,
            status=span.status,
            start_time=span.start_time,
            end_time=span.end_time,
            instrumentation_scope=span.instrumentation_scope,
        )
    return span


def _hint_at_missing_usage(attributes: Mapping[str, object]) -> None:
    if (
        span_attributes.USAGE_INPUT not in attributes
        and attributes.get(span_attributes.OPERATION_NAME) in span_attributes.INFERENCE_OPERATIONS
        and span_attributes.ERROR_TYPE not in attributes
    ):
        report(
            "usage",
            f"a call of {attributes.get(span_attributes.REQUEST_MODEL)} told no usage: it cannot be charged. "
            "OpenAI's chat streams do with stream_options={'include_usage': True}",
        )
