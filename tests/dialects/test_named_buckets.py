"""Usage as buckets by name, as Langfuse and those who send to it write it."""

import json
from typing import Any

import pytest
from farebox_collector import dialects
from farebox_collector.model.records import Buckets, Span, UsageRecord
from farebox_collector.model.units import Units


def read(usage: dict[str, Any], model: str = "claude-sonnet-4-5", kind: str = "generation") -> UsageRecord:
    attributes = {
        "langfuse.observation.type": kind,
        "langfuse.observation.model.name": model,
        "langfuse.observation.usage_details": json.dumps(usage),
    }
    span = Span(b"t" * 16, b"s" * 8, b"", 10**18, 10**18 + 1, False, attributes, {}, "langfuse-sdk", "5")
    found = dialects.read(span, ())
    assert isinstance(found, UsageRecord), found
    return found


VERTEX = {"output": 0, "output_modality_1": 100, "total": 20_100, "cached_content_token_count": 8_000}
XAI = {"prompt_tokens": 10_120, "completion_tokens": 1_499, "completion_tokens_details": {"reasoning_tokens": 2_809}}


@pytest.mark.parametrize(
    ("usage", "buckets", "units"),
    [
        # LangChain's details of Anthropic: both lifetimes, and the sum of them under a third name.
        (
            {"input": 10, "output": 5, "input_ephemeral_5m_input_tokens": 70, "input_ephemeral_1h_input_tokens": 30},
            Buckets(input=10, cache_write=70, cache_write_1h=30, output=5),
            (),
        ),
        (
            {
                "input": 10,
                "output": 5,
                "input_cache_creation": 100,
                "ephemeral_5m": 70,
                "ephemeral_1h": 30,
                "total": 115,
            },
            Buckets(input=10, cache_write=70, cache_write_1h=30, output=5),
            (),
        ),
        # Amazon's names and others' in camel case.
        (
            {"inputTokens": 10, "outputTokens": 5, "cacheReadInputTokens": 40, "cacheWriteInputTokens": 30},
            Buckets(input=10, cache_read=40, cache_write=30, output=5),
            (),
        ),
        ({"inputTokenCount": 10, "outputTokenCount": 5, "totalTokenCount": 15}, Buckets(input=10, output=5), ()),
        # Two names of one count.
        (
            {"input": 10, "output": 5, "cache_read_input_tokens": 40, "input_cached_tokens": 40},
            Buckets(input=10, cache_read=40, output=5),
            (),
        ),
        (
            {"input": 10, "output": 5, "output_reasoning": 3, "output_reasoning_tokens": 3, "total": 18},
            Buckets(input=10, output=8, reasoning=3),
            (),
        ),
        # The total says that the buckets are not disjoint after all.
        ({"input": 10, "output": 5, "output_reasoning": 3, "total": 15}, Buckets(input=10, output=5, reasoning=3), ()),
        (
            {"input": 10, "output": 5, "input_cached_tokens": 4, "total": 15},
            Buckets(input=6, cache_read=4, output=5),
            (),
        ),
        # Vertex's modalities by name and by number; the cached part is in both.
        (
            {"input": 0, "input_modality_TEXT": 10_000, "input_modality_AUDIO": 10_000, "cached_modality_AUDIO": 8_000}
            | VERTEX,
            Buckets(input=10_000, input_audio=2_000, output=100),
            (("cache_audio_read_tokens", 8_000),),
        ),
        (
            {"input": 0, "input_modality_1": 10_000, "input_modality_4": 10_000, "cached_modality_4": 8_000} | VERTEX,
            Buckets(input=10_000, input_audio=2_000, output=100),
            (("cache_audio_read_tokens", 8_000),),
        ),
        (
            {"input": 2_000, "input_modality_AUDIO": 10_000, "cached_modality_AUDIO": 8_000} | VERTEX,
            Buckets(input=10_000, input_audio=2_000, output=100),
            (("cache_audio_read_tokens", 8_000),),
        ),
        (
            {"input": 50, "output": 20, "thoughts_token_count": 150, "total": 220},
            Buckets(input=50, output=170, reasoning=150),
            (),
        ),
        # A key that belongs to no bucket.
        ({"input": 10, "output": 5, "mystery": 7, "total": 22}, Buckets(input=10, output=12), ()),
        ({"input": 10, "output": 5, "input_mystery": 7, "total": 22}, Buckets(input=17, output=5), ()),
        # The providers' own shapes.
        ({**XAI, "total_tokens": 14_428}, Buckets(input=10_120, output=4_308, reasoning=2_809), ()),
        (
            {"prompt_tokens": 10, "completion_tokens": 5, "cached_tokens": 4},
            Buckets(input=6, cache_read=4, output=5),
            (),
        ),
        ({"prompt_tokens": "10", "completion_tokens": "5.0"}, Buckets(input=10, output=5), ()),
        (
            {
                "promptTokenCount": 20_000,
                "candidatesTokenCount": 40,
                "thoughtsTokenCount": 60,
                "totalTokenCount": 20_100,
                "cachedContentTokenCount": 8_000,
                "promptTokensDetails": [{"modality": 1, "tokenCount": 10_000}, {"modality": 4, "tokenCount": 10_000}],
                "cacheTokensDetails": [{"modality": "AUDIO", "tokenCount": 8_000}],
            },
            Buckets(input=10_000, input_audio=2_000, output=100, reasoning=60),
            (("cache_audio_read_tokens", 8_000),),
        ),
    ],
)
def test_what_usage_by_name_is_taken_for(usage: dict[str, Any], buckets: Buckets, units: Units) -> None:
    record = read(usage)
    assert (record.buckets, record.units) == (buckets, units)


def test_a_key_in_no_bucket_is_said_and_not_dropped() -> None:
    record = read({"input": 10, "output": 5, "mystery": 7, "total": 22}, "gpt-4o")
    assert "output_from_total" in record.assumptions
    assert record.other_reading == Buckets(input=10, output=5)


def test_embeddings_may_have_only_a_total() -> None:
    assert read({"total": 12}, "text-embedding-3-small", "embedding").buckets == Buckets(input=12)
    assert read({"total": 12}, "gpt-4o").buckets is None


def test_what_iterations_used_beside_the_message_are_lines_of_their_own() -> None:
    compaction = {"type": "compaction", "input_tokens": 180_000, "output_tokens": 3_500}
    advisor = {"type": "advisor_message", "model": "claude-opus-4-5", "input_tokens": 900, "output_tokens": 70}
    message = {"type": "message", "input_tokens": 23_000, "output_tokens": 1_000, "cache_read_input_tokens": 400}
    record = read({"input_tokens": 45, "output_tokens": 1_234, "iterations": [compaction, message, advisor]})
    assert record.buckets == Buckets(input=23_000, cache_read=400, output=1_000)
    assert [(line.label, line.model, line.buckets) for line in record.other_lines] == [
        ("compaction", "claude-sonnet-4-5", Buckets(input=180_000, output=3_500)),
        ("advisor_message", "claude-opus-4-5", Buckets(input=900, output=70)),
    ]
