"""OTLP/JSON to spans, by the same contract as `protobuf.py`.

Ids are hexadecimal, 64-bit integers may be strings, unknown fields are ignored (OTLP 1.x, JSON Protobuf Encoding).
Read by hand rather than through protobuf's JSON parser: that one refuses a whole request for one number out of range,
and the good spans beside it would be lost.
"""

import itertools
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from farebox_collector.intake.decoding.bounds import Bounds
from farebox_collector.intake.decoding.errors import MalformedRequest
from farebox_collector.intake.yielding import Pause, no_pause
from farebox_collector.model.records import Attributes, AttributeValue, Span

_MAX_DIGITS = 20
_INTEGER = re.compile(r"-?[0-9]{1,20}")
_DEFAULT_BOUNDS = Bounds()
_OBJECTS = 1_000
"""What a millisecond or so is enough for."""
_STATUS_ERROR = (2, "STATUS_CODE_ERROR")


class JsonDecoder:
    """Turns OTLP/JSON bodies into spans that carry only the `wanted` attributes, and of the `reduced` a part."""

    def __init__(
        self,
        wanted: Iterable[str],
        reduced: Mapping[str, Callable[[str], str | None]],
        bounds: Bounds = _DEFAULT_BOUNDS,
    ) -> None:
        self._wanted = frozenset(wanted)
        self._reduced = reduced
        self._bounds = bounds

    def __call__(self, body: bytes, pause: Pause = no_pause) -> Iterator[Span]:
        """Yield the spans of an ExportTraceServiceRequest.

        Raises MalformedRequest if it is none, and RequestTooLarge, before the first span, if it is over the bounds.
        """
        self._bounds.check_json(body)
        try:
            request = json.loads(body, parse_int=_bounded_integer, object_hook=_pausing(pause))
        except (ValueError, RecursionError) as error:
            raise MalformedRequest("the body is not JSON") from error
        for resource_spans in _list(_object(request, "the request"), "resourceSpans"):
            resource = self._attributes(_child(resource_spans, "resource"))
            for scope_spans in _list(resource_spans, "scopeSpans"):
                scope = _child(scope_spans, "scope")
                name, version = _text(scope.get("name")), _text(scope.get("version"))
                for span in _list(scope_spans, "spans"):
                    yield Span(
                        _identifier(span.get("traceId")),
                        _identifier(span.get("spanId")),
                        _identifier(span.get("parentSpanId")),
                        _integer(span.get("startTimeUnixNano")) or 0,
                        _integer(span.get("endTimeUnixNano")) or 0,
                        _child(span, "status").get("code") in _STATUS_ERROR,
                        self._attributes(span),
                        resource,
                        name,
                        version,
                    )

    def _attributes(self, owner: Mapping[str, Any]) -> Attributes:
        attributes: dict[str, AttributeValue] = {}
        for pair in _list(owner, "attributes"):
            key = pair.get("key")
            if isinstance(key, str) and key in self._wanted:
                value = _value(_child(pair, "value"))
                if key in self._reduced:
                    value = self._reduced[key](value) if isinstance(value, str) else None
                if value is not None:
                    attributes[key] = value
        return attributes


def _pausing(pause: Pause) -> Callable[[dict[str, Any]], dict[str, Any]] | None:
    """What leaves an object as it is, and pauses after some of them. Python's parser lets no other thread run before
    it has come to its end, unless it calls something on its way."""
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


def _child(owner: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = owner.get(name)
    return {} if value is None else _object(value, name)


def _list(owner: Mapping[str, Any], name: str) -> Iterator[Mapping[str, Any]]:
    value = owner.get(name)
    if value is None:
        return
    if not isinstance(value, list):
        raise MalformedRequest(f"{name} is not an array")
    for item in value:
        yield _object(item, f"an element of {name}")


def _text(value: Any) -> str:
    # A lone surrogate is legal in JSON and cannot be stored anywhere.
    return value.encode(errors="replace").decode() if isinstance(value, str) else ""


def _identifier(value: Any) -> bytes:
    """A trace or span id; empty when it is not hexadecimal, which the dialects then reject span by span."""
    try:
        return bytes.fromhex(value) if isinstance(value, str) else b""
    except ValueError:
        return b""


def _integer(value: Any) -> int | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, str) and _INTEGER.fullmatch(value):
        return int(value)
    return None


def _bounded_integer(digits: str) -> int | str:
    """A JSON number without a fraction; one that fits nowhere stays a text, for the dialect to reject by name."""
    return int(digits) if len(digits) <= _MAX_DIGITS else digits[:_MAX_DIGITS] + "…"


def _value(value: Mapping[str, Any]) -> AttributeValue | None:
    if value.get("stringValue") is not None:
        return _text(value["stringValue"])
    if value.get("intValue") is not None:
        # What is no integer stays visible to the dialect, which rejects it by name.
        integer = _integer(value["intValue"])
        return _text(str(value["intValue"])) if integer is None else integer
    if value.get("doubleValue") is not None:
        try:
            return float(value["doubleValue"])
        except (TypeError, ValueError, OverflowError):
            return _text(str(value["doubleValue"]))
    if value.get("boolValue") is not None:
        return bool(value["boolValue"])
    if value.get("arrayValue") is not None:
        items = _list(_child(value, "arrayValue"), "values")
        return tuple(_text(item["stringValue"]) for item in items if "stringValue" in item)
    return None
