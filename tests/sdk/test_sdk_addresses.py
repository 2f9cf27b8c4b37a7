"""Who bills is decided by the address: regional hosts, gateways with answers of another shape, unknown hosts."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import anthropic
import farebox
import httpx
import httpx2
import openai
import pytest
from farebox.unknown_hosts import UnknownHosts
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from sdk.sdk_support import Metered

INPUT, OUTPUT = "gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens"
TOTAL = "gen_ai.usage.total_tokens"
USAGE = {"prompt_tokens": 70, "completion_tokens": 30, "total_tokens": 100}
CHAT = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "gpt-4o",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "x"}}],
    "usage": USAGE,
}
MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-opus-5",
    "content": [{"type": "text", "text": "x"}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {"input_tokens": 70, "output_tokens": 30},
}
GEMINI = {"modelVersion": "gemini-3-pro", "usageMetadata": {"promptTokenCount": 70, "candidatesTokenCount": 30}}
COHERE = {"id": "c", "usage": {"billed_units": {"input_tokens": 70, "output_tokens": 30}}}
CONVERSE = {"usage": {"inputTokens": 70, "outputTokens": 30}}
OLLAMA = {"model": "llama3.3", "done": True, "prompt_eval_count": 70, "eval_count": 30}
ASK = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello"}]}


def transport(body: Any) -> httpx.MockTransport:
    return httpx.MockTransport(lambda _: httpx.Response(200, json=body))


def post(url: str, body: Any, ask: Any = ASK) -> None:
    with httpx.Client(transport=transport(body)) as client:
        client.post(url, json=ask)


@contextmanager
def metering(metered: Metered, **options: Any) -> Iterator[InMemorySpanExporter]:
    """Metering anew with other options."""
    farebox.uninstrument()
    exporter = InMemorySpanExporter()
    farebox.instrument(tracer_provider=metered.provider, exporter=exporter, **options)
    try:
        yield exporter
        assert farebox.flush(10)
    finally:
        farebox.uninstrument()


@pytest.mark.parametrize(
    ("url", "body", "provider", "region"),
    [
        ("https://us.api.openai.com/v1/chat/completions", CHAT, "openai", "us"),
        ("https://eu.api.openai.com/v1/responses", CHAT, "openai", "eu"),
        ("https://us-east-1.api.x.ai/v1/chat/completions", CHAT, "x_ai", "us-east-1"),
        (
            "https://bedrock-runtime-fips.us-gov-west-1.amazonaws.com/model/m/converse",
            CONVERSE,
            "aws.bedrock",
            "us-gov-west-1",
        ),
        ("https://bedrock-mantle.us-east-1.api.aws/v1/chat/completions", CHAT, "aws.bedrock", "us-east-1"),
        ("https://bedrock-mantle.us-west-2.api.aws/anthropic/v1/messages", MESSAGE, "aws.bedrock", "us-west-2"),
        (
            "https://bedrock-runtime.eu-west-1.amazonaws.com/openai/v1/chat/completions",
            CHAT,
            "aws.bedrock",
            "eu-west-1",
        ),
        (
            "https://vpce-0a1b-2c3d.bedrock-runtime.us-east-1.vpce.amazonaws.com/model/m/converse",
            CONVERSE,
            "aws.bedrock",
            "us-east-1",
        ),
        ("https://codestral.mistral.ai/v1/fim/completions", CHAT, "mistral_ai", None),
        ("https://eu.openrouter.ai/api/v1/chat/completions", CHAT, "openrouter", None),
        ("https://api.together.ai/v1/chat/completions", CHAT, "together", None),
        ("https://router.huggingface.co/v1/chat/completions", CHAT, "huggingface", None),
        ("https://dashscope-intl.aliyuncs.com/compatible-mode/v1/chat/completions", CHAT, "alibaba", None),
        ("https://integrate.api.nvidia.com/v1/chat/completions", CHAT, "nvidia", None),
        ("https://api.cohere.com/v1/summarize", {"meta": COHERE["usage"]}, "cohere", None),
        ("https://api.mistral.ai/v1/conversations", CHAT, "mistral_ai", None),
        ("https://api.mistral.ai/v1/conversations/conv_1", CHAT, "mistral_ai", None),
        ("https://api.cohere.com/v1/generate", {"meta": COHERE["usage"]}, "cohere", None),
        ("https://ollama.com/api/chat", OLLAMA, "ollama", None),
        ("https://api.groq.com/openai/v1/chat/completions", CHAT, "groq", None),
        ("https://generativelanguage.googleapis.com/v1beta/openai/chat/completions", CHAT, "gcp.gemini", None),
    ],
)
def test_hosts_and_paths_that_are_known(
    metered: Metered, url: str, body: Any, provider: str, region: str | None
) -> None:
    post(url, body)
    attributes = metered.attributes()
    assert attributes["gen_ai.provider.name"] == provider
    assert attributes["server.address"] == httpx.URL(url).host
    assert (attributes[INPUT], attributes[OUTPUT]) == (70, 30)
    assert attributes.get("cloud.region") == region
    assert attributes.get("farebox.usage.inference_region") == (region if provider == "openai" else None)


@pytest.mark.parametrize(
    ("url", "body", "expected"),
    [
        ("https://api.voyageai.com/v1/rerank", {"usage": {"total_tokens": 26}}, {INPUT: 26}),
        ("https://api.voyageai.com/v1/embeddings", {"usage": {"total_tokens": 26}}, {INPUT: 26}),
        ("https://api.voyageai.com/v1/multimodalembeddings", {"usage": {"total_tokens": 26}}, {INPUT: 26}),
        (
            "https://api.cohere.com/v2/rerank",
            {"meta": {"billed_units": {"search_units": 1}}},
            {"farebox.units.rerank_searches": 1},
        ),
        (
            "https://us-central1-aiplatform.googleapis.com/v1/projects/p/locations/l/publishers/google/models/"
            "text-embedding-005:predict",
            {"predictions": [{"embeddings": {"statistics": {"token_count": 26}}}]},
            {INPUT: 26},
        ),
        (
            "https://us-central1-aiplatform.googleapis.com/v1/projects/p/locations/l/publishers/google/models/"
            "imagen-4.0-generate-001:predict",
            {"predictions": [{"bytesBase64Encoded": "A"}]},
            {"farebox.units.images": 1},
        ),
        (
            "https://us-central1-aiplatform.googleapis.com/v1/projects/p/locations/l/publishers/mistralai/models/"
            "mistral-medium-3:rawPredict",
            CHAT,
            {INPUT: 70, OUTPUT: 30},
        ),
    ],
    ids=[
        "voyage rerank",
        "voyage",
        "voyage multimodal",
        "cohere rerank",
        "vertex embeddings",
        "imagen",
        "mistral at vertex",
    ],
)
def test_what_bills_other_than_a_chat(metered: Metered, url: str, body: Any, expected: dict[str, Any]) -> None:
    post(url, body)
    attributes = metered.attributes()
    assert {key: attributes.get(key) for key in expected} == expected


@pytest.mark.parametrize(
    "url",
    [
        "https://us.api.openai.com.example.com/v1/chat/completions",
        "https://usx.api.openai.com/v1/files",
        "https://api.openai.com/v1/conversations",
        "https://api.openai.com/v1/rerank",
        "https://bedrock-mantle.us-east-1.api.aws.example.com/v1/chat/completions",
        "https://codestral.mistral.ai.example.com/v1/fim/completions",
        "https://aiplatform.googleapis.com/v1/projects/p/locations/global/publishers/anthropic/models/count-tokens:rawPredict",
    ],
)
def test_hosts_and_paths_that_only_look_alike(metered: Metered, url: str) -> None:
    post(url, {}, ask={})
    assert metered.spans() == []


@pytest.mark.parametrize(
    ("body", "provider"),
    [(MESSAGE, "anthropic"), (GEMINI, "gcp.gemini"), (COHERE, "cohere"), (CONVERSE, "aws.bedrock"), (OLLAMA, "ollama")],
    ids=["anthropic", "gemini", "cohere", "converse", "ollama"],
)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/ask/the/model"])
@pytest.mark.parametrize("named", [True, False])
def test_a_gateways_answers_are_read_by_their_shape(
    metered: Metered, body: Any, provider: str, path: str, named: bool
) -> None:
    url = "http://gateway.test"
    with metering(metered, model_urls={url: "azure.ai.openai"} if named else [url]) as exporter:
        post(url + path, body)
    (span,) = exporter.get_finished_spans()
    attributes = dict(span.attributes or {})
    assert (attributes[INPUT], attributes[OUTPUT]) == (70, 30)
    assert attributes["gen_ai.provider.name"] == ("azure.ai.openai" if named else provider)


def test_a_gateways_stream_is_read_by_its_shape(metered: Metered) -> None:
    events = [
        {"type": "message_start", "message": {**MESSAGE, "usage": {"input_tokens": 70, "output_tokens": 1}}},
        {"type": "content_block_delta", "delta": {"text": "Hi"}},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 30}},
    ]
    wire = [f"data: {json.dumps(event)}\n\n".encode() for event in events]
    answer = httpx.MockTransport(
        lambda _: httpx.Response(200, headers={"content-type": "text/event-stream"}, content=iter(wire))
    )
    with (
        metering(metered, model_urls={"http://gateway.test": "openrouter"}) as exporter,
        httpx.Client(transport=answer) as client,
        client.stream("POST", "http://gateway.test/v1/chat/completions", json=ASK) as response,
    ):
        assert b"".join(response.iter_raw()) == b"".join(wire)
    (span,) = exporter.get_finished_spans()
    assert ((span.attributes or {})[INPUT], (span.attributes or {})[OUTPUT]) == (70, 30)


def test_other_requests_below_a_named_base_url_are_left_alone(metered: Metered) -> None:
    with metering(metered, model_urls=["http://gateway.test"]) as exporter:
        post("http://gateway.test/v1/files", {}, ask={"purpose": "batch"})
        post("http://gateway.test/v1/conversations", {}, ask={"metadata": {}})
    assert exporter.get_finished_spans() == ()


# The clients' own instrumentations


def openai_call(url: str, body: Any, **options: Any) -> None:
    http = httpx2.Client(transport=httpx2.MockTransport(lambda _: httpx2.Response(200, json=body)))
    with openai.OpenAI(base_url=url, api_key="none", max_retries=0, http_client=http) as client:
        client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "Hi"}], **options)


@pytest.mark.parametrize(
    ("url", "provider"),
    [
        ("https://api.groq.com/openai/v1", "groq"),
        ("https://api.deepseek.com", "deepseek"),
        ("https://openrouter.ai/api/v1", "openrouter"),
        ("http://gateway.test/v1", "mistral_ai"),
        ("http://unsaid.test/v1", None),
        ("https://api.openai.com/v1", None),
    ],
)
def test_the_openai_client_at_another_providers_address(metered: Metered, url: str, provider: str | None) -> None:
    named = {"http://gateway.test/v1": "mistral_ai"}
    with metering(metered, model_urls=named) as exporter:
        openai_call(url, {**CHAT, "model": "openai/gpt-oss-120b", "usage": {**USAGE, "cost": 0.25}})
    (span,) = exporter.get_finished_spans()
    attributes = dict(span.attributes or {})
    assert attributes["gen_ai.provider.name"] == "openai", "the official instrumentation cannot know"
    assert attributes.get("farebox.provider") == provider
    assert attributes["server.address"] == httpx.URL(url).host
    assert attributes.get(TOTAL) == (None if "unsaid" in url else 100)
    assert attributes.get("farebox.cost.stated_usd") == ("0.25" if provider == "openrouter" else None)


def test_a_base_url_without_a_provider_claims_none(metered: Metered) -> None:
    """What a path suggests must not win over what another instrumentation knows."""
    with metering(metered, model_urls=["http://gateway.test/v1"]) as exporter:
        openai_call("http://gateway.test/v1", CHAT)
    assert "farebox.provider" not in (exporter.get_finished_spans()[0].attributes or {})


def test_the_total_of_a_stream_is_on_the_official_span(metered: Metered) -> None:
    chunks = [
        {
            **CHAT,
            "object": "chat.completion.chunk",
            "choices": [{"index": 0, "delta": {"content": "x"}}],
            "usage": None,
        },
        {**CHAT, "object": "chat.completion.chunk", "choices": []},
    ]
    wire = b"".join(f"data: {json.dumps(chunk)}\n\n".encode() for chunk in chunks) + b"data: [DONE]\n\n"
    answer = httpx2.MockTransport(
        lambda _: httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=wire)
    )
    with openai.OpenAI(api_key="none", max_retries=0, http_client=httpx2.Client(transport=answer)) as client:
        stream = client.chat.completions.create(
            model="gpt-4o", messages=[], stream=True, stream_options={"include_usage": True}
        )
        assert len(list(stream)) == 2
    attributes = metered.attributes()
    assert (attributes[INPUT], attributes[OUTPUT], attributes[TOTAL]) == (70, 30, 100)


@pytest.mark.parametrize("more", [{"speed": "fast"}, {"inference_geo": "us"}])
def test_speed_and_region_are_on_the_official_span_of_anthropics_client(metered: Metered, more: dict[str, str]) -> None:
    body = {**MESSAGE, "usage": {"input_tokens": 70, "output_tokens": 30, **more}}
    http = httpx2.Client(transport=httpx2.MockTransport(lambda _: httpx2.Response(200, json=body)))
    with anthropic.Anthropic(api_key="none", max_retries=0, http_client=http) as client:
        client.messages.create(model="claude-opus-5", max_tokens=9, messages=[{"role": "user", "content": "x"}])
    attributes = metered.attributes()
    assert attributes.get("farebox.usage.speed") == more.get("speed")
    assert attributes.get("farebox.usage.inference_region") == more.get("inference_geo")
    assert (attributes[INPUT], attributes[OUTPUT]) == (70, 30)


@pytest.mark.parametrize("streamed", [False, True])
def test_after_a_fallback_anthropics_client_is_charged_for_each_model(metered: Metered, streamed: bool) -> None:
    """Its instrumentation has the counts of both models together, which would be charged at the price of the second."""
    iterations = [
        {"type": "message", "model": "claude-sonnet-5", "input_tokens": 30, "output_tokens": 5},
        {"type": "fallback_message", "model": "claude-opus-5", "input_tokens": 40, "output_tokens": 25},
    ]
    usage = {"input_tokens": 70, "output_tokens": 30, "iterations": iterations}
    begun = {**MESSAGE, "content": [], "stop_reason": None, "usage": {"input_tokens": 70, "output_tokens": 0}}
    end = {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None}, "usage": usage}
    events: list[dict[str, Any]] = [{"type": "message_start", "message": begun}, end, {"type": "message_stop"}]
    wire = b"".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in events)
    answer: dict[str, Any] = {"json": {**MESSAGE, "usage": usage}}
    if streamed:
        answer = {"headers": {"content-type": "text/event-stream"}, "content": wire}
    http = httpx2.Client(transport=httpx2.MockTransport(lambda _: httpx2.Response(200, **answer)))
    with anthropic.Anthropic(api_key="none", max_retries=0, http_client=http) as client:
        asked: Any = {"model": "claude-opus-5", "max_tokens": 9, "messages": [{"role": "user", "content": "x"}]}
        if streamed:
            with client.messages.create(**asked, stream=True) as stream:
                assert len(list(stream)) == 3
        else:
            client.messages.create(**asked)
    attributes = metered.attributes()
    assert (attributes[INPUT], attributes[OUTPUT]) == (40, 25)
    (line,) = json.loads(attributes["farebox.usage.lines"])
    assert (line["model"], line["tokens"]) == ("claude-sonnet-5", {"input": 30, "output": 5})
    assert "farebox.usage.own" not in attributes


# Unknown hosts


def not_metered(reader: InMemoryMetricReader) -> dict[str, int]:
    data: Any = reader.get_metrics_data()
    return {
        point.attributes["server.address"]: point.value
        for resource in (data.resource_metrics if data else ())
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if metric.name == "farebox.client.requests.not_metered"
        for point in metric.data.data_points
    }


def test_a_call_to_an_unknown_host_is_said_once_and_counted(metered: Metered, caplog: pytest.LogCaptureFixture) -> None:
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)

    async def post_later() -> None:
        async with httpx.AsyncClient(transport=transport({})) as client:
            await client.post("http://llm.test:8000/v1/chat/completions", json=ASK)

    with metering(metered, meter_provider=provider) as exporter:
        for _ in range(3):
            post("http://llm.test:8000/v1/chat/completions", {})
        asyncio.run(post_later())
        post("http://other.test/anything", {})
        post("http://vertex.test/v1/models/gemini-3-pro:generateContent", {}, ask={"contents": []})
    told = [record.getMessage() for record in caplog.records if "looks like a model call" in record.getMessage()]
    assert len(told) == 3
    for host, line in zip(("http://llm.test:8000", "http://other.test", "http://vertex.test"), told, strict=True):
        assert line.startswith("farebox: ")
        assert host in line
        assert "model_urls" in line
    assert not_metered(reader) == {"llm.test": 4, "other.test": 1, "vertex.test": 1}
    assert exporter.get_finished_spans() == ()
    provider.shutdown()


@pytest.mark.parametrize(
    ("url", "ask"),
    [
        ("http://chat.test/channels/1/messages", {"text": "hello", "to": "ada"}),
        ("http://forms.test/v1/responses", {"answers": [1]}),
        ("http://cars.test/v1/search", {"model": "beetle", "year": 1968}),
        ("http://cars.test/v1/completions", {"model": 7}),
        ("http://x.test/v1/chat/completions", []),
    ],
)
def test_requests_that_are_no_calls_are_not_suspected(
    metered: Metered, caplog: pytest.LogCaptureFixture, url: str, ask: Any
) -> None:
    post(url, {}, ask=ask)
    assert "looks like a model call" not in caplog.text


def test_a_call_that_a_clients_instrumentation_meters_is_not_suspected(
    metered: Metered, caplog: pytest.LogCaptureFixture
) -> None:
    openai_call("http://unsaid.test/v1", CHAT)
    assert metered.attributes()[INPUT] == 70
    assert "looks like a model call" not in caplog.text


def test_unknown_addresses_are_told_with_their_ports_and_not_for_counting(caplog: pytest.LogCaptureFixture) -> None:
    hosts, body = UnknownHosts(), b'{"model": "m", "messages": []}'
    url: Any = httpx2.URL
    for port in (8000, 8001, 8000):
        hosts.report(httpx2.URL(f"http://gateway.example:{port}/v1/chat/completions"))
    assert [record.getMessage().split()[4] for record in caplog.records] == [
        "http://gateway.example:8000",
        "http://gateway.example:8001",
    ]
    assert hosts.looks_like_a_call(url("https://gateway.example/v1/messages"), body)
    for path in ("/v1/messages/count_tokens", "/model/m/count-tokens", "/v1beta/models/m:countTokens", "/v1/tokenize"):
        assert not hosts.looks_like_a_call(url(f"https://gateway.example{path}"), body)
