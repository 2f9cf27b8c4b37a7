"""Decode OTLP/JSON logs to the form in which dialects read spans, with the same contract as `otlp_json.py`."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from farebox_collector.intake.decoding.bounds import LOG_RECORDS, Bounds
from farebox_collector.intake.decoding.log_records import (
    EVENT_TIME,
    MAX_EVENT_NAME,
    SEVERITY_ERROR,
    LogSpans,
    event_time_ns,
)
from farebox_collector.intake.decoding.otlp_json import (
    AttributeReader,
    child,
    document,
    identifier,
    integer,
    objects_in,
    text_in,
)
from farebox_collector.intake.yielding import Pause, no_pause
from farebox_collector.model.records import EVENT_NAME, Span

_DEFAULT_BOUNDS = Bounds()
_SEVERE = ("SEVERITY_NUMBER_ERROR", "SEVERITY_NUMBER_FATAL")


class JsonLogDecoder:
    """Decode OTLP/JSON bodies to log records with the `wanted` attributes only."""

    def __init__(
        self,
        events: Iterable[str],
        wanted: Iterable[str],
        reduced: Mapping[str, Callable[[str], str | None]],
        bounds: Bounds = _DEFAULT_BOUNDS,
    ) -> None:
        self._attributes = AttributeReader({EVENT_NAME, *wanted}, reduced)
        self._stated_time = AttributeReader({EVENT_TIME}, {})
        self._spans = LogSpans(events)
        self._bounds = bounds

    def __call__(self, body: bytes, pause: Pause = no_pause) -> Iterator[Span]:
        """Yield the records of an ExportLogsServiceRequest.

        Raises MalformedRequest if the body is invalid, and RequestTooLarge, before the first record, if it is over the
        bounds.
        """
        self._bounds.check_json(body, LOG_RECORDS)
        for resource_logs in objects_in(document(body, pause), "resourceLogs"):
            resource = self._attributes(child(resource_logs, "resource"))
            for scope_logs in objects_in(resource_logs, "scopeLogs"):
                told = child(scope_logs, "scope")
                scope, version = text_in(told.get("name")), text_in(told.get("version"))
                for record in objects_in(scope_logs, "logRecords"):
                    yield self._spans.span(
                        identifier(record.get("traceId")),
                        identifier(record.get("spanId")),
                        self._time_ns(record),
                        _severity(record.get("severityNumber")),
                        text_in(record.get("eventName")),
                        _body(record),
                        self._attributes(record),
                        resource,
                        scope,
                        version,
                    )

    def _time_ns(self, record: Mapping[str, Any]) -> int:
        own, observed = (integer(record.get(name)) or 0 for name in ("timeUnixNano", "observedTimeUnixNano"))
        return own or event_time_ns(0, self._stated_time(record).get(EVENT_TIME), observed)


def _body(record: Mapping[str, Any]) -> str:
    body = record.get("body")
    text = text_in(body.get("stringValue")) if isinstance(body, dict) else ""
    return text if len(text) <= MAX_EVENT_NAME else ""


def _severity(value: Any) -> int:
    """Return a severity number, also one that is written as its name."""
    if isinstance(value, str) and value.startswith(_SEVERE):
        return SEVERITY_ERROR
    return integer(value) or 0
