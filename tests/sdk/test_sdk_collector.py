"""The SDK and the collector together: holds, and quality that is known after the call."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import farebox
import openai
import pytest
from harness import Collector
from opentelemetry.sdk.trace import TracerProvider

CHAT: Any = {
    "model": "gpt-4o-mini",
    "messages": [{"role": "user", "content": "Hello"}],
    "extra_headers": {"x-usage": "input=1000000,output=1000000"},
}
CHARGE = Decimal("0.75")  # $0.15 in and $0.60 out a million


@pytest.fixture
def client(collector: Collector, model_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[openai.OpenAI]:
    """A client whose calls are metered into the collector."""
    monkeypatch.setenv("FAREBOX_API_URL", collector.api_url)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://{collector.grpc_target}")
    provider = TracerProvider(shutdown_on_exit=False)
    farebox.instrument(model_urls=[f"{model_url}/v1"], tracer_provider=provider)
    with openai.OpenAI(base_url=f"{model_url}/v1", api_key="none", max_retries=0) as client:
        yield client
    farebox.uninstrument()


def deposit(collector: Collector, wallet: str, credits: str) -> None:
    collector.api.post(
        f"/v1/wallets/{wallet}/deposits", json={"amount_credits": credits}, headers={"Idempotency-Key": wallet}
    ).raise_for_status()


def test_an_action_holds_credits_and_its_charge_settles_them(collector: Collector, client: openai.OpenAI) -> None:
    deposit(collector, "holder", "10")
    with farebox.action("agent.run", wallet="holder", dept="research", hold=5) as run:
        (hold,) = collector.pages("/v1/holds", wallet="holder")
        assert (hold["state"], hold["dept"], hold["action_id"]) == ("open", "research", run.action_id)
        client.chat.completions.create(**CHAT)
    assert farebox.flush(10)
    (record,) = collector.usage(wallet="holder")
    assert (record["verdict"], Decimal(record["charge_credits"])) == ("charged", CHARGE)
    (hold,) = collector.pages("/v1/holds", wallet="holder")
    assert (hold["state"], Decimal(hold["open_credits"])) == ("voided", Decimal(0)), "what was left went back"
    assert Decimal(collector.wallet("holder")["balance_credits"]) == 10 - CHARGE


def test_a_stream_that_is_read_outside_keeps_its_hold(collector: Collector, client: openai.OpenAI) -> None:
    deposit(collector, "reader", "10")
    with farebox.action("agent.run", wallet="reader", hold=5):
        stream = client.chat.completions.create(**CHAT, stream=True, stream_options={"include_usage": True})
    assert farebox.flush(10)
    assert [hold["state"] for hold in collector.pages("/v1/holds", wallet="reader")] == ["open"]
    assert list(stream)
    assert farebox.flush(10)
    (hold,) = collector.pages("/v1/holds", wallet="reader")
    assert Decimal(hold["open_credits"]) == 5 - CHARGE, "its charge settled a part, the rest expires"


def test_an_action_without_a_call_gives_its_hold_back(collector: Collector, client: openai.OpenAI) -> None:
    deposit(collector, "idler", "10")
    for _ in range(2):
        with farebox.action("agent.run", wallet="idler", hold="7.5"):
            pass
        assert farebox.flush(10)
    assert [hold["state"] for hold in collector.pages("/v1/holds", wallet="idler")] == ["voided", "voided"]


def test_too_few_credits_stop_the_action_before_it_spends(collector: Collector, client: openai.OpenAI) -> None:
    deposit(collector, "pauper", "2")
    with pytest.raises(farebox.InsufficientCredits) as refused, farebox.action("agent.run", wallet="pauper", hold=5):
        client.chat.completions.create(**CHAT)
    assert (refused.value.wallet, refused.value.amount_credits) == ("pauper", "5")
    assert "pauper" in str(refused.value), "the collector says why"
    assert farebox.flush(10)
    assert collector.usage(wallet="pauper") == []
    assert Decimal(collector.wallet("pauper")["balance_credits"]) == 2


def test_quality_that_is_known_later_counts_with_the_model_that_answered(
    collector: Collector, client: openai.OpenAI
) -> None:
    with farebox.action("chat.reply", wallet="quality"):
        client.chat.completions.create(**CHAT)
    assert farebox.flush(10)
    (record,) = collector.usage(wallet="quality")

    def told(name: str) -> float:
        return sum(
            value
            for key, value in collector.metrics().items()
            if key.startswith(f"{name}{{") and 'model="gpt-4o-mini"' in key
        )

    before = {name: told(name) for name in ("farebox_citation_rate_sum", "farebox_human_reviews_total")}
    assert farebox.report_quality(citation_rate=0.8, human_reviewed=True, approved=True, trace_id=record["trace_id"])
    assert farebox.flush(10)
    assert told("farebox_citation_rate_sum") == pytest.approx(before["farebox_citation_rate_sum"] + 0.8)
    assert told("farebox_human_reviews_total") == before["farebox_human_reviews_total"] + 1
    assert len(collector.usage(wallet="quality")) == 1, "a report is no call"
