"""Broken, absurd and hostile bodies and event streams: the application gets its bytes, and the meter stays small.

A real server sends them as they are, chunk by chunk, to real clients of both kinds.
"""

from __future__ import annotations

import asyncio
import gzip
import itertools
import json
import random
import socketserver
import struct
import sys
import threading
import tracemalloc
import types
import zlib
from collections.abc import Iterator
from typing import Any

import farebox
import httpx
import pytest
from farebox.endpoints import Endpoint
from farebox.model_paths import Shape
from farebox.model_request import ModelRequest
from farebox.reading import LARGE_BODY_BYTES, Reading
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.sdk.trace import TracerProvider
from sdk.sdk_support import Metered

INPUT, OUTPUT = "gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens"
USAGE = {"prompt_tokens": 70, "completion_tokens": 30, "total_tokens": 100}
CHAT = {"id": "chatcmpl-1", "object": "chat.completion", "model": "gpt-4o", "service_tier": "flex", "usage": USAGE}
LAST_EVENT = b"data: " + json.dumps({**CHAT, "object": "chat.completion.chunk", "choices": []}).encode() + b"\n\n"
FIRST_EVENT = b'data: {"id":"chatcmpl-1","model":"gpt-4o","choices":[{"delta":{"content":"Hi"}}]}\n\n'
JSON, EVENTS = "application/json", "text/event-stream"
ASK = {"model": "gpt-4o", "messages": []}


class Server(socketserver.ThreadingTCPServer):
    """Answers every request with the bytes that it was given, in the pieces that it was given."""

    daemon_threads = True
    allow_reuse_address = True
    head = b""
    pieces: tuple[bytes, ...] = ()
    chunked = True

    def answer(self, content_type: str, *pieces: bytes, length: int | None = None, encoding: str = "") -> str:
        framing = "transfer-encoding: chunked" if length is None else f"content-length: {length}"
        coded = f"content-encoding: {encoding}\r\n" if encoding else ""
        self.head = f"HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\n{coded}{framing}\r\n\r\n".encode()
        self.pieces, self.chunked = pieces, length is None
        return f"http://127.0.0.1:{self.server_address[1]}/v1/chat/completions"


class Handler(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        server = self.server
        assert isinstance(server, Server)
        length = 0
        while line := self.rfile.readline().strip():
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        self.rfile.read(length)
        self.wfile.write(server.head)
        for piece in server.pieces:
            self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece) if server.chunked else piece)
        if server.chunked:
            self.wfile.write(b"0\r\n\r\n")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def at_server(server: Server) -> Iterator[Metered]:
    url = f"http://127.0.0.1:{server.server_address[1]}"
    process = Metered(url, TracerProvider(shutdown_on_exit=False))
    farebox.instrument(model_urls={url: "openai"}, tracer_provider=process.provider, exporter=process.exporter)
    yield process
    farebox.uninstrument()


def got(url: str, *, awaited: bool, streamed: bool) -> bytes:
    """The raw bytes that an application gets, or those up to the error that the client raises."""
    parts: list[bytes] = []

    async def later() -> None:
        async with httpx.AsyncClient() as client, client.stream("POST", url, json=ASK) as response:
            if not streamed:
                parts.append(await response.aread())
                return
            async for part in response.aiter_raw():
                parts.append(part)  # noqa: PERF401, it may raise in the middle

    try:
        if awaited:
            asyncio.run(later())
        else:
            with httpx.Client() as client, client.stream("POST", url, json=ASK) as response:
                if streamed:
                    parts.extend(response.iter_raw())
                else:
                    parts.append(response.read())
    except httpx.HTTPError:
        pass
    return b"".join(parts)


def deep(levels: int) -> bytes:
    return b"[" * levels + b"]" * levels


def without_end(value: Any) -> bytes:
    return json.dumps(value).encode()[:-1]


BODIES: dict[str, tuple[str, list[bytes]]] = {
    "nested without end": (JSON, [without_end(CHAT) + b',"choices":' + deep(200_000) + b"}"]),
    "broken UTF-8": (JSON, [b'{"choices":[{"message":{"content":"\xff\xfe\xc3"}}],' + json.dumps(CHAT).encode()[1:]]),
    "a huge number": (JSON, [b'{"created":' + b"9" * 10_000 + b"," + json.dumps(CHAT).encode()[1:]]),
    "NaN and Infinity": (JSON, [b'{"created":NaN,"x":-Infinity,' + json.dumps(CHAT).encode()[1:]]),
    "cut off after the usage": (JSON, [without_end(CHAT)]),
    "large and cut off": (JSON, [without_end(CHAT) + b',"choices":"' + b"x" * LARGE_BODY_BYTES]),
    "a byte order mark": (JSON, [b"\xef\xbb\xbf" + json.dumps(CHAT).encode()]),
    "two values": (JSON, [json.dumps(CHAT).encode() * 2]),
    "a large text before": (JSON, [b'{"data":"' + b"\\n" * 300_000 + b'",', json.dumps(CHAT).encode()[1:]]),
    "many small values": (JSON, [b'{"data":[' + b'{"a":"}"},' * 100_000 + b"1],", json.dumps(CHAT).encode()[1:]]),
    "an endless line": (EVENTS, [FIRST_EVENT, *[b"x" * 65_536] * 40, b"\n\n", LAST_EVENT]),
    "an endless comment": (EVENTS, [FIRST_EVENT, b": ", *[b"y" * 65_536] * 40, b"\n", LAST_EVENT]),
    "an endless event": (EVENTS, [FIRST_EVENT, b'data: {"x":"', *[b"z" * 65_536] * 40, b'"}\n\n', LAST_EVENT]),
    "an event of many lines": (EVENTS, [FIRST_EVENT, *[b"data:\n" * 10_000] * 10, b"\n", LAST_EVENT]),
    "a large event with the usage": (
        EVENTS,
        [FIRST_EVENT, b'data: {"choices":[{"x":"', *[b"z" * 65_536] * 4, b'"}],' + LAST_EVENT[7:]],
    ),
    "many events": (EVENTS, [FIRST_EVENT, *[b"data: {}\n\n" * 5_000] * 20, LAST_EVENT]),
    "blank lines": (EVENTS, [FIRST_EVENT, b"\n" * 100_000, LAST_EVENT]),
    "carriage returns": (EVENTS, [(FIRST_EVENT + LAST_EVENT).replace(b"\n", b"\r")]),
    "events of nonsense": (EVENTS, [FIRST_EVENT, b"data: {]\n\ndata: \xff\n\ndata\n\n: c\n\nid\n\n", LAST_EVENT]),
    "a nested event": (EVENTS, [FIRST_EVENT, b"data: " + deep(20_000) + b"\n\n", LAST_EVENT]),
    "events that are not called so": ("text/plain", [FIRST_EVENT, LAST_EVENT]),
    "no blank line at the end": (EVENTS, [FIRST_EVENT, LAST_EVENT.rstrip()]),
}


@pytest.mark.parametrize("awaited", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("streamed", [False, True], ids=["read", "streamed"])
@pytest.mark.parametrize("name", BODIES)
def test_bad_bodies_reach_the_application_and_are_metered(
    at_server: Metered, server: Server, name: str, streamed: bool, awaited: bool
) -> None:
    content_type, pieces = BODIES[name]
    url = server.answer(content_type, *pieces)
    assert got(url, awaited=awaited, streamed=streamed) == b"".join(pieces)
    attributes = at_server.attributes()
    assert (attributes.get(INPUT), attributes.get(OUTPUT)) == (70, 30)
    assert attributes["openai.response.service_tier"] == "flex"


@pytest.mark.parametrize("awaited", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("more", [-5, 5])
def test_a_wrong_length_costs_nothing_of_what_came(
    at_server: Metered, server: Server, more: int, awaited: bool
) -> None:
    body = json.dumps(CHAT).encode() + b" " * 10
    url = server.answer(JSON, body, length=len(body) + more)
    assert got(url, awaited=awaited, streamed=True) == body[: len(body) + min(more, 0)]
    attributes = at_server.attributes()
    assert (attributes[INPUT], attributes[OUTPUT]) == (70, 30)
    assert ("error.type" in attributes) is (more > 0)


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "raw deflate"])
@pytest.mark.parametrize("content_type", [JSON, EVENTS])
@pytest.mark.parametrize("size", [1, 1000, 10**9])
def test_compressed_bodies_are_read_as_they_come(
    at_server: Metered, server: Server, encoding: str, content_type: str, size: int
) -> None:
    plain = FIRST_EVENT + LAST_EVENT
    if content_type == JSON:
        plain = json.dumps({"data": "x" * (2 * LARGE_BODY_BYTES), **CHAT}).encode()
    if encoding == "gzip":
        wire = gzip.compress(plain)
    else:
        packed = zlib.compressobj(wbits=zlib.MAX_WBITS if encoding == "deflate" else -zlib.MAX_WBITS)
        wire = packed.compress(plain) + packed.flush()
    pieces = [wire[start : start + size] for start in range(0, len(wire), size)]
    url = server.answer(content_type, *pieces, encoding=encoding.removeprefix("raw "))
    assert got(url, awaited=False, streamed=True) == wire
    assert at_server.attributes()[OUTPUT] == 30


class _Unpacker:
    """Stands for a package of an encoding, which an application may have or not."""

    def __init__(self) -> None:
        self._zlib = zlib.decompressobj()
        self.process = self._zlib.decompress
        self.decompress = self._zlib.decompress

    eof = property(lambda self: self._zlib.eof)
    unused_data = property(lambda self: self._zlib.unused_data)

    def decompressobj(self) -> Any:
        return self


@pytest.mark.parametrize(("coding", "module"), [(b"br", "brotli"), (b"zstd", "zstandard"), (b"zstd", "backports.zstd")])
@pytest.mark.parametrize("frames", [1, 2])
def test_what_a_package_unpacks_is_read_as_it_comes(
    monkeypatch: pytest.MonkeyPatch, coding: bytes, module: str, frames: int
) -> None:
    stands_for = types.ModuleType(module)
    stands_for.Decompressor = stands_for.ZstdDecompressor = _Unpacker  # type: ignore[attr-defined]
    for name in ("brotli", "brotlicffi", "zstandard", "backports.zstd", "compression.zstd"):
        monkeypatch.setitem(sys.modules, name, stands_for if name == module else None)
    monkeypatch.setattr("farebox.reading.COLLECTED_BYTES_MAX", 1_000)
    noise = random.Random(5).randbytes(LARGE_BODY_BYTES).hex()
    plain = json.dumps({"data": noise, **CHAT}).encode()
    half = len(plain) // 2 if coding == b"zstd" and frames > 1 else len(plain)
    wire = b"".join(zlib.compress(part) for part in (plain[:half], plain[half:]) if part)
    reading = Reading(Endpoint("chat", "openai", Shape.OPENAI), ModelRequest())
    reading.head({b"content-encoding": coding, b"content-type": b"application/json"}, bytes)
    for start in range(0, len(wire), 10_007):
        reading.chunk(wire[start : start + 10_007])
    reading.end()
    assert reading.answer.attributes()[OUTPUT] == 30


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br"])
def test_bodies_that_are_not_compressed_as_they_say_are_the_applications_trouble(
    at_server: Metered, server: Server, encoding: str
) -> None:
    url = server.answer(JSON, b"no such thing", b"at all", encoding=encoding)
    assert got(url, awaited=False, streamed=True) == b"no such thingat all"
    assert INPUT not in at_server.attributes()


def test_counts_that_cannot_be_true_are_said_to_be_so(at_server: Metered, server: Server) -> None:
    body = json.dumps({**CHAT, "usage": {"prompt_tokens": 70, "completion_tokens": -30}}).encode()
    got(server.answer(JSON, body), awaited=False, streamed=False)
    attributes = at_server.attributes()
    assert attributes["farebox.usage.missing"] == "impossible_counts"
    assert INPUT not in attributes


# The same reading without a server: how it is cut makes no difference, and memory is bounded.

ANTHROPIC = [
    {
        "type": "message_start",
        "message": {
            "type": "message",
            "id": "msg_1",
            "model": "claude-opus-5",
            "usage": {"input_tokens": 70, "cache_read_input_tokens": 20, "output_tokens": 1, "speed": "fast"},
        },
    },
    {"type": "content_block_delta", "delta": {"type": "text_delta", "text": 'café "usage": {"input_tokens": 1}'}},
    {
        "type": "message_delta",
        "delta": {"stop_reason": "end_turn"},
        "usage": {"input_tokens": 0, "output_tokens": 30, "server_tool_use": {"web_search_requests": 2}},
    },
]
GROUNDED = {"candidates": [{"finishReason": "STOP", "groundingMetadata": {"webSearchQueries": ["a", "b"]}}]}
GEMINI: list[dict[str, Any]] = [
    {"modelVersion": "gemini-3-pro", "responseId": "r", "candidates": [{"content": {"parts": [{"text": "é"}]}}]},
    {"modelVersion": "gemini-3-pro", **GROUNDED, "usageMetadata": {"promptTokenCount": 9, "candidatesTokenCount": 4}},
]
COHERE_V1 = [
    {"is_finished": False, "event_type": "stream-start", "generation_id": "g"},
    {"is_finished": False, "event_type": "text-generation", "text": "Hi"},
    {
        "is_finished": True,
        "event_type": "stream-end",
        "finish_reason": "COMPLETE",
        "response": {"generation_id": "g", "meta": {"billed_units": {"input_tokens": 9, "output_tokens": 4}}},
    },
]
OLLAMA = [
    {"model": "llama3.3", "message": {"content": "Hi"}, "done": False},
    {"model": "llama3.3", "done": True, "done_reason": "stop", "prompt_eval_count": 9, "eval_count": 4},
]


def as_events(payloads: list[dict[str, Any]]) -> bytes:
    return b"".join(b"data: " + json.dumps(payload).encode() + b"\n\n" for payload in payloads)


def as_lines(payloads: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(payload).encode() + b"\n" for payload in payloads)


STREAMS = {
    "chat": (Shape.OPENAI, EVENTS, FIRST_EVENT + LAST_EVENT + b"data: [DONE]\n\n"),
    "messages": (Shape.ANTHROPIC, EVENTS, as_events(ANTHROPIC)),
    "gemini": (Shape.GOOGLE, EVENTS, as_events(GEMINI).replace(b"\n", b"\r\n")),
    "gemini list": (Shape.GOOGLE, JSON, json.dumps(GEMINI, indent=1).encode()),
    "cohere lines": (Shape.COHERE, "application/stream+json", as_lines(COHERE_V1)),
    "ollama lines": (Shape.OLLAMA, "application/x-ndjson", as_lines(OLLAMA)),
    "large": (Shape.OPENAI, JSON, json.dumps({"data": ["x" * LARGE_BODY_BYTES], **CHAT}).encode()),
}


def read(shape: Shape, content_type: str, pieces: list[bytes]) -> dict[str, Any]:
    reading = Reading(Endpoint("chat", "openai", shape), ModelRequest())
    reading.head({b"content-type": content_type.encode()}, lambda raw: raw)
    skips = None
    for piece in pieces:
        # As the hooks do: what nothing is found in, at the end of an event, is not handed in.
        if skips is None or piece[-2:] != b"\n\n" or skips(piece) is not None:
            reading.chunk(piece)
            skips = reading.skippable
    reading.end()
    return dict(reading.answer.attributes())


@pytest.mark.parametrize("name", [name for name in STREAMS if name != "large"])
def test_a_stream_that_is_cut_at_any_place_says_the_same(name: str) -> None:
    shape, content_type, wire = STREAMS[name]
    whole = read(shape, content_type, [wire])
    assert whole[INPUT]
    for cut in range(len(wire)):
        assert read(shape, content_type, [wire[:cut], wire[cut:]]) == whole, cut
    assert read(shape, content_type, [wire[at : at + 1] for at in range(len(wire))]) == whole


@settings(max_examples=80, deadline=None)
@given(st.sampled_from(sorted(STREAMS)), st.lists(st.integers(0, 2**20), max_size=12))
def test_a_stream_that_is_cut_at_many_places_says_the_same(name: str, cuts: list[int]) -> None:
    shape, content_type, wire = STREAMS[name]
    ends = [0, *sorted(cut % (len(wire) + 1) for cut in cuts), len(wire)]
    pieces = [wire[start:end] for start, end in itertools.pairwise(ends)]
    assert read(shape, content_type, pieces) == read(shape, content_type, [wire])


@pytest.mark.parametrize("content_type", [JSON, EVENTS, "application/x-ndjson", "application/vnd.amazon.eventstream"])
@pytest.mark.parametrize(
    "noise",
    [
        b"x" * 9_999,
        b'{"usage":{"a":1}},' * 500,
        b'"\\u00e9\\"' * 900,
        b"data: {}\n\n" * 900,
        b"data:\n" * 900,
        b"[" * 9_999,
    ],
    ids=["text", "objects", "quotes", "events", "data", "nested"],
)
def test_memory_is_bounded_whatever_comes(content_type: str, noise: bytes) -> None:
    reading = Reading(Endpoint("chat", "openai", Shape.OPENAI), ModelRequest())
    reading.head({b"content-type": content_type.encode()}, lambda raw: raw)
    reading.chunk(b'{"data":[' if content_type == JSON else b"")
    for _ in range(30):  # past what is held before a body counts as large
        reading.chunk(noise)
    tracemalloc.start()
    try:
        for _ in range(20):
            reading.chunk(noise)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    reading.end()
    assert peak < 250_000


def amazons(payload: bytes, headers: bytes = b"\x0b:event-type\x07\x00\x08metadata") -> bytes:
    return struct.pack(">III", 16 + len(headers) + len(payload), len(headers), 0) + headers + payload + b"\0\0\0\0"


CONVERSE = json.dumps({"usage": {"inputTokens": 70, "outputTokens": 30}, "serviceTier": {"type": "flex"}}).encode()
LARGE_CONVERSE = b'{"trace":"' + b"t" * 200_000 + b'",' + CONVERSE[1:]


@settings(max_examples=40, deadline=None)
@given(st.booleans(), st.lists(st.integers(0, 2**20), max_size=12))
def test_amazons_messages_of_any_size_are_read_however_they_are_cut(large: bool, cuts: list[int]) -> None:
    wire = amazons(b'{"delta":{"text":"Hi"}}') + amazons(LARGE_CONVERSE if large else CONVERSE) + amazons(b"{]")
    ends = [0, *sorted(cut % (len(wire) + 1) for cut in cuts), len(wire)]
    pieces = [wire[start:end] for start, end in itertools.pairwise(ends)]
    attributes = read(Shape.BEDROCK, "application/vnd.amazon.eventstream", pieces)
    assert (attributes[INPUT], attributes[OUTPUT], attributes["farebox.usage.service_tier"]) == (70, 30, "flex")


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200), st.integers(0, 200))
def test_no_bytes_of_amazons_make_it_fail(noise: bytes, cut: int) -> None:
    wire = amazons(CONVERSE) + noise
    pieces = [wire[: cut % len(wire)], wire[cut % len(wire) :]]
    assert read(Shape.BEDROCK, "application/vnd.amazon.eventstream", pieces)[OUTPUT] in range(2**63)


def test_a_large_response_keeps_all_that_has_a_price() -> None:
    calls: list[dict[str, Any]] = [
        {"type": "web_search_call", "status": "completed", "action": {"type": "search", "query": "q" * 5_000}},
        {"type": "file_search_call", "results": [{"text": "x" * 100_000}]},
        {"type": "code_interpreter_call", "container_id": "cntr_1", "code": "y" * 100_000},
        {"type": "image_generation_call", "status": "completed", "result": "A" * 300_000},
        {"type": "message", "content": [{"type": "output_text", "text": "z" * 100_000}]},
    ]
    body = {
        "id": "resp_1",
        "object": "response",
        "status": "completed",
        "model": "gpt-5",
        "service_tier": "priority",
        "tools": [{"type": "image_generation", "model": "gpt-image-2"}],
        "output": calls,
        "tool_usage": {"image_gen": {"input_tokens": 5, "output_tokens": 6, "total_tokens": 11}},
        "usage": {"input_tokens": 70, "output_tokens": 30, "total_tokens": 100},
    }
    text = json.dumps(body).encode()
    assert len(text) > 2 * LARGE_BODY_BYTES
    large = read(Shape.OPENAI, JSON, [text])
    small: dict[str, Any] = {
        **body,
        "output": [{key: part for key, part in call.items() if key != "result"} for call in calls],
    }
    for call in small["output"]:
        for key in ("results", "code", "content"):
            call.pop(key, None)
    assert large == read(Shape.OPENAI, JSON, [json.dumps(small).encode()])
    assert large["farebox.units.web_searches"] == large["farebox.units.storage_searches"] == 1
    assert large["farebox.units.container_sessions"] == 1
    assert large["gen_ai.response.finish_reasons"] == ["stop"]
    assert "gpt-image-2" in large["farebox.usage.lines"]
    events = b"".join(
        b"data: " + json.dumps({"type": f"response.{kind}", "response": part}).encode() + b"\n\n"
        for kind, part in (
            ("created", {**body, "output": [], "usage": None, "status": "in_progress"}),
            ("completed", body),
        )
    )
    assert read(Shape.OPENAI, EVENTS, [events[at : at + 7_000] for at in range(0, len(events), 7_000)]) == large


def test_a_bomb_is_unpacked_in_pieces() -> None:
    packed = zlib.compressobj(wbits=zlib.MAX_WBITS | 16)
    wire = b"".join(packed.compress(b'{"x":"' if not turn else b"a" * 10**6) for turn in range(60)) + packed.flush()
    reading = Reading(Endpoint("chat", "openai", Shape.OPENAI), ModelRequest())
    reading.head({b"content-type": b"application/json", b"content-encoding": b"gzip"}, lambda raw: raw)
    tracemalloc.start()
    try:
        reading.chunk(wire)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2_000_000
