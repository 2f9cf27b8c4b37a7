"""Overviews and reports of a real collector: they say what the records say, each call once, to those who may see it."""

import csv
import io
import time
from decimal import Decimal

import httpx2
import pytest
from harness import Collector
from spans import llm_span, protobuf_body

DAY_NS = 86_400 * 10**9


def get(collector: Collector, path: str, **query: object) -> httpx2.Response:
    return collector.api.get(path, params=query)


@pytest.fixture
def books(collector: Collector) -> Collector:
    """Three calls today, one yesterday, one nobody can price; 270 nano-USD each where the tokens are the default."""
    now_ns = time.time_ns() - 10**9
    spans = [
        llm_span(wallet="ada", event="chat.reply", start_ns=now_ns),
        llm_span(wallet="ada", event="=cmd()", start_ns=now_ns, model="gpt-4o"),
        llm_span(wallet="bob", event="chat.reply", start_ns=now_ns),
        llm_span(wallet="ada", event="chat.reply", start_ns=now_ns - DAY_NS),
        llm_span(wallet="ada", event="chat.reply", start_ns=now_ns, model="no-such-model"),
    ]
    collector.export_grpc(protobuf_body(spans))
    headers = {"Idempotency-Key": "k"}
    collector.api.post("/v1/wallets/ada/deposits", json={"amount_credits": "10"}, headers=headers).raise_for_status()
    return collector


def test_an_overview_and_reports_say_what_the_records_say(books: Collector) -> None:
    overview = get(books, "/v1/wallets/ada/overview", days=3).json()
    records = [record for record in books.usage(wallet="ada") if record["verdict"] == "charged"]
    charged = sum(Decimal(record["charge_credits"]) for record in records)
    assert (overview["requests"], overview["tokens"]) == (3, 3 * 1200)
    assert Decimal(overview["charge_credits"]) == Decimal(overview["spent_credits"]) == charged
    assert Decimal(overview["balance_credits"]) == Decimal(overview["available_credits"]) == 10 - charged
    assert overview["runway_days"] == int((10 - charged) * 3 / charged)
    assert {row["key"]: row["requests"] for row in overview["by_event"]} == {"chat.reply": 2, "=cmd()": 1}
    assert [row["requests"] for row in overview["by_day"]] == [1, 2]
    assert "cost" not in str(overview)

    usage = get(books, "/v1/reports/usage", group_by="event").json()["items"]
    assert {row["event"]: row["requests"] for row in usage} == {"chat.reply": 4, "=cmd()": 1}
    everybody = books.usage(verdict="charged")
    assert sum(Decimal(row["cost_usd"]) for row in usage) == sum(Decimal(row["cost_usd"]) for row in everybody)
    today = get(books, "/v1/reports/usage", days=1, compare=True, verdict="charged").json()
    assert sum(row["requests"] for row in today["items"]) == 3
    assert [row["requests"] for row in today["previous"]] == [1]
    wallets = get(books, "/v1/reports/wallets", event="chat.reply").json()["items"]
    assert [(row["wallet"], row["requests"]) for row in wallets] == [("ada", 2), ("bob", 1)]

    text = get(books, "/v1/reports/usage", format="csv", columns=["event", "requests", "cost_usd"]).text
    rows = list(csv.reader(io.StringIO(text)))
    assert rows[0] == ["event", "requests", "cost_usd"]
    assert [row[0] for row in rows[1:]] == ["'=cmd()", "chat.reply"]
    assert all(Decimal(row[2]) > 0 for row in rows[1:])
    assert books.stop() == 0
    books.audit()


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("usage", {"days": 0}),
        ("usage", {"days": 401}),
        ("usage", {"first": "2026-02-30"}),
        ("usage", {"first": "2026-02-02", "last": "2026-02-01"}),
        ("usage", {"first": "1960-01-01", "last": "1960-01-02"}),
        ("usage", {"first": "9999-12-30", "last": "9999-12-31"}),
        ("usage", {"group_by": "wallet"}),
        ("usage", {"format": "csv", "columns": "secret"}),
        ("wallets", {"limit": 0}),
        ("wallets", {"event": "a\nb"}),
    ],
)
def test_a_report_that_cannot_be_is_refused(shared_collector: Collector, path: str, query: dict[str, object]) -> None:
    response = get(shared_collector, f"/v1/reports/{path}", **query)
    assert response.status_code in (400, 422), response.text
    assert response.headers["content-type"] == "application/problem+json"


def test_the_overview_of_no_wallet_is_not_found(shared_collector: Collector) -> None:
    assert get(shared_collector, "/v1/wallets/nobody/overview").status_code == 404
