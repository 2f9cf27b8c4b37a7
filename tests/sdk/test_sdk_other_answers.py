"""Answers with more to bill than text tokens, and those of Bedrock and Cohere; each worked out by hand."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any

import httpx
import pytest
from farebox.answers import answer_in
from farebox.aws_event_stream import AwsEventStream
from farebox.endpoints import Shape
from sdk.sdk_support import Metered

TOTAL = "gen_ai.usage.total_tokens"
INPUT, OUTPUT = "gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens"
CACHE_READ, CACHE_WRITE = "gen_ai.usage.cache_read.input_tokens", "gen_ai.usage.cache_write.input_tokens"
WRITE_1H = "anthropic.usage.cache_creation.ephemeral_1h_input_tokens"


def read(shape: Shape, *payloads: Any, request: dict[str, Any] | None = None) -> dict[str, Any]:
    answer = answer_in(shape)
    answer.read_request(request or {})
    for payload in payloads:
        answer.read(payload)
    return dict(answer.attributes())


OPENAI = [
    pytest.param(
        {
            "created": 1,
            "data": [{"b64_json": "…"}, {"b64_json": "…"}],
            "usage": {
                "input_tokens": 60,
                "input_tokens_details": {"text_tokens": 10, "image_tokens": 50},
                "output_tokens": 2000,
                "total_tokens": 2060,
            },
        },
        {
            INPUT: 60,
            OUTPUT: 2000,
            TOTAL: 2060,
            "farebox.usage.input_image_tokens": 50,
            "farebox.usage.output_image_tokens": 2000,
        },
        id="pictures by tokens",
    ),
    pytest.param({"data": [{"url": "https://…"}]}, {"farebox.units.images": 1}, id="pictures by the piece"),
    pytest.param(
        {
            "text": "…",
            "usage": {
                "type": "tokens",
                "input_tokens": 14,
                "input_token_details": {"text_tokens": 0, "audio_tokens": 14},
                "output_tokens": 45,
                "total_tokens": 59,
            },
        },
        {INPUT: 14, OUTPUT: 45, TOTAL: 59, "gen_ai.usage.audio.input_tokens": 14},
        id="a transcription by tokens",
    ),
    pytest.param(
        {"text": "…", "usage": {"type": "duration", "seconds": 9.2}},
        {"farebox.units.audio_seconds": 10},
        id="a transcription by the second",
    ),
    pytest.param({"text": "…", "duration": 8.47}, {"farebox.units.audio_seconds": 9}, id="verbose_json"),
    pytest.param(
        {
            "object": "response",
            "status": "completed",
            "output": [
                {"type": "web_search_call", "action": {"type": "search"}},
                {"type": "web_search_call", "action": {"type": "open_page"}},
                {"type": "web_search_call", "action": {"type": "search"}},
                {"type": "file_search_call"},
                {"type": "message"},
            ],
            "usage": {"input_tokens": 5, "output_tokens": 6},
        },
        {
            INPUT: 5,
            OUTPUT: 6,
            "gen_ai.response.finish_reasons": ["stop"],
            "farebox.units.web_searches": 2,
            "farebox.units.storage_searches": 1,
        },
        id="tools",
    ),
    pytest.param(
        {
            "usage": {
                "prompt_tokens": 30,
                "completion_tokens": 40,
                "prompt_tokens_details": {"audio_tokens": 20},
                "completion_tokens_details": {"audio_tokens": 25},
            }
        },
        {
            INPUT: 30,
            OUTPUT: 40,
            "gen_ai.usage.audio.input_tokens": 20,
            "gen_ai.usage.audio.output_tokens": 25,
        },
        id="a chat by voice",
    ),
    pytest.param(
        {"model": "mistral-ocr", "pages": [], "usage_info": {"pages_processed": 3}},
        {"gen_ai.response.model": "mistral-ocr", "farebox.units.input_document_pages": 3},
        id="OCR",
    ),
]


@pytest.mark.parametrize(("body", "expected"), OPENAI)
def test_openais_other_goods(body: Any, expected: dict[str, Any]) -> None:
    assert read(Shape.OPENAI, body) == expected


def test_speech_is_billed_by_what_was_asked_to_be_spoken() -> None:
    request = {"model": "tts-1", "voice": "alloy", "input": "Mind the gap"}
    assert read(Shape.OPENAI, request=request) == {"farebox.units.input_characters": 12}


def test_anthropics_searches() -> None:
    usage = {"input_tokens": 5, "output_tokens": 6, "server_tool_use": {"web_search_requests": 2}}
    assert read(Shape.ANTHROPIC, {"type": "message", "usage": usage})["farebox.units.web_searches"] == 2


def test_googles_searches_and_pictures() -> None:
    usage = {
        "promptTokenCount": 10,
        "candidatesTokenCount": 1290,
        "candidatesTokensDetails": [{"modality": "IMAGE", "tokenCount": 1290}],
    }
    grounding = {"webSearchQueries": ["a", "b"]}
    attributes = read(Shape.GOOGLE, {"usageMetadata": usage, "candidates": [{"groundingMetadata": grounding}]})
    assert attributes == {
        INPUT: 10,
        OUTPUT: 1290,
        "farebox.usage.output_image_tokens": 1290,
        "farebox.units.web_searches": 2,
    }


def test_cohere_bills_what_it_calls_billed() -> None:
    usage = {"billed_units": {"input_tokens": 5.0, "output_tokens": 418}, "tokens": {"input_tokens": 71}}
    assert read(Shape.COHERE, {"id": "c1", "finish_reason": "COMPLETE", "usage": usage}) == {
        "gen_ai.response.id": "c1",
        "gen_ai.response.finish_reasons": ["stop"],
        INPUT: 5,
        OUTPUT: 418,
    }
    events = [
        {"type": "message-start", "id": "c1"},
        {"type": "message-end", "delta": {"finish_reason": "MAX_TOKENS", "usage": usage}},
    ]
    attributes = read(Shape.COHERE, *events)
    assert attributes[OUTPUT] == 418
    assert attributes["gen_ai.response.finish_reasons"] == ["length"]
    assert read(Shape.COHERE, {"meta": {"billed_units": {"input_tokens": 9}}}) == {INPUT: 9}
    assert read(Shape.COHERE, {"meta": {"billed_units": {"search_units": 1}}}) == {"farebox.units.rerank_searches": 1}


CONVERSE_USAGE = {
    "inputTokens": 30,
    "outputTokens": 628,
    "cacheReadInputTokens": 20,
    "cacheWriteInputTokens": 10,
    "cacheDetails": [{"ttl": "1h", "inputTokens": 4}, {"ttl": "5m", "inputTokens": 6}],
}


def test_bedrocks_converse_counts_the_cache_apart() -> None:
    assert read(Shape.BEDROCK, {"stopReason": "end_turn", "usage": CONVERSE_USAGE}) == {
        "gen_ai.response.finish_reasons": ["stop"],
        INPUT: 60,
        OUTPUT: 628,
        CACHE_READ: 20,
        CACHE_WRITE: 10,
        WRITE_1H: 4,
    }


def test_bedrocks_invoke_counts_in_its_headers_or_as_the_models_maker_does() -> None:
    answer = answer_in(Shape.BEDROCK)
    answer.read_headers({b"x-amzn-bedrock-input-token-count": b"7", b"x-amzn-bedrock-output-token-count": b"8"})
    answer.read({"generation": "…"})
    assert answer.attributes() == {INPUT: 7, OUTPUT: 8}
    usage = {"input_tokens": 7, "cache_read_input_tokens": 3, "output_tokens": 8}
    answer.read({"type": "message", "id": "msg_1", "usage": usage})
    attributes = answer.attributes()
    assert (attributes[INPUT], attributes[CACHE_READ]) == (10, 3)


def message(payload: Any, headers: bytes = b"\x0b:event-type\x07\x00\x08metadata") -> bytes:
    body = json.dumps(payload).encode()
    size = 12 + len(headers) + len(body) + 4
    return struct.pack(">III", size, len(headers), 0) + headers + body + b"\0\0\0\0"


@pytest.mark.parametrize("size", [1, 5, 10_000])
def test_amazons_events_are_the_same_wherever_the_stream_is_cut(size: int) -> None:
    wire = b"".join(map(message, [{"n": 1}, {"n": 2}, {"n": 3}]))
    stream = AwsEventStream()
    pieces = [wire[start : start + size] for start in range(0, len(wire), size)]
    assert [payload["n"] for piece in pieces for payload in stream.feed(piece)] == [1, 2, 3]


def test_what_is_no_event_stream_of_amazons_is_given_up() -> None:
    stream = AwsEventStream()
    assert list(stream.feed(b"<html>" * 100)) == []
    assert list(stream.feed(message({"n": 1}))) == []
    assert not stream._held, "what is no longer read is not kept"


@pytest.mark.parametrize("invoke", [True, False])
def test_a_stream_of_bedrocks(metered: Metered, invoke: bool) -> None:
    def packed(payload: Any) -> dict[str, str]:
        return {"bytes": base64.b64encode(json.dumps(payload).encode()).decode()}

    if invoke:
        started = {"type": "message", "id": "msg_1", "usage": {"input_tokens": 60, "output_tokens": 1}}
        payloads: list[Any] = [
            packed({"type": "message_start", "message": started}),
            packed({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 628}}),
        ]
    else:
        payloads = [{"delta": {"text": "Hello"}}, {"stopReason": "end_turn"}, {"usage": CONVERSE_USAGE}]
    wire = b"".join(map(message, payloads))
    headers = {"content-type": "application/vnd.amazon.eventstream"}
    path = "invoke-with-response-stream" if invoke else "converse-stream"
    url = f"https://bedrock-runtime.eu-west-1.amazonaws.com/model/anthropic.claude-haiku-4-5-v1:0/{path}"
    transport = httpx.MockTransport(lambda _: httpx.Response(200, headers=headers, stream=httpx.ByteStream(wire)))
    with httpx.Client(transport=transport) as client, client.stream("POST", url, json={}) as response:
        assert b"".join(response.iter_raw()) == wire
    attributes = metered.attributes()
    assert attributes["gen_ai.provider.name"] == "aws.bedrock"
    assert attributes["gen_ai.request.model"] == "anthropic.claude-haiku-4-5-v1:0"
    assert attributes["cloud.region"] == "eu-west-1"
    assert (attributes[INPUT], attributes[OUTPUT]) == (60, 628)
    assert attributes["gen_ai.response.finish_reasons"] == ("stop",)
