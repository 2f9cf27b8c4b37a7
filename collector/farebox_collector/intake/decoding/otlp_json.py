"""Decode OTLP/JSON to spans, with the same contract as `protobuf.py`.

Ids are hexadecimal, 64-bit integers may be strings, unknown fields are ignored (OTLP 1.x, JSON Protobuf Encoding).
Protobuf's JSON parser is not used: it refuses a whole request for one number out of range, which would lose the valid
spans.
"""

import itertools
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from farebox_collector.dialects.attribution import shared_attributes
from farebox_collector.intake.decoding.bounds import Bounds
from farebox_collector.intake.decoding.errors import MalformedRequest
from farebox_collector.intake.yielding import Pause, no_pause
from farebox_collector.model.records import AttributeValue, Span

_MAX_DIGITS = 20
_INTEGER = re.compile(r"-?[0-9]{1,20}")
_DEFAULT_BOUNDS = Bounds()
_OBJECTS = 1_000
"""About a millisecond of work."""
_STATUS_ERROR = (2, "STATUS_CODE_ERROR")


class AttributeReader:
    """Reads the wanted attributes of resources, spans and log records."""

    def __init__(self, wanted: Iterable[str], reduced: Mapping[str, Callable[[str], str | None]]) -> None:
        self._wanted = frozenset(wanted)
        self._reduced = reduced

    def __call__(self, owner: Mapping[str, Any]) -> dict[str, AttributeValue]:
        """Return the wanted attributes of an object with `attributes`."""
        attributes: dict[str, AttributeValue] = {}
        for pair in objects_in(owner, "attributes"):
            key = pair.get("key")
            if isinstance(key, str) and key in self._wanted:
                value = _value(child(pair, "value"))
                if key in self._reduced:
                    value = self._reduced[key](value) if isinstance(value, str) else None
                if value is not None:
                    attributes[key] = value
        return attributes


class JsonDecoder:
    """Decode OTLP/JSON bodies to spans with the `wanted` attributes only; those in `reduced` are kept in part."""

    def __init__(
        self,
        wanted: Iterable[str],
        reduced: Mapping[str, Callable[[str], str | None]],
        bounds: Bounds = _DEFAULT_BOUNDS,
    ) -> None:
        self._attributes = AttributeReader(wanted, reduced)
        self._bounds = bounds

    def __call__(self, body: bytes, pause: Pause = no_pause) -> Iterator[Span]:
        """Yield the spans of an ExportTraceServiceRequest.

        Raises MalformedRequest if the body is invalid, and RequestTooLarge, before the first span, if it is over the
        bounds.
        """
        self._bounds.check_json(body)
        for resource_spans in objects_in(document(body, pause), "resourceSpans"):
            resource = self._attributes(child(resource_spans, "resource"))
            shared = shared_attributes(resource)
            for scope_spans in objects_in(resource_spans, "scopeSpans"):
                scope = child(scope_spans, "scope")
                name, version = text_in(scope.get("name")), text_in(scope.get("version"))
                for span in objects_in(scope_spans, "spans"):
                    yield Span(
                        identifier(span.get("traceId")),
                        identifier(span.get("spanId")),
                        identifier(span.get("parentSpanId")),
                        integer(span.get("startTimeUnixNano")) or 0,
                        integer(span.get("endTimeUnixNano")) or 0,
                        child(span, "status").get("code") in _STATUS_ERROR,
                        {**shared, **self._attributes(span)},
                        resource,
                        name,
                        version,
                    )


def document(body: bytes, pause: Pause) -> Mapping[str, Any]:
    """Parse a request. Raises MalformedRequest."""
    try:
        request = json.loads(body, parse_int=_bounded_integer, object_hook=_pausing(pause))
    except (ValueError, RecursionError) as error:
        raise MalformedRequest("the body is not JSON") from error
    return _object(request, "the request")


def _pausing(pause: Pause) -> Callable[[dict[str, Any]], dict[str, Any]] | None:
    """A hook that returns objects unchanged and pauses after every `_OBJECTS`. Without a hook Python's JSON parser lets
    no other thread run until it has finished."""
    if pause is no_pause:
        return None
    objects = itertools.count(1)

    def hook(value: dict[str, Any]) -> dict[str, Any]:
        if next(objects) % _OBJECTS == 0:
            pause()
        return value

    return hook


def _object(value: Any, name: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise MalformedRequest(f"{name} is not an object")
    return value


def child(owner: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return an object of an object; empty if it is absent. Raises MalformedRequest."""
    value = owner.get(name)
    return {} if value is None else _object(value, name)


def objects_in(owner: Mapping[str, Any], name: str) -> Iterator[Mapping[str, Any]]:
    """Yield the objects of an array of an object. Raises MalformedRequest."""
    value = owner.get(name)
    if value is None:
        return
    if not isinstance(value, list):
        raise MalformedRequest(f"{name} is not an array")
    for item in value:
        yield _object(item, f"an element of {name}")


def text_in(value: Any) -> str:
    """Return a text; empty for anything else."""
    # JSON allows lone surrogates; databases do not.
    return value.encode(errors="replace").decode() if isinstance(value, str) else ""


def identifier(value: Any) -> bytes:
    """Return a trace or span id; empty if it is not hexadecimal. The dialects reject spans with an empty id."""
    try:
        return bytes.fromhex(value) if isinstance(value, str) else b""
    except ValueError:
        return b""


def integer(value: Any) -> int | None:
    """Return an integer, also one that is written as a text; None for anything else."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, str) and _INTEGER.fullmatch(value):
        return int(value)
    return None


def _bounded_integer(digits: str) -> int | str:
    """Parse a JSON integer; one out of range stays a text, so that the dialect can name it in the rejection."""
    return int(digits) if len(digits) <= _MAX_DIGITS else digits[:_MAX_DIGITS] + "…"


def _value(value: Mapping[str, Any]) -> AttributeValue | None:
    if value.get("stringValue") is not None:
        return text_in(value["stringValue"])
    if value.get("intValue") is not None:
        # An invalid integer stays a text, so that the dialect can name it in the rejection.
        number = integer(value["intValue"])
        return text_in(str(value["intValue"])) if number is None else number
    if value.get("doubleValue") is not None:
        try:
            return float(value["doubleValue"])
        except (TypeError, ValueError, OverflowError):
            return text_in(str(value["doubleValue"]))
    if value.get("boolValue") is not None:
        return bool(value["boolValue"])
    if value.get("arrayValue") is not None:
        items = objects_in(child(value, "arrayValue"), "values")
        return tuple(text_in(item["stringValue"]) for item in items if "stringValue" in item)
    return None
