"""The HTTP API of a real collector: what it shows is what is in the books, and what it refuses leaves them alone.

gpt-4o-mini costs $0.15 input, $0.075 cached input and $0.60 output a million tokens: 150, 75 and 600 nano-USD each.
"""

import base64
import itertools
import json
import re
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any
from urllib.parse import quote

import httpx2
import pytest
from harness import Collector, farebox
from spans import SpanSpec, llm_span, protobuf_body

NANO = Decimal("0.000000001")
_numbers = itertools.count()


def new_wallet() -> str:
    return f"wallet-{next(_numbers):04}"


def path_of(wallet: str) -> str:
    return f"/v1/wallets/{quote(wallet, safe='')}"


def deposit(collector: Collector, wallet: str, amount: Any, key: str, **fields: Any) -> httpx2.Response:
    return collector.api.post(
        f"{path_of(wallet)}/deposits", json={"amount_credits": amount, **fields}, headers={"Idempotency-Key": key}
    )


def export(collector: Collector, spans: Iterable[SpanSpec]) -> None:
    assert not collector.export_grpc(protobuf_body(spans)).HasField("partial_success")


def ask(collector: Collector, method: str, path: str, **options: Any) -> httpx2.Response:
    """Over a connection of its own, so that a failure breaks no other test's."""
    return httpx2.request(method, f"{collector.api_url}{path}", verify=False, **options)


def get(collector: Collector, path: str, **parameters: Any) -> httpx2.Response:
    return ask(collector, "GET", path, params=parameters)


def assert_problem(response: httpx2.Response, *statuses: int) -> None:
    """An RFC 9457 problem document that says what is wrong, and not what is inside."""
    assert response.status_code in statuses, response.text
    assert response.headers["content-type"] == "application/problem+json"
    document = response.json()
    assert document["status"] == response.status_code
    assert document["title"]
    assert document["detail"]
    assert document.get("type", "about:blank") == "about:blank"
    assert "Traceback" not in response.text


def timestamp(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


def nanoseconds(moment: datetime) -> int:
    return int(moment.timestamp()) * 10**9


# ---- wallets


@pytest.mark.parametrize(
    "name",
    [
        "plain",
        "with space",
        "a/b",
        "a/deposits",
        "/leading",
        "trailing/",
        "a/../b",
        "100%",
        "%41",
        "%2F",
        "?x=1",
        "#fragment",
        "a+b&c=d;e",
        "ada@example.com",
        "übermut",
        "日本語",
        "\U0001f98a",
        "Robert'); DROP TABLE accounts; --",
        '"quoted"',
        "\\back",
        "{wallet}",
        "deposits",
        "w" * 200,
    ],
)
def test_a_wallet_of_any_printable_name_can_be_paid_into_and_read_back(shared_collector: Collector, name: str) -> None:
    response = deposit(shared_collector, name, "1.5", f"name {name}".encode("ascii", "replace").decode()[:200])
    assert response.status_code == 201, response.text
    assert response.json()["wallet"] == name
    export(shared_collector, [llm_span(wallet=name)])
    shown = shared_collector.api.get(path_of(name)).raise_for_status().json()
    assert shown["wallet"] == name
    # 1.5 - (1000 × 150 + 200 × 600) nano
    assert (shown["balance_credits"], shown["spent_credits"]) == ("1.499730000", "0.000270000")
    assert [row["wallet"] for row in shared_collector.pages("/v1/ledger", wallet=name)] == [name, name]
    assert [record["wallet"] for record in shared_collector.usage(wallet=name)] == [name]


@pytest.mark.parametrize("name", ["", "w" * 201, "a\nb", "a\x00", "\x1b[0m", "a\u202eb"])
def test_a_wallet_name_that_no_span_could_have_is_refused(shared_collector: Collector, name: str) -> None:
    assert_problem(deposit(shared_collector, name, "1", "unusable"), 400, 404, 405)
    # A newline is in no path at all.
    assert_problem(get(shared_collector, path_of(name)), 400, 404)


def test_a_wallet_that_never_moved_is_not_found(shared_collector: Collector) -> None:
    assert_problem(get(shared_collector, "/v1/wallets/missing-yet"), 404)


def test_a_wallet_that_is_charged_before_it_is_paid_into_exists_and_owes(shared_collector: Collector) -> None:
    wallet = new_wallet()
    export(shared_collector, [llm_span(wallet=wallet)])
    shown = shared_collector.wallet(wallet)
    assert (shown["balance_credits"], shown["spent_credits"]) == ("-0.000270000", "0.000270000")
    assert shown["last_activity"] is not None


@pytest.mark.parametrize("limit", [1, 7, 1000])
def test_paging_over_many_wallets_shows_each_once_in_order(shared_collector: Collector, limit: int) -> None:
    export(shared_collector, [llm_span(wallet=f"many/{number:02} é%") for number in range(40)])
    names = [wallet["wallet"] for wallet in shared_collector.pages("/v1/wallets", limit=limit)]
    assert len(set(names)) == len(names)
    assert names == sorted(names, key=str.encode)
    assert {f"many/{number:02} é%" for number in range(40)} <= set(names)
    page = get(shared_collector, "/v1/wallets", limit=limit).json()
    assert set(page) == {"items", "next_cursor"}
    assert len(page["items"]) == min(limit, len(names))


@pytest.mark.parametrize("limit", ["0", "-1", "1001", "many", "1.5", ""])
@pytest.mark.parametrize("path", ["/v1/wallets", "/v1/usage", "/v1/ledger", "/v1/prices"])
def test_a_page_has_1_to_1000_items(shared_collector: Collector, path: str, limit: str) -> None:
    assert_problem(get(shared_collector, path, limit=limit), 422)


# ---- deposits


def test_a_deposit_needs_an_idempotency_key(shared_collector: Collector) -> None:
    wallet = new_wallet()
    path = f"{path_of(wallet)}/deposits"
    for headers in ({}, {"Idempotency-Key": ""}, {"Idempotency-Key": "k" * 201}):
        assert_problem(shared_collector.api.post(path, json={"amount_credits": "1"}, headers=headers), 422)
    assert_problem(get(shared_collector, path_of(wallet)), 404)


def test_the_same_deposit_again_changes_nothing_and_says_so(shared_collector: Collector) -> None:
    wallet = new_wallet()
    first = deposit(shared_collector, wallet, "12.5", f"same {wallet}", memo="invoice 7")
    assert (first.status_code, "idempotent-replayed" in first.headers) == (201, False)
    for amount in ("12.5", "12.500000000"):
        again = deposit(shared_collector, wallet, amount, f"same {wallet}", memo="invoice 7")
        assert again.json() == first.json()
        assert again.headers["idempotent-replayed"] == "true"
    (row,) = shared_collector.pages("/v1/ledger", wallet=wallet)
    assert (row["amount_credits"], row["memo"]) == ("12.500000000", "invoice 7")
    assert row["transaction_id"] == first.json()["transaction_id"]


def test_an_idempotency_key_for_another_deposit_is_a_conflict(shared_collector: Collector) -> None:
    wallet, other = new_wallet(), new_wallet()
    key = f"conflict {wallet}"
    assert deposit(shared_collector, wallet, "1", key).status_code == 201
    assert_problem(deposit(shared_collector, wallet, "2", key), 409)
    assert_problem(deposit(shared_collector, wallet, "1", key, memo="other"), 409)
    assert_problem(deposit(shared_collector, other, "1", key), 409)
    assert shared_collector.wallet(wallet)["balance_credits"] == "1.000000000"
    assert_problem(get(shared_collector, path_of(other)), 404)


@pytest.mark.parametrize(
    "amount",
    [
        '"0"',
        '"-0"',
        '"-1"',
        '"NaN"',
        '"sNaN"',
        '"Infinity"',
        '"-Infinity"',
        '"1e999"',
        '"1e-999"',
        '"0.0000000001"',
        '"1.0000000001"',
        '"0.9999999999999999999999999999999"',
        '"1.00000000000000000000000000001"',
        '"99999999999"',
        '"' + "9" * 30 + '"',
        '"' + "1" * 100_000 + '"',
        '""',
        '"one"',
        '"1,5"',
        '"1_0"',
        '"\\u0663"',
        '"0x10"',
        '"\\ud800"',
        '"1\\u0000"',
        "1.5",
        "1.0",
        "1e3",
        "0",
        "-1",
        "NaN",
        "Infinity",
        "9" * 30,
        "9" * 10_000,
        "true",
        "null",
        "[]",
        '{"amount": "1"}',
    ],
    ids=lambda amount: amount[:24],
)
def test_an_amount_that_is_no_positive_decimal_of_nine_places_is_refused(
    shared_collector: Collector, amount: str
) -> None:
    wallet = new_wallet()
    before = shared_collector.pages("/v1/ledger", limit=1000)
    response = ask(
        shared_collector,
        "POST",
        f"{path_of(wallet)}/deposits",
        content=f'{{"amount_credits": {amount}}}',
        headers={"Idempotency-Key": f"bad {wallet}", "content-type": "application/json"},
    )
    assert_problem(response, 400, 422)
    assert shared_collector.pages("/v1/ledger", limit=1000) == before
    assert_problem(get(shared_collector, path_of(wallet)), 404)


@pytest.mark.parametrize(("amount", "shown"), [("0.000000001", "0.000000001"), ("4611686017", "4611686017.000000000")])
def test_the_least_and_nearly_the_greatest_amount_are_kept_exactly(
    shared_collector: Collector, amount: str, shown: str
) -> None:
    wallet = new_wallet()
    assert deposit(shared_collector, wallet, amount, f"edge {wallet}").status_code == 201
    assert shared_collector.wallet(wallet)["balance_credits"] == shown


@pytest.mark.parametrize(
    "body",
    [
        "",
        "amount_credits=1",
        "[]",
        "{}",
        '{"amount_credits": "1", "bonus": "1"}',
        '{"amount_credits": "1", "memo": 5}',
        '{"amount_credits": "1", "memo": "\\ud800"}',
        json.dumps({"amount_credits": "1", "memo": "m" * 501}),
        '{"memo": "no amount"}',
        "[" * 100_000,
    ],
    ids=lambda body: body[:40],
)
def test_a_deposit_of_another_shape_is_refused(shared_collector: Collector, body: str) -> None:
    wallet = new_wallet()
    response = ask(
        shared_collector,
        "POST",
        f"{path_of(wallet)}/deposits",
        content=body,
        headers={"Idempotency-Key": f"shape {wallet}", "content-type": "application/json"},
    )
    assert_problem(response, 400, 422)
    assert_problem(get(shared_collector, path_of(wallet)), 404)


def test_sixteen_deposits_at_once_under_one_key_are_one_deposit(shared_collector: Collector) -> None:
    wallet = new_wallet()
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: deposit(shared_collector, wallet, "3", f"race {wallet}"), range(16)))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["transaction_id"] for answer in answers}) == 1
    assert sum("idempotent-replayed" in answer.headers for answer in answers) == 15
    assert shared_collector.wallet(wallet)["balance_credits"] == "3.000000000"
    assert len(shared_collector.pages("/v1/ledger", wallet=wallet)) == 1


def test_deposits_at_once_under_keys_of_their_own_all_count(shared_collector: Collector) -> None:
    wallet = new_wallet()
    with ThreadPoolExecutor(16) as pool:
        answers = list(
            pool.map(lambda number: deposit(shared_collector, wallet, "0.1", f"{wallet} {number}"), range(32))
        )
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["transaction_id"] for answer in answers}) == 32
    assert shared_collector.wallet(wallet)["balance_credits"] == "3.200000000"


# ---- usage


def test_usage_is_filtered_by_each_field_and_by_all_together(shared_collector: Collector) -> None:
    wallet = new_wallet()
    mine = [
        llm_span(wallet=wallet, event=f"event.{wallet}.{number % 2}", model=model)
        for number, model in enumerate(["gpt-4o-mini", "gpt-4o", "gpt-4o-mini", "no-such-model"])
    ]
    stranger = llm_span(wallet=new_wallet(), event=f"event.{wallet}.0")
    export(shared_collector, [*mine, stranger])

    def found(**query: Any) -> set[str]:
        return {record["span_id"] for record in shared_collector.usage(**query)}

    ids = [span.span_id.hex() for span in mine]
    assert found(wallet=wallet) == set(ids)
    assert found(event=f"event.{wallet}.0") == {ids[0], ids[2], stranger.span_id.hex()}
    assert found(wallet=wallet, model="gpt-4o-mini") == {ids[0], ids[2]}
    assert found(wallet=wallet, verdict="charged") == set(ids[:3])
    assert found(wallet=wallet, verdict="unpriced") == {ids[3]}
    assert found(trace_id=mine[1].trace_id.hex()) == {ids[1]}
    assert found(trace_id=mine[1].trace_id.hex().upper()) == {ids[1]}
    assert found(trace_id=mine[1].trace_id.hex(), wallet="missing") == set()
    together = {"wallet": wallet, "event": f"event.{wallet}.1", "model": "gpt-4o", "verdict": "charged"}
    assert found(**together) == {ids[1]}
    assert found(wallet=f"{wallet}%") == found(wallet="' OR 1=1 --") == set()


def test_usage_since_is_inclusive_and_until_is_exclusive(shared_collector: Collector) -> None:
    wallet = new_wallet()
    now = datetime.now(UTC).replace(microsecond=0)
    moments = [now - timedelta(hours=hours) for hours in (3, 2, 1)]
    spans = [llm_span(wallet=wallet, start_ns=nanoseconds(moment)) for moment in moments]
    export(shared_collector, spans)
    ids = [span.span_id.hex() for span in spans]

    def found(**query: str) -> list[str]:
        return [record["span_id"] for record in reversed(shared_collector.usage(wallet=wallet, **query))]

    first, second, third = (timestamp(moment) for moment in moments)
    assert found(since=second) == ids[1:]
    assert found(until=second) == ids[:1]
    assert found(since=first, until=third) == ids[:2]
    assert found(since=second, until=second) == []
    assert found(since=timestamp(moments[1] + timedelta(microseconds=1))) == ids[2:]
    offset = moments[1].astimezone(datetime.strptime("+0530", "%z").tzinfo)
    assert found(since=offset.isoformat()) == ids[1:], "other offsets are the same moment"


@pytest.mark.parametrize(
    "moment",
    [
        "yesterday",
        "2026-01-01T00:00:00",
        "2026-13-01T00:00:00Z",
        "1969-12-31T23:59:59Z",
        "2300-01-01T00:00:00Z",
        "9999-12-31T23:59:59-23:59",
        "0001-01-01T00:00:00+10:00",
        "1e400",
        "NaN",
    ],
)
@pytest.mark.parametrize(("path", "name"), [("/v1/usage", "since"), ("/v1/usage", "until"), ("/v1/prices", "at")])
def test_a_moment_that_cannot_be_is_refused(shared_collector: Collector, path: str, name: str, moment: str) -> None:
    assert_problem(get(shared_collector, path, **{name: moment}), 400, 422)


@pytest.mark.parametrize("trace_id", ["x", "0af7651916cd43dd", "zz" * 16, "00" * 17, "é" * 32])
def test_a_trace_id_that_is_none_is_refused(shared_collector: Collector, trace_id: str) -> None:
    assert_problem(get(shared_collector, "/v1/usage", trace_id=trace_id), 400)
    assert_problem(get(shared_collector, f"/v1/usage/{quote(trace_id)}/b7ad6b7169203331/receipt"), 400)


@pytest.mark.parametrize("path", ["/v1/usage", "/v1/ledger"])
@pytest.mark.parametrize("limit", [1, 4, 10])
def test_pages_have_neither_gaps_nor_doubles_while_new_records_arrive(
    shared_collector: Collector, path: str, limit: int
) -> None:
    """Batches of three share a time of receipt, so that pages end inside of one; deposits come in between."""
    wallet = new_wallet()
    for number in range(4):
        deposit(shared_collector, wallet, "1", f"{wallet} {number}").raise_for_status()
        export(shared_collector, [llm_span(wallet=wallet) for _ in range(3)])
    there = shared_collector.pages(path, wallet=wallet)
    assert len(there) == (12 if path == "/v1/usage" else 16)

    seen: list[dict[str, Any]] = []
    parameters: dict[str, Any] = {"wallet": wallet, "limit": limit}
    for number in itertools.count():
        page = get(shared_collector, path, **parameters).raise_for_status().json()
        assert len(page["items"]) <= limit
        seen += page["items"]
        assert len(seen) <= len(there)
        export(shared_collector, [llm_span(wallet=wallet)])
        deposit(shared_collector, wallet, "1", f"{wallet} new {number}").raise_for_status()
        if page["next_cursor"] is None:
            break
        parameters["cursor"] = page["next_cursor"]
    assert seen == there


def test_a_usage_record_has_every_field_that_others_rely_on(shared_collector: Collector) -> None:
    wallet = new_wallet()
    span = llm_span(wallet=wallet, event="chat.reply", farebox__dept="d", farebox__project="p", cloud__region="eu")
    export(shared_collector, [span])
    (record,) = shared_collector.usage(wallet=wallet)
    expected = {
        "trace_id": span.trace_id.hex(),
        "span_id": span.span_id.hex(),
        "wallet": wallet,
        "event": "chat.reply",
        "provider": "openai",
        "model": "gpt-4o-mini",
        "verdict": "charged",
        "cost_usd": "0.000270000",
        "charge_credits": "0.000270000",
        # 270,000 nano-USD × 1,000 ÷ 1,200 tokens
        "cost_per_1k_usd": "0.000225000",
        "input_tokens": 1000,
        "output_tokens": 200,
        "dept": "d",
        "project": "p",
        "region": "eu",
        "latency_ms": 500.0,
    }
    assert {name: record[name] for name in expected} == expected
    assert record["started_at"].endswith("Z")


# ---- receipts


def receipt_of(collector: Collector, record: dict[str, Any]) -> dict[str, Any]:
    answer = collector.api.get(f"/v1/usage/{record['trace_id']}/{record['span_id']}/receipt")
    receipt: dict[str, Any] = answer.raise_for_status().json()
    return receipt


def recompute(receipt: dict[str, Any]) -> tuple[Decimal, Decimal]:
    """Cost and charge from nothing but the figures of a receipt."""
    exact = Decimal(0)
    for line in receipt["lines"]:
        each = Decimal(line["count"]) * Decimal(line["price"]["usd_per_1k"]) / 1000
        assert Decimal(line["exact_usd"]) == each
        exact += each
    cost = exact.quantize(NANO, ROUND_HALF_EVEN)
    rule = receipt["charge"]
    charge = cost * Decimal(rule["multiplier"]) / Decimal(rule["usd_per_credit"])
    return cost, charge.quantize(NANO, ROUND_HALF_EVEN)


@pytest.mark.parametrize(
    ("fields", "buckets", "cost"),
    [
        # 1000 × 150 + 200 × 600
        ({}, {"input": 1000, "output": 200}, "0.000270000"),
        # 600 × 150 + 400 × 75 + 200 × 600
        (
            {"gen_ai__usage__cache_read__input_tokens": 400},
            {"input": 600, "cache_read": 400, "output": 200},
            "0.000240000",
        ),
        # reasoning is part of output: 1000 × 150 + 200 × 600
        (
            {"gen_ai__usage__reasoning__output_tokens": 150},
            {"input": 1000, "output": 200, "reasoning": 150},
            "0.000270000",
        ),
        # gpt-4o: $2.50, cached $1.25, and $10 a million: 700 × 2500 + 300 × 1250 + 200 × 10000
        (
            {"model": "gpt-4o", "gen_ai__usage__cache_read__input_tokens": 300},
            {"input": 700, "cache_read": 300, "output": 200},
            "0.004125000",
        ),
        ({"input_tokens": 0, "output_tokens": 0}, {}, "0.000000000"),
    ],
)
def test_a_receipt_recomputes_to_the_charge_with_nothing_but_its_own_figures(
    shared_collector: Collector, fields: dict[str, Any], buckets: dict[str, int], cost: str
) -> None:
    wallet = new_wallet()
    export(shared_collector, [llm_span(wallet=wallet, **fields)])
    (record,) = shared_collector.usage(wallet=wallet)
    receipt = receipt_of(shared_collector, record)
    assert recompute(receipt) == (Decimal(cost), Decimal(cost))
    assert receipt["cost_usd"] == record["cost_usd"] == receipt["charge"]["charge_credits"] == cost
    assert {name: count for name, count in receipt["buckets"].items() if count} == buckets
    assert {line["unit"] for line in receipt["lines"]} == set(buckets) - {"reasoning"}
    for line in receipt["lines"]:
        assert line["price"]["valid_from"] <= receipt["priced_at"]
        assert line["price"]["source"] == "genai-prices"


def test_the_receipt_of_a_call_that_was_not_charged_says_why_and_has_no_arithmetic(
    shared_collector: Collector,
) -> None:
    wallet = new_wallet()
    export(shared_collector, [llm_span(wallet=wallet, model="no-such-model")])
    (record,) = shared_collector.usage(wallet=wallet)
    receipt = receipt_of(shared_collector, record)
    assert (receipt["verdict"], receipt["lines"], receipt["cost_usd"], receipt["charge"]) == (
        "unpriced",
        [],
        None,
        None,
    )
    assert receipt["reason"]
    assert receipt["buckets"]["input"] == 1000


def test_a_receipt_of_no_record_is_not_found(shared_collector: Collector) -> None:
    assert_problem(get(shared_collector, f"/v1/usage/{'ab' * 16}/{'cd' * 8}/receipt"), 404)
    assert_problem(get(shared_collector, f"/v1/usage/{'ab' * 16}/cd/receipt"), 400)


# ---- the ledger


def test_the_ledger_lists_what_moved_a_wallet_newest_first_and_sums_to_its_balance(
    shared_collector: Collector,
) -> None:
    wallet = f"{new_wallet()} / ü"
    for number in range(3):
        deposit(shared_collector, wallet, "1", f"ledger {number}", memo=f"memo {number}").raise_for_status()
        export(shared_collector, [llm_span(wallet=wallet, event="chat.reply") for _ in range(2)])
    export(shared_collector, [llm_span(wallet=wallet, model="no-such-model")])
    rows = shared_collector.pages("/v1/ledger", wallet=wallet)
    assert [row["type"] for row in rows] == ["charge", "charge", "deposit"] * 3
    assert [row["recorded_at"] for row in rows] == sorted((row["recorded_at"] for row in rows), reverse=True)
    # 3 - 6 × 0.00027
    assert sum(Decimal(row["amount_credits"]) for row in rows) == Decimal("2.998380000")
    assert shared_collector.api.get(path_of(wallet)).json()["balance_credits"] == "2.998380000"
    charges = shared_collector.pages("/v1/ledger", wallet=wallet, type="charge")
    deposits = shared_collector.pages("/v1/ledger", wallet=wallet, type="deposit")
    assert charges == [row for row in rows if row["type"] == "charge"]
    assert deposits == [row for row in rows if row["type"] == "deposit"]
    assert [row["memo"] for row in deposits] == ["memo 2", "memo 1", "memo 0"]
    assert all(row["amount_credits"] == "-0.000270000" and row["event"] == "chat.reply" for row in charges)
    assert shared_collector.pages("/v1/ledger", wallet=wallet, limit=2) == rows

    for row in rows:
        assert get(shared_collector, row["links"]["wallet"]).json()["wallet"] == wallet
        if row["type"] == "charge":
            receipt = get(shared_collector, row["links"]["receipt"]).raise_for_status().json()
            assert receipt["charge"]["charge_credits"] == row["amount_credits"].removeprefix("-")
        else:
            assert row["links"]["receipt"] is row["trace_id"] is row["span_id"] is None


def test_a_ledger_type_that_is_none_is_refused(shared_collector: Collector) -> None:
    assert_problem(get(shared_collector, "/v1/ledger", type="theft"), 422)


# ---- cursors


def cursor_of(document: str) -> str:
    return base64.urlsafe_b64encode(document.encode()).decode().rstrip("=")


BAD_CURSORS = [
    "x",
    "!!!!",
    "é",
    "",
    cursor_of("{}"),
    cursor_of("[]"),
    cursor_of("null"),
    cursor_of("[null]"),
    cursor_of("[true]"),
    cursor_of("[1.5]"),
    cursor_of("[[1]]"),
    cursor_of("[NaN]"),
    cursor_of(f"[{2**63}]"),
    cursor_of(f"[{-(2**64)}]"),
    cursor_of("[1, 2, 3, 4]"),
    cursor_of("[" * 5_000),
    cursor_of('["\\ud800"]'),
    cursor_of('[1, "\\ud800", 1]'),
    base64.urlsafe_b64encode(b"\xff\xfe").decode(),
]


@pytest.mark.parametrize("path", ["/v1/wallets", "/v1/usage", "/v1/ledger", "/v1/prices"])
@pytest.mark.parametrize("cursor", BAD_CURSORS, ids=lambda cursor: cursor[:24])
def test_a_cursor_that_was_never_given_out_is_refused(shared_collector: Collector, path: str, cursor: str) -> None:
    assert_problem(get(shared_collector, path, cursor=cursor), 400)


def test_a_cursor_of_another_list_is_refused(shared_collector: Collector) -> None:
    export(shared_collector, [llm_span(wallet=new_wallet()) for _ in range(3)])
    cursors = {
        path: get(shared_collector, path, limit=1).json()["next_cursor"]
        for path in ("/v1/wallets", "/v1/usage", "/v1/ledger")
    }
    assert None not in cursors.values()
    for path, other in itertools.permutations(cursors, 2):
        assert_problem(get(shared_collector, path, cursor=cursors[other]), 400)


# ---- prices and rules through time


def prices_at(collector: Collector, moment: datetime | None, unit: str = "input") -> list[str]:
    query = {} if moment is None else {"at": timestamp(moment)}
    items = collector.pages("/v1/prices", provider="openai", model="gpt-4o-mini", **query)
    return [item["usd_per_1k"] for item in items if (item["unit"], item["condition"]) == (unit, "standard")]


def test_a_price_change_holds_from_its_moment_on_and_leaves_the_past_alone(collector: Collector) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    change = now - timedelta(hours=1)
    early, late = nanoseconds(change) - 1, nanoseconds(change)

    export(collector, [llm_span(wallet="charged-before-the-change", start_ns=late)])
    assert prices_at(collector, None) == ["0.00015"]
    assert collector.stop() == 0
    command = ("prices", "set", "openai", "gpt-4o-mini", "input", "0.0003", "--database-url", collector.database_url)
    result = farebox(*command, "--from", f"{change:%Y-%m-%dT%H:%M:%S}", "--author", "ada")
    assert result.returncode == 0, result.stderr
    rule = ("rules", "set", "agent.run", "--multiplier", "1.5", "--reason", "support")
    raised = farebox(*rule, "--database-url", collector.database_url)
    assert raised.returncode == 0, raised.stderr
    collector.start()

    assert prices_at(collector, change - timedelta(microseconds=1)) == ["0.00015"]
    assert prices_at(collector, change) == prices_at(collector, None) == ["0.0003"]
    assert prices_at(collector, change, "output") == ["0.0006"]
    (version,) = (
        item
        for item in collector.pages("/v1/prices", provider="openai", model="gpt-4o-mini")
        if (item["unit"], item["condition"]) == ("input", "standard")
    )
    assert (version["source"], version["source_version"], version["valid_to"]) == ("manual", "ada", None)
    assert version["valid_from"] == f"{change:%Y-%m-%dT%H:%M:%S}.000000000Z"

    export(
        collector,
        [
            llm_span(wallet="early", start_ns=early),
            llm_span(wallet="late", start_ns=late),
            # One and three cached tokens, 75 nano-USD each, times 1.5: 112.5 and 337.5 nano-credits, half to even.
            llm_span(wallet="one", event="agent.run", **cached(1)),
            llm_span(wallet="three", event="agent.run", **cached(3)),
        ],
    )
    expected = {
        # 1000 × 150 + 200 × 600
        "charged-before-the-change": ("0.000270000", "0.000270000"),
        "early": ("0.000270000", "0.000270000"),
        # 1000 × 300 + 200 × 600
        "late": ("0.000420000", "0.000420000"),
        "one": ("0.000000075", "0.000000112"),
        "three": ("0.000000225", "0.000000338"),
    }
    for wallet, (cost, charge) in expected.items():
        (record,) = collector.usage(wallet=wallet)
        assert (record["cost_usd"], record["charge_credits"]) == (cost, charge), wallet
        assert recompute(receipt_of(collector, record)) == (Decimal(cost), Decimal(charge))
        assert collector.wallet(wallet)["balance_credits"] == f"-{charge}"
    collector.audit()


def cached(tokens: int) -> dict[str, Any]:
    return {
        "input_tokens": tokens,
        "output_tokens": 0,
        "gen_ai__usage__cache_read__input_tokens": tokens,
        "start_ns": time.time_ns(),
    }


def test_prices_page_over_the_whole_book_without_gaps_or_doubles(shared_collector: Collector) -> None:
    whole = shared_collector.pages("/v1/prices", limit=1000)
    assert len({price["version_id"] for price in whole}) == len(whole) > 1000
    assert shared_collector.pages("/v1/prices", limit=997) == whole
    assert all(re.fullmatch(r"\d+(\.\d+)?", price["usd_per_1k"]) for price in whole)
    openai = shared_collector.pages("/v1/prices", provider="openai")
    assert openai == [price for price in whole if price["provider"] == "openai"]


# ---- the application around them


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "evil.example:8080", "0.0.0.0", "[::2]"])
@pytest.mark.parametrize("path", ["/v1/wallets", "/readyz", "/docs", "/openapi.json", "/"])
def test_a_host_that_is_not_this_machine_is_refused(shared_collector: Collector, path: str, host: str) -> None:
    """A page on the web can point a name of its own at 127.0.0.1."""
    response = ask(shared_collector, "GET", path, headers={"host": host})
    assert response.status_code == 400
    assert "items" not in response.text


def test_a_refused_host_is_told_so_in_a_problem_document(shared_collector: Collector) -> None:
    assert_problem(ask(shared_collector, "GET", "/v1/wallets", headers={"host": "evil.example"}), 400)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "localhost:8080", "[::1]", "[::1]:8080"])
def test_the_names_of_this_machine_are_hosts(shared_collector: Collector, host: str) -> None:
    assert ask(shared_collector, "GET", "/readyz", headers={"host": host}).json() == {"ready": True}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v2/wallets", 404),
        ("GET", "/nothing", 404),
        ("DELETE", "/v1/wallets/ada", 405),
        ("PUT", "/v1/usage", 405),
        ("POST", "/v1/ledger", 405),
    ],
)
def test_other_paths_and_methods_are_problem_documents(
    shared_collector: Collector, method: str, path: str, status: int
) -> None:
    assert_problem(ask(shared_collector, method, path), status)


def schema_properties(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for name, schema in document["components"]["schemas"].items():
        for field, described in schema.get("properties", {}).items():
            yield name, field, described


def test_the_openapi_document_lists_every_route_with_its_problems(shared_collector: Collector) -> None:
    document = get(shared_collector, "/openapi.json").json()
    routes = {(path, method) for path, methods in document["paths"].items() for method in methods}
    assert routes >= {
        ("/v1/wallets", "get"),
        ("/v1/wallets/{wallet}", "get"),
        ("/v1/wallets/{wallet}/deposits", "post"),
        ("/v1/usage", "get"),
        ("/v1/usage/{trace_id}/{span_id}/receipt", "get"),
        ("/v1/ledger", "get"),
        ("/v1/prices", "get"),
        ("/readyz", "get"),
    }
    for path, methods in document["paths"].items():
        if path.startswith("/v1/"):
            for method, operation in methods.items():
                content = operation["responses"]["default"]["content"]
                assert "application/problem+json" in content, (method, path)
                assert operation.get("summary"), (method, path)


def test_every_amount_in_the_openapi_document_has_its_unit_in_its_name(shared_collector: Collector) -> None:
    document = get(shared_collector, "/openapi.json").json()
    amounts = set()
    for schema, field, described in schema_properties(document):
        kinds = [described, *described.get("anyOf", ())]
        money = any("\\d{9}" in kind.get("pattern", "") for kind in kinds)
        named = re.search(r"amount|balance|spent|cost|charge$|(?<!without_)price$", field)
        if money or (named and any(kind.get("type") in ("string", "number", "integer") for kind in kinds)):
            amounts.add(f"{schema}.{field}")
            assert {"usd", "credits"} & set(field.split("_")), f"{schema}.{field} has no unit"
            assert all(kind.get("type") != "number" for kind in kinds), f"{schema}.{field} is a float"
    assert {"Wallet.balance_credits", "Usage.cost_usd", "Deposit.amount_credits"} <= amounts


def test_the_openapi_document_promises_no_error_that_is_not_sent(shared_collector: Collector) -> None:
    """What fails validation is answered with a problem document, and documented as one."""
    document = get(shared_collector, "/openapi.json").json()
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            for status, response in operation["responses"].items():
                if status.startswith("4"):
                    schemas = json.dumps(response.get("content", {}))
                    assert "HTTPValidationError" not in schemas, (method, path)


def test_the_root_leads_to_the_documentation(shared_collector: Collector) -> None:
    assert ask(shared_collector, "GET", "/", follow_redirects=True).status_code == 200
