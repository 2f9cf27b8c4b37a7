"""What makes the official instrumentations cheaper changes nothing on their spans."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import anthropic
import farebox
import openai
import pytest
from farebox import fast_calls, fast_streams
from opentelemetry import context
from opentelemetry.instrumentation.genai import openai as official
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.util.genai import version
from opentelemetry.util.genai.handler import TelemetryHandler
from sdk.sdk_support import Metered

HEADERS = {"x-usage": "input=1000,output=200,cache_read=400,reasoning=50,input_audio=7", "x-response-id": "r"}
CHAT: Any = {
    "model": "gpt-4o-mini",
    "messages": [{"role": "user", "content": "Hello"}],
    "extra_headers": {
        "x-usage": "input=1000,output=200,cache_read=400,reasoning=50,input_audio=7",
        "x-response-id": "r",
    },
}
STREAM: Any = {"stream": True, "stream_options": {"include_usage": True}}
MORE: Any = {"temperature": 0.5, "top_p": 0.9, "max_tokens": 50, "seed": 7, "stop": ["."], "service_tier": "flex"}


def failing(client: openai.OpenAI) -> None:
    with pytest.raises(openai.RateLimitError):
        client.chat.completions.create(**{**CHAT, "extra_headers": {"x-fail": "429"}})


def left(client: openai.OpenAI) -> None:
    with client.chat.completions.create(**CHAT, **STREAM) as stream:
        next(iter(stream))


CALLS: dict[str, Callable[[openai.OpenAI], Any]] = {
    "plain": lambda client: client.chat.completions.create(**CHAT),
    "with parameters": lambda client: client.chat.completions.create(**CHAT, **MORE),
    "stream": lambda client: list(client.chat.completions.create(**CHAT, **STREAM)),
    "stream without usage": lambda client: list(client.chat.completions.create(**CHAT, stream=True)),
    "stream that is left": left,
    "failing": failing,
    "raw response": lambda client: client.chat.completions.with_raw_response.create(**CHAT).parse(),
    "response": lambda client: client.responses.create(model="gpt-4o-mini", input="Hello", extra_headers=HEADERS),
    "response stream": lambda client: list(
        client.responses.create(model="gpt-4o-mini", input="Hello", stream=True, extra_headers=HEADERS)
    ),
    "embeddings": lambda client: client.embeddings.create(model="text-embedding-3-small", input="Hello"),
}


MESSAGE: Any = {
    "model": "claude-haiku-4-5",
    "max_tokens": 50,
    "messages": [{"role": "user", "content": "Hello"}],
    "extra_headers": {"x-usage": "input=500,output=200,cache_read=400,cache_write=100", "x-response-id": "r"},
}


def streamed(client: anthropic.Anthropic) -> None:
    with client.messages.stream(**MESSAGE, stop_sequences=["."]) as stream:
        stream.get_final_message()


def failing_stream(client: anthropic.Anthropic) -> None:
    with (
        pytest.raises(anthropic.RateLimitError),
        client.messages.stream(**{**MESSAGE, "extra_headers": {"x-fail": "429"}}),
    ):
        pass


MESSAGES: dict[str, Callable[[anthropic.Anthropic], Any]] = {
    "message": lambda client: client.messages.create(**MESSAGE),
    "message stream": lambda client: list(client.messages.create(**MESSAGE, stream=True)),
    "message stream with its manager": streamed,
    "message stream that fails": failing_stream,
}


def told(span: ReadableSpan) -> tuple[Any, ...]:
    attributes: dict[str, Any] = dict(span.attributes or {})
    # How long it took, and what the server calls a request that fails, are others each time.
    assert attributes.pop("gen_ai.response.time_to_first_chunk", 0) >= 0
    said = (span.status.description or "").partition("request_id")[0]
    return span.name, span.kind, span.status.status_code, said, sorted(attributes.items(), key=str)


def spans_of(url: str, name: str) -> list[ReadableSpan]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    farebox.instrument(model_urls=[f"{url}/v1"], tracer_provider=provider, exporter=exporter)
    try:
        if name in MESSAGES:
            with anthropic.Anthropic(base_url=url, api_key="none", max_retries=0) as client:
                MESSAGES[name](client)
        else:
            with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as openai_client:
                CALLS[name](openai_client)
    finally:
        farebox.uninstrument()
    return list(exporter.get_finished_spans())


def test_this_version_is_known() -> None:
    assert version.__version__ in fast_calls.KNOWN_VERSIONS


@pytest.mark.parametrize("name", [*CALLS, *MESSAGES])
def test_fast_spans_are_the_official_ones(name: str, model_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (lean,) = spans_of(model_url, name)
    assert vars(official)["TelemetryHandler"] is TelemetryHandler, "the official handler is back in its place"
    monkeypatch.setattr(fast_calls, "KNOWN_VERSIONS", frozenset())
    monkeypatch.setattr(fast_streams, "_WRAPPERS", ())
    (plain,) = spans_of(model_url, name)
    assert told(lean) == told(plain)
    assert "gen_ai.operation.name" in (lean.attributes or {})


def test_content_is_captured_by_the_official_classes(model_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "span_only")
    for name in ("plain", "stream"):
        (span,) = spans_of(model_url, name)
        assert "Hello" in str((span.attributes or {})["gen_ai.input.messages"])
        assert "model server" in str((span.attributes or {})["gen_ai.output.messages"])


def test_an_official_instrumentation_inside_adds_to_the_span_around_it(metered: Metered) -> None:
    handler = fast_calls.FastHandler(tracer_provider=metered.provider, instrumentation_scope_name="outer")
    around = handler.inference("openai", request_model="gpt-4o-mini")
    assert isinstance(around, fast_calls.FastInvocation)
    inside = handler.inference("openai", request_model="gpt-4o-mini")
    assert not isinstance(inside, fast_calls.FastInvocation)
    inside.input_tokens, inside.response_id = 70, "r1"
    inside.stop()
    around.stop()
    attributes = metered.attributes()
    assert (attributes["gen_ai.usage.input_tokens"], attributes["gen_ai.response.id"]) == (70, "r1")
    assert context.get_current() == {}, "nothing is left behind"


def test_async_calls_are_fast_too(metered: Metered) -> None:
    async def calls() -> None:
        async with metered.async_openai() as client:
            await client.chat.completions.create(**CHAT)
            async for _ in await client.chat.completions.create(**CHAT, **STREAM):
                pass

    asyncio.run(calls())
    for span in metered.spans():
        attributes = span.attributes or {}
        assert attributes["gen_ai.usage.input_tokens"] == 1000
        assert attributes["gen_ai.response.finish_reasons"] == ("stop",)
