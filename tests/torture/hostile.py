"""Bodies that nobody should send."""

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
    """All of them. None carries a span that could be charged, whatever a receiver makes of it."""
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
    yield Body("many attributes", _many_attributes(50_000 if short else 1_000_000))


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
    scope = b"\x12" + _varint(len(span)) + span
    resource = b"\x12" + _varint(len(scope)) + scope
    return b"\x0a" + _varint(len(resource)) + resource


def _varint(number: int) -> bytes:
    made = bytearray()
    while number > 0x7F:
        made.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*made, number])
