"""Bytes to log records: both encodings agree, only what a dialect reads comes out, and the bounds hold."""

import json
from collections.abc import Iterable
from datetime import UTC, datetime

import pytest
from farebox_collector import dialects
from farebox_collector.intake.decoding.bounds import Bounds
from farebox_collector.intake.decoding.errors import MalformedRequest, RequestTooLarge
from farebox_collector.intake.decoding.log_records import event_name, event_time_ns
from farebox_collector.intake.decoding.otlp_json_logs import JsonLogDecoder
from farebox_collector.intake.decoding.protobuf_logs import ProtobufLogDecoder
from farebox_collector.model.records import EVENT_NAME, Span
from hypothesis import given, settings
from hypothesis import strategies as st
from logs import GENAI_EVENT, LogSpec, genai_event, logs_as_json, logs_request

WALLETS = ("user.id",)
WANTED = dialects.wanted_log_attributes(WALLETS)
EVENTS = dialects.told_events()
NOW_NS = 1_790_000_000_123_456_789
MANY = settings(max_examples=100, deadline=None, database=None)

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
VALUES = st.one_of(TEXT, st.integers(-(2**63), 2**63 - 1), st.booleans(), st.lists(TEXT, max_size=3))
ATTRIBUTES = st.dictionaries(
    st.one_of(st.sampled_from(sorted(WANTED)), st.sampled_from(["gen_ai.input.messages", "prompt"]), TEXT),
    VALUES,
    max_size=6,
)
RECORDS = st.builds(
    LogSpec,
    attributes=ATTRIBUTES,
    event_name=st.sampled_from(["", GENAI_EVENT, "app.started"]),
    body=st.one_of(st.just(""), st.sampled_from([GENAI_EVENT, "Hello there"]), TEXT),
    time_ns=st.integers(0, 2**64 - 1),
    observed_ns=st.integers(0, 2**64 - 1),
    severity=st.integers(0, 24),
    trace_id=st.binary(max_size=20),
    span_id=st.binary(max_size=10),
)


def from_protobuf(body: bytes, bounds: Bounds = Bounds()) -> list[Span]:  # noqa: B008
    decode = ProtobufLogDecoder(
        EVENTS, WANTED, dialects.unique_attributes(), dialects.reduced_attributes(), bounds=bounds
    )
    return list(decode(body))


def from_json(body: bytes, bounds: Bounds = Bounds()) -> list[Span]:  # noqa: B008
    return list(JsonLogDecoder(EVENTS, WANTED, dialects.reduced_attributes(), bounds)(body))


def sorted_attributes(records: Iterable[Span]) -> list[str]:
    return [
        repr((one._replace(attributes={}, resource={}), sorted(one.attributes.items()), sorted(one.resource.items())))
        for one in records
    ]


@given(st.lists(RECORDS, max_size=4), ATTRIBUTES)
@MANY
def test_both_encodings_of_a_request_give_the_same_records(records: list[LogSpec], resource: dict[str, str]) -> None:
    request = logs_request(records, resource)
    decoded = from_protobuf(request.SerializeToString())
    assert len(decoded) == len(records)
    assert sorted_attributes(decoded) == sorted_attributes(from_json(logs_as_json(request)))
    for record in decoded:
        assert record.span_id == b""
        assert record.attributes.keys() <= WANTED | {EVENT_NAME}
        assert record.attributes[EVENT_NAME] in EVENTS | {""}


def test_a_record_has_the_form_of_a_span() -> None:
    spec = genai_event(NOW_NS, trace_id=b"t" * 16, span_id=b"s" * 8, severity=17)
    body = logs_request([spec], {"farebox.dept": "research", "farebox.wallet": "team"}).SerializeToString()
    (record,) = from_protobuf(body)
    assert (record.trace_id, record.span_id, record.parent_span_id) == (b"t" * 16, b"", b"s" * 8)
    assert record.start_ns == record.end_ns == NOW_NS
    assert record.failed
    assert record.attributes["farebox.dept"] == "research"
    assert record.attributes["farebox.wallet"] == "ada"  # the record's own, above that of the resource


@pytest.mark.parametrize("decode", ["protobuf", "json"])
def test_no_body_and_no_prompt_comes_out(decode: str) -> None:
    secret = "the patient's name is"
    long_secret = secret * 100_000
    specs = [
        genai_event(NOW_NS, gen_ai__input__messages=long_secret, prompt=secret)._replace(body=long_secret),
        LogSpec({"prompt": secret, "user.email": "ada@example.com"}, "app.said", secret),
        LogSpec({"event.name": secret}, "", secret),
    ]
    request = logs_request(specs, {"process.command_line": secret})
    decoded = from_protobuf(request.SerializeToString()) if decode == "protobuf" else from_json(logs_as_json(request))
    assert secret not in repr(decoded)
    assert "ada@example.com" not in repr(decoded)  # nothing is kept of a record that tells no call
    assert [record.attributes[EVENT_NAME] for record in decoded] == [GENAI_EVENT, "", ""]


@pytest.mark.parametrize(
    ("field", "attribute", "body", "name"),
    [
        ("a.b", "c.d", "e.f", "a.b"),
        ("", "c.d", "", "c.d"),
        ("", "c.d", "API response from a model", "c.d"),
        ("", None, "codex.sse_event", "codex.sse_event"),
        ("", "api_request", "claude_code.api_request", "claude_code.api_request"),
        ("", "api_request", "claude_code.xapi_request", "api_request"),
        ("", None, "What is the weather?", ""),
        ("", None, "x" * 129, ""),
        ("x" * 129, None, "", ""),
        ("", 5, "", ""),
    ],
)
def test_the_name_of_an_event(field: str, attribute: str | int | None, body: str, name: str) -> None:
    assert event_name(field, attribute, body) == name


def test_the_time_of_an_event() -> None:
    stated = datetime(2026, 12, 1, 9, 30, 0, 123456, tzinfo=UTC)
    stated_ns = 1_796_117_400_123_456_000
    assert event_time_ns(NOW_NS, stated.isoformat(), 5) == NOW_NS
    assert event_time_ns(0, stated.isoformat(), 5) == stated_ns
    assert event_time_ns(0, "2026-12-01T09:30:00.123456Z", 5) == stated_ns
    assert event_time_ns(0, "2026-12-01T10:30:00.123456+01:00", 5) == stated_ns
    assert event_time_ns(0, "2026-12-01T09:30:00.123456", 5) == stated_ns
    for unusable in ("yesterday", "2" * 200, 1_796_117_400, None):
        assert event_time_ns(0, unusable, 5) == 5


def test_requests_over_the_bounds_are_refused() -> None:
    many = logs_request([LogSpec({}, body="x" * 3000)] * 101)
    bounds = Bounds(spans=50, attributes=50)
    with pytest.raises(RequestTooLarge, match="log records"):
        from_protobuf(many.SerializeToString(), bounds)
    crowded = logs_request([LogSpec({f"key{number}": "x" * 3000 for number in range(101)})])
    with pytest.raises(RequestTooLarge, match="attributes"):
        from_protobuf(crowded.SerializeToString(), bounds)
    with pytest.raises(RequestTooLarge, match="log records"):
        from_json(b'{"a": [' + b"{}," * 10_000 + b"{}]}", bounds)


@pytest.mark.parametrize("body", [b"\xff\xff", b"\x0a\x05abc"])
def test_bytes_that_are_no_request(body: bytes) -> None:
    with pytest.raises(MalformedRequest):
        from_protobuf(body)


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"resourceLogs": 1}', b'{"resourceLogs": [{"scopeLogs": [5]}]}'])
def test_text_that_is_no_request(body: bytes) -> None:
    with pytest.raises(MalformedRequest):
        from_json(body)


def test_json_may_name_the_severity() -> None:
    document = json.loads(logs_as_json(logs_request([genai_event(NOW_NS)])))
    record = document["resourceLogs"][0]["scopeLogs"][0]["logRecords"][0]
    for severity, failed in (("SEVERITY_NUMBER_ERROR2", True), ("SEVERITY_NUMBER_INFO", False), ("17", True)):
        record["severityNumber"] = severity
        assert from_json(json.dumps(document).encode())[0].failed is failed
