"""Calls whose end is not seen: what is exposed, what is not, each attempt once. Against a server that misbehaves."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import socket
from collections.abc import Iterator
from typing import Any

import anthropic
import farebox
import httpx
import httpx2
import openai
import pytest
from farebox.exposures import ASSUMED_OUTPUT_MAX, Arrived, estimate, reason_of
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from sdk.sdk_support import scope
from sdk.unreliable_server import INPUT_TOKENS, OUTPUT_TOKENS, WORDS, UnreliableServer, unreliable_server

TEXT = "word " * 200
"""1,000 bytes, so some 250 tokens."""
MESSAGES: Any = [{"role": "user", "content": TEXT}]
INPUT = pytest.approx(260, abs=15)
TIMEOUT_S = 0.3
LIBRARIES = [httpx, httpx2]


class Process:
    """This process with metering on, and a server that misbehaves."""

    def __init__(self, server: UnreliableServer) -> None:
        self.server = server
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.exporter = InMemorySpanExporter()

    def spans(self) -> list[ReadableSpan]:
        assert farebox.flush(10)
        return list(self.exporter.get_finished_spans())

    def attributes(self) -> dict[str, Any]:
        (span,) = self.spans()
        return dict(span.attributes or {})

    def exposed(self) -> list[dict[str, Any]]:
        every = [dict(span.attributes or {}) for span in self.spans()]
        return [attributes for attributes in every if "farebox.exposure" in attributes]

    def openai(self, **settings: Any) -> openai.OpenAI:
        settings = {"max_retries": 0, "timeout": TIMEOUT_S, **settings}
        return openai.OpenAI(base_url=f"{self.server.url}/v1", api_key="none", **settings)

    def anthropic(self, **settings: Any) -> anthropic.Anthropic:
        settings = {"max_retries": 0, "timeout": TIMEOUT_S, **settings}
        telemetry: Any = {"tracer_provider": self.provider}
        return anthropic.Anthropic(base_url=self.server.url, api_key="none", open_telemetry=telemetry, **settings)


@pytest.fixture(scope="module")
def server() -> Iterator[UnreliableServer]:
    with unreliable_server() as running:
        yield running


@pytest.fixture
def process(server: UnreliableServer) -> Iterator[Process]:
    server.served.clear()
    server.over.clear()
    running = Process(server)
    farebox.instrument(model_urls=[f"{server.url}/v1"], tracer_provider=running.provider, exporter=running.exporter)
    with farebox.action("chat.reply", wallet="ada"):
        yield running
    server.over.set()
    farebox.uninstrument()


def body(**more: Any) -> dict[str, Any]:
    return {"model": "gpt-4o-mini", "max_tokens": 77, "messages": MESSAGES, **more}


def post(library: Any, process: Process, **more: Any) -> None:
    with library.Client(timeout=TIMEOUT_S) as client:
        client.post(f"{process.server.url}/v1/chat/completions", json=body(**more)).raise_for_status()


def post_async(library: Any, process: Process, **more: Any) -> None:
    async def call() -> None:
        async with library.AsyncClient(timeout=TIMEOUT_S) as client:
            await client.post(f"{process.server.url}/v1/chat/completions", json=body(**more))

    asyncio.run(call())


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("call", [post, post_async])
@pytest.mark.parametrize(
    ("what", "reason"),
    [("stall", "timeout"), ("reset", "connection_lost"), ("half", "timeout"), ("cut", "connection_lost")],
)
def test_a_call_that_breaks_after_the_request_was_sent(
    process: Process, library: Any, call: Any, what: str, reason: str
) -> None:
    process.server.plan = [what]
    with pytest.raises(library.TransportError):
        call(library, process)
    span = process.attributes()
    assert span["farebox.exposure"] == reason
    assert span["farebox.exposure.input_tokens"] == INPUT
    assert span["farebox.exposure.output_tokens"] == 77
    assert span["error.type"].startswith(library.__name__)
    assert span["farebox.wallet"] == "ada"
    assert "gen_ai.usage.input_tokens" not in span


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("call", [post, post_async])
def test_what_the_provider_cannot_have_billed(process: Process, library: Any, call: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    real, process.server.url = process.server.url, f"http://127.0.0.1:{port}"
    farebox.uninstrument()
    urls = [f"{process.server.url}/v1", "http://no-such-host.invalid/v1", f"{real}/v1"]
    farebox.instrument(model_urls=urls, tracer_provider=process.provider, exporter=process.exporter)
    try:
        with pytest.raises(library.ConnectError):
            call(library, process)
        process.server.url = "http://no-such-host.invalid"
        with pytest.raises(library.ConnectError):
            call(library, process)
    finally:
        process.server.url = real
    process.server.plan = ["error"]
    with library.Client() as client:
        client.post(f"{real}/v1/chat/completions", json=body())
        with client.stream("POST", f"{real}/v1/chat/completions", json=body(stream=True)):
            pass  # an error that is not even read
    assert len(process.spans()) == 4
    assert process.exposed() == []


def test_a_request_that_waits_for_a_connection_was_not_sent(process: Process) -> None:
    process.server.plan = ["stall"]
    url = f"{process.server.url}/v1/chat/completions"

    async def call() -> None:
        limits = httpx.Limits(max_connections=1)
        async with httpx.AsyncClient(limits=limits, timeout=httpx.Timeout(TIMEOUT_S, read=5)) as client:
            first = asyncio.create_task(client.post(url, json=body()))
            while not process.server.served:
                await asyncio.sleep(0.01)
            with pytest.raises(httpx.PoolTimeout):
                await client.post(url, json=body())
            second = asyncio.create_task(client.post(url, json=body()))
            await asyncio.sleep(0.05)
            for task in (second, first):
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task

    asyncio.run(call())
    assert [span["farebox.exposure"] for span in process.exposed()] == ["client_closed"]
    assert len(process.spans()) == 3


# --- Streams.


def read_some(library: Any, process: Process, events: int, **more: Any) -> None:
    with library.Client(timeout=TIMEOUT_S) as client:
        url = f"{process.server.url}/v1/chat/completions"
        with client.stream("POST", url, json=body(stream=True, **more)) as response:
            seen = 0
            for line in response.iter_lines():
                seen += line.startswith("data:")
                if seen == events:
                    break


def read_some_async(library: Any, process: Process, events: int, **more: Any) -> None:
    async def call() -> None:
        async with library.AsyncClient(timeout=TIMEOUT_S) as client:
            url = f"{process.server.url}/v1/chat/completions"
            async with client.stream("POST", url, json=body(stream=True, **more)) as response:
                seen = 0
                async for line in response.aiter_lines():
                    seen += line.startswith("data:")
                    if seen == events:
                        break

    asyncio.run(call())


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("read", [read_some, read_some_async])
@pytest.mark.parametrize(
    ("what", "reason"),
    [("half", "timeout"), ("cut", "connection_lost"), ("half, and the client leaves", "client_closed")],
)
def test_a_stream_that_breaks_off(process: Process, library: Any, read: Any, what: str, reason: str) -> None:
    process.server.plan = [what.split(",")[0]]
    if reason == "client_closed":
        read(library, process, 10)
    else:
        with pytest.raises(library.TransportError):
            read(library, process, -1)
    span = process.attributes()
    assert span["farebox.exposure"] == reason
    assert span["farebox.exposure.input_tokens"] == INPUT
    assert 1 <= span["farebox.exposure.output_tokens"] <= WORDS
    if reason != "client_closed":
        assert span["farebox.exposure.output_tokens"] == pytest.approx(WORDS / 2, abs=2)


@pytest.mark.parametrize("read", [read_some, read_some_async])
def test_usage_that_came_before_the_break_is_used(process: Process, read: Any) -> None:
    process.server.plan = ["late"]
    with pytest.raises(httpx.TransportError):
        read(httpx, process, -1, stream_options={"include_usage": True})
    span = process.attributes()
    assert "farebox.exposure" not in span
    assert (span["gen_ai.usage.input_tokens"], span["gen_ai.usage.output_tokens"]) == (INPUT_TOKENS, OUTPUT_TOKENS)


@pytest.mark.parametrize("usage", [True, False])
def test_a_stream_that_is_left_at_its_last_word(process: Process, usage: bool) -> None:
    """Of the usage that was asked for nothing was read; where none was asked for, none is missing."""
    process.server.plan = ["answer"]
    read_some(httpx, process, WORDS + 1, stream_options={"include_usage": usage})
    span = process.attributes()
    # The end may have come in the same piece as the last word; then it was seen.
    if usage and "gen_ai.usage.output_tokens" not in span:
        assert span["farebox.exposure"] == "client_closed"
    else:
        assert "farebox.exposure" not in span


def test_a_stream_that_is_forgotten(process: Process) -> None:
    process.server.plan = ["half"]
    client = httpx.Client(timeout=TIMEOUT_S)
    request = client.build_request("POST", f"{process.server.url}/v1/chat/completions", json=body(stream=True))
    lines = client.send(request, stream=True).iter_lines()
    next(lines)
    del lines
    gc.collect()
    assert process.attributes()["farebox.exposure"] == "client_closed"
    client.close()


# --- Instrumented clients: one span a call, for any number of attempts.


def openai_call(client: openai.OpenAI) -> Any:
    return client.chat.completions.create(model="gpt-4o-mini", max_tokens=77, messages=MESSAGES)


def anthropic_call(client: anthropic.Anthropic) -> Any:
    return client.messages.create(model="claude-haiku-4-5", max_tokens=77, messages=MESSAGES)


def quick(client: Any) -> Any:
    client._calculate_retry_timeout = lambda *_args, **_kwargs: 0.0
    return client


CLIENTS = [pytest.param("openai", id="openai"), pytest.param("anthropic", id="anthropic")]


def call_of(process: Process, name: str, **settings: Any) -> Any:
    client = quick(getattr(process, name)(**settings))
    with client:
        return openai_call(client) if name == "openai" else anthropic_call(client)


@pytest.mark.parametrize("name", CLIENTS)
def test_every_attempt_that_reached_the_provider_is_an_exposure_and_the_answer_is_charged_once(
    process: Process, name: str
) -> None:
    process.server.plan = ["stall", "error", "reset", "answer"]
    call_of(process, name, max_retries=3)
    assert process.server.served == ["stall", "error", "reset", "answer"]
    exposed = process.exposed()
    assert [span["farebox.exposure"] for span in exposed] == ["timeout", "connection_lost"]
    for span in exposed:
        assert span["farebox.exposure.input_tokens"] == INPUT
        assert span["farebox.exposure.output_tokens"] == 77
        assert span["farebox.wallet"] == "ada"
        assert "gen_ai.usage.output_tokens" not in span
    (charged,) = [span for span in process.spans() if "farebox.exposure" not in (span.attributes or {})]
    assert (charged.attributes or {})["gen_ai.usage.output_tokens"] == OUTPUT_TOKENS
    assert scope(charged).startswith(("opentelemetry.instrumentation.genai", "com.anthropic"))


@pytest.mark.parametrize("name", CLIENTS)
def test_the_last_attempts_exposure_is_on_the_span_of_the_call(process: Process, name: str) -> None:
    process.server.plan = ["stall"]
    with pytest.raises((openai.APITimeoutError, anthropic.APITimeoutError)):
        call_of(process, name, max_retries=1)
    first, last = process.exposed()
    assert (scope(process.spans()[0]), first["farebox.exposure"]) == ("farebox", "timeout")
    assert last["farebox.exposure"] == "timeout"
    assert "error.type" in last
    assert len(process.spans()) == 2


@pytest.mark.parametrize("name", CLIENTS)
def test_an_attempt_that_could_not_be_sent_after_one_that_was(process: Process, name: str) -> None:
    process.server.plan = ["stall", "error"]
    with pytest.raises((openai.InternalServerError, anthropic.InternalServerError)):
        call_of(process, name, max_retries=1)
    (exposed,) = process.exposed()
    assert exposed["farebox.exposure"] == "timeout"
    (failed,) = [span for span in process.spans() if "farebox.exposure" not in (span.attributes or {})]
    assert "error.type" in (failed.attributes or {})


@pytest.mark.parametrize("name", CLIENTS)
@pytest.mark.parametrize("how", ["closed", "raised inside", "forgotten", "stalled", "cut"])
def test_a_clients_stream_that_breaks_off(process: Process, name: str, how: str) -> None:
    process.server.plan = ["cut" if how == "cut" else "half"]
    client: Any = quick(getattr(process, name)())
    if name == "openai":
        stream = client.chat.completions.create(model="gpt-4o-mini", max_tokens=77, messages=MESSAGES, stream=True)
    else:
        stream = client.messages.create(model="claude-haiku-4-5", max_tokens=77, messages=MESSAGES, stream=True)
    leave(stream, how)
    del stream
    gc.collect()
    client.close()
    (span,) = process.exposed()
    if how != "forgotten":  # what is forgotten may be collected after its span was sent; then it is sent beside it
        assert len(process.spans()) == 1, "one span, not one more beside it"
    reason = {"stalled": "timeout", "cut": "connection_lost"}.get(how, "client_closed")
    assert span["farebox.exposure"] == reason
    assert span["farebox.exposure.input_tokens"] == (INPUT if name == "openai" else INPUT_TOKENS)
    assert 1 <= span["farebox.exposure.output_tokens"] <= WORDS


def leave(stream: Any, how: str) -> None:
    if how == "closed":
        next(iter(stream))
        stream.close()
    elif how == "raised inside":
        with contextlib.suppress(ZeroDivisionError), stream:
            for _ in stream:
                raise ZeroDivisionError
    elif how == "forgotten":
        for _ in stream:
            break
    else:
        with pytest.raises((httpx.TransportError, httpx2.TransportError, openai.APIError, anthropic.APIError)):
            for _ in stream:
                pass


def test_an_async_client_that_is_cancelled(process: Process) -> None:
    process.server.plan = ["stall"]

    async def call() -> None:
        async with openai.AsyncOpenAI(base_url=f"{process.server.url}/v1", api_key="none", max_retries=0) as client:
            task = asyncio.create_task(
                client.chat.completions.create(model="gpt-4o-mini", max_tokens=77, messages=MESSAGES)
            )
            while not process.server.served:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.05)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(call())
    span = process.attributes()
    assert (span["farebox.exposure"], span["farebox.exposure.output_tokens"]) == ("client_closed", 77)


def test_a_whole_stream_of_a_client_is_no_exposure(process: Process) -> None:
    process.server.plan = ["answer"]
    with process.openai() as client:
        for usage in (True, False):
            options: Any = {"include_usage": usage}
            list(
                client.chat.completions.create(
                    model="gpt-4o-mini", messages=MESSAGES, stream=True, stream_options=options
                )
            )
    with process.anthropic() as client_2:
        list(client_2.messages.create(model="claude-haiku-4-5", max_tokens=77, messages=MESSAGES, stream=True))
    assert len(process.spans()) == 3
    assert process.exposed() == []


# --- Estimates.


@pytest.mark.parametrize(
    ("fields", "output"),
    [
        ({"max_completion_tokens": 5}, 5),
        ({"max_output_tokens": 6, "input": "x"}, 6),
        ({"generationConfig": {"maxOutputTokens": 7}}, 7),
        ({"inferenceConfig": {"maxTokens": 8}}, 8),
        ({"max_tokens": 5, "n": 3}, 15),
        ({"max_tokens": True}, ASSUMED_OUTPUT_MAX),
        ({"max_tokens": "many", "n": -4}, ASSUMED_OUTPUT_MAX),
        ({}, ASSUMED_OUTPUT_MAX),
    ],
)
def test_the_output_is_the_limit_that_was_asked_for(fields: dict[str, Any], output: int) -> None:
    told = estimate("timeout", json.dumps(fields).encode(), {}, {}, None, makes_text=True)
    assert told["farebox.exposure.output_tokens"] == output


def test_a_picture_is_not_counted_by_its_bytes() -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "QUJD" * 100_000}}
    request = json.dumps({"messages": [{"role": "user", "content": [picture, {"type": "text", "text": "What?"}]}]})
    told = estimate("timeout", request.encode(), {}, {}, None, makes_text=True)
    assert 1_000 < told["farebox.exposure.input_tokens"] < 1_100


@pytest.mark.parametrize("text", [b"\xff\xfe not json", b"[" * 100_000, b"", b"null"])
def test_a_request_that_cannot_be_read_is_counted_by_its_bytes(text: bytes) -> None:
    told = estimate("timeout", text, {}, {}, None, makes_text=False)
    assert told["farebox.exposure.input_tokens"] == -(-len(text) // 4)
    assert told["farebox.exposure.output_tokens"] == 0


def test_what_had_arrived_is_counted_from_a_sample() -> None:
    arrived = Arrived()
    for _ in range(1_000):
        arrived.sample.append(b'data: {"choices":[{"delta":{"content":"twelve bytes"}}]}\n\n')
        next(arrived.count)
    assert arrived.tokens() == 3_000


def test_reasons() -> None:
    assert reason_of(httpx.ReadTimeout("")) == reason_of(httpx2.ReadTimeout("")) == "timeout"
    assert reason_of(httpx.ReadError("")) == reason_of(httpx2.RemoteProtocolError("")) == "connection_lost"
    for error in (httpx.ConnectError(""), httpx.ConnectTimeout(""), httpx.WriteTimeout(""), httpx.PoolTimeout("")):
        assert reason_of(error) is None
    assert reason_of(ValueError()) is None
