"""The AI SDK up to version 5: where Claude's cache is depends on whose interface its host speaks."""

import json
from typing import Any

import pytest
from farebox_collector.dialects import read
from farebox_collector.model.records import Buckets, Span, UsageRecord

USAGE = {"inputTokens": 3000, "outputTokens": 100, "totalTokens": 3100, "cachedInputTokens": 2500}
OUTSIDE = Buckets(input=3000, cache_read=2500, output=100)
INSIDE = Buckets(input=500, cache_read=2500, output=100)
CLAUDE, ON_BEDROCK = "claude-sonnet-4-5", "us.anthropic.claude-sonnet-4-5-20250929-v1:0"


def called(provider: str, model: str, metadata: Any = None) -> UsageRecord:
    attributes: dict[str, Any] = {
        "ai.operationId": "ai.generateText.doGenerate",
        "ai.model.provider": provider,
        "ai.model.id": model,
        **{f"ai.usage.{name}": count for name, count in USAGE.items()},
    }
    if metadata is not None:
        attributes["ai.response.providerMetadata"] = json.dumps(metadata)
    found = read(Span(b"t" * 16, b"s" * 8, b"", 1, 2, False, attributes, {}, "ai", "5.0"), ())
    assert isinstance(found, UsageRecord), found
    return found


@pytest.mark.parametrize(
    ("provider", "model", "buckets"),
    [
        ("anthropic.messages", CLAUDE, OUTSIDE),
        ("vertex.anthropic.messages", f"{CLAUDE}@20250929", OUTSIDE),
        ("googleVertex.anthropic.messages", CLAUDE, OUTSIDE),
        ("azure.anthropic.messages", CLAUDE, OUTSIDE),
        ("amazon-bedrock", ON_BEDROCK, OUTSIDE),
        ("amazon-bedrock", "amazon.nova-pro-v1:0", OUTSIDE),
        ("gateway", f"anthropic/{CLAUDE}", OUTSIDE),
        ("openrouter", f"anthropic/{CLAUDE}", INSIDE),
        ("openrouter.chat", f"anthropic/{CLAUDE}", INSIDE),
        ("litellm.chat", CLAUDE, INSIDE),
        ("google.vertex.chat", "gemini-2.5-flash", INSIDE),
        ("openai.responses", "gpt-5", INSIDE),
    ],
)
def test_where_the_cache_is(provider: str, model: str, buckets: Buckets) -> None:
    assert called(provider, model).buckets == buckets


@pytest.mark.parametrize(
    ("provider", "model", "metadata"),
    [
        ("anthropic.messages", CLAUDE, {"anthropic": {"usage": {"cache_creation_input_tokens": 700}}}),
        ("anthropic.messages", CLAUDE, {"anthropic": {"cacheCreationInputTokens": 700}}),
        ("vertex.anthropic.messages", CLAUDE, {"anthropic": {"usage": {"cache_creation_input_tokens": 700}}}),
        ("amazon-bedrock", ON_BEDROCK, {"bedrock": {"usage": {"cacheWriteInputTokens": 700}}}),
    ],
    ids=["usage", "version 4", "Vertex", "Bedrock"],
)
def test_what_was_written_to_the_cache_stands_in_the_metadata(provider: str, model: str, metadata: Any) -> None:
    assert called(provider, model, metadata).buckets == OUTSIDE._replace(cache_write=700)
