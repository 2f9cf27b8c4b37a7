"""Malformed and hostile request bodies."""

import gzip
from collections.abc import Iterator
from typing import NamedTuple

from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from spans import SpanSpec, export_request, llm_span, protobuf_body

WALLET = "mallory"
STRINGS = (
    "\x00",
    "a\x00b",
    "'; DROP TABLE usage_records; --",
    "\u202eevil\u202c",
    "\ud7ff\ue000\U0010ffff",
    "%s %d {0} {{}} ${x}",
    "<script>alert(1)</script>",
    '"}\n# HELP farebox_cost_usd_total no\nfarebox_cost_usd_total 1',
    "../../../../etc/passwd",
    "x" * 100_000,
    "\n\r\t\x1b[2J\x7f",
    " ",
    "İıſK",
    "e\u0301" * 500,
)


class Body(NamedTuple):
    """One body and how it is sent."""

    name: str
    body: bytes
    content_type: str = "application/x-protobuf"
    encoding: str = ""


def bodies(limit_bytes: int, *, short: bool) -> Iterator[Body]:
    """All of them. None carries a span that can be charged."""
    whole = protobuf_body([_unpaid()])
    yield Body("not protobuf", b"\xff" * 1_000)
    yield Body("half of it", whole[: len(whole) // 2])
    yield Body("not JSON", b"{" * 1_000, "application/json")
    yield Body("deep JSON", b"[" * 100_000 + b"]" * 100_000, "application/json")
    yield Body("JSON of another kind", b'{"resourceSpans": 7}', "application/json")
    yield Body("no known type", b"hello", "text/plain")
    yield Body("not gzip", b"hello", encoding="gzip")
    yield Body("half a gzip", gzip.compress(whole)[:-10], encoding="gzip")
    yield Body("unknown encoding", whole, encoding="br")
    yield Body("oversized", bytes(limit_bytes + 1))
    yield Body("gzip bomb", gzip.compress(bytes(limit_bytes * (4 if short else 60))), encoding="gzip")
    yield Body("deep protobuf", _deep(30))
    yield Body("absurdly deep protobuf", _deep(500))
    attributes = 50_000 if short else 1_000_000
    yield Body("many attributes", _many_attributes(attributes))
    yield Body("many attributes in JSON", _many_attributes_json(attributes // 2, limit_bytes), "application/json")
    room = 200_000 if short else limit_bytes - 100
    yield Body("nothing but empty attributes", _nested(b"\x4a\x00" * (room // 2), 2, 2, 1))
    yield Body("nothing but empty spans", _nested(b"\x12\x00" * (room // 2), 2, 1))
    yield Body("nothing but empty resources", b"\x0a\x00" * (room // 2))
    yield Body("nothing but objects in JSON", b"[" + b"{}," * (room // 3) + b"{}]", "application/json")


def _unpaid() -> SpanSpec:
    return llm_span(wallet=WALLET, model="no-such-model")


def _many_attributes(number: int) -> bytes:
    """One span with so many attributes; repeated fields of one message may simply follow each other."""
    request = export_request([_unpaid()])
    span = request.resource_spans[0].scope_spans[0].spans[0]
    pair = span.attributes.add(key="a")
    pair.value.int_value = 1
    for _ in range(number):
        span.attributes.append(pair)
    return request.SerializeToString()


def _many_attributes_json(number: int, limit_bytes: int) -> bytes:
    """One span with so many attributes, or as many as there is room for."""
    pair = b'{"key":"a","value":{"intValue":1}}'
    number = min(number, (limit_bytes - 200) // (len(pair) + 1))
    return b'{"resourceSpans":[{"scopeSpans":[{"spans":[{"attributes":[' + b",".join([pair] * number) + b"]}]}]}]}"


def _nested(body: bytes, *fields: int) -> bytes:
    """A message in a field of a message, and so on, from the inside out."""
    for field in fields:
        body = bytes([field << 3 | 2]) + _varint(len(body)) + body
    return body


def _deep(levels: int) -> bytes:
    """One span with an attribute that is a list in a list in a list."""
    request = export_request([_unpaid()])
    value = AnyValue(string_value="x").SerializeToString()
    for _ in range(levels):
        # ArrayValue { values = 1 } inside AnyValue { array_value = 5 }, by hand: protobuf's own writer would refuse.
        array = b"\x0a" + _varint(len(value)) + value
        value = b"\x2a" + _varint(len(array)) + array
    pair = b"\x0a\x04deep\x12" + _varint(len(value)) + value
    span = request.resource_spans[0].scope_spans[0].spans[0].SerializeToString() + b"\x4a" + _varint(len(pair)) + pair
    return _nested(span, 2, 2, 1)


def _varint(number: int) -> bytes:
    made = bytearray()
    while number > 0x7F:
        made.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*made, number])
