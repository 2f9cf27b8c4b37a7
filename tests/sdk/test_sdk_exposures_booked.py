"""Exposures in the books of a real collector: apart from cost, each attempt once, and nothing from the wallet."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import farebox
import openai
import pytest
from harness import Collector
from opentelemetry.sdk.trace import TracerProvider
from sdk.unreliable_server import UnreliableServer, unreliable_server

MESSAGES: Any = [{"role": "user", "content": "word " * 200}]


def client_of(server: UnreliableServer, retries: int, timeout: float) -> openai.OpenAI:
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=retries, timeout=timeout)
    client._calculate_retry_timeout = lambda *_args, **_kwargs: 0.0  # type: ignore[method-assign]
    return client


def ask(client: openai.OpenAI, **more: Any) -> Any:
    return client.chat.completions.create(model="gpt-4o-mini", max_tokens=77, messages=MESSAGES, **more)


def test_attempts_are_exposed_and_the_answer_is_charged_once(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://{collector.grpc_target}")
    with unreliable_server() as server:
        farebox.instrument(
            model_urls={f"{server.url}/v1": "openai"}, tracer_provider=TracerProvider(shutdown_on_exit=False)
        )
        try:
            server.plan = ["stall", "reset", "answer"]
            with farebox.action("chat.reply", wallet="exposed-ada"), client_of(server, 2, 0.5) as client:
                ask(client)
            server.plan = ["half"]
            with farebox.action("chat.reply", wallet="exposed-bob"), client_of(server, 0, 10) as client:
                stream = ask(client, stream=True)
                next(iter(stream))
                stream.close()
            assert farebox.flush(10)
        finally:
            server.over.set()
            farebox.uninstrument()
    of_ada = collector.usage(wallet="exposed-ada")
    assert sorted(record["verdict"] for record in of_ada) == ["charged", "exposed", "exposed"]
    (charged,) = [record for record in of_ada if record["verdict"] == "charged"]
    ada = collector.wallet("exposed-ada")
    assert Decimal(ada["spent_credits"]) == Decimal(charged["charge_credits"]) > 0
    (of_bob,) = collector.usage(wallet="exposed-bob")
    assert of_bob["verdict"] == "exposed"
    for record in [*of_ada, of_bob]:
        if record["verdict"] == "exposed":
            assert not Decimal(record["charge_credits"] or 0)
