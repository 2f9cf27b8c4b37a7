"""Make the span to send from the ended ones: complete it, estimate the cost, remove private data.

Runs in the delivery thread on copies: the application's own exporters see the unchanged spans.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from opentelemetry.sdk.trace import ReadableSpan

from farebox import span_attributes
from farebox.estimates import cost_attributes, started_at
from farebox.guard import guarded, report, report_once
from farebox.privacy import Privacy
from farebox.request_log import RequestLog
from farebox.span_merging import Account

_CACHE_WRITES: Final = (span_attributes.USAGE_CACHE_WRITE, span_attributes.USAGE_CACHE_WRITE_BEFORE_1_42)


class Outgoing:
    """Completes the spans of this process."""

    def __init__(self, privacy: Privacy, request_log: RequestLog) -> None:
        """``request_log`` receives a line per call."""
        self._privacy = privacy
        self._request_log = request_log

    def span(self, account: Account, late: Mapping[str, Any]) -> ReadableSpan | None:
        """Return the span to send, with tags that came too ``late`` for it; None if it cannot be made."""
        with guarded("completing a span"):
            span, present, lacking = account.best()
            known = {**late, **lacking, **present, **account.exposure}
            attributes: dict[str, Any] = {
                key: tuple(value) if type(value) is list else value for key, value in known.items()
            }
            if span_attributes.USAGE_OWN in attributes:
                _correct(attributes)
            _note_usage(attributes)
            with guarded("estimating the cost of a call"):
                attributes.update(cost_attributes(attributes, started_at(span.start_time)))
            attributes = self._privacy.outgoing(attributes)
            if span_attributes.WALLET not in attributes and span_attributes.is_inference(attributes):
                _report_missing_wallet(attributes)
            if _is_line(attributes):
                with guarded("writing a line of the request log"):
                    self._request_log.write(span, attributes)
            return ReadableSpan(
                name=span.name,
                context=span.get_span_context(),
                parent=span.parent,
                resource=span.resource,
                attributes=attributes,
                events=self._privacy.events(span.events),
                links=span.links,
                kind=span.kind,
                status=span.status,
                start_time=span.start_time,
                end_time=span.end_time,
                instrumentation_scope=span.instrumentation_scope,
            )
        return None


def _correct(attributes: dict[str, Any]) -> None:
    """Replace the counts of two models with those of the named model."""
    counts: dict[str, int] = json.loads(attributes.pop(span_attributes.USAGE_OWN))
    attributes.pop(span_attributes.USAGE_TOTAL, None)
    written = counts.pop(span_attributes.USAGE_CACHE_WRITE)
    named = [name for name in _CACHE_WRITES if name in attributes]
    for name in named or [span_attributes.USAGE_CACHE_WRITE]:
        attributes[name] = written
    attributes.update(counts)


def _report_missing_wallet(attributes: Mapping[str, Any]) -> None:
    report_once(
        "no wallet",
        f"a call of {attributes.get(span_attributes.REQUEST_MODEL)} names no wallet: the collector charges it to "
        "`unattributed`. Make the call inside `with farebox.action(event, wallet=…)`, or set FAREBOX_TAGS=wallet=…",
    )


def _is_line(attributes: Mapping[str, Any]) -> bool:
    return span_attributes.is_inference(attributes) or span_attributes.QUALITY_TRACE_ID in attributes


def _note_usage(attributes: dict[str, Any]) -> None:
    """Record whether the cache was used, and report a stream without usage."""
    if attributes.get(span_attributes.OPERATION_NAME) not in span_attributes.INFERENCE_OPERATIONS:
        return
    if span_attributes.USAGE_INPUT in attributes or span_attributes.USAGE_OUTPUT in attributes:
        if (read := attributes.get(span_attributes.USAGE_CACHE_READ)) is not None:
            attributes.setdefault(span_attributes.CACHE_HIT, bool(read))
        return
    if span_attributes.EXPOSURE in attributes:
        return
    billed = any(key.startswith(span_attributes.UNITS) for key in attributes)
    if billed or span_attributes.ERROR_TYPE in attributes:
        return
    if attributes.get(span_attributes.REQUEST_STREAM):
        attributes[span_attributes.USAGE_MISSING] = "stream"
    report(
        "usage",
        f"a call of {attributes.get(span_attributes.REQUEST_MODEL)} reported no usage and cannot be charged. For "
        "OpenAI's chat streams pass stream_options={'include_usage': True} or instrument(request_stream_usage=True)",
    )
