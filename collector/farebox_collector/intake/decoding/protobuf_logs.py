"""Decode OTLP logs in protobuf to the form in which dialects read spans, with the same contract as `protobuf.py`.

Bodies are `bytes` too: only one that is as short as the name of an event is decoded.
"""

import struct
from collections.abc import Callable, Iterable, Iterator, Mapping

from google.protobuf import message
from opentelemetry.proto.common.v1.common_pb2 import AnyValue

from farebox_collector.intake.decoding.bounds import LOG_RECORDS, Bounds
from farebox_collector.intake.decoding.errors import MalformedRequest
from farebox_collector.intake.decoding.log_records import EVENT_TIME, MAX_EVENT_NAME, NEEDED, LogSpans
from farebox_collector.intake.decoding.protobuf import NO_KEY, AttributeMemo, lazy_request_class
from farebox_collector.intake.yielding import Pause, no_pause
from farebox_collector.model.records import Span

_DEFAULT_BOUNDS = Bounds()
_MAX_NAME_BYTES = MAX_EVENT_NAME + 3
"""Longest encoded body that can hold the name of an event: the text, its tag and its length."""
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
        self._decoded = AttributeMemo(NEEDED.union(wanted), {EVENT_TIME, *once}, reduced).__getitem__
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
        decoded = self._decoded
        for resource_logs in request.resource_logs:
            resource = dict(map(decoded, resource_logs.resource.attributes))
            resource.pop(NO_KEY, None)
            for scope_logs in resource_logs.scope_logs:
                name, version = scope_logs.scope.name, scope_logs.scope.version
                scope = name.decode(errors="replace"), version.decode(errors="replace")
                for record in scope_logs.log_records:
                    attributes = dict(map(decoded, record.attributes[:]))
                    attributes.pop(NO_KEY, None)
                    yield self._spans.span(
                        (record.trace_id, record.span_id),
                        (record.time_unix_nano, record.observed_time_unix_nano),
                        record.severity_number,
                        (record.event_name.decode(errors="replace"), _short_text(record.body)),
                        attributes,
                        resource,
                        scope,
                    )


def _short_text(raw: bytes) -> str:
    """Return the text of an encoded body if it is as short as the name of an event, else an empty text."""
    if not raw or len(raw) > _MAX_NAME_BYTES:
        return ""
    try:
        return AnyValue.FromString(raw).string_value
    except (message.DecodeError, ValueError):
        return ""
