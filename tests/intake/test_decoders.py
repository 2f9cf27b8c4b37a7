"""Bytes to spans: both encodings agree, unneeded attributes are dropped, and malformed bytes have bounded cost."""

import gc
import json
import math
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
from farebox_collector import dialects
from farebox_collector.intake.decoding.bounds import Bounds
from farebox_collector.intake.decoding.errors import MalformedRequest, RequestTooLarge
from farebox_collector.intake.decoding.otlp_json import JsonDecoder
from farebox_collector.intake.decoding.protobuf import ProtobufDecoder
from farebox_collector.model.records import AttributeValue, Span
from google.protobuf import json_format
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span as WireSpan
from opentelemetry.proto.trace.v1.trace_pb2 import Status
from spans import export_request, json_body, json_document, llm_span, protobuf_body

WALLET_ATTRIBUTES = ("user.id", "enduser.id")
WANTED = dialects.wanted_attributes(WALLET_ATTRIBUTES)
ONCE = dialects.unique_attributes()
REDUCED = dialects.reduced_attributes()
PRIVATE = ("gen_ai.input.messages", "gen_ai.output.messages", "gen_ai.prompt", "gen_ai.completion", "http.url", "")
SHARED = {f"farebox.{name}" for name in ("wallet", "event", "dept", "project", "task", "route")}
"""What a resource states for its spans that do not state it themselves."""
INT64 = st.integers(-(2**63), 2**63 - 1)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)

MANY = settings(max_examples=150, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])


def protobuf_decoder() -> ProtobufDecoder:
    return ProtobufDecoder(WANTED, ONCE, REDUCED)


def json_decoder() -> JsonDecoder:
    return JsonDecoder(WANTED, REDUCED)


def any_value(value: Any) -> AnyValue:
    """An AnyValue of a Python value; bytes and None are what no dialect uses."""
    made = AnyValue()
    match value:
        case bool():
            made.bool_value = value
        case int():
            made.int_value = value
        case float():
            made.double_value = value
        case str():
            made.string_value = value
        case bytes():
            made.bytes_value = value
        case dict():
            made.kvlist_value.values.extend(KeyValue(key=key, value=any_value(item)) for key, item in value.items())
        case tuple():
            made.array_value.SetInParent()
            made.array_value.values.extend(any_value(item) for item in value)
    return made


SCALARS = st.one_of(TEXT, INT64, st.floats(), st.booleans())
VALUES = st.one_of(
    SCALARS,
    st.lists(st.one_of(TEXT, INT64, st.booleans()), max_size=4).map(tuple),
    st.binary(max_size=5),
    st.none(),
    st.dictionaries(TEXT, SCALARS, max_size=3),
)
KEYS = st.one_of(st.sampled_from(sorted(WANTED)), st.sampled_from(PRIVATE), TEXT)
ATTRIBUTES = st.lists(st.builds(lambda key, value: KeyValue(key=key, value=any_value(value)), KEYS, VALUES), max_size=8)
WIRE_SPANS = st.builds(
    lambda trace, span, parent, start, end, code, attributes: WireSpan(
        trace_id=trace,
        span_id=span,
        parent_span_id=parent,
        name="gen_ai.prompt: not for you",
        start_time_unix_nano=start,
        end_time_unix_nano=end,
        status=Status(code=code, message="nor this"),
        attributes=attributes,
    ),
    st.binary(max_size=20),
    st.binary(max_size=10),
    st.one_of(st.just(b""), st.binary(min_size=8, max_size=8)),
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**64 - 1),
    st.sampled_from([0, 1, 2]),
    ATTRIBUTES,
)


@st.composite
def requests(draw: st.DrawFn) -> ExportTraceServiceRequest:
    """Requests with several resources and scopes, in the published schema."""
    request = ExportTraceServiceRequest()
    for _ in range(draw(st.integers(0, 2))):
        resource_spans = request.resource_spans.add()
        resource_spans.resource.attributes.extend(draw(ATTRIBUTES))
        for _ in range(draw(st.integers(0, 2))):
            scope_spans = resource_spans.scope_spans.add()
            scope_spans.scope.name, scope_spans.scope.version = draw(TEXT), draw(TEXT)
            scope_spans.spans.extend(draw(st.lists(WIRE_SPANS, max_size=3)))
    return request


def as_otlp_json(request: ExportTraceServiceRequest) -> bytes:
    """OTLP/JSON: protobuf's JSON, but for the ids, which are hexadecimal."""
    document = json_format.MessageToDict(request)
    for resource_spans, shown_resource in zip(request.resource_spans, document.get("resourceSpans", ()), strict=True):
        scopes = shown_resource.get("scopeSpans", ())
        for scope_spans, shown_scope in zip(resource_spans.scope_spans, scopes, strict=True):
            for span, shown in zip(scope_spans.spans, shown_scope.get("spans", ()), strict=True):
                ids = {"traceId": span.trace_id, "spanId": span.span_id, "parentSpanId": span.parent_span_id}
                shown.update({name: value.hex() for name, value in ids.items()})
    return json.dumps(document).encode()


def expected_spans(request: ExportTraceServiceRequest) -> Iterator[Span]:
    """What both decoders have to yield, read with the published schema and no cleverness."""
    for resource_spans in request.resource_spans:
        resource = expected_attributes(resource_spans.resource.attributes)
        shared = {key: value for key, value in resource.items() if key in SHARED}
        for scope_spans in resource_spans.scope_spans:
            for span in scope_spans.spans:
                yield Span(
                    span.trace_id,
                    span.span_id,
                    span.parent_span_id,
                    span.start_time_unix_nano,
                    span.end_time_unix_nano,
                    span.status.code == 2,
                    shared | expected_attributes(span.attributes),
                    resource,
                    scope_spans.scope.name,
                    scope_spans.scope.version,
                )


def expected_attributes(pairs: Iterable[KeyValue]) -> dict[str, AttributeValue]:
    attributes: dict[str, AttributeValue] = {}
    for pair in pairs:
        kind = pair.value.WhichOneof("value")
        if pair.key in WANTED and kind not in (None, "bytes_value", "kvlist_value"):
            value = getattr(pair.value, kind)
            if kind == "array_value":
                value = tuple(item.string_value for item in value.values if item.HasField("string_value"))
            if pair.key in REDUCED:
                value = REDUCED[pair.key](value) if kind == "string_value" else None
            if value is not None:
                attributes[pair.key] = value
    return attributes


def exactly(spans: Iterable[Span]) -> list[str]:
    """Spans in a form in which 1, 1.0 and True differ and NaN equals itself."""
    return [
        repr(
            (span._replace(attributes={}, resource={}), sorted(span.attributes.items()), sorted(span.resource.items()))
        )
        for span in spans
    ]


@given(requests())
@MANY
def test_both_encodings_of_a_request_give_the_same_spans(request: ExportTraceServiceRequest) -> None:
    expected = exactly(expected_spans(request))
    assert exactly(protobuf_decoder()(request.SerializeToString())) == expected
    assert exactly(json_decoder()(as_otlp_json(request))) == expected


@given(requests())
@MANY
def test_a_decoder_that_has_seen_a_request_reads_it_the_same_again(request: ExportTraceServiceRequest) -> None:
    decode, body = protobuf_decoder(), request.SerializeToString()
    first = exactly(decode(body))
    assert exactly(decode(body)) == first
    assert exactly(SHARED_DECODER(body)) == first


SHARED_DECODER = protobuf_decoder()
"""One for all examples: its cache must not change results."""


@pytest.mark.parametrize("encoding", ["protobuf", "json"])
def test_prompts_and_other_unwanted_attributes_never_come_out(encoding: str) -> None:
    secret = "the patient's name is"
    span = llm_span(
        gen_ai__input__messages=secret,
        gen_ai__output__messages=[secret],
        gen_ai__prompt__0__content=secret,
        gen_ai__system_instructions=secret,
        gen_ai__tool__call__arguments=secret,
    )
    request = export_request([span], {"service.name": "test", "process.command_line": secret, "cloud.region": "eu"})
    body = request.SerializeToString() if encoding == "protobuf" else as_otlp_json(request)
    decode = protobuf_decoder() if encoding == "protobuf" else json_decoder()
    (decoded,) = decode(body)
    assert secret not in repr(decoded)
    assert set(decoded.attributes) <= WANTED
    assert decoded.resource == {"cloud.region": "eu"}
    assert secret not in repr(vars(decode))


def test_values_that_differ_are_told_apart_however_many_there_are() -> None:
    """More than the 20,000 that are remembered, and some of them again after they were forgotten."""
    decode = protobuf_decoder()
    names = [f"wallet-{number}" for number in range(25_000)]
    for start in range(0, len(names), 5_000):
        part = names[start : start + 5_000]
        body = protobuf_body(llm_span(wallet=name, input_tokens=len(name)) for name in part)
        assert [span.attributes["farebox.wallet"] for span in decode(body)] == part
    body = protobuf_body(llm_span(wallet=name) for name in names[::1000])
    assert [span.attributes["farebox.wallet"] for span in decode(body)] == names[::1000]


def test_what_is_remembered_of_unique_values_stops_growing() -> None:
    """Bodies are made beforehand, so that only what the decoder keeps is measured."""
    bodies = [
        protobuf_body(llm_span(wallet=f"{start + number:0100}") for number in range(3_000))
        for start in range(0, 30_000, 3_000)
    ]
    decode = protobuf_decoder()
    kept: list[int] = []
    tracemalloc.start()
    try:
        for body in bodies:
            for _ in decode(body):
                pass
            gc.collect()
            kept.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    # 7 bodies are 21,000 values, one more than full; 30,000 unbounded would be 1.4 times as much.
    assert max(kept[7:]) < 1.3 * max(kept[:7])


def test_long_values_and_values_that_never_repeat_are_not_remembered() -> None:
    decode = protobuf_decoder()
    body = protobuf_body(
        llm_span(
            trace_id=bytes([1] * 16),
            span_id=bytes([2] * 8),
            start_ns=1,
            response_id=f"resp-{number:060}",
            farebox__task=f"{number:04000}",
        )
        for number in range(2_000)
    )
    tracemalloc.start()
    try:
        for _ in decode(body):
            pass
        gc.collect()
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # 2,000 response ids are 0.6 MB, 2,000 tasks are 8 MB; the handful of repeated values is a few kB.
    assert kept < 100_000


def field(number: int, payload: bytes) -> bytes:
    """A length-delimited protobuf field."""
    size, length = len(payload), b""
    while size > 127:
        length += bytes([size & 127 | 128])
        size >>= 7
    return bytes([number << 3 | 2]) + length + bytes([size]) + payload


def raw_request(*raw_attributes: bytes, scope: bytes = b"scope") -> bytes:
    """A request of one span with attributes, and a scope name, that are any bytes."""
    span = field(1, bytes(range(16))) + field(2, bytes(range(8))) + b"".join(field(9, raw) for raw in raw_attributes)
    return field(1, field(2, field(1, field(1, scope)) + field(2, span)))


def pair(key: str, value: Any) -> bytes:
    return KeyValue(key=key, value=any_value(value)).SerializeToString()


def test_invalid_utf8_costs_the_attribute_and_not_the_request() -> None:
    valid = pair("gen_ai.request.model", "gpt-4o")
    (span,) = protobuf_decoder()(
        raw_request(
            pair("farebox.wallet", "A").replace(b"A", b"\xff"),
            pair("http.A", "x").replace(b"A", b"\xff"),
            pair("http.url", "A").replace(b"A", b"\xff"),
            valid,
            scope=b"scope \xff\xfe",
        )
    )
    assert span.attributes == {"gen_ai.request.model": "gpt-4o"}
    assert span.scope_name == "scope \ufffd\ufffd"
    assert span.trace_id == bytes(range(16))


def test_an_attribute_that_is_no_key_and_value_costs_only_itself() -> None:
    valid = pair("gen_ai.request.model", "gpt-4o")
    broken = [b"", b"\xff", b"\x0a", b"\x0a\x7f", valid[:-1], b"\x0a\x0efarebox.wallet\x12\x05\x0a\xff", b"\x08\x01"]
    decode = protobuf_decoder()
    for _ in range(2):
        (span,) = decode(raw_request(*broken, valid, *broken))
        assert span.attributes == {"gen_ai.request.model": "gpt-4o"}


def test_key_and_value_may_come_in_any_order_and_length_encoding() -> None:
    key, value = b"gen_ai.request.model", any_value("gpt-4o").SerializeToString()
    value_first = field(2, value) + field(1, key)
    long_length = bytes([0x0A, len(key) | 128, 0]) + key + field(2, value)
    for raw in (value_first, long_length):
        (span,) = protobuf_decoder()(raw_request(raw))
        assert span.attributes == {"gen_ai.request.model": "gpt-4o"}


def test_a_tower_of_nested_values_in_a_wanted_attribute_costs_only_the_attribute() -> None:
    tower = b""
    for _ in range(2_000):
        # AnyValue.array_value is field 5, ArrayValue.values field 1.
        tower = field(5, field(1, tower))
    raw = field(1, b"farebox.wallet") + field(2, tower)
    (span,) = protobuf_decoder()(raw_request(raw, pair("farebox.event", "e")))
    assert span.attributes == {"farebox.event": "e"}


def read_all(decode: Callable[[bytes], Iterable[Span]], body: bytes) -> None:
    """Decode and read; MalformedRequest is the only way out but through, and only what is wanted comes through."""
    try:
        for span in decode(body):
            assert set(span.attributes) <= WANTED
            assert all(isinstance(value, str | int | float | tuple) for value in span.attributes.values())
            assert all(isinstance(part, bytes) for part in (span.trace_id, span.span_id, span.parent_span_id))
            assert type(span.start_ns) is type(span.end_ns) is int
            for text in (span.scope_name, span.scope_version, *map(str, span.attributes.values())):
                text.encode()
            dialects.read(span, WALLET_ATTRIBUTES)
    except MalformedRequest:
        return


SAMPLE = [llm_span(trace_id=bytes(range(16)), span_id=bytes(range(8)), start_ns=10**18, finish=["stop"], cost=0.5)]
SAMPLE_PROTOBUF, SAMPLE_JSON = protobuf_body(SAMPLE), json_body(SAMPLE)
EDITS = st.lists(st.tuples(st.integers(0, 2_000), st.integers(0, 3), st.binary(max_size=4)), min_size=1, max_size=4)


def edited(body: bytes, edits: Iterable[tuple[int, int, bytes]]) -> bytes:
    """A body with bytes put in, taken out and changed."""
    for position, removed, added in edits:
        at = position % (len(body) + 1)
        body = body[:at] + added + body[at + removed :]
    return body


@given(st.binary(max_size=200))
@MANY
def test_arbitrary_bytes_are_spans_or_malformed_and_nothing_else(body: bytes) -> None:
    read_all(protobuf_decoder(), body)
    read_all(json_decoder(), body)


@given(EDITS)
@MANY
def test_a_damaged_body_is_spans_or_malformed_and_nothing_else(edits: list[tuple[int, int, bytes]]) -> None:
    read_all(SHARED_DECODER, edited(SAMPLE_PROTOBUF, edits))
    read_all(json_decoder(), edited(SAMPLE_JSON, edits))


JSON_VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=10), inner, max_size=3)),
    max_leaves=6,
)


def nodes(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every (container, key) of a JSON document."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield value, key
        yield from nodes(inner)


@given(st.integers(0, 10_000), JSON_VALUES)
@example(0, None)
@MANY
def test_any_value_in_any_place_of_a_json_body_is_spans_or_malformed(place: int, value: Any) -> None:
    document = json_document(SAMPLE)
    places = list(nodes(document))
    container, key = places[place % len(places)]
    container[key] = value
    read_all(json_decoder(), json.dumps(document).encode())


def test_each_field_of_a_json_body_in_turn_takes_every_wrong_type() -> None:
    for number in range(len(list(nodes(json_document(SAMPLE))))):
        for wrong in (None, True, 0, -1, 2**64, 1.5, float("nan"), float("-inf"), "", "zz", [], [None], {}, {"a": 1}):
            document = json_document(SAMPLE)
            container, key = list(nodes(document))[number]
            container[key] = wrong
            read_all(json_decoder(), json.dumps(document).encode())


def json_span(**fields: Any) -> dict[str, Any]:
    return {"traceId": "0af7651916cd43dd8448eb211c80319c", "spanId": "b7ad6b7169203331", **fields}


def json_request(*spans: Any) -> bytes:
    return json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": list(spans)}]}]}).encode()


def json_attribute(value: Any, key: str = "gen_ai.usage.input_tokens") -> dict[str, AttributeValue]:
    """How one attribute comes out."""
    span = json_span(attributes=[{"key": key, "value": value}])
    (decoded,) = json_decoder()(json_request(span))
    return dict(decoded.attributes)


@pytest.mark.parametrize("identifier", ["0af7651916cd43dd8448eb211c80319c", "0AF7651916CD43DD8448EB211C80319C"])
def test_json_ids_are_hexadecimal_in_either_case(identifier: str) -> None:
    (span,) = json_decoder()(json_request(json_span(traceId=identifier, parentSpanId="B7ad6b7169203331")))
    assert span.trace_id == bytes.fromhex("0af7651916cd43dd8448eb211c80319c")
    assert span.span_id == span.parent_span_id == bytes.fromhex("b7ad6b7169203331")


@pytest.mark.parametrize("identifier", ["xyz", "abc", "Cvdl", None, 5, [], "0x0af765", "\ud800"])
def test_a_json_id_that_is_not_hexadecimal_is_empty_or_short_and_costs_only_its_span(identifier: Any) -> None:
    bad, good = json_span(traceId=identifier), json_span()
    spans = list(json_decoder()(json_request(bad, good)))
    assert len(spans[0].trace_id) < 16
    assert spans[1].trace_id == bytes.fromhex(good["traceId"])


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        ("5", 5),
        (5, 5),
        ("-9223372036854775808", -(2**63)),
        ("9223372036854775807", 2**63 - 1),
        (2**63, 2**63),
        ("0", 0),
    ],
)
def test_json_integers_may_be_texts_or_numbers(shown: Any, expected: int) -> None:
    assert json_attribute({"intValue": shown}) == {"gen_ai.usage.input_tokens": expected}
    (span,) = json_decoder()(json_request(json_span(startTimeUnixNano=shown, endTimeUnixNano=shown)))
    assert span.start_ns == span.end_ns == expected


@pytest.mark.parametrize("shown", ["", "five", "1.5", "0x10", "1_000", " 7 ", "٣", "9" * 30, 1.5, True, [], {}])
def test_a_json_integer_that_is_none_never_comes_out_as_one(shown: Any) -> None:
    value = json_attribute({"intValue": shown}).get("gen_ai.usage.input_tokens")
    assert type(value) is not int, "a count that was never sent would be charged"


@pytest.mark.parametrize(
    ("shown", "expected"),
    [(1.5, 1.5), ("1.5", 1.5), ("Infinity", float("inf")), ("-Infinity", float("-inf")), (3, 3.0)],
)
def test_json_doubles_may_be_numbers_or_their_names(shown: Any, expected: float) -> None:
    assert json_attribute({"doubleValue": shown}) == {"gen_ai.usage.input_tokens": expected}


@pytest.mark.parametrize("body", [b'{"doubleValue": NaN}', b'{"doubleValue": "NaN"}'])
def test_a_json_nan_is_a_nan(body: bytes) -> None:
    (value,) = json_attribute(json.loads(body)).values()
    assert isinstance(value, float)
    assert math.isnan(value)


@pytest.mark.parametrize("key", ["stringValue", "intValue", "doubleValue", "boolValue", "arrayValue"])
def test_a_json_null_is_a_value_that_was_not_given(key: str) -> None:
    """So says protobuf's JSON mapping; a count that is null is no reason to refuse the span."""
    assert json_attribute({key: None}) == {}


@pytest.mark.parametrize(
    "span",
    [
        json_span(attributes=None, status=None, parentSpanId=None, startTimeUnixNano=None, endTimeUnixNano=None),
        json_span(attributes=[{"key": "farebox.wallet", "value": None}, {"key": None}, {}], status={"code": None}),
        json_span(anything="else", attributes=[{"key": "farebox.wallet"}]),
    ],
)
def test_json_fields_that_are_null_or_absent_or_unknown_have_their_defaults(span: Any) -> None:
    (decoded,) = json_decoder()(json_request(span))
    assert decoded.attributes == {}
    assert (decoded.start_ns, decoded.end_ns, decoded.failed, decoded.parent_span_id) == (0, 0, False, b"")


@pytest.mark.parametrize("body", [b"{}", b'{"resourceSpans": null}', b'{"resourceSpans": [{"scopeSpans": null}]}'])
def test_a_json_request_without_spans_is_empty_and_not_malformed(body: bytes) -> None:
    assert list(json_decoder()(body)) == []


@pytest.mark.parametrize(
    ("code", "failed"), [(0, False), (1, False), (2, True), ("STATUS_CODE_ERROR", True), ("STATUS_CODE_OK", False)]
)
def test_json_says_by_number_or_name_that_a_span_failed(code: Any, failed: bool) -> None:
    (span,) = json_decoder()(json_request(json_span(status={"code": code})))
    assert span.failed is failed


@pytest.mark.parametrize(
    "value",
    [
        {"stringValue": "a\ud800b"},
        {"arrayValue": {"values": [{"stringValue": "\udfff"}]}},
        {"intValue": "\ud800"},
        {"doubleValue": "\ud800"},
    ],
)
def test_a_lone_surrogate_in_json_becomes_something_that_can_be_stored(value: Any) -> None:
    (shown,) = json_attribute(value, "farebox.event").values()
    assert ",".join(shown if isinstance(shown, tuple) else [str(shown)]).encode()


def test_a_lone_surrogate_in_the_key_or_scope_of_a_json_span_costs_nothing() -> None:
    span = json_span(attributes=[{"key": "\ud800", "value": {"stringValue": "x"}}])
    scope = {"name": "a\ud800", "version": "\udfff"}
    body = json.dumps({"resourceSpans": [{"scopeSpans": [{"scope": scope, "spans": [span]}]}]}).encode()
    (decoded,) = json_decoder()(body)
    assert (decoded.scope_name + decoded.scope_version).encode()


def test_a_nul_in_json_is_a_character_like_others_to_the_decoder() -> None:
    assert json_attribute({"stringValue": "a\x00b"}, "farebox.event") == {"farebox.event": "a\x00b"}


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000,
        b'{"resourceSpans":' * 50_000,
        b"[" * 100_000 + b"]" * 100_000,
        b"[]",
        b"null",
        b"1",
        b'"text"',
        b"",
        b"\xff\xfe\x00",
        b"{'a': 1}",
        b'{"resourceSpans": {}}',
        b'{"resourceSpans": [1]}',
        b'{"resourceSpans": [{"scopeSpans": [{"spans": "x"}]}]}',
        b'{"resourceSpans": [{"resource": []}]}',
    ],
    ids=lambda body: f"{body[:40]!r}",
)
def test_what_is_no_export_request_in_json_is_malformed(body: bytes) -> None:
    with pytest.raises(MalformedRequest) as raised:
        list(json_decoder()(body))
    assert "xff" not in str(raised.value), "the message does not quote the body"


def test_deep_nesting_beside_a_good_json_span_is_ignored_or_malformed() -> None:
    nested: Any = {"stringValue": "x"}
    for _ in range(200):
        nested = {"arrayValue": {"values": [nested]}}
    assert json_attribute(nested, "farebox.task") == {"farebox.task": ()}
    read_all(json_decoder(), json_request(json_span(attributes=[{"key": "k", "value": nested}])))


def test_a_json_number_of_ten_thousand_digits_costs_only_its_span() -> None:
    """Spans of several applications travel in one request; one broken counter must not lose the others."""
    bad = json_span(attributes=[{"key": "gen_ai.usage.input_tokens", "value": {"intValue": 0}}])
    body = json_request(bad, json_span()).replace(b'"intValue": 0', b'"intValue": 1' + b"0" * 10_000)
    assert len(list(json_decoder()(body))) == 2


@pytest.mark.parametrize("body", [b"\x0a", b"\x0a\xff", b"\xff", b"\x0a\x02\x12\x7f", b"not protobuf at all"])
def test_what_is_no_export_request_in_protobuf_is_malformed(body: bytes) -> None:
    with pytest.raises(MalformedRequest):
        list(protobuf_decoder()(body))


def test_every_truncation_of_a_protobuf_body_is_malformed_or_shorter() -> None:
    whole = exactly(protobuf_decoder()(SAMPLE_PROTOBUF))
    for size in range(len(SAMPLE_PROTOBUF)):
        try:
            spans = exactly(protobuf_decoder()(SAMPLE_PROTOBUF[:size]))
        except MalformedRequest:
            continue
        assert spans == whole[: len(spans)] == []


def repeated(number: int, inner: bytes, times: int, *around: int) -> bytes:
    """A field so many times, within a message in a field of a message, and so on from the inside out."""
    body = field(number, inner) * times
    for outer in around:
        body = field(outer, body)
    return body


MANY_FIELDS = 200_000
OVER_BOUNDS = {
    "resources": repeated(1, b"", MANY_FIELDS),
    "scopes": repeated(2, b"", MANY_FIELDS, 1),
    "spans": repeated(2, b"", MANY_FIELDS, 2, 1),
    "attributes": repeated(9, b"", MANY_FIELDS, 2, 2, 1),
    "attributes with long tags": field(1, field(2, field(2, b"\xca\x80\x00\x00" * MANY_FIELDS))),
    "attributes of a resource": repeated(1, b"", MANY_FIELDS, 1, 1),
    "numbers": b"\x08\x01" * MANY_FIELDS,
}


@pytest.mark.parametrize("case", OVER_BOUNDS)
def test_what_unfolds_beyond_the_bounds_is_refused_before_it_does(case: str) -> None:
    decode = ProtobufDecoder(WANTED, ONCE, REDUCED, Bounds(spans=10_000, attributes=100_000))
    tracemalloc.start()
    try:
        with pytest.raises(RequestTooLarge):
            list(decode(OVER_BOUNDS[case]))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2 * len(OVER_BOUNDS[case]) + 100_000, "the parts of the message and no more"


def test_what_is_within_the_bounds_is_read_whatever_its_texts_hold() -> None:
    """Texts are full of the bytes that tags are made of."""
    spans = [llm_span(gen_ai__input__messages="J\n\x12" * 20_000, gen_ai__usage__x="J") for _ in range(20)]
    decode = ProtobufDecoder(WANTED, ONCE, REDUCED, Bounds(spans=20, attributes=20 * 15))
    assert len(list(decode(protobuf_body(spans)))) == 20
    assert len(list(JsonDecoder(WANTED, REDUCED, Bounds(spans=20, attributes=20 * 15))(json_body(spans)))) == 20


@pytest.mark.parametrize("body", [b'{"a": [' + b"{}," * 10_000 + b"{}]}", b"[" + b"1," * 10_000 + b"1]"])
def test_json_of_more_values_than_spans_need_is_refused(body: bytes) -> None:
    with pytest.raises(RequestTooLarge):
        list(JsonDecoder(WANTED, REDUCED, Bounds(spans=10, attributes=1_000))(body))


@pytest.mark.parametrize("encoding", ["protobuf", "json"])
def test_reading_something_large_pauses_on_its_way(encoding: str) -> None:
    pauses: list[int] = []
    spans = [llm_span(wallet=f"{number:01000}") for number in range(3_000)]
    body = protobuf_body(spans) if encoding == "protobuf" else json_body(spans)
    decode = protobuf_decoder() if encoding == "protobuf" else json_decoder()
    first = next(iter(decode(body, lambda: pauses.append(1))))
    assert pauses, "before the first span, that is while it was looked through"
    assert exactly([first]) == exactly([next(iter(decode(body)))])
