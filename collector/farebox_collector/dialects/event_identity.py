"""Permanent ids for calls that log records tell: they stand where a span has its trace and span id.

A log record has no id of its own, and often no trace. So its ids are derived from what the tool tells:

- The span id comes from the provider's request id if there is one. Else it comes from the session, the sequence, the
  time and the counts together: a sequence may restart, and a session may go on at another machine, but not within the
  same nanosecond with the same counts.
- The trace id is the record's own if it has one, so that the call is beside the spans of its trace. Else it comes from
  the session: all calls of a session are one trace.

The ids depend on the tool and on nothing of the receiver. A record that is sent again has the same ids.
"""

from collections.abc import Iterable
from hashlib import blake2b

from farebox_collector.model.records import EVENT_NAME, Span

_TRACE, _CALL = b"farebox.session", b"farebox.log.call"
"""Domains of the two hashes."""
_NO_TRACE = bytes(16)


def identified(
    span: Span,
    tool: str,
    *,
    request_id: str = "",
    session: str = "",
    sequence: str = "",
    counts: Iterable[int | str] = (),
) -> Span:
    """Return a log record with the ids of the call that it tells; a span keeps its own.

    `tool` keeps tools apart that number alike. Call it before the times of the record are changed: the end of the
    record, in nanoseconds, is part of its identity. The span that was open when the record was written is its parent.
    """
    if span.span_id or EVENT_NAME not in span.attributes:
        return span
    event = str(span.attributes[EVENT_NAME])
    if request_id:
        told: tuple[str, ...] = (tool, event, "request", request_id)
    else:
        told = (tool, event, "session", session, sequence, str(span.end_ns), *map(str, counts))
    span_id = _digest(_CALL, told, 8)
    if len(span.trace_id) == 16 and span.trace_id != _NO_TRACE:
        return span._replace(span_id=span_id)
    trace_id = _digest(_TRACE, (tool, session) if session else told, 16)
    return span._replace(trace_id=trace_id, span_id=span_id, parent_span_id=b"")


def _digest(domain: bytes, parts: Iterable[str], size: int) -> bytes:
    """Hash texts so that no two lists of texts are hashed as the same bytes."""
    texts = [part.encode(errors="replace") for part in parts]
    framed = b"".join(len(text).to_bytes(4, "big") + text for text in texts)
    return blake2b(framed, digest_size=size, person=domain).digest()
