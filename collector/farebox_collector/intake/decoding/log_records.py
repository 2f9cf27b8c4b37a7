"""What both encodings of log records have in common: the name of the event, its time, and what is kept of a record."""

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import lru_cache

from farebox_collector.model.records import EVENT_NAME, Attributes, AttributeValue, Span

EVENT_TIME = "event.timestamp"
"""The attribute with the time of an event, for records that have none of their own."""
MAX_EVENT_NAME = 128
"""Longest name of an event, in characters. A longer body is a message, and dropped unread."""
SEVERITY_ERROR = 17
_NAME = re.compile(r"[A-Za-z0-9_]+([.-][A-Za-z0-9_]+)*")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@lru_cache(4_096)
def event_name(field: str, attribute: AttributeValue | None, body: str) -> str:
    """Return the name of a record's event, empty if it has none.

    The field of the record comes first, then the attribute `event.name`, then a body that is a name and no message. A
    body that qualifies the attribute (`claude_code.api_request` for `api_request`) replaces it. A field that is no name
    (Codex CLI writes a place in its source) is not read.
    """
    stated = attribute if isinstance(attribute, str) else ""
    name = field if field and (not stated or _NAME.fullmatch(field)) else stated
    if len(body) <= MAX_EVENT_NAME and (not name or body.endswith(f".{name}")) and _NAME.fullmatch(body):
        return body
    return name if len(name) <= MAX_EVENT_NAME else ""


def event_time_ns(time_ns: int, stated: AttributeValue | None, observed_ns: int) -> int:
    """Return the time of a record in Unix nanoseconds: its own, else the one that it states as text, else the time at
    which it was observed; 0 if there is none."""
    if time_ns:
        return time_ns
    if isinstance(stated, str) and len(stated) <= MAX_EVENT_NAME:
        try:
            moment = datetime.fromisoformat(stated)
        except ValueError:
            return observed_ns
        since = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - _EPOCH
        return ((since.days * 86_400 + since.seconds) * 10**6 + since.microseconds) * 1_000
    return observed_ns


class LogSpans:
    """Makes the form of a log record that dialects read."""

    def __init__(self, events: Iterable[str]) -> None:
        """`events` are the names of the events that some dialect reads."""
        self._events = frozenset(events)

    def span(
        self,
        trace_id: bytes,
        open_span_id: bytes,
        at_ns: int,
        severity: int,
        name_field: str,
        body: str,
        attributes: dict[str, AttributeValue],
        resource: Attributes,
        scope_name: str,
        scope_version: str,
    ) -> Span:
        """Return a record as a span. `at_ns` is its time, `body` is empty unless it is as short as a name.

        The attributes of the resource are added under those of the record. A record that no dialect reads keeps
        nothing.
        """
        name = event_name(name_field, attributes.get(EVENT_NAME), body)
        if name not in self._events:
            return _NO_CALL
        kept = {**resource, **attributes, EVENT_NAME: name}
        failed = severity >= SEVERITY_ERROR
        return _named(
            Span, (trace_id, b"", open_span_id, at_ns, at_ns, failed, kept, resource, scope_name, scope_version)
        )


_named = tuple.__new__
_NO_CALL = Span(b"", b"", b"", 0, 0, False, {EVENT_NAME: ""}, {}, "", "")
