"""The span processor: tag GenAI spans when they start and queue calls for delivery when they end."""

from __future__ import annotations

import functools
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor

from farebox import attribution, span_attributes, span_notes
from farebox.attribution import Activity
from farebox.delivery import Delivery
from farebox.exposed_calls import ExposedCalls
from farebox.guard import fault, guarded
from farebox.later_answers import LaterAnswers
from farebox.model_paths import FETCH
from farebox.outgoing import Outgoing
from farebox.span_merging import Account, Answers, OpenCall, family_of
from farebox.tag_sources import TagSources

OPEN_MAX: Final = 10_000
"""Maximum kept open spans: calls, and spans whose first attributes do not show yet what they are."""

HTTP_SCOPE: Final = "opentelemetry.instrumentation.httpx"

EXIT_FLUSH_S: Final = 3.0
"""Maximum wait for the collector at process exit."""
_TAGS: Final = (
    span_attributes.WALLET,
    span_attributes.EVENT,
    span_attributes.ACTION_ID,
    span_attributes.DEPT,
    span_attributes.PROJECT,
    span_attributes.TASK,
    span_attributes.ROUTE,
)
"""Attributes that a later answer inherits from the call that requested it, unless set."""


class Metering(NamedTuple):
    """The parts that a processor uses while metering is on."""

    delivery: Delivery
    outgoing: Outgoing
    tag_sources: TagSources
    sends_http_spans: bool = False
    """Whether the HTTP spans of calls are sent too."""


class _Open(NamedTuple):
    activity: Activity | None
    call: OpenCall | None
    late: Mapping[str, str | bool]
    around: OpenCall | None


class MeterProcessor(SpanProcessor):
    """Meters one tracer provider. A provider cannot remove processors, so this one can be idle."""

    def __init__(self) -> None:
        """Start idle."""
        self.metering: Metering | None = None
        self._open: OrderedDict[int, _Open] = OrderedDict()
        self._answers = Answers()
        self.exposed = ExposedCalls(self._call)
        self._later = LaterAnswers()

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Tag the span with the current action; explicit attributes of the span stay."""
        metering = self.metering
        if metering is None:
            return
        try:
            self._started(span, parent_context, metering)
        except Exception as error:
            fault("tagging a span", error)

    def _started(self, span: Span, parent_context: Context | None, metering: Metering) -> None:
        attributes = span_attributes.copied(span.attributes)
        span_id = span.get_span_context().span_id
        now = attribution.current()
        tags = metering.tag_sources.tags(now, parent_context)
        call: OpenCall | None = None
        activity: Activity | None = None
        around = self._call_around(span)
        late = tags
        if span_attributes.is_genai(attributes):
            late = {}
            family = family_of(attributes)
            if family is not None:
                call = OpenCall(around, family)
                if now is not None:
                    activity = now.activity
                    activity.calls += 1
            if family is not None and self._reads_alone(span):
                span_notes.keep(span_id, span, tags)
            elif missing := {key: value for key, value in tags.items() if key not in attributes}:
                span.set_attributes(missing)
        elif not tags and around is None:
            return
        self._open[span_id] = _Open(activity, call, late, around)
        if len(self._open) > OPEN_MAX:
            oldest, _ = self._open.popitem(last=False)
            span_notes.forget(oldest)

    def _reads_alone(self, span: Span) -> bool:
        """Return whether only this processor sees the span; False if unknown."""
        processors: Sequence[object] = getattr(getattr(span, "_span_processor", None), "_span_processors", ())
        return len(processors) == 1 and processors[0] is self

    def _call_around(self, span: Span) -> OpenCall | None:
        parent = span.parent
        return self._call(parent.span_id) if parent is not None else None

    def _call(self, span_id: int) -> OpenCall | None:
        open_ = self._open.get(span_id)
        return open_.call if open_ is not None else None

    def on_end(self, span: ReadableSpan) -> None:
        """Queue a GenAI span for delivery, sampled or not; ignore all other spans."""
        try:
            self._ended(span)
        except Exception as error:
            fault("taking a span", error)

    def _ended(self, span: ReadableSpan) -> None:
        context = span.get_span_context()
        span_id = context.span_id if context is not None else 0
        open_ = self._open.get(span_id)
        # An ended span no longer changes, and a plain dictionary has faster look-ups.
        attributes = span_notes.taken(span_id, span_attributes.copied(span.attributes))
        try:
            self._take(span, attributes, open_)
        finally:
            # Remove it only now: an exposure must find the call until its account has it.
            self._open.pop(span_id, None)
            if open_ is not None and open_.activity is not None:
                open_.activity.ended += 1

    def _take(self, span: ReadableSpan, attributes: Mapping[str, Any], open_: _Open | None) -> None:
        metering = self.metering
        if metering is None:
            return
        if not span_attributes.is_genai(attributes):
            scope = span.instrumentation_scope
            if metering.sends_http_spans and open_ and open_.around and scope and scope.name == HTTP_SCOPE:
                metering.delivery.put(functools.partial(metering.outgoing.span, Account((span, attributes)), {}))
            return
        if attributes.get(span_attributes.OPERATION_NAME) == FETCH and _is_ours(span):
            return  # it has nothing new
        _, call, late, around = open_ if open_ is not None else (None, None, {}, None)
        if call is None and around is not None and span_attributes.RESPONSE_ID in attributes:
            call = OpenCall(around, around.family)  # its kind is known only now
        ended = span, attributes
        response_id = attributes.get(span_attributes.RESPONSE_ID)
        account = call.ended(ended) if call is not None else Account(ended)
        if call is not None:
            self.exposed.ended(span, attributes, call)
        if account is None:
            if call is not None and call.account is not None:
                self._answers.part_of_another(ended, response_id, call.account)
            return
        if self._answers.part_of_another(ended, response_id, account):
            return
        if self._later:
            late = self._with_tags_of_the_call(attributes, late)
        send = functools.partial(metering.outgoing.span, account, late)
        in_background = attributes.get(span_attributes.USAGE_MISSING) == span_attributes.IN_BACKGROUND
        if in_background and span_attributes.USAGE_INPUT not in attributes:
            self._keep(attributes, functools.partial(metering.delivery.put, send))
        else:
            metering.delivery.put(send)

    def _keep(self, attributes: Mapping[str, Any], send: Callable[[], None]) -> None:
        """Hold a call with a background answer; fetching that answer is not a separate call."""
        response_id = attributes.get(span_attributes.RESPONSE_ID)
        if not isinstance(response_id, str):
            send()
            return
        tags = {key: attributes[key] for key in _TAGS if key in attributes}
        self._later.keep(response_id, send, tags, time.monotonic())

    def _with_tags_of_the_call(self, attributes: Mapping[str, Any], late: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the attributes of an answer with usage, with the tags of its held call."""
        self._later.send_old(time.monotonic())
        if span_attributes.USAGE_INPUT in attributes or span_attributes.ERROR_TYPE in attributes:
            late = {**self._later.answered(attributes.get(span_attributes.RESPONSE_ID)), **late}
        return late

    def release(self) -> None:
        """Send held calls when metering ends."""
        self._later.send_all()

    def shutdown(self) -> None:
        """Deliver pending spans within a few seconds, as the provider shuts down."""
        with guarded("shutting down"):
            self.release()
            if self.metering is not None:
                self.metering.delivery.close(EXIT_FLUSH_S)

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Deliver pending spans. Returns whether all were delivered in time."""
        with guarded("flushing"):
            return self.metering is None or self.metering.delivery.flush(timeout_millis / 1000)
        return False


def _is_ours(span: ReadableSpan) -> bool:
    return span.instrumentation_scope is not None and span.instrumentation_scope.name == "farebox"
