"""What emitters pass on in a provider's own words: tier, speed, region, iterations, cached modalities, stated cost."""

import json
from typing import Any

import pytest
from farebox_collector import dialects
from farebox_collector.model.records import (
    Buckets,
    ModelLine,
    Span,
    UsageRecord,
)

OPUS, SONNET = "claude-opus-4-6", "claude-sonnet-4-6"
Value = str | int | dict[str, Any]


def read(scope: str, attributes: dict[str, Value]) -> UsageRecord:
    """Through the door, where texts are reduced, and through the dialects."""
    said: dict[str, str | int] = {
        key: json.dumps(value) if isinstance(value, dict) else value for key, value in attributes.items()
    }
    for key, reduce in dialects.reduced_attributes().items():
        if key in said:
            kept = reduce(str(said.pop(key)))
            said.update({} if kept is None else {key: kept})
    span = Span(b"t" * 16, b"s" * 8, b"", 10**18, 10**18 + 1, False, said, {}, scope, "1")
    found = dialects.read(span, ())
    assert isinstance(found, UsageRecord), found
    return found


def vercel(provider: str, model: str, metadata: dict[str, Any], went_in: int = 30, came_out: int = 10) -> UsageRecord:
    attributes: dict[str, Value] = {
        "ai.operationId": "ai.generateText.doGenerate",
        "ai.model.provider": provider,
        "ai.model.id": model,
        "ai.usage.inputTokens": went_in,
        "ai.usage.outputTokens": came_out,
        "ai.response.providerMetadata": metadata,
    }
    return read("ai", attributes)


def langfuse(model: str, usage: dict[str, Any]) -> UsageRecord:
    attributes: dict[str, Value] = {
        "langfuse.observation.type": "generation",
        "langfuse.observation.model.name": model,
        "langfuse.observation.usage_details": usage,
    }
    return read("langfuse-sdk", attributes)


def logfire(model: str, usage: dict[str, Any]) -> UsageRecord:
    attributes: dict[str, Value] = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "anthropic",
        "gen_ai.request.model": model,
        "gen_ai.response.model": model,
        "gen_ai.usage.raw": usage,
    }
    return read("logfire.anthropic", attributes)


def genai(**attributes: Value) -> UsageRecord:
    call: dict[str, Value] = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-5",
        "gen_ai.usage.input_tokens": 3,
        "gen_ai.usage.output_tokens": 2,
    }
    return read(
        "opentelemetry.instrumentation.openai_v2", call | {k.replace("__", "."): v for k, v in attributes.items()}
    )


def openinference(**attributes: Value) -> UsageRecord:
    call: dict[str, Value] = {
        "openinference.span.kind": "LLM",
        "llm.provider": "openai",
        "llm.model_name": "gpt-5",
        "llm.token_count.prompt": 3,
        "llm.token_count.completion": 2,
    }
    return read("openinference.instrumentation.openai", call | {k.replace("__", "."): v for k, v in attributes.items()})


CLAUDE: dict[str, Any] = {"input_tokens": 30, "output_tokens": 10, "cache_read_input_tokens": 0}
FAST: dict[str, Any] = CLAUDE | {"speed": "Fast", "inference_geo": "US", "service_tier": "standard"}
PLAIN: dict[str, Any] = CLAUDE | {"speed": "standard", "inference_geo": "not_available", "service_tier": None}


@pytest.mark.parametrize(
    ("record", "tier", "speed", "region"),
    [
        (langfuse(OPUS, FAST), "standard", "fast", "us"),
        (langfuse(OPUS, PLAIN), "", "", ""),
        (langfuse(OPUS, CLAUDE | {"speed": "{fast}", "inference_geo": 7}), "", "", ""),
        (logfire(OPUS, FAST), "standard", "fast", "us"),
        (vercel("anthropic.messages", OPUS, {"anthropic": {"usage": FAST}}), "standard", "fast", "us"),
        (vercel("openai.responses", "gpt-5", {"openai": {"serviceTier": "flex"}}), "flex", "", ""),
        (vercel("google.generative-ai", "gemini-2.5-pro", {"google": {"serviceTier": "priority"}}), "priority", "", ""),
        (
            vercel(
                "google.vertex.chat", "gemini-2.5-pro", {"vertex": {"usageMetadata": {"trafficType": "ON_DEMAND_FLEX"}}}
            ),
            "on_demand_flex",
            "",
            "",
        ),
        (
            vercel(
                "amazon-bedrock", "amazon.nova-pro-v1:0", {"bedrock": {"performanceConfig": {"latency": "optimized"}}}
            ),
            "optimized",
            "",
            "",
        ),
        (vercel("openai.chat", "gpt-5", {"openai": {"text": "serviceTier: flex"}}), "", "", ""),
        (genai(openai__request__service_tier="flex"), "flex", "", ""),
        (genai(openai__request__service_tier="priority", openai__response__service_tier="default"), "default", "", ""),
        (openinference(llm__invocation_parameters={"service_tier": "flex", "temperature": 1}), "flex", "", ""),
        (openinference(llm__invocation_parameters={"user": "service_tier"}), "", "", ""),
    ],
)
def test_the_conditions_that_the_provider_tells(record: UsageRecord, tier: str, speed: str, region: str) -> None:
    assert (record.service_tier, record.speed, record.inference_region) == (tier, speed, region)


def iteration(kind: str, went_in: int, came_out: int, **more: Any) -> dict[str, Any]:
    return {"type": kind, "input_tokens": went_in, "output_tokens": came_out, **more}


COMPACTION, MESSAGE = iteration("compaction", 180, 35), iteration("message", 30, 10)
ADVISER = iteration("advisor_message", 100, 20, model=OPUS)
COMPACTED = ModelLine("compaction", "", SONNET, buckets=Buckets(input=180, output=35))
ADVISED = ModelLine("advisor_message", "", OPUS, buckets=Buckets(input=100, output=20))


def iterations(*parts: dict[str, Any], **more: Any) -> dict[str, Any]:
    return CLAUDE | {"iterations": list(parts)} | more


@pytest.mark.parametrize(
    ("usage", "lines"),
    [
        (iterations(COMPACTION, MESSAGE), (COMPACTED,)),
        (iterations(MESSAGE, ADVISER), (ADVISED,)),
        (iterations(MESSAGE | {"model": SONNET}, ADVISER), (ADVISED,)),
        (iterations(MESSAGE | {"model": f"{SONNET}-20260217"}), ()),
        (iterations(MESSAGE | {"model": "claude-sonnet-4"}), ()),
        (
            iterations(COMPACTION, MESSAGE, ADVISER, speed="fast", inference_geo="us"),
            (COMPACTED._replace(speed="fast", inference_region="us"), ADVISED._replace(inference_region="us")),
        ),
    ],
    ids=["compaction", "adviser", "own name", "own name with a date", "only another's messages", "fast in the US"],
)
@pytest.mark.parametrize("emitter", ["langfuse", "logfire", "vercel"])
def test_iterations_are_counted_once_each_with_its_own_conditions(
    emitter: str, usage: dict[str, Any], lines: tuple[ModelLine, ...]
) -> None:
    if emitter == "vercel":
        record = vercel("anthropic.messages", SONNET, {"anthropic": {"usage": usage}})
    else:
        record = (langfuse if emitter == "langfuse" else logfire)(SONNET, usage)
    assert record.buckets == Buckets(input=30, output=10)
    assert record.other_lines == lines


def test_what_the_sdk_added_to_its_counts_is_no_line_of_its_own() -> None:
    usage = iterations(COMPACTION, MESSAGE, ADVISER)
    record = vercel("anthropic.messages", SONNET, {"anthropic": {"usage": usage}}, went_in=210, came_out=45)
    assert record.other_lines == (ADVISED,)


def test_openrouters_statement_is_in_the_metadata_of_its_answer() -> None:
    record = vercel("openrouter", "openai/gpt-4o-mini", {"openrouter": {"usage": {"cost": 0.02021}}})
    assert record.stated_cost_nanousd == 20_210_000
    assert vercel("openai.chat", "gpt-4o-mini", {"openai": {"usage": {"cost": 1}}}).stated_cost_nanousd is None


@pytest.mark.parametrize(
    "details",
    [
        {"input_audio_tokens": 10_000, "cache_audio_read_tokens": 8_000, "cache_read_tokens": 8_000},
        {"audio_prompt_tokens": 10_000, "audio_cache_tokens": 8_000, "cached_content_tokens": 8_000},
        {
            "input_audio_tokens": 10_000,
            "audio_prompt_tokens": 10_000,
            "cache_audio_read_tokens": 8_000,
            "audio_cache_tokens": 8_000,
            "cache_read_tokens": 8_000,
            "cached_content_tokens": 8_000,
        },
    ],
    ids=["its own names", "google's", "both"],
)
def test_pydantic_ai_tells_which_modality_was_cached(details: dict[str, int]) -> None:
    call: dict[str, Value] = {
        "gen_ai.operation.name": "chat",
        "gen_ai.system": "google-gla",
        "gen_ai.request.model": "gemini-2.5-flash",
        "gen_ai.usage.input_tokens": 20_000,
        "gen_ai.usage.output_tokens": 100,
    }
    record = read("pydantic-ai", call | {f"gen_ai.usage.details.{key}": count for key, count in details.items()})
    assert record.buckets == Buckets(input=10_000, input_audio=2_000, output=100)
    assert record.units == (("cache_audio_read_tokens", 8_000),)


def test_modalities_that_the_counts_include_are_not_added_to_them() -> None:
    usage = {"input": 20, "output": 5, "total": 25, "input_modality_text": 12, "input_modality_audio": 8}
    record = langfuse("gemini-2.5-flash", usage | {"output_modality_text": 5})
    assert record.buckets == Buckets(input=12, input_audio=8, output=5)
