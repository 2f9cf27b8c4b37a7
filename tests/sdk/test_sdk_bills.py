"""What answers say that a price depends on; each worked out by hand from the providers' pages."""

from __future__ import annotations

import json
from typing import Any

import pytest
from farebox.answers import answer_in, read_request, sessions
from farebox.answers.lines import LINES_BYTES_MAX, LINES_MAX, Line, as_attribute
from farebox.model_paths import Shape

INPUT, OUTPUT = "gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens"
TOTAL = "gen_ai.usage.total_tokens"
CACHE_READ, CACHE_WRITE = "gen_ai.usage.cache_read.input_tokens", "gen_ai.usage.cache_write.input_tokens"
SEARCHES = "farebox.units.web_searches"
TIER, SPEED, REGION = "farebox.usage.service_tier", "farebox.usage.speed", "farebox.usage.inference_region"
LINES, STATED = "farebox.usage.lines", "farebox.cost.stated_usd"


def read(
    shape: Shape,
    *payloads: Any,
    provider: str = "",
    request: dict[str, Any] | None = None,
    model: str | None = None,
    headers: dict[bytes, bytes] | None = None,
    alone: bool = True,
) -> dict[str, Any]:
    answer = answer_in(shape, provider)
    if not alone:
        answer.not_alone()
    read_request(answer, request or {}, model)
    answer.read_headers(headers or {})
    for payload in payloads:
        answer.read(payload)
    return dict(answer.attributes())


def lines(attributes: dict[str, Any]) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = json.loads(attributes.get(LINES, "[]"))
    return listed


# Anthropic


def message(**usage: Any) -> dict[str, Any]:
    return {"type": "message", "id": "msg_1", "model": "claude-opus-5", "usage": {"output_tokens": 7, **usage}}


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"speed": "fast"}, {SPEED: "fast"}),
        ({"speed": "standard"}, {}),
        ({"inference_geo": "us"}, {REGION: "us"}),
        ({"inference_geo": "global"}, {}),
        ({"inference_geo": "not_available"}, {}),
        ({"inference_geo": None, "speed": None}, {}),
        ({"service_tier": "priority"}, {"anthropic.response.service_tier": "priority"}),
    ],
)
def test_anthropics_speed_and_region(usage: dict[str, Any], expected: dict[str, Any]) -> None:
    attributes = read(Shape.ANTHROPIC, message(input_tokens=5, **usage))
    told = {key: attributes[key] for key in (SPEED, REGION, "anthropic.response.service_tier") if key in attributes}
    assert told == expected


def iteration(kind: str, given: int, made: int, **more: Any) -> dict[str, Any]:
    return {"type": kind, "input_tokens": given, "output_tokens": made, **more}


def test_a_compaction_is_a_line_of_its_own_beside_the_messages() -> None:
    """The counts on top leave the compaction out; all iterations together are the bill."""
    iterations = [iteration("compaction", 180_000, 3_500), iteration("message", 23_000, 1_000)]
    usage = {"input_tokens": 23_000, "output_tokens": 1_000, "speed": "fast", "iterations": iterations}
    attributes = read(Shape.ANTHROPIC, message(**usage))
    assert (attributes[INPUT], attributes[OUTPUT]) == (23_000, 1_000)
    assert lines(attributes) == [
        {
            "label": "compaction",
            "model": "claude-opus-5",
            "speed": "fast",
            "tokens": {"input": 180_000, "output": 3_500},
        }
    ]


def test_an_advisor_is_a_line_of_its_own_model_with_its_own_cache() -> None:
    advised = iteration(
        "advisor_message",
        500,
        900,
        model="claude-mythos-5",
        cache_read_input_tokens=40,
        cache_creation_input_tokens=30,
        cache_creation={"ephemeral_5m_input_tokens": 10, "ephemeral_1h_input_tokens": 20},
    )
    usage = {
        "input_tokens": 70,
        "output_tokens": 12,
        "iterations": [iteration("message", 30, 5), advised, iteration("message", 40, 7)],
    }
    attributes = read(Shape.ANTHROPIC, message(**usage))
    assert (attributes[INPUT], attributes[OUTPUT]) == (70, 12)
    assert lines(attributes) == [
        {
            "label": "advisor",
            "model": "claude-mythos-5",
            "tokens": {"input": 500, "cache_read": 40, "cache_write": 10, "cache_write_1h": 20, "output": 900},
        }
    ]


def test_iterations_that_the_counts_hold_already_add_nothing() -> None:
    usage = {"input_tokens": 30, "output_tokens": 5, "iterations": [iteration("message", 30, 5)]}
    assert LINES not in read(Shape.ANTHROPIC, message(**usage))


def test_iterations_of_which_the_counts_hold_only_the_last_make_up_the_rest() -> None:
    usage = {
        "input_tokens": 40,
        "output_tokens": 7,
        "iterations": [iteration("message", 30, 5), iteration("message", 40, 7)],
    }
    (line,) = lines(read(Shape.ANTHROPIC, message(**usage)))
    assert line["tokens"] == {"input": 30, "output": 5}


@pytest.mark.parametrize("alone", [True, False])
def test_a_fallback_is_charged_at_the_price_of_each_model(alone: bool) -> None:
    """For a span that has the counts of both together, those of one stand beside the line."""
    usage = {
        "input_tokens": 70,
        "output_tokens": 12,
        "iterations": [
            iteration("message", 30, 5, model="claude-sonnet-5"),
            iteration("fallback_message", 40, 7, model="claude-opus-5"),
        ],
    }
    attributes = read(Shape.ANTHROPIC, message(**usage), alone=alone)
    own = json.loads(attributes["farebox.usage.own"])
    assert (own[INPUT], own[OUTPUT]) == (40, 7)
    assert (attributes[INPUT], attributes[OUTPUT]) == (40, 7)
    assert lines(attributes) == [{"label": "message", "model": "claude-sonnet-5", "tokens": {"input": 30, "output": 5}}]


def test_a_zero_at_the_end_of_a_stream_replaces_no_count() -> None:
    started = {"input_tokens": 60, "cache_read_input_tokens": 9, "output_tokens": 1}
    events = [
        {"type": "message_start", "message": {**message(), "usage": started}},
        {"type": "message_delta", "delta": {}, "usage": {"input_tokens": 0, "output_tokens": 30}},
    ]
    attributes = read(Shape.ANTHROPIC, *events)
    assert (attributes[INPUT], attributes[CACHE_READ], attributes[OUTPUT]) == (69, 9, 30)


# Google


def gemini(usage: dict[str, Any], model: str = "gemini-2.5-flash", **more: Any) -> dict[str, Any]:
    return {"modelVersion": model, "usageMetadata": {"promptTokenCount": 10, **usage}, **more}


def test_geminis_cached_modalities() -> None:
    usage = {
        "promptTokenCount": 900,
        "cachedContentTokenCount": 700,
        "candidatesTokenCount": 3,
        "promptTokensDetails": [{"modality": "AUDIO", "tokenCount": 500}, {"modality": "TEXT", "tokenCount": 400}],
        "cacheTokensDetails": [
            {"modality": "AUDIO", "tokenCount": 450},
            {"modality": "IMAGE", "tokenCount": 150},
            {"modality": "VIDEO", "tokenCount": 100},
        ],
    }
    attributes = read(Shape.GOOGLE, gemini(usage))
    assert attributes["gen_ai.usage.audio.input_tokens"] == 500
    assert attributes["farebox.usage.cache_read_audio_tokens"] == 450
    assert attributes["farebox.usage.cache_read_image_tokens"] == 150
    assert attributes["farebox.usage.cache_read_video_tokens"] == 100


def test_enumerations_of_vertex_as_numbers() -> None:
    """Clients ask for them with ``enum-encoding=int``: 1 text, 2 image, 3 video, 4 audio; 2 the bound on tokens."""
    usage = {
        "candidatesTokenCount": 3,
        "trafficType": 2,
        "promptTokensDetails": [{"modality": 4, "tokenCount": 6}, {"modality": 1, "tokenCount": 4}],
        "candidatesTokensDetails": [{"modality": 2, "tokenCount": 3}],
    }
    attributes = read(Shape.GOOGLE, gemini(usage, candidates=[{"finishReason": 2}]))
    assert attributes["gen_ai.usage.audio.input_tokens"] == 6
    assert attributes["farebox.usage.output_image_tokens"] == 3
    assert attributes["gen_ai.response.finish_reasons"] == ["max_tokens"]
    assert attributes[TIER] == "provisioned_throughput"


@pytest.mark.parametrize(
    ("usage", "headers", "tier"),
    [
        ({"serviceTier": "flex"}, {}, "flex"),
        ({"serviceTier": "SERVICE_TIER_PRIORITY"}, {}, "priority"),
        ({"serviceTier": "STANDARD"}, {}, None),
        ({}, {b"x-gemini-service-tier": b"priority"}, "priority"),
        ({"trafficType": "ON_DEMAND"}, {}, None),
        ({"trafficType": "ON_DEMAND_FLEX"}, {}, "flex"),
        ({"trafficType": "ON_DEMAND_PRIORITY"}, {}, "priority"),
        ({"trafficType": "PROVISIONED_THROUGHPUT"}, {}, "provisioned_throughput"),
    ],
)
def test_googles_tiers(usage: dict[str, Any], headers: dict[bytes, bytes], tier: str | None) -> None:
    assert read(Shape.GOOGLE, gemini(usage), headers=headers).get(TIER) == tier


def grounded(*queries: Any) -> dict[str, Any]:
    return {"candidates": [{"groundingMetadata": {"webSearchQueries": list(queries)}}]}


@pytest.mark.parametrize(
    ("model", "queries", "searches"),
    [
        ("gemini-2.5-flash", ["a", "b", "c"], 1),
        ("gemini-2.0-flash", ["a"], 1),
        ("gemini-2.5-flash", ["", " "], None),
        ("gemini-3-pro-preview", ["a", "b", "a", "", " b "], 2),
        ("gemini-3.1-pro", ["a"], 1),
        ("gemini-10-pro", ["a", "b"], 2),
        ("gemini-3-pro", [], None),
        ("gemini-3-pro", [None, 3, "a"], 1),
    ],
)
def test_grounding_is_billed_by_prompt_or_by_query(model: str, queries: list[Any], searches: int | None) -> None:
    assert read(Shape.GOOGLE, gemini({}, model, **grounded(*queries))).get(SEARCHES) == searches


def test_queries_of_a_stream_are_taken_together_and_the_request_may_name_the_model() -> None:
    chunks = [{"usageMetadata": {"promptTokenCount": 1}, **grounded(query)} for query in ("a", "b", "a")]
    assert read(Shape.GOOGLE, *chunks, model="gemini-3-flash")[SEARCHES] == 2
    assert read(Shape.GOOGLE, *chunks, model="gemini-2.5-flash")[SEARCHES] == 1


def test_predict_of_vertex_tells_the_tokens_of_embeddings_and_the_images() -> None:
    embedded = [{"embeddings": {"values": [0.1], "statistics": {"token_count": count}}} for count in (6, 7.0)]
    assert read(Shape.GOOGLE, {"predictions": embedded}) == {INPUT: 13}
    drawn = [{"bytesBase64Encoded": "AAAA", "mimeType": "image/png"}] * 2
    assert read(Shape.GOOGLE, {"predictions": drawn}) == {"farebox.units.images": 2}


# OpenAI, and those who write like it


def response(**more: Any) -> dict[str, Any]:
    return {
        "id": "resp_1",
        "object": "response",
        "status": "completed",
        "model": "gpt-5",
        "usage": {"input_tokens": 20, "output_tokens": 10, "total_tokens": 30},
        **more,
    }


SEARCH = {"type": "web_search_call", "action": {"type": "search"}}
IMAGE_USAGE = {
    "input_tokens": 50,
    "output_tokens": 4160,
    "total_tokens": 4210,
    "input_tokens_details": {"text_tokens": 20, "image_tokens": 30},
    "output_tokens_details": {"image_tokens": 4100, "text_tokens": 60},
}


@pytest.mark.parametrize(("told", "searches"), [(1, 1), (0, None), (None, 2), ("3", 3)])
def test_the_searches_that_openai_bills_are_those_that_it_says_it_bills(told: Any, searches: int | None) -> None:
    usage = {} if told is None else {"tool_usage": {"web_search": {"num_requests": told}}}
    assert read(Shape.OPENAI, response(output=[SEARCH, SEARCH], **usage)).get(SEARCHES) == searches


def test_an_image_tool_is_a_line_of_its_own() -> None:
    attributes = read(Shape.OPENAI, response(tool_usage={"image_gen": IMAGE_USAGE}))
    assert (attributes[INPUT], attributes[OUTPUT], attributes[TOTAL]) == (20, 10, 30)
    assert lines(attributes) == [
        {
            "label": "image_generation",
            "model": "gpt-image-1",
            "tokens": {"input": 20, "input_image": 30, "output": 60, "output_image": 4100},
        }
    ]


@pytest.mark.parametrize("where", ["request", "tools", "output"])
def test_the_image_tools_model_is_the_one_that_is_named(where: str) -> None:
    tool = {"type": "image_generation", "model": "gpt-image-2"}
    call = {"type": "image_generation_call", "status": "completed", "result": "AAAA"}
    output = [{**call, "model": "gpt-image-2"} if where == "output" else call]
    body = response(tool_usage={"image_gen": IMAGE_USAGE}, output=output, tools=[tool] if where == "tools" else [])
    (line,) = lines(read(Shape.OPENAI, body, request={"tools": [tool]} if where == "request" else None))
    assert line["model"] == "gpt-image-2"


def test_what_the_image_tool_took_from_a_cache() -> None:
    usage = {**IMAGE_USAGE, "cached_tokens_details": {"cached_text_tokens": 15, "cached_image_tokens": 10}}
    (line,) = lines(read(Shape.OPENAI, response(tool_usage={"image_gen": usage})))
    assert line["tokens"] == {"input": 5, "cache_read": 15, "input_image": 20, "output": 60, "output_image": 4100}
    assert line["units"] == {"cache_image_read_tokens": 10}


def test_images_whose_tokens_are_not_told_are_named_all_the_same() -> None:
    output = [{"type": "image_generation_call", "status": "completed", "result": "AAAA"}] * 2
    (line,) = lines(read(Shape.OPENAI, response(output=output)))
    assert (line["tokens"], line["units"]) == ({}, {"images": 2})


def test_the_code_interpreter_is_billed_by_its_containers() -> None:
    calls = [{"type": "code_interpreter_call", "container_id": name} for name in ("c1", "c2", "c1")]
    for provider in ("", "openai", "azure.ai.openai"):
        attributes = read(Shape.OPENAI, response(output=calls), provider=provider)
        assert attributes["farebox.units.container_sessions"] == 2
        assert "farebox.units.code_executions" not in attributes
    assert read(Shape.OPENAI, response(output=calls), provider="x_ai")["farebox.units.code_executions"] == 3
    nameless = response(output=[{"type": "code_interpreter_call"}] * 3)
    assert read(Shape.OPENAI, nameless)["farebox.units.container_sessions"] == 1


def test_a_container_that_several_answers_use_is_one_session() -> None:
    def counted(answer_id: str, *containers: str) -> int | None:
        calls = [{"type": "code_interpreter_call", "container_id": name} for name in containers]
        attributes = read(Shape.OPENAI, response(id=answer_id, output=calls))
        found: int | None = attributes.get("farebox.units.container_sessions")
        return found

    assert [counted("resp_a", "shared-1"), counted("resp_b", "shared-1")] == [1, None]
    assert counted("resp_a", "shared-1") == 1, "an answer that is read again says what it said"
    assert counted("resp_c", "shared-1", "shared-2") == 1


def test_a_session_of_a_container_ends_and_few_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = [0.0]
    known = sessions.Sessions(lambda: now_s[0])
    assert [known.begun(["c"], name) for name in ("a", "b")] == [1, 0]
    now_s[0] = sessions.SESSION_S
    assert [known.begun(["c"], name) for name in ("d", "e")] == [1, 0]
    monkeypatch.setattr(sessions, "SESSIONS_MAX", 2)
    assert known.begun(["c1", "c2"], "f") == 2
    assert known.begun(["c"], "g") == 1, "the oldest is forgotten"
    assert [known.begun([""], name) for name in ("h", "i")] == [1, 1]


@pytest.mark.parametrize(
    ("model", "grounding", "expected"),
    [
        ("gemini-2.5-flash", {"groundingChunks": [{"maps": {"title": "a"}}, {"maps": {"title": "b"}}]}, 1),
        ("gemini-3-flash", {"groundingChunks": [{"maps": {"title": "a"}}]}, 1),
        (
            "gemini-3-flash",
            {"groundingChunks": [{"maps": {}}], "retrievalQueries": ["cafes", " cafes", "bars", ""]},
            2,
        ),
        ("gemini-3-flash", {"groundingChunks": [{"web": {"uri": "https://a.example"}}]}, None),
        ("gemini-2.5-flash", {"groundingChunks": [], "retrievalQueries": ["cafes"]}, None),
    ],
)
def test_places_on_maps_are_billed_by_prompt_or_query(
    model: str, grounding: dict[str, Any], expected: int | None
) -> None:
    body = {"modelVersion": model, "candidates": [{"groundingMetadata": grounding}]}
    assert read(Shape.GOOGLE, body).get("farebox.units.map_searches") == expected
    assert "farebox.units.web_searches" not in read(Shape.GOOGLE, body)


@pytest.mark.parametrize(
    ("chunks", "output"),
    [
        # The last one says all, and leaves out what it does not count.
        ([(9, 15, 70, 94), (90, None, 70, 160)], 70),
        ([(9, 15, 70, 94), (9, 20, 70, 99)], 90),
        # Less than before is a part, and no total of all.
        ([(9, 15, 70, 94), (9, None, None, 9)], 85),
        # What does not add up says nothing of what it leaves out.
        ([(9, 15, 70, 94), (9, None, 70, 99)], 85),
    ],
)
def test_a_chunk_that_adds_up_replaces_those_before(
    chunks: list[tuple[int, int | None, int | None, int]], output: int
) -> None:
    names = ("promptTokenCount", "candidatesTokenCount", "thoughtsTokenCount", "totalTokenCount")
    told = [{name: n for name, n in zip(names, chunk, strict=True) if n is not None} for chunk in chunks]
    attributes = read(Shape.GOOGLE, *({"usageMetadata": usage} for usage in told))
    assert (attributes[INPUT], attributes[OUTPUT]) == (chunks[-1][0], output)


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"usage": None, "x_groq": {"usage": {"prompt_tokens": 9, "completion_tokens": 4}}}, {INPUT: 9, OUTPUT: 4}),
        (
            {
                "choices": [
                    {"finish_reason": "stop", "usage": {"prompt_tokens": 9, "completion_tokens": 4, "cached_tokens": 5}}
                ]
            },
            {INPUT: 9, OUTPUT: 4, CACHE_READ: 5},
        ),
        (
            {"usage": {"prompt_tokens": 9, "completion_tokens": 4, "num_cached_tokens": 5}},
            {INPUT: 9, OUTPUT: 4, CACHE_READ: 5},
        ),
        ({"usage": {"total_tokens": 8}}, {INPUT: 8, TOTAL: 8}),
        (
            {"usage": {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 20, "connector_tokens": 7}},
            {INPUT: 16, OUTPUT: 4, TOTAL: 20},
        ),
        ({"usage": {"prompt_tokens": "9", "completion_tokens": "4"}}, {INPUT: 9, OUTPUT: 4}),
        ({"usage": {"prompt_tokens": 9.0, "completion_tokens": float("nan")}}, {INPUT: 9}),
        ({"usage": {"prompt_tokens": "nan", "completion_tokens": 4}}, {OUTPUT: 4}),
    ],
    ids=["groq", "moonshot", "mistral", "voyage", "mistral's tools", "texts", "nan", "nan as text"],
)
def test_usage_in_odd_places(usage: dict[str, Any], expected: dict[str, Any]) -> None:
    attributes = read(Shape.OPENAI, {"id": "x", "object": "chat.completion", **usage})
    assert {key: value for key, value in attributes.items() if "usage" in key} == expected


def test_cached_sound_of_openai() -> None:
    details = {
        "cached_tokens": 60,
        "audio_tokens": 80,
        "cached_tokens_details": {"audio_tokens": 50, "text_tokens": 10},
    }
    usage = {"input_tokens": 100, "output_tokens": 5, "input_token_details": details}
    attributes = read(Shape.OPENAI, {"usage": usage})
    assert (attributes[INPUT], attributes[CACHE_READ]) == (100, 60)
    assert attributes["gen_ai.usage.audio.input_tokens"] == 80
    assert attributes["farebox.usage.cache_read_audio_tokens"] == 50


@pytest.mark.parametrize(("provider", "output"), [("gcp.gemini", 950), ("gcp.vertex_ai", 950), ("openai", 50)])
def test_thoughts_that_only_the_total_tells_are_output_at_google(provider: str, output: int) -> None:
    usage = {"prompt_tokens": 10, "completion_tokens": 50, "total_tokens": 960}
    attributes = read(Shape.OPENAI, {"usage": usage}, provider=provider)
    assert (attributes[OUTPUT], attributes[TOTAL]) == (output, 960), "at others the collector weighs the total"


@pytest.mark.parametrize(
    ("usage", "stated"),
    [
        ({"cost": 0.02021}, "0.02021"),
        ({"cost": 1e-7}, "0.0000001"),
        ({"cost": 0}, "0"),
        ({"cost": "0.5"}, "0.5"),
        ({"cost": 0.5, "cost_details": {"upstream_inference_cost": 0.4}}, "0.5"),
        ({"cost": 0.5, "is_byok": True, "cost_details": {"upstream_inference_cost": 10}}, "10.5"),
        ({"cost": -1}, None),
        ({"cost": float("inf")}, None),
        ({"cost": True}, None),
        ({}, None),
    ],
)
def test_openrouters_own_statement_of_the_charge(usage: dict[str, Any], stated: str | None) -> None:
    body = {"usage": {"prompt_tokens": 1, "completion_tokens": 1, **usage}}
    assert read(Shape.OPENAI, body, provider="openrouter").get(STATED) == stated
    assert STATED not in read(Shape.OPENAI, body, provider="perplexity")


def test_openrouters_searches() -> None:
    for key in ("server_tool_use", "server_tool_use_details"):
        body = {"usage": {"prompt_tokens": 1, key: {"web_search_requests": 2}}}
        assert read(Shape.OPENAI, body, provider="openrouter")[SEARCHES] == 2


def test_groqs_systems_are_charged_by_the_models_at_work() -> None:
    at_work = [
        {"model": "llama-3.3-70b-versatile", "usage": {"prompt_tokens": 30, "completion_tokens": 5}},
        {"model": "openai/gpt-oss-120b", "usage": {"prompt_tokens": 40, "completion_tokens": 6}},
    ]
    body = {
        "model": "groq/compound",
        "choices": [],
        "usage": {"prompt_tokens": 70, "completion_tokens": 11, "total_tokens": 81},
        "usage_breakdown": {"models": at_work},
    }
    attributes = read(Shape.OPENAI, body, provider="groq")
    assert (attributes[INPUT], attributes[OUTPUT]) == (30, 5)
    assert lines(attributes) == [
        {"label": "model", "model": "openai/gpt-oss-120b", "tokens": {"input": 40, "output": 6}}
    ]


def test_parts_of_a_run_are_not_added_to_the_run() -> None:
    usage = {"prompt_tokens": 50, "completion_tokens": 9, "total_tokens": 59}
    step = {"id": "step_1", "object": "thread.run.step", "usage": {"prompt_tokens": 20, "completion_tokens": 3}}
    run = {"id": "run_1", "object": "thread.run", "status": "completed", "model": "gpt-4o", "usage": usage}
    attributes = read(Shape.OPENAI, step, run, step)
    assert (attributes[INPUT], attributes[OUTPUT], attributes["gen_ai.response.id"]) == (50, 9, "run_1")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        ({"code": 502, "message": "Upstream"}, "502"),
        ({"code": 429, "status": "RESOURCE_EXHAUSTED"}, "RESOURCE_EXHAUSTED"),
        ({"code": "rate_limit"}, "rate_limit"),
    ],
)
def test_errors_within_an_answer_may_be_numbers(error: dict[str, Any], expected: str) -> None:
    answer = answer_in(Shape.OPENAI)
    answer.read({"error": error, "choices": [{"finish_reason": "error"}]})
    assert answer.error == expected


# Cohere, Bedrock, Ollama


def test_coheres_cache_is_part_of_the_raw_prompt_and_not_of_the_bill() -> None:
    usage = {
        "billed_units": {"input_tokens": 17, "output_tokens": 12},
        "tokens": {"input_tokens": 512, "output_tokens": 12},
        "cached_tokens": 496,
    }
    assert read(Shape.COHERE, {"usage": usage}) == {INPUT: 17, OUTPUT: 12}
    del usage["billed_units"]
    assert read(Shape.COHERE, {"usage": usage}) == {INPUT: 512, OUTPUT: 12, CACHE_READ: 496}


@pytest.mark.parametrize(
    ("body", "headers", "tier"),
    [
        ({"serviceTier": {"type": "priority"}}, {}, "priority"),
        ({"serviceTier": {"type": "default"}}, {}, None),
        ({"serviceTier": {"type": "flex"}, "performanceConfig": {"latency": "optimized"}}, {}, "flex"),
        ({"performanceConfig": {"latency": "optimized"}}, {}, "optimized"),
        ({"performanceConfig": {"latency": "standard"}}, {}, None),
        ({}, {b"x-amzn-bedrock-service-tier": b"flex"}, "flex"),
        ({}, {b"x-amzn-bedrock-performanceconfig-latency": b"optimized"}, "optimized"),
    ],
)
def test_bedrocks_tiers(body: dict[str, Any], headers: dict[bytes, bytes], tier: str | None) -> None:
    usage = {"inputTokens": 5, "outputTokens": 6, "totalTokens": 11}
    attributes = read(Shape.BEDROCK, {"usage": usage, **body}, headers=headers)
    assert attributes.get(TIER) == tier
    assert attributes[TOTAL] == 11


@pytest.mark.parametrize(
    "body",
    [
        {"usage": {"prompt_tokens": 7, "completion_tokens": 8}, "choices": []},
        {"prompt_token_count": 7, "generation_token_count": 8},
        {"inputTextTokenCount": 7, "results": [{"tokenCount": 5}, {"tokenCount": 3}]},
        {"usage": {"inputTokens": 7, "outputTokens": 8}},
        {"type": "message", "usage": {"input_tokens": 7, "output_tokens": 8}},
    ],
    ids=["gpt-oss", "llama", "titan", "nova", "claude"],
)
def test_makers_of_models_at_bedrock_count_in_their_own_words(body: dict[str, Any]) -> None:
    attributes = read(Shape.BEDROCK, body)
    assert (attributes[INPUT], attributes[OUTPUT]) == (7, 8)


def test_ollama_counts_in_its_last_line() -> None:
    parts = [
        {"model": "llama3.3", "done": False, "message": {"content": "Hi"}},
        {"model": "llama3.3", "done": True, "done_reason": "stop", "prompt_eval_count": 26, "eval_count": 298},
    ]
    assert read(Shape.OLLAMA, *parts) == {
        "gen_ai.response.model": "llama3.3",
        "gen_ai.response.finish_reasons": ["stop"],
        INPUT: 26,
        OUTPUT: 298,
    }


# Lines


def test_lines_are_taken_together_and_bounded(caplog: pytest.LogCaptureFixture) -> None:
    same = [Line("compaction", "m", tokens={"input": 2, "output": 1})] * 40
    assert json.loads(as_attribute(same) or "") == [
        {"label": "compaction", "model": "m", "tokens": {"input": 80, "output": 40}}
    ]
    many = [Line("advisor", f"{number}-{'x' * 100}", tokens={"input": 1}) for number in range(40)]
    assert len(json.loads(as_attribute(many) or "")) == LINES_MAX
    assert "is charged for 16 of them only" in caplog.text
    long = [Line("advisor", f"{number}-{'x' * 3000}", tokens={"input": 1}) for number in range(4)]
    text = as_attribute(long) or ""
    assert len(text) <= LINES_BYTES_MAX
    assert len(json.loads(text)) == 2
    assert as_attribute([Line("advisor", "m")]) is None


@pytest.mark.parametrize("count", [-1, 2**63, "-5", "99999999999999999999"])
@pytest.mark.parametrize("shape", list(Shape))
def test_impossible_counts_leave_a_call_without_usage(shape: Shape, count: Any) -> None:
    usage = {"prompt_tokens": count, "completion_tokens": 3}
    body = {
        "usage": {**usage, "input_tokens": count, "output_tokens": 3, "inputTokens": count, "outputTokens": 3},
        "usageMetadata": {"promptTokenCount": count, "candidatesTokenCount": 3},
    }
    if shape is Shape.OLLAMA:
        return
    if shape is Shape.COHERE:
        body = {"usage": {"billed_units": {"input_tokens": count, "output_tokens": 3}}}
    answer = answer_in(shape)
    answer.read(body)
    assert answer.impossible
    assert answer.attributes() == {}


# Tools that providers run, each by its own rule


def searched(model: str, *, tools: str = "", request: str = "", told: int | None = None) -> dict[str, Any]:
    usage = {} if told is None else {"tool_usage": {"web_search": {"num_requests": told}}}
    calls = [{"type": "web_search_call", "action": {"type": kind}} for kind in ("search", "search", "open_page")]
    body = response(model=model, output=calls, tools=[{"type": tools}] if tools else [], **usage)
    asked = {"tools": [{"type": request}]} if request else {}
    return read(Shape.OPENAI, body, provider="openai", request=asked)


@pytest.mark.parametrize(
    ("told", "unit", "count"),
    [
        (searched("gpt-4.1", tools="web_search"), "web_searches", 2),
        (searched("gpt-4.1", tools="web_search_preview"), "preview_web_searches", 2),
        (searched("gpt-4o", tools="web_search_preview_2025_03_11"), "preview_web_searches", 2),
        (searched("gpt-4o", request="web_search_preview"), "preview_web_searches", 2),
        (searched("gpt-5", tools="web_search_preview", told=1), "preview_web_searches", 1),
    ],
    ids=["tool", "preview", "dated preview", "preview in the request", "provider's count"],
)
def test_the_preview_of_openais_search_has_a_fee_of_its_own(told: dict[str, Any], unit: str, count: int) -> None:
    assert {key: value for key, value in told.items() if "searches" in key} == {f"farebox.units.{unit}": count}


@pytest.mark.parametrize(("limit", "sessions"), [("1g", 1), ("4g", 4), ("64G", 64), ("many", 1), (None, 1)], ids=str)
def test_a_container_is_billed_by_its_gigabytes(limit: str | None, sessions: int) -> None:
    container = {"type": "auto", "memory_limit": limit}
    body = response(
        output=[{"type": "code_interpreter_call", "container_id": f"cntr_of_{limit}"}],
        tools=[{"type": "code_interpreter", "container": container}],
    )
    assert read(Shape.OPENAI, body, provider="openai")["farebox.units.container_sessions"] == sessions


def test_a_shell_is_billed_where_it_runs_in_a_container_of_the_provider() -> None:
    def sessions(place: dict[str, Any]) -> int | None:
        body = response(output=[{"type": "shell_call", "environment": place}])
        found: int | None = read(Shape.OPENAI, body, provider="openai").get("farebox.units.container_sessions")
        return found

    assert sessions({"type": "container_reference", "container_id": "cntr_shell"}) == 1
    assert sessions({"type": "local"}) is None


@pytest.mark.parametrize(
    ("model", "parts", "units"),
    [
        (
            "openai/gpt-oss-120b",
            [{"message": {"executed_tools": [{"index": 0, "type": "browser_search", "name": "browser.search"}]}}],
            {"web_searches": 1},
        ),
        (
            "groq/compound",
            [
                {"delta": {"executed_tools": [{"index": 0, "type": "search", "arguments": "{}"}]}},
                {"delta": {"executed_tools": [{"index": 0, "type": "search", "output": "found"}]}},
                {"delta": {"executed_tools": [{"index": 1, "type": "visit"}, {"index": 2, "type": "python"}]}},
                {"delta": {"executed_tools": [{"index": 3, "type": "browser_automation"}, {"index": 4}]}},
            ],
            {"advanced_web_searches": 1, "web_visits": 1, "code_executions": 1, "browser_automations": 1},
        ),
        (
            "openai/gpt-oss-20b",
            [
                {
                    "message": {
                        "executed_tools": [{"name": "browser.open"}, {"name": "browser.find"}, 7, {"name": "python"}]
                    }
                }
            ],
            {"web_visits": 1, "code_executions": 1},
        ),
    ],
    ids=["browser search", "compound, by parts", "without places"],
)
def test_tools_that_groq_ran_are_counted_once(model: str, parts: list[dict[str, Any]], units: dict[str, int]) -> None:
    events = [{"model": model, "choices": [part]} for part in parts]
    attributes = read(Shape.OPENAI, *events, provider="groq", request={"model": model})
    prefix = "farebox.units."
    assert {key.removeprefix(prefix): n for key, n in attributes.items() if key.startswith(prefix)} == units


def test_the_tools_that_xai_and_mistral_count_are_those_that_ran() -> None:
    counts = {"web_search_calls": 0, "x_search_calls": 3, "code_interpreter_calls": 1, "mcp_calls": 2}
    body = response(output=[{"type": "web_search_call"}])
    body["usage"] = {"input_tokens": 5, "output_tokens": 1, "server_side_tool_usage_details": counts}
    attributes = read(Shape.OPENAI, body, provider="x_ai")
    assert SEARCHES not in attributes
    assert attributes["farebox.units.social_searches"] == 3
    assert attributes["farebox.units.code_executions"] == 1
    connectors = {"web_search": 1, "web_search_premium": 2, "code_interpreter": 1}
    attributes = read(Shape.OPENAI, {"usage": {"prompt_tokens": 5, "connectors": connectors}}, provider="mistral_ai")
    assert (attributes[SEARCHES], attributes["farebox.units.advanced_web_searches"]) == (1, 2)


@pytest.mark.parametrize(
    ("provider", "usage", "stated"),
    [
        ("x_ai", {"cost_in_usd_ticks": 37_756_000}, "0.0037756"),
        ("x_ai", {"cost_in_usd_ticks": "292331500"}, "0.02923315"),
        ("x_ai", {"cost_in_usd_ticks": -1}, None),
        ("x_ai", {"cost_in_usd_ticks": True}, None),
        ("openai", {"cost_in_usd_ticks": 37_756_000, "cost": 1}, None),
        ("perplexity", {"cost": {"request_cost": 0.005, "total_cost": 0.0061}}, "0.0061"),
        ("perplexity", {"cost": 3}, None),
    ],
)
def test_other_providers_state_the_charge_in_their_own_way(
    provider: str, usage: dict[str, Any], stated: str | None
) -> None:
    body = {"usage": {"prompt_tokens": 5, "completion_tokens": 1, **usage}}
    assert read(Shape.OPENAI, body, provider=provider).get(STATED) == stated


@pytest.mark.parametrize(
    ("provider", "body", "worth"),
    [
        ("x_ai", b'{"usage":{"cost_in_usd_ticks":5}}', True),
        ("perplexity", b'{"usage":{"cost":{"total_cost":5}}}', True),
        ("groq", b'{"choices":[{"message":{"executed_tools":[]}}]}', True),
        ("openai", b'{"choices":[{"message":{"executed_tools":[]}}],"usage":{"cost":1}}', False),
    ],
)
def test_what_the_instrumentation_of_a_client_leaves_out_is_added(provider: str, body: bytes, worth: bool) -> None:
    assert answer_in(Shape.OPENAI, provider).worth_adding(body, provider) is worth
