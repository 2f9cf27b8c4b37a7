"""Permanent ids for calls that log records tell: they stand where a span has its trace and span id.

A log record has no id of its own, and often no trace. So its ids are derived from what the tool tells: the provider's
request id if there is one, else the session, the sequence, the time and the counts together. A sequence may restart,
and a session may go on at another machine, but not within the same nanosecond with the same counts.

A record of a trace keeps its trace id, so that the call is beside the spans of its trace. Any other record is a trace
of its own: the session of a call is its action, and a trace of thousands of calls would be searched with each of them.

The ids depend on the tool and on nothing of the receiver. A record that is sent again has the same ids.
"""

from collections.abc import Iterable
from functools import lru_cache
from hashlib import blake2b

from farebox_collector.model.records import EVENT_NAME, Span

_DOMAIN = b"farebox.log.call"
_NO_TRACE = bytes(16)

Ids = tuple[bytes, bytes, bytes]
"""Trace, span and parent."""


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
    trace_id, span_id, parent_span_id = ids_of(span, tool, request_id, session, sequence, counts)
    if span_id is span.span_id:
        return span
    return span._replace(trace_id=trace_id, span_id=span_id, parent_span_id=parent_span_id)


def ids_of(span: Span, tool: str, request_id: str, session: str, sequence: str, counts: Iterable[int | str]) -> Ids:
    """Return the ids of `identified`."""
    trace_id, span_id, parent_span_id, _, end_ns, _, attributes, _, _, _ = span
    if span_id or EVENT_NAME not in attributes:
        return trace_id, span_id, parent_span_id
    event = str(attributes[EVENT_NAME])
    hashed = _begun(tool, event, "request" if request_id else "session").copy()
    # Spelt out for the ordinary case: this runs for every record.
    if request_id:
        text = request_id.encode(errors="replace")
        hashed.update(len(text).to_bytes(4, "big") + text)
    else:
        hashed.update(_framed((session, sequence, str(end_ns), *map(str, counts))))
    digest = hashed.digest()
    if len(trace_id) == 16 and trace_id != _NO_TRACE:
        return trace_id, digest[16:], parent_span_id
    return digest[:16], digest[16:], b""


@lru_cache(256)
def _begun(*parts: str) -> "blake2b":
    """Return a hash that has these parts, to be copied."""
    return blake2b(_framed(parts), digest_size=24, person=_DOMAIN)


def _framed(parts: Iterable[str]) -> bytes:
    """Return bytes that differ for any two different lists of texts."""
    return b"".join([len(text).to_bytes(4, "big") + text for text in [part.encode(errors="replace") for part in parts]])
