"""Bound the memory that a body decodes to: count its spans and attributes on the wire, before any object is made.

A few bytes can decode to an object of a few hundred: sixteen MiB of empty spans are a GiB of objects, and block other
requests for a second. Such a request is refused at the cost of counting up to the bound.
"""

from collections.abc import Iterator
from typing import NamedTuple

from farebox_collector.intake.decoding.errors import RequestTooLarge
from farebox_collector.intake.yielding import Pause, no_pause

_SMALL_BYTES = 256 * 2**10
"""Bodies up to this size are not counted: they decode to some twenty MiB at most."""
_STEPS = 2_000
"""About a millisecond of work."""
_RESOURCE_SPANS = 1
_OTHER, _RESOURCE, _SPAN = 0, 1, 2
_SCOPE_SPANS = 2
_RESOURCE_ATTRIBUTES = 1
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class Counted(NamedTuple):
    """What the spans of a request are called, and where they have their attributes."""

    name: str
    attributes: int
    """The number of the field."""
    tags: tuple[bytes, bytes]
    """The first byte of its tag, in its shortest form and in any longer form."""


SPANS = Counted("spans", 9, (b"\x4a", b"\xca"))
LOG_RECORDS = Counted("log records", 6, (b"\x32", b"\xb2"))
DATA_POINTS = Counted("data points", 7, (b"\x3a", b"\xba"))


class Bounds(NamedTuple):
    """The limits of one request."""

    spans: int = 50_000
    attributes: int = 500_000
    """Of all its spans and resources together."""

    def check_protobuf(self, body: bytes, pause: Pause = no_pause, of: Counted = SPANS) -> None:
        """Raise RequestTooLarge for a body over the bounds, ValueError or IndexError for one that is not protobuf."""
        if len(body) <= _SMALL_BYTES:
            return
        # A cheap upper bound: there are no more attributes than bytes that can begin their tags.
        in_spans = sum(body.count(tag) for tag in of.tags) > self.attributes
        attributes = 0
        for parts, (number, start, end) in enumerate(_parts(body), start=1):
            if parts % _STEPS == 0:
                pause()
            if parts > 2 * self.spans:
                raise RequestTooLarge(f"the request has more than {self.spans} {of.name}; send smaller batches")
            if number == _RESOURCE or (number == _SPAN and in_spans):
                wanted = _RESOURCE_ATTRIBUTES if number == _RESOURCE else of.attributes
                for fields, (field, _, _) in enumerate(wire_fields(body, start, end)):
                    if fields % _STEPS == _STEPS - 1:
                        pause()
                    attributes += field == wanted
                    if attributes > self.attributes or fields > 2 * self.attributes:
                        raise RequestTooLarge(
                            f"the request has more than {self.attributes} attributes; send smaller batches"
                        )

    def check_json(self, body: bytes, of: Counted = SPANS) -> None:
        """Raise RequestTooLarge for a body with more values than the allowed spans and attributes need."""
        # An attribute has two objects and one or two commas. Texts hold commas too, but are longer than attributes.
        if body.count(b"{") > 2 * self.attributes + 8 * self.spans or body.count(b",") > 4 * self.attributes:
            raise RequestTooLarge(
                f"the request has more values than {self.spans} {of.name} with {self.attributes} attributes need;"
                " send smaller batches"
            )


def _parts(body: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield (kind, start, end) of each resource, each span, and each other field of the enclosing messages."""
    for number, start, end in wire_fields(body, 0, len(body)):
        yield _OTHER, start, end
        if number != _RESOURCE_SPANS:
            continue
        for inner, inner_start, inner_end in wire_fields(body, start, end):
            yield _RESOURCE if inner == _RESOURCE else _OTHER, inner_start, inner_end
            if inner == _SCOPE_SPANS:
                for innermost, span_start, span_end in wire_fields(body, inner_start, inner_end):
                    yield _SPAN if innermost == _SPAN else _OTHER, span_start, span_end


def wire_fields(body: bytes, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yield (number, start, end) of the fields between two offsets; fields without a length have an empty range.

    Raises ValueError for groups, which OTLP does not use, and ValueError or IndexError for a truncated message.
    """
    while at < end:
        tag = body[at]
        at += 1
        if tag > 127:
            tag, at = _varint(body, at - 1)
        kind = tag & 7
        start = at
        if kind == _BYTES:
            length = body[at]
            at += 1
            if length > 127:
                length, at = _varint(body, at - 1)
            start, at = at, at + length
        elif kind == _VARINT:
            _, at = _varint(body, at)
            start = at
        elif kind in (_FIXED32, _FIXED64):
            start = at = at + (4 if kind == _FIXED32 else 8)
        else:
            raise ValueError("a group")
        if at > end:
            raise ValueError("a field ends after its message")
        yield tag >> 3, start, at


def _varint(body: bytes, at: int) -> tuple[int, int]:
    """Return the number at an offset and the offset after it. Raises IndexError at the end, ValueError if too long."""
    value = 0
    for shift in range(0, 70, 7):
        byte = body[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise ValueError("a number of more than ten bytes")
