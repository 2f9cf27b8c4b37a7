"""Bad input, sent to a real collector: it affects only itself, and no wallet gains by it.

A good call in these tests has 1,000 input and 200 output tokens of gpt-4o-mini, $0.15 and $0.60 a million:
1000 × 150 + 200 × 600 nano-USD = $0.000270000.
"""

import gzip
import itertools
import json
import random
import re
import socket
import sqlite3
import struct
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import httpx2
import pytest
from blank import blank_sqlite
from farebox_collector import assembly
from farebox_collector.settings import Settings
from google.protobuf import json_format
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from harness import EXPORT_METHOD, Collector, farebox, unary
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from prometheus_client.parser import text_string_to_metric_families
from spans import SpanSpec, export_request, json_body, json_document, llm_span, protobuf_body

GOOD_USD = Decimal("0.000270000")
PROTOBUF, JSON = "application/x-protobuf", "application/json"
INVALID_ARGUMENT, UNAVAILABLE = 3, 14
SMALL_BYTES, SMALL_SPANS = 100_000, 50
MIB = 2**20
_numbers = itertools.count()


@pytest.fixture(scope="module")
def small_collector(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collector]:
    """A collector with limits that are easily reached."""
    collector = Collector(
        tmp_path_factory.mktemp("small") / "farebox.db",
        max_request_bytes=SMALL_BYTES,
        max_request_spans=SMALL_SPANS,
    )
    yield collector
    assert collector.stop() == 0
    collector.audit()
    collector.close()


class Answer(NamedTuple):
    """The answer to an export, over any transport."""

    code: int
    """google.rpc.Code; 0 is success."""
    rejected: int = 0
    reasons: str = ""
    message: str = ""
    retryable: bool = False


def over_grpc(collector: Collector, body: bytes, timeout: float = 30) -> Answer:
    call = unary(collector.channel)
    try:
        partial = ExportTraceServiceResponse.FromString(call(body, timeout=timeout)).partial_success
    except grpc.RpcError as error:
        return failed_call(error)
    return Answer(0, partial.rejected_spans, partial.error_message)


def failed_call(error: grpc.RpcError) -> Answer:
    """What a failed gRPC call says, in its code and in its trailers, which must agree."""
    trailers: dict[str, Any] = {entry.key: entry.value for entry in error.trailing_metadata() or ()}
    code = error.code().value[0]
    retryable = "google.rpc.retryinfo-bin" in trailers
    if "grpc-status-details-bin" in trailers:
        status = Status.FromString(trailers["grpc-status-details-bin"])
        assert (status.code, status.message) == (code, error.details())
        delays = [RetryInfo.FromString(trailers["google.rpc.retryinfo-bin"])] if retryable else []
        assert retry_delays(status) == delays
    return Answer(code, message=error.details() or "", retryable=retryable)


def over_http(collector: Collector, body: bytes, content_type: str = PROTOBUF, **headers: str) -> Answer:
    return http_answer(collector.export_http(body, content_type, **headers), content_type)


def http_answer(response: httpx2.Response, content_type: str) -> Answer:
    """What an OTLP/HTTP answer says; a failure is a google.rpc.Status in the content type of the request."""
    assert response.headers["content-type"] == content_type
    message = ExportTraceServiceResponse() if response.status_code == 200 else Status()
    if content_type == JSON:
        json_format.Parse(response.content, message)
    else:
        message.ParseFromString(response.content)
    if isinstance(message, ExportTraceServiceResponse):
        return Answer(0, message.partial_success.rejected_spans, message.partial_success.error_message)
    retryable = "retry-after" in response.headers
    assert retryable == (response.status_code == 503) == bool(retry_delays(message))
    return Answer(message.code, message=message.message, retryable=retryable)


def retry_delays(status: Status) -> list[RetryInfo]:
    """The RetryInfo details of a status."""
    found = []
    for detail in status.details:
        info = RetryInfo()
        assert detail.Unpack(info)
        found.append(info)
    return found


Send = Callable[[Collector, Sequence[SpanSpec]], Answer]
SENDERS: dict[str, Send] = {
    "grpc": lambda collector, spans: over_grpc(collector, protobuf_body(spans)),
    "json": lambda collector, spans: over_http(collector, json_body(spans), JSON),
}


def new_wallet() -> str:
    return f"good-{next(_numbers)}"


@contextmanager
def balances_only_fall(collector: Collector) -> Iterator[None]:
    """No wallet has more after the block, and a new wallet has only debts."""
    before = balances(collector)
    yield
    risen = {name: now for name, now in balances(collector).items() if now > before.get(name, Decimal(0))}
    assert not risen


def balances(collector: Collector) -> dict[str, Decimal]:
    shown = collector.pages("/v1/wallets", limit=1000)
    return {wallet["wallet"]: Decimal(wallet["balance_credits"]) for wallet in shown}


def balance(collector: Collector, wallet: str) -> Decimal:
    return Decimal(collector.wallet(wallet)["balance_credits"])


def assert_serves(collector: Collector) -> None:
    """The next call is charged as ever."""
    wallet = new_wallet()
    assert over_grpc(collector, protobuf_body([llm_span(wallet=wallet)])) == Answer(0)
    assert balance(collector, wallet) == -GOOD_USD


def send_beside_good_ones(collector: Collector, send: Send, bad: SpanSpec) -> Answer:
    """Send a span between two good ones, which must be charged exactly in any case."""
    wallet = new_wallet()
    with balances_only_fall(collector):
        answer = send(collector, [llm_span(wallet=wallet), bad, llm_span(wallet=wallet)])
    assert answer.code == 0
    assert balance(collector, wallet) == -2 * GOOD_USD
    return answer


def only_record(collector: Collector, span: SpanSpec) -> dict[str, Any]:
    (record,) = collector.usage(trace_id=span.trace_id.hex())
    return record


# ---- spans that can never be booked

COUNT = "gen_ai.usage.input_tokens"
REJECTED: dict[str, tuple[dict[str, Any], str]] = {
    "negative": ({"input_tokens": -1}, f"{COUNT} is negative"),
    "least": ({"input_tokens": -(2**63)}, f"{COUNT} is negative"),
    "negative-output": ({"output_tokens": -200}, "gen_ai.usage.output_tokens is negative"),
    "negative-cache": ({"gen_ai__usage__cache_read__input_tokens": -5}, "cache_read.input_tokens is negative"),
    "impossible": ({"input_tokens": 1e300}, f"{COUNT} is over"),
    "impossible-text": ({"input_tokens": str(2**63)}, f"{COUNT} is over"),
    "no-trace-id": ({"trace_id": b""}, "trace id or span id"),
    "zero-trace-id": ({"trace_id": bytes(16)}, "trace id or span id"),
    "short-trace-id": ({"trace_id": b"\x01" * 15}, "trace id or span id"),
    "long-trace-id": ({"trace_id": b"\x01" * 17}, "trace id or span id"),
    "no-span-id": ({"span_id": b""}, "trace id or span id"),
    "zero-span-id": ({"span_id": bytes(8)}, "trace id or span id"),
    "short-span-id": ({"span_id": b"\x01" * 4}, "trace id or span id"),
}


@pytest.mark.parametrize("case", REJECTED)
@pytest.mark.parametrize("transport", SENDERS)
def test_a_span_that_cannot_be_booked_is_rejected_by_name_and_the_others_are_charged(
    shared_collector: Collector, transport: str, case: str
) -> None:
    fields, reason = REJECTED[case]
    wallet = f"rejected-{transport}-{case}"
    answer = send_beside_good_ones(shared_collector, SENDERS[transport], llm_span(wallet=wallet, **fields))
    assert answer.rejected == 1
    assert reason in answer.reasons
    assert shared_collector.usage(wallet=wallet) == []


@pytest.mark.parametrize(
    "value",
    [
        '{"intValue": 9223372036854775808}',
        '{"intValue": "9223372036854775808"}',
        '{"intValue": "99999999999999999999999999"}',
        '{"doubleValue": 1e300}',
    ],
)
def test_a_count_that_only_json_can_write_is_rejected_and_the_others_are_charged(
    shared_collector: Collector, value: str
) -> None:
    def send(collector: Collector, spans: Sequence[SpanSpec]) -> Answer:
        body = json_body(spans).replace(b'{"intValue": "424242"}', value.encode())
        return over_http(collector, body, JSON)

    bad = llm_span(input_tokens=424_242)
    answer = send_beside_good_ones(shared_collector, send, bad)
    assert answer.rejected == 1
    assert COUNT in answer.reasons
    assert shared_collector.usage(trace_id=bad.trace_id.hex()) == []


UNREADABLE: dict[str, dict[str, Any]] = {
    "fractional": {"input_tokens": 1.5},
    "nan": {"input_tokens": float("nan")},
    "infinite": {"input_tokens": float("inf")},
    "minus-infinite": {"input_tokens": float("-inf")},
    "text": {"input_tokens": "a thousand"},
    "flag": {"input_tokens": True},
    "list": {"input_tokens": ["1000"]},
}


@pytest.mark.parametrize("case", UNREADABLE)
@pytest.mark.parametrize("transport", SENDERS)
def test_a_count_that_is_no_number_is_taken_for_absent_and_said(
    shared_collector: Collector, transport: str, case: str
) -> None:
    span = llm_span(wallet=new_wallet(), **UNREADABLE[case])
    assert send_beside_good_ones(shared_collector, SENDERS[transport], span).rejected == 0
    record = only_record(shared_collector, span)
    assert (record["verdict"], record["input_tokens"], record["output_tokens"]) == ("charged", 0, 200)
    assert {"count_unreadable", "input_tokens_missing"} <= set(record["assumptions"])


@pytest.mark.parametrize("value", ['"five"', "{}", "NaN", "1e999", '"ten"'])
@pytest.mark.parametrize("kind", ["intValue", "doubleValue"])
def test_no_number_that_only_json_can_write_is_refused(shared_collector: Collector, kind: str, value: str) -> None:
    def send(collector: Collector, spans: Sequence[SpanSpec]) -> Answer:
        body = json_body(spans).replace(b'{"intValue": "424242"}', f'{{"{kind}": {value}}}'.encode())
        return over_http(collector, body, JSON)

    span = llm_span(input_tokens=424_242)
    assert send_beside_good_ones(shared_collector, send, span).rejected == 0
    assert only_record(shared_collector, span)["output_tokens"] == 200


@pytest.mark.parametrize("transport", SENDERS)
def test_digits_as_text_are_charged_as_the_number(shared_collector: Collector, transport: str) -> None:
    wallet = new_wallet()
    span = llm_span(wallet=wallet, input_tokens="1000", output_tokens="200.0")
    assert send_beside_good_ones(shared_collector, SENDERS[transport], span).rejected == 0
    assert balance(shared_collector, wallet) == -GOOD_USD


@pytest.mark.parametrize("count", [10**9 + 1, 10**15, 2**63 - 1])
@pytest.mark.parametrize("transport", SENDERS)
def test_more_than_a_billion_tokens_are_kept_and_not_charged(
    shared_collector: Collector, transport: str, count: int
) -> None:
    span = llm_span(wallet=new_wallet(), input_tokens=count)
    assert send_beside_good_ones(shared_collector, SENDERS[transport], span).rejected == 0
    record = only_record(shared_collector, span)
    assert (record["verdict"], record["cost_usd"]) == ("unmetered", None)
    assert "1,000,000,000" in record["reason"]


def test_counts_that_contradict_each_other_are_charged_counted_and_said(shared_collector: Collector) -> None:
    sample = 'farebox_doubtful_calls_total{flag="total_does_not_add_up"}'
    before = shared_collector.metrics()[sample]
    wallet = new_wallet()
    span = llm_span(wallet=wallet, gen_ai__usage__total_tokens=1100)
    assert send_beside_good_ones(shared_collector, SENDERS["json"], span).rejected == 0
    assert balance(shared_collector, wallet) == -GOOD_USD
    assert "total_does_not_add_up" in only_record(shared_collector, span)["assumptions"]
    assert shared_collector.metrics()[sample] == before + 1
    over_grpc(shared_collector, protobuf_body([span]))
    assert shared_collector.metrics()[sample] == before + 1, "the same span again is nothing new"


def test_rejected_spans_are_all_counted_and_each_reason_is_told_once(shared_collector: Collector) -> None:
    bad = [llm_span(**fields) for fields, _ in REJECTED.values()] * 2
    before = shared_collector.metrics()
    with balances_only_fall(shared_collector):
        answer = over_grpc(shared_collector, protobuf_body(bad))
    assert answer.rejected == len(bad)
    told = answer.reasons.split("; ")
    assert 1 < len(told) == len(set(told)) <= 5, "bounded, however many reasons there are"
    after = shared_collector.metrics()
    for sample, more in (
        ('farebox_spans_total{verdict="rejected"}', len(bad)),
        ('farebox_export_requests_total{outcome="accepted",transport="grpc"}', 1),
    ):
        assert after[sample] - before.get(sample, 0) == more


# ---- spans that are kept without a charge, or charged with an assumption that is named

KEPT: dict[str, tuple[dict[str, Any], str]] = {
    "unknown-model": ({"model": "no-such-model-1"}, "unpriced"),
    "model-of-10kB": ({"model": "m" * 10_000}, "unpriced"),
    "hostile-model": ({"model": "'; DROP TABLE usage_records; --\x00\n\u202e"}, "unpriced"),
    "unknown-provider": ({"gen_ai__provider__name": "missing"}, "unpriced"),
    "no-provider": ({"gen_ai__provider__name": None}, "unpriced"),
    "no-usage": ({"input_tokens": None, "output_tokens": None}, "unmetered"),
    "failed": ({"input_tokens": None, "output_tokens": None, "failed": True}, "failed"),
    "failed-with-type": ({"input_tokens": None, "output_tokens": None, "error__type": "timeout\n"}, "failed"),
    "summary": ({"gen_ai__operation__name": "invoke_agent"}, "deferred"),
}


@pytest.mark.parametrize("case", KEPT)
@pytest.mark.parametrize("transport", SENDERS)
def test_a_call_that_cannot_be_priced_is_kept_with_its_reason_and_charged_nothing(
    shared_collector: Collector, transport: str, case: str
) -> None:
    fields, verdict = KEPT[case]
    wallet = f"kept-{transport}-{case}"
    span = llm_span(wallet=wallet, **fields)
    answer = send_beside_good_ones(shared_collector, SENDERS[transport], span)
    assert answer.rejected == 0
    record = only_record(shared_collector, span)
    assert record["verdict"] == verdict
    assert record["reason"]
    assert record["cost_usd"] is record["charge_credits"] is None
    assert balance(shared_collector, wallet) == 0
    shown = [record[name] for name in ("model", "request_model", "response_model", "error_type")]
    assert all(len(text) <= 200 and text.isprintable() for text in shown)


@pytest.mark.parametrize("start_ns", [0, 1, 3_786_912_000 * 10**9, 2**63 - 1, 2**63, 2**64 - 1])
@pytest.mark.parametrize("transport", SENDERS)
def test_a_start_in_1970_or_2090_is_flagged_and_priced_at_receipt(
    shared_collector: Collector, transport: str, start_ns: int
) -> None:
    wallet = new_wallet()
    span = llm_span(wallet=wallet, start_ns=start_ns, latency_ns=0)
    before_s = int(time.time())
    assert send_beside_good_ones(shared_collector, SENDERS[transport], span).rejected == 0
    record = only_record(shared_collector, span)
    assert record["verdict"] == "charged"
    assert "start_time_out_of_range" in record["assumptions"]
    assert balance(shared_collector, wallet) == -GOOD_USD
    receipt = shared_collector.api.get(f"/v1/usage/{record['trace_id']}/{record['span_id']}/receipt").json()
    times = [time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second)) for second in (before_s, time.time() + 1)]
    assert times[0] <= receipt["priced_at"] <= times[1]


def test_a_span_that_ends_before_it_starts_is_charged_with_no_latency(shared_collector: Collector) -> None:
    span = llm_span(wallet=new_wallet())._replace(end_ns=1)
    assert send_beside_good_ones(shared_collector, SENDERS["grpc"], span).rejected == 0
    record = only_record(shared_collector, span)
    assert (record["verdict"], record["latency_ms"]) == ("charged", 0)


UNUSABLE_WALLETS = {
    "10kB": "w" * 10_000,
    "201": "w" * 201,
    "nul": "ada\x00",
    "newline": "ada\n",
    "escape": "\x1b[31mada",
    "right-to-left-override": "ada\u202eb",
    "delete": "ada\x7f",
    "line-separator": "ada\u2028",
}


@pytest.mark.parametrize("case", UNUSABLE_WALLETS)
@pytest.mark.parametrize("transport", SENDERS)
def test_a_wallet_that_cannot_be_kept_as_it_is_is_nobodys(
    shared_collector: Collector, transport: str, case: str
) -> None:
    """A name that is cut or cleaned could become the name of another wallet."""
    span = llm_span(wallet=UNUSABLE_WALLETS[case])
    before = balances(shared_collector)
    send_beside_good_ones(shared_collector, SENDERS[transport], span)
    record = only_record(shared_collector, span)
    assert (record["verdict"], record["wallet"]) == ("charged", "unattributed")
    assert "wallet_name_unusable" in record["assumptions"]
    after = balances(shared_collector)
    assert after["unattributed"] == before.get("unattributed", 0) - GOOD_USD
    assert len(set(after) - set(before) - {"unattributed"}) == 1, "the good calls' wallet, and no other, is new"


def test_a_lone_surrogate_in_a_json_wallet_does_not_lose_the_request(shared_collector: Collector) -> None:
    span = llm_span(wallet="surrogate-wallet-here")

    def send(collector: Collector, spans: Sequence[SpanSpec]) -> Answer:
        return over_http(collector, json_body(spans).replace(b"surrogate-wallet-here", b"surrogate-\\ud800"), JSON)

    assert send_beside_good_ones(shared_collector, send, span).rejected == 0
    assert only_record(shared_collector, span)["verdict"] == "charged"


HOSTILE = [
    "Robert'); DROP TABLE accounts; --",
    '"; SELECT * FROM tenants; --',
    "a\x00b",
    "line\nbreak\r\n# HELP farebox_cost_usd_total forged",
    'label="x"} 1e9',
    "back\\slash\\n",
    "\u202eright-to-left \u05e9\u05dc\u05d5\u05dd",
    "\U0001f98a\U0001f469\u200d\U0001f680",
    "[/red][link=file:///etc/passwd]",
    "<script>alert(1)</script>",
    "{{7*7}} ${jndi:ldap://x} %s %n",
    "=1+1",
    "../../etc/passwd",
    "e\u0301" * 50,
]
TEXT_KEYS = (
    "farebox__event",
    "farebox__action__id",
    "farebox__dept",
    "farebox__project",
    "farebox__task",
    "farebox__route",
    "cloud__region",
    "gen_ai__request__model",
    "gen_ai__operation__name",
    "gen_ai__provider__name",
    "openai__response__service_tier",
    "error__type",
    "user__id",
)


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
@pytest.mark.parametrize("transport", SENDERS)
def test_hostile_text_in_every_attribute_is_kept_harmless_and_costs_the_others_nothing(
    shared_collector: Collector, transport: str, text: str
) -> None:
    attributes: dict[str, Any] = dict.fromkeys(TEXT_KEYS, text)
    everywhere = llm_span(wallet=text, model=text, response_id=f"{text}{transport}", **attributes)
    answer = send_beside_good_ones(shared_collector, SENDERS[transport], everywhere)
    assert answer.rejected == 0
    record = only_record(shared_collector, everywhere)
    assert record["verdict"] == "unpriced"
    texts = [value for value in record.values() if isinstance(value, str)]
    assert all(value.isprintable() for value in texts)
    assert record["wallet"] == (text if text.isprintable() else "unattributed")
    if text.isprintable():
        assert record["event"] == record["request_model"] == record["region"] == text

    billed = llm_span(wallet=text, event=text, farebox__task=text)
    send_beside_good_ones(shared_collector, SENDERS[transport], billed)
    record = only_record(shared_collector, billed)
    assert (record["verdict"], Decimal(record["charge_credits"])) == ("charged", GOOD_USD)


def test_hostile_names_break_neither_the_metrics_page_nor_the_log(shared_collector: Collector) -> None:
    spans = [llm_span(event=text, model=text, wallet=text) for text in HOSTILE]
    assert over_grpc(shared_collector, protobuf_body(spans)) == Answer(0)
    shared_collector.fold()
    page = httpx2.get(shared_collector.metrics_url).raise_for_status().text
    families = list(text_string_to_metric_families(page))
    assert len({family.name for family in families}) == len(families), "no line of a name became a line of the page"
    events = {sample.labels.get("event") for family in families for sample in family.samples}
    assert {text for text in HOSTILE if text.isprintable()} <= events
    for line in shared_collector.log.read_text(encoding="utf-8").split("\n"):
        assert not line.startswith(("break", "# HELP"))


@pytest.mark.parametrize(
    ("one", "other"), [("resp_" + "A" * 200 + "1", "resp_" + "A" * 200 + "2"), ("resp\x01", "resp\x02")]
)
def test_response_ids_that_differ_where_they_are_cut_or_cleaned_are_two_calls(
    shared_collector: Collector, one: str, other: str
) -> None:
    """Gateways make response ids of hundreds of characters, the same at the start. Two calls at once, two charges."""
    wallet = new_wallet()
    spans = [llm_span(wallet=wallet, response_id=response_id) for response_id in (one, other)]
    assert over_grpc(shared_collector, protobuf_body(spans)) == Answer(0)
    assert [record["verdict"] for record in shared_collector.usage(wallet=wallet)] == ["charged", "charged"]


# ---- amounts at the edge of what the books can hold


def absurd_spans(count: int, output_tokens: int, input_tokens: int = 0) -> bytes:
    """o1-pro is $150 and $600 a million: 150,000 and 600,000 nano-USD a token."""
    span: dict[str, Any] = {
        "wallet": "absurd",
        "model": "o1-pro",
        "input_tokens": input_tokens,
        "output_tokens": output_tokens,
    }
    return protobuf_body(llm_span(**span) for _ in range(count))


@pytest.mark.parametrize(
    ("count", "output_tokens"),
    [
        # 2,000 × 6 × 10^15 nano-USD; 10^10 tokens are the most that a call may report.
        (2_000, 10**10),
        # 9,300 × 9.99 × 10^14: each is less than a million dollars.
        (9_300, 1_665_000_000),
    ],
)
def test_charges_that_together_pass_64_bits_are_answered_for_good(
    collector: Collector, count: int, output_tokens: int
) -> None:
    """2^63 is 9.22 × 10^18: a retryable answer would be retried permanently."""
    with balances_only_fall(collector):
        assert not over_grpc(collector, absurd_spans(count, output_tokens)).retryable
    assert_serves(collector)


@pytest.mark.parametrize(
    ("count", "output_tokens", "rest"),
    [
        # 2^63 - 1 = 1,537 × 6 × 10^15 + 2,286,728,091 × 600,000 + 175,807
        (1_537, 10**10, 2_286_728_091),
        # 2^63 - 1 = 9,232 × 9.99 × 10^14 + 1,006,728,091 × 600,000 + 175,807
        (9_232, 1_665_000_000, 1_006_728_091),
    ],
)
def test_absurd_calls_of_one_wallet_do_not_keep_others_from_being_charged(
    collector: Collector, count: int, output_tokens: int, rest: int
) -> None:
    """Books filled to the brim: after these not even the 270,000 nano-USD of a good call would fit."""
    over_grpc(collector, absurd_spans(count, output_tokens))
    over_grpc(collector, absurd_spans(1, rest))
    with balances_only_fall(collector):
        assert_serves(collector)
    collector.audit()


# ---- requests that are no requests

MALFORMED_PROTOBUF = {
    "cut": protobuf_body([llm_span()])[:-7],
    "text": b"this is not protobuf",
    "zeros": bytes(100),
    "length-past-the-end": b"\x0a\xff\xff\xff\xff\x0f",
    "random": random.Random(0).randbytes(1000),
    "json": json_body([llm_span()]),
}
MALFORMED_JSON = {
    "cut": json_body([llm_span()])[:-7],
    "text": b"this is not JSON",
    "nothing": b"",
    "list": b"[]",
    "nested": b"[" * 100_000,
    "nested-objects": b'{"resourceSpans":' * 100_000,
    "not-utf8": b'{"resourceSpans": "\xff"}',
    "protobuf": protobuf_body([llm_span()]),
    "wrong-type": b'{"resourceSpans": [{"scopeSpans": {"spans": []}}]}',
}


@pytest.mark.parametrize("case", MALFORMED_PROTOBUF)
@pytest.mark.parametrize("transport", ["grpc", "http"])
def test_malformed_protobuf_is_an_invalid_argument(shared_collector: Collector, transport: str, case: str) -> None:
    body = MALFORMED_PROTOBUF[case]
    with balances_only_fall(shared_collector):
        answer = over_grpc(shared_collector, body) if transport == "grpc" else over_http(shared_collector, body)
    assert_refused(answer)
    assert_serves(shared_collector)


@pytest.mark.parametrize("case", MALFORMED_JSON)
def test_malformed_json_is_an_invalid_argument(shared_collector: Collector, case: str) -> None:
    with balances_only_fall(shared_collector):
        response = shared_collector.export_http(MALFORMED_JSON[case], JSON)
    assert response.status_code == 400
    assert_refused(http_answer(response, JSON))
    assert_serves(shared_collector)


def assert_refused(answer: Answer) -> None:
    """A permanent failure that says what is wrong in words of our own."""
    assert answer.code == INVALID_ARGUMENT
    assert not answer.retryable
    assert answer.message
    for word in ("Error", "Traceback", "Exception", "object at", ".py", "line 1", "char "):
        assert word not in answer.message


MALFORMED_GZIP = {
    "plain": protobuf_body([llm_span()]),
    "cut": gzip.compress(protobuf_body([llm_span()]))[:-9],
    "damaged": gzip.compress(protobuf_body([llm_span()]))[:30] + b"\xff" * 30,
    "wrong-checksum": gzip.compress(protobuf_body([llm_span()]))[:-8] + bytes(8),
    "nothing": b"",
}


@pytest.mark.parametrize("case", MALFORMED_GZIP)
@pytest.mark.parametrize("content_type", [PROTOBUF, JSON])
def test_malformed_gzip_over_http_is_an_invalid_argument(
    shared_collector: Collector, content_type: str, case: str
) -> None:
    with balances_only_fall(shared_collector):
        response = shared_collector.export_http(MALFORMED_GZIP[case], content_type, content_encoding="gzip")
    assert response.status_code == 400
    assert_refused(http_answer(response, content_type))
    assert_serves(shared_collector)


def raw_grpc_status(collector: Collector, message: bytes, encoding: str) -> int:
    """The grpc-status for a message of up to 65,000 bytes that is said to be compressed, in frames made by hand."""

    def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
        return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload

    def header(name: bytes, value: bytes) -> bytes:
        return bytes([0, len(name)]) + name + bytes([len(value)]) + value

    # Indexed: ":method: POST" and ":scheme: http" (HPACK's static table).
    headers = b"\x83\x86" + header(b":path", EXPORT_METHOD.encode()) + header(b":authority", b"localhost")
    headers += header(b"content-type", b"application/grpc") + header(b"te", b"trailers")
    headers += header(b"grpc-encoding", encoding.encode())
    body = b"\x01" + struct.pack(">I", len(message)) + message
    host, port = collector.grpc_target.split(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        # HEADER_TABLE_SIZE 0, so that the answer's headers come as they are.
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b"\x00\x01\x00\x00\x00\x00"))
        connection.sendall(frame(1, 4, 1, headers))
        for start in range(0, len(body), 16_384):
            connection.sendall(frame(0, int(start + 16_384 >= len(body)), 1, body[start : start + 16_384]))
        answer = connection.makefile("rb")
        with answer:
            while True:
                head = answer.read(9)
                assert len(head) == 9, "the connection was closed without an answer"
                assert head[3] != 3, "the stream was reset without an answer"
                payload = answer.read(int.from_bytes(head[:3], "big"))
                status = re.search(rb"grpc-status[\x01\x02](\d+)", payload) if head[3] == 1 else None
                if status:
                    return int(status[1])


def test_the_hand_made_grpc_client_can_succeed(shared_collector: Collector) -> None:
    """Or the tests that use it would prove nothing."""
    wallet = new_wallet()
    assert raw_grpc_status(shared_collector, gzip.compress(protobuf_body([llm_span(wallet=wallet)])), "gzip") == 0
    assert balance(shared_collector, wallet) == -GOOD_USD


PERMANENT = (INVALID_ARGUMENT, 8, 12, 13)
"""Where gRPC itself refuses a message it says RESOURCE_EXHAUSTED (and no RetryInfo), UNIMPLEMENTED or INTERNAL."""


@pytest.mark.parametrize("case", ["plain", "cut", "damaged"])
def test_malformed_gzip_over_grpc_is_refused_for_good(shared_collector: Collector, case: str) -> None:
    with balances_only_fall(shared_collector):
        assert raw_grpc_status(shared_collector, MALFORMED_GZIP[case], "gzip") in PERMANENT
    assert_serves(shared_collector)


def test_an_unknown_compression_over_grpc_is_refused_for_good(shared_collector: Collector) -> None:
    assert raw_grpc_status(shared_collector, b"\x28\xb5\x2f\xfd", "zstd") in PERMANENT
    assert_serves(shared_collector)


def test_a_gzip_body_of_several_members_is_charged_whole_or_refused(shared_collector: Collector) -> None:
    """RFC 1952 lets members follow each other; what is acknowledged is charged."""
    one, other = new_wallet(), new_wallet()
    members = [gzip.compress(protobuf_body([llm_span(wallet=wallet)])) for wallet in (one, other)]
    answer = over_http(shared_collector, b"".join(members), content_encoding="gzip")
    charged = [len(shared_collector.usage(wallet=wallet)) for wallet in (one, other)]
    assert charged == ([1, 1] if answer.code == 0 else [0, 0])


# ---- too much


def padded(size: int, wallet: str) -> bytes:
    """A request of one good span that is `size` bytes long."""
    bare = len(protobuf_body([llm_span(wallet=wallet, padding="")]))
    for less in range(20):
        body = protobuf_body([llm_span(wallet=wallet, padding="x" * (size - bare - less))])
        if len(body) == size:
            return body
    raise AssertionError("no padding fits")


HTTP_TOO_LARGE = 413


def test_a_body_of_just_the_limit_is_taken_and_one_byte_more_is_not(small_collector: Collector) -> None:
    wallet = new_wallet()
    exact, over = padded(SMALL_BYTES, wallet), padded(SMALL_BYTES + 1, wallet)
    assert over_grpc(small_collector, exact) == over_http(small_collector, exact) == Answer(0)
    assert over_http(small_collector, gzip.compress(exact), content_encoding="gzip") == Answer(0)
    assert raw_grpc_status(small_collector, gzip.compress(exact), "gzip") == 0
    assert balance(small_collector, wallet) == -GOOD_USD, "four times the same span, in each envelope"
    for compress, encoding in ((bytes, "identity"), (gzip.compress, "gzip")):
        response = small_collector.export_http(compress(over), content_encoding=encoding)
        assert response.status_code == HTTP_TOO_LARGE
        assert_refused(http_answer(response, PROTOBUF))
    assert over_grpc(small_collector, over).code in PERMANENT
    assert raw_grpc_status(small_collector, gzip.compress(over), "gzip") in PERMANENT
    assert balance(small_collector, wallet) == -GOOD_USD


def test_a_large_json_body_is_refused_in_json(small_collector: Collector) -> None:
    response = small_collector.export_http(b" " * (SMALL_BYTES + 1), JSON)
    assert response.status_code == HTTP_TOO_LARGE
    assert_refused(http_answer(response, JSON))


def peak_growth(collector: Collector, work: Callable[[], object]) -> int:
    """By how many bytes the collector's resident memory rose at most while something was done."""
    proc = Path(f"/proc/{collector.process.pid}")

    def status(name: str) -> int:
        (kilobytes,) = re.findall(rf"{name}:\s+(\d+) kB", proc.joinpath("status").read_text(encoding="ascii"))
        return int(kilobytes) * 1024

    # 5 resets the peak to what is resident now.
    proc.joinpath("clear_refs").write_text("5", encoding="ascii")
    before = status("VmRSS")
    work()
    return status("VmHWM") - before


@pytest.mark.parametrize("transport", ["grpc", "http-protobuf", "http-json"])
def test_a_gzip_bomb_never_unfolds(small_collector: Collector, transport: str) -> None:
    """60 MiB of zeros are 61 kB: inside the limit, folded."""
    bomb = gzip.compress(bytes(60 * MIB), 9)
    assert len(bomb) < 65_000 < SMALL_BYTES

    def explode() -> None:
        if transport == "grpc":
            assert raw_grpc_status(small_collector, bomb, "gzip") in PERMANENT
        else:
            content_type = JSON if transport == "http-json" else PROTOBUF
            response = small_collector.export_http(bomb, content_type, content_encoding="gzip")
            assert response.status_code == HTTP_TOO_LARGE
            assert_refused(http_answer(response, content_type))

    assert_serves(small_collector)
    assert peak_growth(small_collector, explode) < 24 * MIB
    assert_serves(small_collector)


def stuffed_gzip(content: bytes, stuffing: int) -> bytes:
    """A gzip body with empty blocks in front of its content: of any length, with the same content."""
    empty_block = b"\x00\x00\x00\xff\xff"
    deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    header = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
    trailer = struct.pack("<II", zlib.crc32(content), len(content))
    return header + empty_block * (stuffing // 5) + deflate.compress(content) + deflate.flush() + trailer


@pytest.mark.parametrize("members", [False, True], ids=["empty-blocks", "empty-members"])
def test_a_gzip_body_that_is_over_the_limit_before_it_is_unfolded_is_refused(
    small_collector: Collector, members: bool
) -> None:
    """Without it, a body that unfolds to nothing could be endless."""
    wallet = new_wallet()
    content = protobuf_body([llm_span(wallet=wallet)])
    nothing = gzip.compress(b"")
    few = nothing * 3 + gzip.compress(content) if members else stuffed_gzip(content, 500)
    assert gzip.decompress(few) == content
    assert over_http(small_collector, few, content_encoding="gzip") == Answer(0)
    assert balance(small_collector, wallet) == -GOOD_USD
    many = 2 * SMALL_BYTES // len(nothing)
    long = nothing * many + gzip.compress(content) if members else stuffed_gzip(content, 2 * SMALL_BYTES)
    response = small_collector.export_http(long, content_encoding="gzip")
    assert response.status_code == HTTP_TOO_LARGE
    assert_refused(http_answer(response, PROTOBUF))


@pytest.mark.parametrize("transport", SENDERS)
def test_too_many_spans_in_a_request_are_refused_whole(small_collector: Collector, transport: str) -> None:
    wallet = new_wallet()
    spans = [llm_span(wallet=wallet, event=None) for _ in range(SMALL_SPANS + 1)]
    answer = SENDERS[transport](small_collector, spans)
    assert_refused(answer)
    assert str(SMALL_SPANS) in answer.message
    assert small_collector.usage(wallet=wallet) == []
    assert SENDERS[transport](small_collector, spans[1:]) == Answer(0)
    assert balance(small_collector, wallet) == -SMALL_SPANS * GOOD_USD


def field(number: int, payload: bytes) -> bytes:
    """A length-delimited protobuf field."""
    size, length = len(payload), b""
    while size > 127:
        length += bytes([size & 127 | 128])
        size >>= 7
    return bytes([number << 3 | 2]) + length + bytes([size]) + payload


def with_raw_attributes(span: SpanSpec, attributes: bytes) -> bytes:
    """A request of one span with further attributes that are encoded already."""

    (resource_spans,) = export_request([span]).resource_spans
    encoded = resource_spans.scope_spans[0].spans[0].SerializeToString()
    # resource_spans is field 1, scope_spans 2, spans 2.
    return field(1, field(2, field(2, encoded + attributes)))


@pytest.mark.parametrize(("number", "charged"), [(400_000, True), (1_000_000, False)])
def test_a_million_attributes_in_a_span_are_charged_or_refused_in_bounded_memory(
    shared_collector: Collector, number: int, charged: bool
) -> None:
    """A million are 9 MB on the wire; as Python objects of the published schema they would be 134 MiB and more."""
    wallet = new_wallet()
    # KeyValue is field 9 of Span; its key is field 1.
    attributes = b"".join(b"\x4a\x07\x0a\x05%05x" % one for one in range(number))
    body = with_raw_attributes(llm_span(wallet=wallet), attributes)
    growth = peak_growth(shared_collector, lambda: over_grpc(shared_collector, body))
    answer = over_grpc(shared_collector, body)
    if charged:
        assert balance(shared_collector, wallet) == -GOOD_USD
    else:
        assert (answer.code, answer.retryable) == (INVALID_ARGUMENT, False)
        assert "attributes" in answer.message
        assert shared_collector.usage(wallet=wallet) == []
    assert growth < 16 * len(body)


def test_a_json_body_of_nothing_but_attributes_is_charged_in_bounded_memory(shared_collector: Collector) -> None:
    wallet = new_wallet()
    document = json_document([llm_span(wallet=wallet)])
    attributes = document["resourceSpans"][0]["scopeSpans"][0]["spans"][0]["attributes"]
    attributes += [{}] * 1_000_000
    body = json.dumps(document).encode()
    growth = peak_growth(shared_collector, lambda: over_http(shared_collector, body, JSON))
    assert balance(shared_collector, wallet) == -GOOD_USD
    assert growth < 60 * len(body)


def nested_attribute(key: str, depth: int) -> bytes:
    """A KeyValue, as field 9 of Span, whose value is an array in an array in an array …"""

    tower = b""
    for _ in range(depth):
        tower = field(5, field(1, tower))
    return field(9, field(1, key.encode()) + field(2, tower))


@pytest.mark.parametrize("key", ["gen_ai.input.messages", "farebox.task"])
def test_absurd_nesting_in_an_attribute_costs_at_most_the_attribute(shared_collector: Collector, key: str) -> None:
    wallet = new_wallet()
    body = with_raw_attributes(llm_span(wallet=wallet), nested_attribute(key, 3_000))
    with balances_only_fall(shared_collector):
        assert over_grpc(shared_collector, body) == Answer(0)
    assert balance(shared_collector, wallet) == -GOOD_USD


def test_absurd_nesting_of_groups_in_protobuf_is_an_invalid_argument(shared_collector: Collector) -> None:
    """Groups are the one way to nest what the schema does not know: field 9, opened 100,000 times."""
    assert_refused(over_grpc(shared_collector, b"\x4b" * 100_000 + b"\x4c" * 100_000))
    assert_serves(shared_collector)


# ---- other types, methods and paths


@pytest.mark.parametrize(
    "headers",
    [
        {"content-type": "text/plain"},
        {"content-type": "application/grpc"},
        {"content-type": "application/x-www-form-urlencoded"},
        {"content-type": ""},
        {"content-type": PROTOBUF, "content-encoding": "br"},
        {"content-type": JSON, "content-encoding": "zstd"},
        {"content-type": PROTOBUF, "content-encoding": "gzip, gzip"},
    ],
    ids=lambda headers: " ".join(headers.values()),
)
def test_other_content_types_and_encodings_are_415(shared_collector: Collector, headers: Mapping[str, str]) -> None:
    wallet = new_wallet()
    response = shared_collector.otlp.post(
        "/v1/traces", content=protobuf_body([llm_span(wallet=wallet)]), headers=headers
    )
    assert response.status_code == 415
    assert_refused(http_answer(response, JSON if headers["content-type"] == JSON else PROTOBUF))
    assert shared_collector.usage(wallet=wallet) == []


@pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", "Application/JSON"])
def test_a_content_type_may_have_parameters_and_capitals(shared_collector: Collector, content_type: str) -> None:
    response = shared_collector.export_http(json_body([llm_span()]), content_type)
    assert (response.status_code, response.headers["content-type"]) == (200, JSON)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/traces", 405),
        ("PUT", "/v1/traces", 405),
        ("DELETE", "/v1/traces", 405),
        ("POST", "/v1/profiles", 404),
        ("GET", "/v1/logs", 405),
        ("POST", "/", 404),
        ("POST", "/v1/traces/x", 404),
        ("POST", "//v1/traces", 404),
    ],
)
def test_other_methods_and_paths_take_nothing(shared_collector: Collector, method: str, path: str, status: int) -> None:
    wallet = new_wallet()
    url = f"{shared_collector.otlp_url}{path}"
    body = protobuf_body([llm_span(wallet=wallet)])
    response = shared_collector.otlp.request(method, url, content=body, headers={"content-type": PROTOBUF})
    assert response.status_code == status
    assert shared_collector.usage(wallet=wallet) == []


@pytest.mark.parametrize(
    "method",
    [
        "/opentelemetry.proto.collector.trace.v1.TraceService/Other",
        "/opentelemetry.proto.collector.profiles.v1development.ProfilesService/Export",
        "/grpc.health.v1.Health/Check",
    ],
)
def test_other_grpc_methods_are_unimplemented(shared_collector: Collector, method: str) -> None:
    with pytest.raises(grpc.RpcError) as raised:
        unary(shared_collector.channel, method)(protobuf_body([llm_span()]), timeout=30)
    assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_an_empty_request_is_a_success(shared_collector: Collector) -> None:
    assert over_grpc(shared_collector, b"") == over_http(shared_collector, b"") == Answer(0)
    assert over_http(shared_collector, b"{}", JSON) == Answer(0)


def test_what_is_refused_is_counted_by_transport_and_outcome(shared_collector: Collector) -> None:
    before = shared_collector.metrics()
    over_grpc(shared_collector, b"\xff")
    over_http(shared_collector, b"\xff")
    shared_collector.export_http(b"", "text/plain")
    over_http(shared_collector, b"\xff", content_encoding="gzip")
    after = shared_collector.metrics()
    for transport, more in (("grpc", 1), ("http", 3)):
        name = f'farebox_export_requests_total{{outcome="invalid",transport="{transport}"}}'
        assert after[name] - before.get(name, 0) == more


# ---- what may be tried again


SECRET = "secret-of-the-storage"


@pytest.fixture(scope="module")
def troubled_collector(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collector]:
    """A collector that works on 1 MiB of requests at a time, and whose storage fails for the wallet `boom`."""
    path = tmp_path_factory.mktemp("troubled") / "farebox.db"
    assembly.open_books(Settings(database_url=f"sqlite:///{path}")).close()
    connection = sqlite3.connect(path)
    connection.execute(
        "CREATE TRIGGER boom BEFORE INSERT ON usage_records WHEN NEW.wallet = 'boom'"
        f" BEGIN SELECT RAISE(ABORT, '{SECRET}'); END"
    )
    connection.commit()
    connection.close()
    collector = Collector(path, queue_max_bytes=MIB)
    yield collector
    assert collector.stop() == 0
    collector.audit()
    collector.close()


@contextmanager
def no_commits(collector: Collector) -> Iterator[None]:
    """Keep the collector from committing, as a slow disk would: take SQLite's lock, and write nothing under it."""
    connection = sqlite3.connect(collector.database, isolation_level=None, timeout=30)
    try:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")
    finally:
        connection.close()


def wait_for_queue(collector: Collector, wanted: Callable[[float], bool]) -> None:
    """Wait until the bytes in hand are as wanted."""
    deadline = time.monotonic() + 20
    while not wanted(collector.metrics(folded=False)["farebox_queue_bytes"]):
        assert time.monotonic() < deadline, "the queue never got there"


def big_request(wallet: str) -> bytes:
    """Good spans and a prompt, 700 kB: two of them are more than 1 MiB."""
    return protobuf_body([llm_span(wallet=wallet, gen_ai__input__messages="x" * 350_000) for _ in range(2)])


def test_when_too_much_is_in_hand_clients_are_told_to_retry_and_the_rest_is_charged_once(
    troubled_collector: Collector,
) -> None:
    collector = troubled_collector
    first, *others = [new_wallet() for _ in range(9)]
    bodies = {wallet: big_request(wallet) for wallet in (first, *others)}

    def send(wallet: str) -> Answer:
        over = over_http if int(wallet.removeprefix("good-")) % 2 else over_grpc
        return over(collector, bodies[wallet])

    with ThreadPoolExecutor(8) as pool:
        with no_commits(collector):
            taken: Future[Answer] = pool.submit(over_grpc, collector, bodies[first])
            wait_for_queue(collector, lambda size: size == len(bodies[first]))
            refused = dict(zip(others, pool.map(send, others), strict=True))
            assert not taken.done(), "what is not committed is not acknowledged"
        assert taken.result(timeout=30) == Answer(0)
    assert balance(collector, first) == -2 * GOOD_USD
    for wallet, answer in refused.items():
        assert (answer.code, answer.retryable) == (UNAVAILABLE, True)
        assert collector.usage(wallet=wallet) == []
    name = 'farebox_export_requests_total{outcome="overloaded",transport="%s"}'
    assert [collector.metrics()[name % transport] for transport in ("grpc", "http")] == [4, 4]

    # One after the other, as the clients would after the delay; and once too often.
    for _ in range(2):
        assert [send(wallet) for wallet in (first, *others)] == [Answer(0)] * 9
    assert {balance(collector, wallet) for wallet in (first, *others)} == {-2 * GOOD_USD}


def test_a_request_that_is_alone_is_taken_also_where_it_is_larger_than_the_room(tmp_path: Path) -> None:
    """Over HTTP it arrives in pieces, and the pieces before do not make it one of two."""
    collector = Collector(blank_sqlite(tmp_path), queue_max_bytes=2**20)
    try:
        body = protobuf_body([llm_span(wallet="large", gen_ai__input__messages="x" * 2**16) for _ in range(40)])
        assert len(body) > 2 * 2**20
        assert (over_http(collector, body), over_grpc(collector, body)) == (Answer(0), Answer(0))
        assert len(collector.usage(wallet="large")) == 40
        assert collector.metrics()["farebox_queue_bytes"] == 0
    finally:
        collector.close()


def test_overload_says_when_to_come_back_in_every_way_that_clients_look_for(troubled_collector: Collector) -> None:
    collector, wallet = troubled_collector, new_wallet()
    body = big_request(wallet)
    with ThreadPoolExecutor(1) as pool:
        with no_commits(collector):
            taken = pool.submit(over_grpc, collector, body)
            wait_for_queue(collector, lambda size: size == len(body))
            http = collector.export_http(body)
            as_json = collector.export_http(json_body([llm_span(padding="x" * 700_000)]), JSON)
            with pytest.raises(grpc.RpcError) as raised:
                collector.export_grpc(body)
        assert taken.result(timeout=30) == Answer(0)
    for response, content_type in ((http, PROTOBUF), (as_json, JSON)):
        assert response.status_code == 503
        assert int(response.headers["retry-after"]) >= 1
        assert http_answer(response, content_type).retryable
    assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
    trailers: dict[str, Any] = {entry.key: entry.value for entry in raised.value.trailing_metadata()}
    delays = [
        *retry_delays(Status.FromString(trailers["grpc-status-details-bin"])),
        *retry_delays(Status.FromString(http.content)),
        RetryInfo.FromString(trailers["google.rpc.retryinfo-bin"]),
    ]
    # Between 1.5 and 1.9 s the Python SDK makes the most attempts.
    assert len(delays) == 3
    assert all(1_500 <= delay.retry_delay.ToMilliseconds() <= 1_900 for delay in delays)


def test_a_client_that_gives_up_waiting_leaves_no_trace_but_one_charge(troubled_collector: Collector) -> None:
    collector, wallet = troubled_collector, new_wallet()
    body = big_request(wallet)
    deadline_exceeded = 4
    with no_commits(collector):
        assert over_grpc(collector, body, timeout=0.5).code == deadline_exceeded
    wait_for_queue(collector, lambda size: size == 0)
    assert over_grpc(collector, body) == Answer(0)
    assert balance(collector, wallet) == -2 * GOOD_USD


@pytest.mark.parametrize("transport", [*SENDERS, "http-protobuf"])
def test_a_span_that_cannot_be_stored_is_refused_alone_and_kept_and_nothing_is_told(
    troubled_collector: Collector, transport: str
) -> None:
    collector, wallet = troubled_collector, new_wallet()
    send = SENDERS.get(transport) or (lambda collector, spans: over_http(collector, protobuf_body(spans)))
    with balances_only_fall(collector):
        answer = send(collector, [*(llm_span(wallet=wallet) for _ in range(5)), bad := llm_span(wallet="boom")])
    assert (answer.code, answer.rejected) == (0, 1)
    for word in (SECRET, "boom", "INSERT", "sqlite", "usage_records"):
        assert word not in answer.reasons
    assert balance(collector, wallet) == -5 * GOOD_USD
    letters = json.loads(farebox("deadletters", "list", "--json", "--database-url", collector.database_url).stdout)
    (reason,) = [letter["reason"] for letter in letters if letter["trace_id"] == bad.trace_id.hex()]
    assert reason.startswith("cannot be stored")
    assert_serves(collector)


def test_requests_that_are_committed_together_fail_apart(troubled_collector: Collector) -> None:
    collector = troubled_collector
    wallets = [new_wallet() for _ in range(6)]
    bodies = [protobuf_body([llm_span(wallet=wallet)]) for wallet in wallets]
    bodies.insert(3, protobuf_body([llm_span(wallet="boom")]))
    with ThreadPoolExecutor(len(bodies)) as pool:
        with no_commits(collector):
            sent = [pool.submit(over_grpc, collector, body) for body in bodies]
            wait_for_queue(collector, lambda size: size == sum(map(len, bodies)))
        answers = [future.result(timeout=30) for future in sent]
    assert [(answer.code, answer.rejected) for answer in answers] == [(0, index == 3) for index in range(7)]
    assert {balance(collector, wallet) for wallet in wallets} == {-GOOD_USD}
    assert collector.usage(wallet="boom") == []
