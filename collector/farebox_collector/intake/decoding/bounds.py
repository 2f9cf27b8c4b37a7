"""What a body may unfold to in memory: counted on the wire, before an object is made of any of it.

A few bytes can stand for a message of a few hundred: sixteen MiB of empty spans are a GiB of objects, and a second in
which nobody else is served. Whoever sends that is refused for what it takes to count up to the bound.
"""

from collections.abc import Iterator
from typing import NamedTuple

from farebox_collector.intake.decoding.errors import RequestTooLarge
from farebox_collector.intake.yielding import Pause, no_pause

_SMALL_BYTES = 256 * 2**10
"""What is not longer than this is not worth counting: it makes some twenty MiB at the most."""
_STEPS = 2_000
"""What a millisecond or so is enough for."""
_RESOURCE_SPANS = 1
_OTHER, _RESOURCE, _SPAN = 0, 1, 2
_SCOPE_SPANS = 2
_RESOURCE_ATTRIBUTES, _SPAN_ATTRIBUTES = 1, 9
_TAGS_OF_SPAN_ATTRIBUTES = (b"\x4a", b"\xca")
"""How the tag of a span's attribute begins, in the shortest form of it and in any longer one."""
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class Bounds(NamedTuple):
    """What one request may hold."""

    spans: int = 50_000
    attributes: int = 500_000
    """Of all its spans and resources together."""

    def check_protobuf(self, body: bytes, pause: Pause = no_pause) -> None:
        """Raise RequestTooLarge for too much, and ValueError or IndexError for what is no protobuf at all."""
        if len(body) <= _SMALL_BYTES:
            return
        # An upper bound that takes no time: no more attributes than bytes that their tags can begin with.
        in_spans = sum(body.count(tag) for tag in _TAGS_OF_SPAN_ATTRIBUTES) > self.attributes
        attributes = 0
        for parts, (number, start, end) in enumerate(_parts(body), start=1):
            if parts % _STEPS == 0:
                pause()
            if parts > 2 * self.spans:
                raise RequestTooLarge(f"more than {self.spans} spans in one request")
            if number == _RESOURCE or (number == _SPAN and in_spans):
                wanted = _RESOURCE_ATTRIBUTES if number == _RESOURCE else _SPAN_ATTRIBUTES
                for fields, (field, _, _) in enumerate(_fields(body, start, end)):
                    if fields % _STEPS == _STEPS - 1:
                        pause()
                    attributes += field == wanted
                    if attributes > self.attributes or fields > 2 * self.attributes:
                        raise RequestTooLarge(f"more than {self.attributes} attributes in one request")

    def check_json(self, body: bytes) -> None:
        """Raise RequestTooLarge for a body with more values than the most spans and attributes need."""
        # An attribute is two objects and a comma or two. Commas are also in texts, which are longer than these.
        if body.count(b"{") > 2 * self.attributes + 8 * self.spans or body.count(b",") > 4 * self.attributes:
            raise RequestTooLarge("more values in one request than its spans and attributes may need")


def _parts(body: bytes) -> Iterator[tuple[int, int, int]]:
    """(what it is, start, end) of each resource, each span, and each other field of the messages around them."""
    for number, start, end in _fields(body, 0, len(body)):
        yield _OTHER, start, end
        if number != _RESOURCE_SPANS:
            continue
        for inner, inner_start, inner_end in _fields(body, start, end):
            yield _RESOURCE if inner == _RESOURCE else _OTHER, inner_start, inner_end
            if inner == _SCOPE_SPANS:
                for innermost, span_start, span_end in _fields(body, inner_start, inner_end):
                    yield _SPAN if innermost == _SPAN else _OTHER, span_start, span_end


def _fields(body: bytes, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """(number, start, end) of the fields between two places of a message; what has no length is nowhere.

    Raises ValueError for groups, which OTLP has none of, and ValueError or IndexError where the message ends too soon.
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
    """The number at a place, and the place after it. Raises IndexError at the end, ValueError for too long a one."""
    value = 0
    for shift in range(0, 70, 7):
        byte = body[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise ValueError("a number of more than ten bytes")
