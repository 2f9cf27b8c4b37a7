"""Decode OTLP logs in protobuf to the form in which dialects read spans, with the same contract as `protobuf.py`.

Bodies are `bytes` too: only one that is as short as the name of an event is decoded.
"""

import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any

from google.protobuf import message
from opentelemetry.proto.common.v1.common_pb2 import AnyValue

from farebox_collector.intake.decoding.bounds import LOG_RECORDS, Bounds
from farebox_collector.intake.decoding.errors import MalformedRequest
from farebox_collector.intake.decoding.log_records import EVENT_TIME, MAX_EVENT_NAME, LogSpans, event_time_ns
from farebox_collector.intake.decoding.protobuf import NO_KEY, AttributeMemo, attribute_value, lazy_request_class
from farebox_collector.intake.yielding import Pause, no_pause
from farebox_collector.model.records import EVENT_NAME, Span

_DEFAULT_BOUNDS = Bounds()
_MAX_NAME_BYTES = MAX_EVENT_NAME + 3
"""Longest encoded body that can hold the name of an event: the text, its tag and its length."""
_TIME_HEAD = bytes((0x0A, len(EVENT_TIME))) + EVENT_TIME.encode()
"""How an encoded attribute with the time of an event begins."""
_Request = lazy_request_class(
    "logs",
    {
        "LogRecord": [
            ("time_unix_nano", 1, "fixed64"),
            ("severity_number", 2, "int32"),
            ("body", 5, "bytes"),
            ("attributes", 6, "bytes*"),
            ("trace_id", 9, "bytes"),
            ("span_id", 10, "bytes"),
            ("observed_time_unix_nano", 11, "fixed64"),
            ("event_name", 12, "bytes"),
        ],
        "ScopeLogs": [("scope", 1, "Scope"), ("log_records", 2, "LogRecord*")],
        "ResourceLogs": [("resource", 1, "Resource"), ("scope_logs", 2, "ScopeLogs*")],
        "Request": [("resource_logs", 1, "ResourceLogs*")],
    },
)


class ProtobufLogDecoder:
    """Decode request bodies to log records with the `wanted` attributes only. Thread-safe. See `ProtobufDecoder`."""

    def __init__(
        self,
        events: Iterable[str],
        wanted: Iterable[str],
        once: Iterable[str],
        reduced: Mapping[str, Callable[[str], str | None]],
        bounds: Bounds = _DEFAULT_BOUNDS,
    ) -> None:
        self._decoded = AttributeMemo({EVENT_NAME, *wanted}, once, reduced).__getitem__
        self._spans = LogSpans(events)
        self._bounds = bounds

    def __call__(self, body: bytes, pause: Pause = no_pause) -> Iterator[Span]:
        """Yield the records of an ExportLogsServiceRequest.

        Raises MalformedRequest if the body is invalid, and RequestTooLarge, before the first record, if it is over the
        bounds.
        """
        try:
            self._bounds.check_protobuf(body, pause, LOG_RECORDS)
            request = _Request.FromString(body)
        except (message.DecodeError, struct.error, ValueError, IndexError) as error:
            raise MalformedRequest("the body is not an OTLP ExportLogsServiceRequest in protobuf") from error
        decoded, span = self._decoded, self._spans.span
        for resource_logs in request.resource_logs:
            resource = dict(map(decoded, resource_logs.resource.attributes))
            resource.pop(NO_KEY, None)
            for scope_logs in resource_logs.scope_logs:
                scope = scope_logs.scope.name.decode(errors="replace")
                version = scope_logs.scope.version.decode(errors="replace")
                for record in scope_logs.log_records:
                    attributes = dict(map(decoded, record.attributes[:]))
                    attributes.pop(NO_KEY, None)
                    yield span(
                        record.trace_id,
                        record.span_id,
                        record.time_unix_nano or _other_time_ns(record),
                        record.severity_number,
                        record.event_name.decode(errors="replace"),
                        _short_text(body) if len(body := record.body) <= _MAX_NAME_BYTES else "",
                        attributes,
                        resource,
                        scope,
                        version,
                    )


def _other_time_ns(record: Any) -> int:
    """Return the time of a record that has none of its own."""
    stated = None
    for raw in record.attributes:
        if raw.startswith(_TIME_HEAD):
            stated = attribute_value(raw)
    return event_time_ns(0, stated, record.observed_time_unix_nano)


@lru_cache(1_024)
def _short_text(raw: bytes) -> str:
    """Return the text of an encoded body; empty for any other value."""
    try:
        return AnyValue.FromString(raw).string_value
    except (message.DecodeError, ValueError):
        return ""
