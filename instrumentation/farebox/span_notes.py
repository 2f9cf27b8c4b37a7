"""Keep attributes of open spans separately while only Farebox reads these spans.

OpenTelemetry checks, locks and orders each attribute of a span, which took a fifth of the meter's time per call. If the
application has its own processor, its exporters must see every attribute: then all are set on the span as usual.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from opentelemetry.trace import Span

from farebox import span_attributes


class _Notes:
    __slots__ = ("noted", "span", "tags")

    def __init__(self, span: Span, tags: Mapping[str, Any]) -> None:
        self.span = span
        self.tags = tags
        self.noted: dict[str, Any] = {}


# By span id. The span processor removes its entries and bounds their number.
_kept: dict[int, _Notes] = {}


def keep(span_id: int, span: Span, tags: Mapping[str, Any]) -> None:
    """Keep a span's further attributes separately from now on; the span's own attributes override ``tags``."""
    _kept[span_id] = _Notes(span, tags)


def note(span: Span, attributes: Mapping[str, Any]) -> None:
    """Add attributes to an open span or its separate ones."""
    notes = _kept.get(span.get_span_context().span_id)
    if notes is None:
        span.set_attributes(attributes)
    else:
        notes.noted.update(attributes)


def attributes_of(span: Span) -> Mapping[str, Any]:
    """Return an open span's attributes, including separate ones."""
    attributes = span_attributes.copied(getattr(span, "attributes", None))
    notes = _kept.get(span.get_span_context().span_id)
    return attributes if notes is None else {**notes.tags, **attributes, **notes.noted}


def taken(span_id: int, attributes: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return an ending span's attributes, including separate ones, and drop the latter."""
    notes = _kept.pop(span_id, None)
    return attributes if notes is None else {**notes.tags, **attributes, **notes.noted}


def forget(span_id: int) -> None:
    """Move the separate attributes to a span that has been open for too long."""
    notes = _kept.pop(span_id, None)
    if notes is not None and notes.span.is_recording():
        present = span_attributes.copied(getattr(notes.span, "attributes", None))
        missing = {key: value for key, value in notes.tags.items() if key not in present}
        notes.span.set_attributes({**missing, **notes.noted})
