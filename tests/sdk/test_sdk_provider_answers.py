"""What is read out of the providers' answers, each worked out by hand."""

from __future__ import annotations

from typing import Any

import httpx
import httpx2
import pytest
from farebox.answers import answer_in
from farebox.endpoints import ModelEndpoints, Shape, named_urls
from farebox.event_stream import EVENT_BYTES_MAX, EventStream

INPUT, OUTPUT = "gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens"
CACHE_READ, CACHE_WRITE = "gen_ai.usage.cache_read.input_tokens", "gen_ai.usage.cache_write.input_tokens"
TOTAL = "gen_ai.usage.total_tokens"
REASONING = "gen_ai.usage.reasoning.output_tokens"


def read(shape: Shape, *payloads: Any) -> dict[str, Any]:
    answer = answer_in(shape)
    for payload in payloads:
        answer.read(payload)
    return dict(answer.attributes())


def test_openai_counts_include_the_cache_and_the_reasoning() -> None:
    usage = {
        "prompt_tokens": 100,
        "completion_tokens": 60,
        "total_tokens": 160,
        "prompt_tokens_details": {"cached_tokens": 40, "cache_write_tokens": 10},
        "completion_tokens_details": {"reasoning_tokens": 20},
    }
    assert read(Shape.OPENAI, {"usage": usage, "service_tier": "flex"}) == {
        INPUT: 100,
        OUTPUT: 60,
        CACHE_READ: 40,
        CACHE_WRITE: 10,
        REASONING: 20,
        TOTAL: 160,
        "openai.response.service_tier": "flex",
    }


def test_xai_leaves_the_reasoning_out_of_the_completion() -> None:
    usage = {
        "prompt_tokens": 100,
        "completion_tokens": 60,
        "total_tokens": 180,
        "completion_tokens_details": {"reasoning_tokens": 20},
    }
    assert read(Shape.OPENAI, {"usage": usage}) == {INPUT: 100, OUTPUT: 80, REASONING: 20, TOTAL: 180}


def test_deepseek_names_the_cache_hits_in_its_own_way() -> None:
    usage = {"prompt_tokens": 100, "completion_tokens": 5, "prompt_cache_hit_tokens": 64}
    assert read(Shape.OPENAI, {"usage": usage}) == {INPUT: 100, OUTPUT: 5, CACHE_READ: 64}


def test_runs_tell_their_cache_in_the_singular() -> None:
    usage = {"prompt_tokens": 100, "completion_tokens": 5, "prompt_token_details": {"cached_tokens": 64}}
    assert read(Shape.OPENAI, {"usage": usage}) == {INPUT: 100, OUTPUT: 5, CACHE_READ: 64}


def test_mistral_bills_sound_by_the_second_and_not_by_what_the_total_has_beyond_the_text() -> None:
    usage = {"prompt_audio_seconds": 203, "prompt_tokens": 4, "completion_tokens": 635, "total_tokens": 3264}
    assert read(Shape.OPENAI, {"usage": usage}) == {INPUT: 4, OUTPUT: 635, "farebox.units.audio_seconds": 203}


@pytest.mark.parametrize(
    ("count", "attribute"),
    [("70", 70), (" 70.0 ", 70), ("0" * 50 + "70", 70), ("9" * 100_000, None), ("-" + "9" * 50, None), ("NaN", None)],
    ids=["digits", "with a fraction of zero", "padded", "endless", "endless below zero", "NaN"],
)
def test_counts_that_are_texts(count: str, attribute: int | None) -> None:
    answer = answer_in(Shape.OPENAI)
    answer.read({"usage": {"prompt_tokens": count}})
    assert answer.attributes().get(INPUT) == attribute
    assert answer.impossible is ("9" in count)


def test_an_error_that_is_a_text_is_an_error() -> None:
    answer = answer_in(Shape.OPENAI)
    answer.read({"error": "the model is overloaded, your prompt was: secret"})
    assert answer.error == "error"


def test_a_stream_may_begin_with_a_byte_order_mark() -> None:
    events = EventStream()
    assert list(events.feed(b"\xef\xbb\xbfdata: 1\n\n")) == [1]


def test_anthropic_counts_exclude_the_cache_and_ours_include_it() -> None:
    usage = {"input_tokens": 10, "cache_read_input_tokens": 20, "cache_creation_input_tokens": 30, "output_tokens": 5}
    message = {"type": "message", "id": "msg_1", "model": "claude", "stop_reason": "max_tokens", "usage": usage}
    assert read(Shape.ANTHROPIC, message) == {
        "gen_ai.response.id": "msg_1",
        "gen_ai.response.model": "claude",
        "gen_ai.response.finish_reasons": ["length"],
        INPUT: 60,
        OUTPUT: 5,
        CACHE_READ: 20,
        CACHE_WRITE: 30,
    }


def test_googles_output_is_the_candidates_and_the_thoughts() -> None:
    usage = {
        "promptTokenCount": 100,
        "toolUsePromptTokenCount": 7,
        "cachedContentTokenCount": 40,
        "candidatesTokenCount": 30,
        "thoughtsTokenCount": 12,
        "totalTokenCount": 149,
    }
    chunks = [
        {"usageMetadata": {"promptTokenCount": 100}, "modelVersion": "gemini-2.5-flash", "responseId": "r1"},
        {"usageMetadata": usage, "candidates": [{"finishReason": "STOP"}]},
    ]
    expected = {
        "gen_ai.response.id": "r1",
        "gen_ai.response.model": "gemini-2.5-flash",
        "gen_ai.response.finish_reasons": ["stop"],
        INPUT: 107,
        OUTPUT: 42,
        CACHE_READ: 40,
        REASONING: 12,
        TOTAL: 149,
    }
    assert read(Shape.GOOGLE, *chunks) == expected
    assert read(Shape.GOOGLE, chunks) == expected, "without alt=sse the chunks come as one list"


@pytest.mark.parametrize("shape", list(Shape))
@pytest.mark.parametrize(
    "payload",
    [
        None,
        7,
        [1, "two"],
        {},
        {"usage": None, "choices": None, "usageMetadata": []},
        {"usage": {"prompt_tokens": "many", "completion_tokens": -1, "input_tokens": True}},
        {"choices": [None, {"finish_reason": 3}], "candidates": [None], "message": {"usage": 1}, "delta": 1},
        {"error": "text"},
    ],
)
def test_what_makes_no_sense_says_nothing(shape: Shape, payload: Any) -> None:
    assert read(shape, payload) == {}


@pytest.mark.parametrize("size", range(1, 12))
def test_events_are_the_same_wherever_the_stream_is_cut(size: int) -> None:
    text = (
        'event: a\r\ndata: {"n": 1}\r\n\r\n: comment\n\ndata:{"n":\ndata: 2}\n\n'
        'data: [DONE]\n\ndata: no\n\ndata: {"n": 3}'
    )
    events = EventStream()
    payloads: list[Any] = []
    for start in range(0, len(text), size):
        payloads.extend(events.feed(text[start : start + size].encode()))
    assert payloads == [{"n": 1}, {"n": 2}]
    assert list(events.end()) == [{"n": 3}]


def test_a_line_without_an_end_is_not_held_for_ever() -> None:
    events = EventStream()
    assert list(events.feed(b"data: " + b"x" * EVENT_BYTES_MAX)) == []
    assert len(events._line) == 0
    assert list(events.feed(b'x\n\ndata: {"n": 1}\n\n')) == [{"n": 1}]


def test_base_urls_are_named_in_the_call_and_in_the_environment() -> None:
    urls = named_urls({"http://a/v1": "mistral_ai"}, "http://b/v1 , http://c=groq,")
    assert urls == {"http://a/v1": "mistral_ai", "http://b/v1": None, "http://c": "groq"}
    assert named_urls("http://a/v1", "") == {"http://a/v1": None}, "one URL is not a list of characters"


def test_a_base_url_covers_what_is_below_it_and_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    urls = {"http://127.0.0.1:9999/v1/": None, "https://gateway.example": "mistral_ai", "no url": None}
    endpoints = ModelEndpoints(urls, [])
    chat = "/v1/chat/completions"

    def provider(url: str) -> str | None:
        first, again = (endpoints.find(library.URL(url)) for library in (httpx, httpx2))
        assert first is again
        return first.provider if first else None

    assert provider(f"http://127.0.0.1:9999{chat}") == "openai"
    assert provider("http://127.0.0.1:9999/v1/messages") == "anthropic"
    assert provider(f"http://127.0.0.1:9998{chat}") is None
    assert provider(f"https://127.0.0.1:9999{chat}") is None
    assert provider("http://127.0.0.1:9999/v10/chat/completions") is None
    assert provider(f"https://gateway.example{chat}") == "mistral_ai"
    assert provider("https://gateway.example:443/anything/messages/") == "mistral_ai"
    assert "no url" in caplog.text
