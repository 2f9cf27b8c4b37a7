"""One call through a real collector, over each transport: debit, receipt, ledger row and metric to the nano-dollar."""

import gzip
import socket
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import grpc
import pytest
from blank import blank_sqlite
from harness import Collector
from spans import json_body, llm_span, protobuf_body

# gpt-4o-mini: $0.15 and $0.60 a million, cached input $0.075.
# 600 × 150 + 400 × 75 + 200 × 600 nano-USD
EXPECTED_USD = "0.000240000"

TRANSPORTS: dict[str, Callable[[Collector, list[Any]], object]] = {
    "grpc": lambda collector, spans: collector.export_grpc(protobuf_body(spans)),
    "grpc-gzip": lambda collector, spans: collector.export_grpc(protobuf_body(spans), grpc.Compression.Gzip),
    "http-protobuf": lambda collector, spans: collector.export_http(protobuf_body(spans)).raise_for_status(),
    "http-json": lambda collector, spans: collector.export_http(
        json_body(spans), "application/json"
    ).raise_for_status(),
    "http-gzip": lambda collector, spans: collector.export_http(
        gzip.compress(protobuf_body(spans)), content_encoding="gzip"
    ).raise_for_status(),
}


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_call_is_debited_once_and_can_be_read_back(shared_collector: Collector, transport: str) -> None:
    collector, wallet = shared_collector, f"way-{transport}"
    deposit = collector.api.post(
        f"/v1/wallets/{wallet}/deposits", json={"amount_credits": "1"}, headers={"Idempotency-Key": wallet}
    )
    assert deposit.status_code == 201
    span = llm_span(wallet=wallet, event=f"event.{transport}", gen_ai__usage__cache_read__input_tokens=400)
    for _ in range(3):
        TRANSPORTS[transport](collector, [span])

    shown = collector.wallet(wallet)
    assert shown["balance_credits"] == "0.999760000"
    assert shown["spent_credits"] == EXPECTED_USD
    (record,) = collector.usage(wallet=wallet)
    assert record["trace_id"] == span.trace_id.hex()
    assert record["verdict"] == "charged"
    assert record["cost_usd"] == record["charge_credits"] == EXPECTED_USD
    assert (record["input_tokens"], record["cache_read_tokens"], record["output_tokens"]) == (600, 400, 200)
    assert record["cost_per_1k_usd"] == "0.000200000"
    receipt = collector.api.get(f"/v1/usage/{record['trace_id']}/{record['span_id']}/receipt").json()
    assert sum(Decimal(line["exact_usd"]) for line in receipt["lines"]) == Decimal(EXPECTED_USD)
    assert [row["type"] for row in collector.pages("/v1/ledger", wallet=wallet)] == ["charge", "deposit"]
    labels = f'dept="",event="event.{transport}",model="gpt-4o-mini",project="",provider="openai",task=""'
    metrics = collector.metrics()
    assert metrics[f"farebox_cost_usd_total{{{labels}}}"] == float(EXPECTED_USD)
    assert metrics[f"farebox_requests_total{{{labels}}}"] == 1


def test_totals_survive_a_restart(collector: Collector) -> None:
    collector.export_grpc(protobuf_body([llm_span(event="e")]))
    name = 'farebox_charged_credits_total{dept="",event="e",model="gpt-4o-mini",project="",provider="openai",task=""}'
    before = collector.metrics()[name]
    assert collector.stop() == 0
    collector.start()
    assert collector.metrics()[name] == before > 0


def test_what_is_not_a_model_call_is_accepted_and_not_kept(shared_collector: Collector) -> None:
    before = len(shared_collector.usage())
    plain = llm_span()._replace(attributes={"http.request.method": "GET"})
    tool = llm_span(gen_ai__operation__name="execute_tool")
    assert not shared_collector.export_grpc(protobuf_body([plain, tool])).HasField("partial_success")
    assert len(shared_collector.usage()) == before


def test_a_request_that_does_not_arrive_is_cut_off_and_can_come_again(tmp_path: Path) -> None:
    collector = Collector(blank_sqlite(tmp_path), request_seconds=0.2)
    host, port = collector.otlp_url.removeprefix("http://").split(":")
    body = protobuf_body([llm_span(wallet="slow")])
    head = f"POST /v1/traces HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(body)}\r\n"
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(f"{head}Content-Type: application/x-protobuf\r\n\r\n".encode() + body[:-1])
        assert connection.recv(100).startswith(b"HTTP/1.1 503 ")
    assert collector.export_http(body).status_code == 200
    assert collector.metrics()["farebox_queue_bytes"] == 0
    assert len(collector.usage(wallet="slow")) == 1
    assert collector.stop() == 0
