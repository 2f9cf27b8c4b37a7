"""The example application, as a user runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from typing import Any

import httpx
import pytest
from sdk.sdk_support import ANTHROPIC_CLIENT_SCOPE, DEMO, OtlpReceiver


def run(model_url: str, receiver: OtlpReceiver, *arguments: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    receiver.requests.clear()
    process = subprocess.run(
        [sys.executable, str(DEMO / "application.py"), "--model-url", model_url, *arguments],
        env={**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout), receiver.spans()


def test_the_application_meters_every_call_of_every_customer(model_url: str, receiver: OtlpReceiver) -> None:
    summary, spans = run(model_url, receiver, "--calls", "80", "--seed", "3")
    assert not [span for span in spans if span["scope"] == ANTHROPIC_CLIENT_SCOPE]
    calls = [span for span in spans if "farebox.quality.trace_id" not in span]
    assert summary["delivered"] is True
    assert summary["calls"] == len(calls) >= 80
    assert summary["errors"] == len([span for span in calls if "error.type" in span]) > 0
    assert {span["farebox.wallet"] for span in calls} == {"ada", "grace", "linus", "acme-team"}
    assert {span["farebox.event"] for span in calls} == {"chat.reply", "image.caption", "agent.run", "search.answer"}
    assert {span["scope"] for span in calls} == {
        "farebox",
        "opentelemetry.instrumentation.genai.openai",
        "opentelemetry.instrumentation.genai.anthropic",
    }
    for span in calls:
        assert ("farebox.cost_actual" in span) is ("error.type" not in span), "all its models have prices"

    again, spans_again = run(model_url, receiver, "--calls", "80", "--seed", "3")
    assert again == summary
    assert bill(spans_again) == bill(calls)


def test_the_application_ends_in_time(model_url: str, receiver: OtlpReceiver) -> None:
    summary, spans = run(model_url, receiver, "--seconds", "0.3", "--rate", "20")
    assert 0 < summary["calls"] <= 20
    assert spans


def bill(spans: list[dict[str, Any]]) -> Counter[tuple[str, str, float]]:
    return Counter(
        (span["farebox.wallet"], span["farebox.event"], span.get("farebox.cost_actual", 0))
        for span in spans
        if "farebox.quality.trace_id" not in span
    )


@pytest.mark.parametrize(
    ("path", "headers", "body", "error"),
    [
        ("chat/completions", {"x-fail": "429"}, b"{}", {"type": "requests", "code": "rate_limit_exceeded"}),
        ("messages", {"x-fail": "529"}, b"{}", {"type": "overloaded_error"}),
        ("messages", {"x-usage": "input=many"}, b'{"model":"m"}', {"type": "invalid_request_error"}),
        ("responses", {}, b"not json", {"type": "invalid_request_error"}),
        ("embeddings", {}, b"{}", {"type": "invalid_request_error"}),
    ],
)
def test_the_model_server_refuses_as_the_providers_do(
    model_url: str, path: str, headers: dict[str, str], body: bytes, error: dict[str, str]
) -> None:
    response = httpx.post(f"{model_url}/v1/{path}", content=body, headers=headers)
    assert response.status_code == int(headers.get("x-fail", "400"))
    assert error.items() <= response.json()["error"].items()


def test_the_model_server_says_what_it_is_told(model_url: str) -> None:
    headers = {"x-response-id": "msg_mine", "x-usage": "input=5,output=7,cache_write=10,cache_write_1h=4"}
    message = httpx.post(f"{model_url}/v1/messages", json={"model": "claude"}, headers=headers).json()
    assert message["id"] == "msg_mine"
    assert message["usage"]["input_tokens"] == 5
    assert message["usage"]["output_tokens"] == 7
    assert message["usage"]["cache_creation_input_tokens"] == 10
    assert message["usage"]["cache_creation"] == {"ephemeral_5m_input_tokens": 6, "ephemeral_1h_input_tokens": 4}
    by_itself = httpx.post(f"{model_url}/v1/embeddings", json={"model": "e", "input": "x" * 400}).json()
    assert by_itself["usage"]["prompt_tokens"] == 100
