"""Both generations of the OpenAI client, and other instrumentations beside: each call is sent once, with its usage."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from harness import Collector
from sdk.environments import making

ENVIRONMENTS = Path(__file__).parent / "environments"

USAGE = {
    "gen_ai.usage.input_tokens": 1000,
    "gen_ai.usage.output_tokens": 200,
    "gen_ai.usage.cache_read.input_tokens": 400,
    "gen_ai.usage.reasoning.output_tokens": 50,
}
OTHER_USAGE: dict[str, dict[str, Any]] = {
    "embeddings": {"gen_ai.usage.input_tokens": 77},
    "image": {"gen_ai.usage.input_tokens": 50, "gen_ai.usage.output_tokens": 200, "farebox.units.images": None},
    "transcript": {"farebox.units.audio_seconds": 60},
    "speech": {"farebox.units.input_characters": 12},
}
OPENLLMETRY = "opentelemetry.instrumentation.openai"
OPENINFERENCE = "openinference.instrumentation.openai"


def called(environment: str, model_url: str, tmp_path: Path, *arguments: str, **variables: str) -> dict[str, Any]:
    command = [str(making.python_of(environment)), str(ENVIRONMENTS / "client_calls.py"), model_url, *arguments]
    environ = making.variables() | variables
    process = subprocess.run(
        command, env=environ, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    assert process.returncode == 0, process.stderr
    answer: dict[str, Any] = json.loads(process.stdout)
    return answer


def assert_each_call_is_sent_once(calls: dict[str, Any]) -> None:
    assert len(calls) == 12
    for name, call in calls.items():
        assert len(call["sent"]) == 1, (name, call)
        (span,) = call["sent"]
        expected = OTHER_USAGE.get(name, USAGE)
        assert {key: span.get(key) for key in expected} == expected, name
        assert span["farebox.wallet"] == "ada"
        assert span["farebox.event"] == "chat.reply"
        assert span["farebox.cost_actual"] > 0, name
        assert not any("headers" in key for key in span), "OpenLLMetry writes down the caller's, keys among them"


def test_the_client_of_the_first_generation(model_url: str, tmp_path: Path) -> None:
    """On httpx; the tests of this environment are about the third, on httpx2."""
    told = called("openai-1", model_url, tmp_path, "first")
    assert told["client"].startswith("1.")
    assert_each_call_is_sent_once(told["calls"])


@pytest.mark.parametrize(("order", "others"), [("first", [OPENLLMETRY]), ("last", [OPENINFERENCE])])
def test_another_instrumentation_beside_makes_no_duplicates(
    model_url: str, tmp_path: Path, order: str, others: list[str]
) -> None:
    told = called("beside", model_url, tmp_path, order, *others)
    assert told["client"].startswith("3.")
    assert_each_call_is_sent_once(told["calls"])
    assert_the_others_are_on(told["calls"], others)


@pytest.mark.parametrize("order", ["first", "last"])
def test_both_others_beside_and_each_call_is_charged_once(
    model_url: str, collector: Collector, tmp_path: Path, order: str
) -> None:
    before = {(record["trace_id"], record["span_id"]) for record in collector.usage()}
    others = [OPENLLMETRY, OPENINFERENCE] if order == "first" else [OPENINFERENCE, OPENLLMETRY]
    endpoint = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{collector.grpc_target}"}
    told = called("beside", model_url, tmp_path, order, *others, **endpoint)
    assert_each_call_is_sent_once(told["calls"])
    assert_the_others_are_on(told["calls"], others)
    records = [record for record in collector.usage() if (record["trace_id"], record["span_id"]) not in before]
    assert [record["verdict"] for record in records] == ["charged"] * len(told["calls"])
    assert {record["wallet"] for record in records} == {"ada"}


def assert_the_others_are_on(calls: dict[str, Any], others: list[str]) -> None:
    """Or this would prove nothing; the application's own exporters still see their spans."""
    for other in others:
        assert any(scope.startswith(other) for scope in calls["chat"]["all_scopes"]), calls["chat"]
