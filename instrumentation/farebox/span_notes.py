"""Attributes of open spans that are kept beside them, while nothing but Farebox reads these spans.

OpenTelemetry checks, locks and orders each attribute of a span, which took a fifth of what the meter adds to a call.
Where the application has a processor of its own, its exporters are to see every attribute: then all of them go on the
span, as anywhere else.
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


# By the ids of the spans. The span processor takes out what it put in, and bounds the number.
_kept: dict[int, _Notes] = {}


def keep(span_id: int, span: Span, tags: Mapping[str, Any]) -> None:
    """Keep the attributes of a span beside it from now on; ``tags`` give way to what the span itself says."""
    _kept[span_id] = _Notes(span, tags)


def note(span: Span, attributes: Mapping[str, Any]) -> None:
    """Add attributes to an open span, or beside it."""
    notes = _kept.get(span.get_span_context().span_id)
    if notes is None:
        span.set_attributes(attributes)
    else:
        notes.noted.update(attributes)


def attributes_of(span: Span) -> Mapping[str, Any]:
    """What an open span says, with what is kept beside it."""
    attributes = span_attributes.copied(getattr(span, "attributes", None))
    notes = _kept.get(span.get_span_context().span_id)
    return attributes if notes is None else {**notes.tags, **attributes, **notes.noted}


def taken(span_id: int, attributes: Mapping[str, Any]) -> Mapping[str, Any]:
    """The attributes of a span that ends, with what was kept beside it, which is not kept any longer."""
    notes = _kept.pop(span_id, None)
    return attributes if notes is None else {**notes.tags, **attributes, **notes.noted}


def forget(span_id: int) -> None:
    """Put what is kept on the span itself: it has been open for too long."""
    notes = _kept.pop(span_id, None)
    if notes is not None and notes.span.is_recording():
        present = span_attributes.copied(getattr(notes.span, "attributes", None))
        missing = {key: value for key, value in notes.tags.items() if key not in present}
        notes.span.set_attributes({**missing, **notes.noted})
