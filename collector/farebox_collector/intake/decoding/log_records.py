"""What both encodings of log records have in common: the name of the event, its time, and what is kept of a record."""

import re
from collections.abc import Iterable
from datetime import UTC, datetime

from farebox_collector.model.records import EVENT_NAME, Attributes, AttributeValue, Span

EVENT_TIME = "event.timestamp"
"""The attribute with the time of an event, for records that have none of their own."""
MAX_EVENT_NAME = 128
"""Longest name of an event, in characters. A longer body is a message, and dropped unread."""
SEVERITY_ERROR = 17
NEEDED = frozenset({EVENT_NAME, EVENT_TIME})
"""The attributes that are read here."""
_NAME = re.compile(r"[A-Za-z0-9_]+([.-][A-Za-z0-9_]+)*")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


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
        ids: tuple[bytes, bytes],
        times_ns: tuple[int, int],
        severity: int,
        texts: tuple[str, str],
        attributes: dict[str, AttributeValue],
        resource: Attributes,
        scope: tuple[str, str],
    ) -> Span:
        """Return a record as a span.

        `ids` are those of the trace and of the open span, `times_ns` its time and the time of its observation, `texts`
        the field with the event's name and the body. The attributes of the resource are added under those of the
        record. A record that no dialect reads keeps nothing.
        """
        name = event_name(texts[0], attributes.get(EVENT_NAME), texts[1])
        if name not in self._events:
            return _NO_CALL
        at_ns = event_time_ns(times_ns[0], attributes.pop(EVENT_TIME, None), times_ns[1])
        kept = {**resource, **attributes, EVENT_NAME: name}
        return Span(ids[0], b"", ids[1], at_ns, at_ns, severity >= SEVERITY_ERROR, kept, resource, *scope)


_NO_CALL = Span(b"", b"", b"", 0, 0, False, {EVENT_NAME: ""}, {}, "", "")
