"""Decode OTLP protobuf to spans, lazily: attributes that no dialect reads are neither parsed nor kept.

The published schema makes a Python object of each attribute of each span, which costs more than all other stages. This
schema declares attributes as `bytes` (wire-compatible: a message and a byte string have the same encoding), so that the
C parser returns slices. Only wanted keys are decoded. Models, wallets and tags repeat, so decoded slices are cached.
"""

import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from google.protobuf import descriptor_pb2, descriptor_pool, message, message_factory
from opentelemetry.proto.common.v1.common_pb2 import KeyValue

from farebox_collector.dialects.attribution import shared_attributes
from farebox_collector.intake.decoding.bounds import Bounds
from farebox_collector.intake.decoding.errors import MalformedRequest
from farebox_collector.intake.yielding import Pause, no_pause
from farebox_collector.model.records import AttributeValue, Span

_Field = descriptor_pb2.FieldDescriptorProto
_MEMO_ENTRIES = 20_000
_MEMO_VALUE_BYTES = 128
_STATUS_ERROR = 2
_KEY, _VALUE = 0x0A, 0x12
"""Tags of the fields of a KeyValue."""
_KEY_FIRST = bytes([_KEY])
_STRING, _INT = 0x0A, 0x18
"""Tags of fields of an AnyValue."""
_SHORT = 129
"""Longest tail of a message whose lengths fit one byte."""
_TEXT_HEADS = [bytes((_VALUE, max(0, size - 2), _STRING, max(0, size - 4))) for size in range(_SHORT + 1)]
_INT_HEADS = [bytes((_VALUE, max(0, size - 2), _INT)) for size in range(_SHORT + 1)]
"""How the value of an attribute begins, by its length, if it is a text or a number."""
_LONGEST_INT = 12
"""Length of a tail with a number of nine bytes; negative numbers have ten."""
NO_KEY = ""
_UNWANTED: tuple[str, AttributeValue] = (NO_KEY, "")
"""Replaces every attribute that no dialect reads; a single key is cheap to remove from the result."""
_named = tuple.__new__
_DEFAULT_BOUNDS = Bounds()


_Fields = Mapping[str, Sequence[tuple[str, int, str]]]
_COMMON: _Fields = {
    "Resource": [("attributes", 1, "bytes*")],
    "Scope": [("name", 1, "bytes"), ("version", 2, "bytes")],
}
_SPANS: _Fields = {
    "Status": [("code", 3, "int32")],
    "Span": [
        ("trace_id", 1, "bytes"),
        ("span_id", 2, "bytes"),
        ("parent_span_id", 4, "bytes"),
        ("start_time_unix_nano", 7, "fixed64"),
        ("end_time_unix_nano", 8, "fixed64"),
        ("attributes", 9, "bytes*"),
        ("status", 15, "Status"),
    ],
    "ScopeSpans": [("scope", 1, "Scope"), ("spans", 2, "Span*")],
    "ResourceSpans": [("resource", 1, "Resource"), ("scope_spans", 2, "ScopeSpans*")],
    "Request": [("resource_spans", 1, "ResourceSpans*")],
}


def lazy_request_class(signal: str, fields: _Fields) -> type[Any]:
    """Build the class of an export request with `bytes` attributes; field numbers as in opentelemetry-proto."""
    package = f"farebox.otlp.{signal}"
    file = descriptor_pb2.FileDescriptorProto(name=f"farebox/otlp_{signal}.proto", package=package, syntax="proto3")
    scalar = {"bytes": _Field.TYPE_BYTES, "fixed64": _Field.TYPE_FIXED64, "int32": _Field.TYPE_INT32}
    for name, declarations in {**_COMMON, **fields}.items():
        declared = file.message_type.add(name=name)
        for field_name, number, kind in declarations:
            base = kind.rstrip("*")
            declared.field.add(
                name=field_name,
                number=number,
                label=_Field.LABEL_REPEATED if kind.endswith("*") else _Field.LABEL_OPTIONAL,
                type=scalar.get(base, _Field.TYPE_MESSAGE),
                type_name=None if base in scalar else f".{package}.{base}",
            )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.Request"))


_Request = lazy_request_class("spans", _SPANS)


def attribute_value(raw: bytes, at: int = 0) -> AttributeValue | None:
    """Decode the value of an encoded KeyValue whose key ends at offset `at` (0: unknown).

    None for types that no dialect uses (bytes, maps, empty) and for values that cannot be parsed.
    """
    if at:
        value = _plainly_written(raw, at)
        if value is not None:
            return value
    try:
        found = KeyValue.FromString(raw).value
    except (message.DecodeError, ValueError):
        return None
    kind = found.WhichOneof("value")
    if kind == "array_value":
        return tuple(item.string_value for item in found.array_value.values if item.HasField("string_value"))
    if kind in ("string_value", "int_value", "double_value", "bool_value"):
        return getattr(found, kind)  # type: ignore[no-any-return]
    return None


def _plainly_written(raw: bytes, at: int) -> str | int | None:
    """Decode a short text or a number up to 2⁶³ in its shortest form that fills the rest of the message; else None.

    Equal to protobuf's result, in a third of the time. Counts and ids differ from call to call, so caching cannot help.
    """
    size = len(raw) - at
    if not 4 <= size <= _SHORT:
        return None
    if raw[at : at + 4] == _TEXT_HEADS[size]:
        try:
            return raw[at + 4 :].decode()
        except UnicodeDecodeError:
            return None
    first, last = raw[at + 3], raw[-1]
    if raw[at : at + 3] == _INT_HEADS[size] and last < 128 and size <= _LONGEST_INT:
        if size == 5 and first >= 128:  # most counts: 128 to 16,383
            return last << 7 | first & 127
        value = last
        for byte in raw[-2 : at + 2 : -1]:
            if byte < 128:
                return None  # a number that ends before the message does
            value = value << 7 | byte & 127
        return value
    return None


class _Wanted(NamedTuple):
    """An attribute that a dialect reads."""

    key: str
    reduced: Callable[[str], str | None] | None
    once: bool


class AttributeMemo(dict[bytes, tuple[str, AttributeValue]]):
    """Map an encoded attribute to its key and value, or to _UNWANTED; decode it at the first look-up.

    A look-up that hits runs in C, and so does a loop of them.
    """

    def __init__(
        self, wanted: Iterable[str], once: Iterable[str], reduced: Mapping[str, Callable[[str], str | None]]
    ) -> None:
        unique = frozenset(once)
        self._wanted = {key: _Wanted(key, reduced.get(key), key in unique) for key in wanted if key}
        # Field 1 (key) comes first and is shorter than 128 bytes in what every known exporter writes.
        self._heads = {
            bytes((_KEY, len(key.encode()))) + key.encode(): wanted
            for key, wanted in self._wanted.items()
            if len(key.encode()) < 128
        }

    def __missing__(self, raw: bytes) -> tuple[str, AttributeValue]:
        """Decode an attribute that was not decoded before."""
        end = 2 + raw[1] if len(raw) > 2 else 0
        wanted = self._heads.get(raw[:end])
        if wanted is None and (raw[:1] != _KEY_FIRST or end > _SHORT):
            wanted, end = self._parsed_key(raw), 0
        attribute = _UNWANTED
        if wanted is not None:
            key, reduced, once = wanted
            value = attribute_value(raw, end)
            if reduced is not None:
                value = reduced(value) if isinstance(value, str) else None
            if value is not None:
                attribute = key, value
            if once:
                return attribute
        if len(raw) <= _MEMO_VALUE_BYTES:
            if len(self) >= _MEMO_ENTRIES:
                self.clear()
            self[raw] = attribute
        return attribute

    def _parsed_key(self, raw: bytes) -> _Wanted | None:
        """Find the wanted attribute of an encoded KeyValue by parsing it; None if no dialect reads it."""
        try:
            return self._wanted.get(KeyValue.FromString(raw).key)
        except (message.DecodeError, ValueError):
            return None


class ProtobufDecoder:
    """Decode request bodies to spans with the `wanted` attributes only. Thread-safe.

    `once` names attributes whose values never repeat (response ids); they are not cached. `reduced` maps attributes
    that can hold prompts to functions that return the part to keep.
    """

    def __init__(
        self,
        wanted: Iterable[str],
        once: Iterable[str],
        reduced: Mapping[str, Callable[[str], str | None]],
        bounds: Bounds = _DEFAULT_BOUNDS,
    ) -> None:
        self._decoded = AttributeMemo(wanted, once, reduced).__getitem__
        self._bounds = bounds

    def __call__(self, body: bytes, pause: Pause = no_pause) -> Iterator[Span]:
        """Yield the spans of an ExportTraceServiceRequest.

        Raises MalformedRequest if the body is invalid, and RequestTooLarge, before the first span, if it is over the
        bounds.
        """
        try:
            self._bounds.check_protobuf(body, pause)
            request = _Request.FromString(body)
        except (message.DecodeError, struct.error, ValueError, IndexError) as error:
            raise MalformedRequest("the body is not an OTLP ExportTraceServiceRequest in protobuf") from error
        decoded = self._decoded
        for resource_spans in request.resource_spans:
            resource = dict(map(decoded, resource_spans.resource.attributes))
            resource.pop(NO_KEY, None)
            shared = shared_attributes(resource)
            for scope_spans in resource_spans.scope_spans:
                scope = scope_spans.scope.name.decode(errors="replace")
                version = scope_spans.scope.version.decode(errors="replace")
                for span in scope_spans.spans:
                    # C makes a slice in one call; an iterator over protobuf's container is slower.
                    attributes = dict(map(decoded, span.attributes[:]))
                    attributes.pop(NO_KEY, None)
                    if shared:
                        attributes = {**shared, **attributes}
                    yield _named(
                        Span,
                        (
                            span.trace_id,
                            span.span_id,
                            span.parent_span_id,
                            span.start_time_unix_nano,
                            span.end_time_unix_nano,
                            span.status.code == _STATUS_ERROR,
                            attributes,
                            resource,
                            scope,
                            version,
                        ),
                    )
