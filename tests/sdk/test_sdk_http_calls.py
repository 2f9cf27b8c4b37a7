"""Calls over plain HTTP: the application gets the bytes that were sent, even if the meter cannot read them."""

from __future__ import annotations

import asyncio
import gc
import gzip
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import farebox
import httpx
import httpx2
import pytest
from farebox import http_call, httpx_hooks, model_request, reading, span_attributes, watched_response
from farebox.answers.openai import OpenAIAnswer
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from sdk.sdk_support import Metered

OPENAI_URL = "https://api.openai.com/v1/chat/completions"
ANTHROPIC_URL = "https://api.anthropic.com/v1/messages"
ASK = {"model": "gpt-4o", "messages": []}

CHAT = {
    "id": "chatcmpl-1",
    "model": "gpt-4o-2024-08-06",
    "choices": [{"finish_reason": "stop"}],
    "usage": {"prompt_tokens": 70, "completion_tokens": 30, "total_tokens": 100},
}
CHAT_EVENTS = (
    b'data: {"id":"chatcmpl-1","model":"gpt-4o","choices":[{"delta":{"content":"caf\xc3\xa9"}}],"usage":null}\r\n\r\n'
    b": a comment\n\n"
    b'data: {"id":"chatcmpl-1","model":"gpt-4o","choices":[{"delta":{},"finish_reason":"stop"}]}\n\n'
    b'data: {"id":"chatcmpl-1","model":"gpt-4o","choices":[],\n'
    b'data: "usage":{"prompt_tokens":70,"completion_tokens":30}}\n\n'
    b"data: [DONE]\n\n"
)
MESSAGE_EVENTS = (
    b'event: message_start\ndata: {"type":"message_start","message":{"type":"message","id":"msg_1",'
    b'"model":"claude-haiku-4-5","usage":{"input_tokens":70,"cache_read_input_tokens":20,"output_tokens":1}}}\n\n'
    b'event: ping\ndata: {"type":"ping"}\n\n'
    b'event: message_delta\ndata: {"type":"message_delta","delta":{"stop_reason":"tool_use"},'
    b'"usage":{"output_tokens":30}}\n\n'
    b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
)
EVENT_STREAM = {"content-type": "text/event-stream; charset=utf-8"}


class Chunks:
    """A body that arrives in pieces, for both libraries and both ways of waiting; optionally it breaks."""

    def __init__(self, body: bytes, size: int = 7, error: Exception | None = None) -> None:
        self.pieces = [body[start : start + size] for start in range(0, len(body), size)]
        self.error = error
        self.closed = 0

    def __iter__(self) -> Iterator[bytes]:
        yield from self.pieces
        if self.error:
            raise self.error

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self.pieces:
            yield piece
        if self.error:
            raise self.error

    def close(self) -> None:
        self.closed += 1

    async def aclose(self) -> None:
        self.closed += 1


class HttpxChunks(Chunks, httpx.SyncByteStream, httpx.AsyncByteStream):
    pass


class Httpx2Chunks(Chunks, httpx2.SyncByteStream, httpx2.AsyncByteStream):
    pass


LIBRARIES = [pytest.param(httpx, HttpxChunks, id="httpx"), pytest.param(httpx2, Httpx2Chunks, id="httpx2")]


def answering(library: Any, **response: Any) -> Any:
    """A transport that gives this answer to every request."""
    return library.MockTransport(lambda request: library.Response(**{"status_code": 200, **response}))


def post(url: str, ask: Any = ASK, **response: Any) -> httpx.Response:
    with httpx.Client(transport=answering(httpx, **response)) as client:
        return client.post(url, json=ask)


@pytest.mark.parametrize(("library", "chunks"), LIBRARIES)
@pytest.mark.parametrize("size", [1, 7, 10_000])
@pytest.mark.parametrize("encoding", ["identity", "gzip"])
def test_a_stream_reaches_the_application_byte_for_byte(
    metered: Metered, library: Any, chunks: type[Chunks], size: int, encoding: str
) -> None:
    wire = gzip.compress(CHAT_EVENTS) if encoding == "gzip" else CHAT_EVENTS
    headers = {**EVENT_STREAM, "content-encoding": encoding}

    def read(way: str) -> list[Any]:
        body = chunks(wire, size)
        with (
            library.Client(transport=answering(library, headers=headers, stream=body)) as client,
            client.stream("POST", OPENAI_URL, json=ASK) as response,
        ):
            pieces = list(getattr(response, way)())
            assert response.num_bytes_downloaded == len(wire)
        assert body.closed
        assert response.elapsed is not None
        return pieces

    async def read_async(way: str) -> list[Any]:
        body = chunks(wire, size)
        async with (
            library.AsyncClient(transport=answering(library, headers=headers, stream=body)) as client,
            client.stream("POST", OPENAI_URL, json=ASK) as response,
        ):
            pieces = [piece async for piece in getattr(response, f"a{way}")()]
        assert body.closed
        return pieces

    assert read("iter_raw") == chunks(wire, size).pieces
    assert b"".join(read("iter_bytes")) == CHAT_EVENTS
    assert read("iter_lines") == CHAT_EVENTS.decode().splitlines()
    assert asyncio.run(read_async("iter_raw")) == chunks(wire, size).pieces
    assert b"".join(asyncio.run(read_async("iter_bytes"))) == CHAT_EVENTS
    spans = metered.spans()
    assert len(spans) == 5
    for span in spans:
        attributes: dict[str, Any] = dict(span.attributes or {})
        assert attributes["gen_ai.usage.input_tokens"] == 70
        assert attributes["gen_ai.usage.output_tokens"] == 30
        assert attributes["gen_ai.response.finish_reasons"] == ("stop",)
        assert attributes["gen_ai.response.time_to_first_chunk"] > 0


@pytest.mark.parametrize(("library", "chunks"), LIBRARIES)
def test_a_stream_that_the_application_leaves_ends_the_span(
    metered: Metered, library: Any, chunks: type[Chunks]
) -> None:
    body = chunks(MESSAGE_EVENTS, 250)
    with (
        library.Client(transport=answering(library, headers=EVENT_STREAM, stream=body)) as client,
        client.stream("POST", ANTHROPIC_URL, json=ASK) as response,
    ):
        next(response.iter_raw())
    attributes = metered.attributes()
    assert attributes["gen_ai.usage.input_tokens"] == 90
    assert attributes["gen_ai.usage.cache_read.input_tokens"] == 20
    assert attributes["gen_ai.usage.output_tokens"] == 1
    assert "error.type" not in attributes


def test_a_stream_that_nobody_closes_ends_the_span_when_it_is_collected(metered: Metered) -> None:
    client = httpx.Client(transport=answering(httpx, headers=EVENT_STREAM, stream=HttpxChunks(MESSAGE_EVENTS)))
    response = client.send(client.build_request("POST", ANTHROPIC_URL, json=ASK), stream=True)
    assert metered.spans() == []
    del response
    gc.collect()
    assert metered.attributes()["http.response.status_code"] == 200
    client.close()


@pytest.mark.parametrize(("library", "chunks"), LIBRARIES)
def test_a_stream_that_breaks_raises_in_the_application_and_is_charged_for_what_came(
    metered: Metered, library: Any, chunks: type[Chunks]
) -> None:
    broken = library.ReadError("the line went dead")

    def read() -> None:
        body = chunks(MESSAGE_EVENTS, error=broken)
        with (
            library.Client(transport=answering(library, headers=EVENT_STREAM, stream=body)) as client,
            client.stream("POST", ANTHROPIC_URL, json=ASK) as response,
        ):
            response.read()

    async def read_async() -> None:
        body = chunks(MESSAGE_EVENTS, error=broken)
        async with (
            library.AsyncClient(transport=answering(library, headers=EVENT_STREAM, stream=body)) as client,
            client.stream("POST", ANTHROPIC_URL, json=ASK) as response,
        ):
            await response.aread()

    with pytest.raises(library.ReadError) as caught:
        read()
    assert caught.value is broken
    with pytest.raises(library.ReadError):
        asyncio.run(read_async())
    spans = metered.spans()
    assert len(spans) == 2
    for span in spans:
        attributes = span.attributes or {}
        assert attributes["error.type"] == f"{library.__name__}.ReadError"
        assert attributes["gen_ai.usage.output_tokens"] == 30
        assert attributes["gen_ai.response.finish_reasons"] == ("tool_calls",)


@pytest.mark.parametrize(("library", "chunks"), LIBRARIES)
def test_a_request_that_fails_raises_what_the_library_raises(
    metered: Metered, library: Any, chunks: type[Chunks]
) -> None:
    refused = library.ConnectError("refused")

    def refuse(request: Any) -> Any:
        raise refused

    async def call() -> None:
        async with library.AsyncClient(transport=library.MockTransport(refuse)) as client:
            await client.post(OPENAI_URL, json=ASK)

    with library.Client(transport=library.MockTransport(refuse)) as client, pytest.raises(library.ConnectError):
        client.post(OPENAI_URL, json=ASK)
    with pytest.raises(library.ConnectError):
        asyncio.run(call())
    for span in metered.spans():
        assert (span.attributes or {})["error.type"] == f"{library.__name__}.ConnectError"
        assert not span.status.is_ok


def test_a_cancelled_call_ends_its_span(metered: Metered) -> None:
    async def hang(request: httpx.Request) -> httpx.Response:
        asked.set()
        await asyncio.Event().wait()
        raise AssertionError("never")

    async def main() -> None:
        async with httpx.AsyncClient(transport=httpx.MockTransport(hang)) as client:
            call = asyncio.create_task(client.post(OPENAI_URL, json=ASK))
            await asked.wait()
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call

    asked = asyncio.Event()
    asyncio.run(main())
    assert metered.attributes()["error.type"] == "asyncio.exceptions.CancelledError"


@pytest.mark.parametrize(
    ("body", "error_type"),
    [
        ({"error": {"type": "requests", "code": "rate_limit_exceeded"}}, "rate_limit_exceeded"),
        ({"type": "error", "error": {"type": "overloaded_error"}}, "overloaded_error"),
        ("Bad gateway", "503"),
    ],
)
def test_an_error_is_named_as_the_provider_names_it(metered: Metered, body: Any, error_type: str) -> None:
    content = {"json": body} if isinstance(body, dict) else {"text": body}
    assert post(OPENAI_URL, status_code=503, **content).status_code == 503
    attributes = metered.attributes()
    assert attributes["error.type"] == error_type
    assert attributes["http.response.status_code"] == 503


def test_an_event_stream_that_is_read_whole(metered: Metered) -> None:
    response = post(ANTHROPIC_URL, headers=EVENT_STREAM, content=MESSAGE_EVENTS)
    assert response.content == MESSAGE_EVENTS
    assert metered.attributes()["gen_ai.usage.output_tokens"] == 30


def test_an_error_in_the_middle_of_a_stream(metered: Metered) -> None:
    events = b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"busy"}}\n\n'
    post(ANTHROPIC_URL, headers=EVENT_STREAM, content=events)
    assert metered.attributes()["error.type"] == "overloaded_error"
    assert not metered.span().status.is_ok


def test_a_large_body_is_read_at_its_ends(metered: Metered, monkeypatch: pytest.MonkeyPatch) -> None:
    data = [{"object": "embedding", "embedding": [0.125] * 1000, "text": 'the "usage": {"prompt_tokens": 1}'}] * 100
    body = {"object": "list", "data": data, "model": "text-embedding-3-small", "usage": {"prompt_tokens": 8}}
    assert len(json.dumps(body)) > reading.LARGE_BODY_BYTES
    monkeypatch.setattr(json, "loads", lambda _: pytest.fail("parsed whole"))
    question = {"input": "x" * model_request.PARSED_BYTES_MAX, "model": "text-embedding-3-small"}
    post("https://api.openai.com/v1/embeddings", question, content=json.dumps(body).encode())
    attributes = metered.attributes()
    assert attributes["gen_ai.usage.input_tokens"] == 8
    assert attributes["gen_ai.response.model"] == attributes["gen_ai.request.model"] == "text-embedding-3-small"


@pytest.mark.parametrize(("library", "chunks"), LIBRARIES)
def test_a_request_that_is_a_stream_is_left_to_the_transport(
    metered: Metered, library: Any, chunks: type[Chunks]
) -> None:
    def echo(request: Any) -> Any:
        assert request.read() == b'{"model":"gpt-4o"}'
        return library.Response(200, json=CHAT)

    with library.Client(transport=library.MockTransport(echo)) as client:
        client.post(OPENAI_URL, content=iter([b'{"model":', b'"gpt-4o"}']))
    attributes = metered.attributes()
    assert "gen_ai.request.model" not in attributes
    assert attributes["gen_ai.response.model"] == "gpt-4o-2024-08-06"


@pytest.mark.parametrize(
    ("url", "provider", "operation"),
    [
        (OPENAI_URL, "openai", "chat"),
        ("https://api.openai.com/v1/images/generations", "openai", "generate_content"),
        ("https://api.anthropic.com/v1/messages", "anthropic", "chat"),
        ("https://api.mistral.ai/v1/chat/completions", "mistral_ai", "chat"),
        ("https://api.x.ai/v1/responses", "x_ai", "chat"),
        ("https://api.groq.com/openai/v1/chat/completions", "groq", "chat"),
        ("https://eu.openai.azure.com/openai/deployments/d/chat/completions?api-version=1", "azure.ai.openai", "chat"),
        (
            "https://generativelanguage.googleapis.com/v1beta/models/gemini-2.5-flash:generateContent",
            "gcp.gemini",
            "generate_content",
        ),
        (
            "https://europe-west1-aiplatform.googleapis.com/v1/projects/p/locations/l/publishers/google/models/"
            "gemini-2.5-flash:streamGenerateContent?alt=sse",
            "gcp.vertex_ai",
            "generate_content",
        ),
    ],
)
def test_the_providers_are_known_by_their_urls(metered: Metered, url: str, provider: str, operation: str) -> None:
    post(url, json={})
    attributes = metered.attributes()
    assert attributes["gen_ai.provider.name"] == provider
    assert attributes["gen_ai.operation.name"] == operation
    if "gemini" in url:
        assert attributes["gen_ai.request.model"] == "gemini-2.5-flash"


@pytest.mark.parametrize(
    ("method", "url"),
    [
        ("GET", OPENAI_URL),
        ("POST", "https://api.openai.com/v1/files"),
        ("POST", "https://api.openai.com/v1/threads/t/messages"),
        ("POST", "https://api.anthropic.com/v1/messages/count_tokens"),
        ("POST", "https://example.com/v1/chat/completions"),
        ("POST", "https://api.openai.com.example.com/v1/chat/completions"),
    ],
)
def test_other_requests_are_left_alone(metered: Metered, method: str, url: str) -> None:
    body = HttpxChunks(b"{}")
    with (
        httpx.Client(transport=answering(httpx, stream=body)) as client,
        client.stream(method, url) as response,
    ):
        assert not isinstance(response.stream, watched_response._WatchedStream)
    assert metered.spans() == []


def test_a_span_of_the_application_around_the_call_is_its_parent_and_a_genai_span_replaces_it(
    metered: Metered,
) -> None:
    tracer = metered.provider.get_tracer("application")
    with tracer.start_as_current_span("request") as request:
        post(OPENAI_URL, json=CHAT)
    with tracer.start_as_current_span("chat", attributes={"gen_ai.operation.name": "chat"}):
        post(OPENAI_URL, json=CHAT)
    ours, theirs = metered.spans()
    assert ours.parent == request.get_span_context()
    assert theirs.name == "chat"


def test_the_span_is_current_while_the_request_is_sent_and_no_longer(metered: Metered) -> None:
    during = []

    def answer(request: httpx.Request) -> httpx.Response:
        during.append(trace.get_current_span().get_span_context())
        return httpx.Response(200, json=CHAT)

    with httpx.Client(transport=httpx.MockTransport(answer)) as client:
        client.post(OPENAI_URL, json=ASK)
    assert during == [metered.span().get_span_context()]
    assert trace.get_current_span() is trace.INVALID_SPAN


def test_a_call_that_the_sampler_turns_down_goes_through(metered: Metered) -> None:
    farebox.uninstrument()
    farebox.instrument(tracer_provider=TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False))
    assert post(OPENAI_URL, json=CHAT).json() == CHAT


class Broken(Exception):
    pass


def broken(*_: object, **__: Any) -> Any:
    raise Broken


@pytest.mark.parametrize(
    ("place", "name"),
    [
        (httpx_hooks, "is_instrumentation_enabled"),
        (httpx_hooks, "start_call"),
        (watched_response, "_WatchedStream"),
        (httpx_hooks, "ModelRequest"),
        (reading, "EventStream"),
        (http_call.HttpCall, "_answer_to_span"),
        (OpenAIAnswer, "_read"),
        (OpenAIAnswer, "_counts"),
        (span_attributes, "is_genai"),
        (span_attributes, "is_inference"),
    ],
)
@pytest.mark.parametrize(("library", "chunks"), LIBRARIES)
def test_a_fault_of_the_meter_is_not_the_applications(
    metered: Metered,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    library: Any,
    chunks: type[Chunks],
    place: Any,
    name: str,
) -> None:
    monkeypatch.setattr(place, name, broken)
    with library.Client(transport=answering(library, json=CHAT)) as client:
        assert client.post(OPENAI_URL, json=ASK).json() == CHAT
    with (
        library.Client(transport=answering(library, headers=EVENT_STREAM, stream=chunks(CHAT_EVENTS))) as client,
        client.stream("POST", OPENAI_URL, json=ASK) as response,
    ):
        assert response.read() == CHAT_EVENTS

    async def call() -> None:
        async with (
            library.AsyncClient(
                transport=answering(library, headers=EVENT_STREAM, stream=chunks(CHAT_EVENTS))
            ) as client,
            client.stream("POST", OPENAI_URL, json=ASK) as response,
        ):
            assert await response.aread() == CHAT_EVENTS

    asyncio.run(call())
    assert farebox.flush(10)
    assert "the application's call is not affected" in caplog.text


def test_a_fault_in_a_read_stream_of_an_official_client_is_not_the_applications(
    metered: Metered, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(span_attributes, "is_genai", broken)
    with farebox.action("chat.reply", wallet="ada"):
        answer = metered.openai().chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "Hi"}])
    assert answer.choices
