"""The arithmetic of the dialects: nothing negative, nothing lost, nothing counted twice."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from farebox_collector import dialects
from farebox_collector.dialects.assumptions import ASSUMPTIONS, DOUBTFUL
from farebox_collector.dialects.counts import Counts, reported_in
from farebox_collector.dialects.emitters import Keys, slots_of
from farebox_collector.dialects.named_buckets import named_buckets
from farebox_collector.dialects.openinference import response_id_of
from farebox_collector.dialects.other_units import NAMES as UNIT_NAMES
from farebox_collector.dialects.reconcile import Habits, Reading, disjoint
from farebox_collector.dialects.text import InvalidCount
from farebox_collector.dialects.usage_json import numbers_in, provider_usage
from farebox_collector.model.records import (
    IMPLAUSIBLE,
    Attributes,
    Buckets,
    NotBillable,
    Rejected,
    Span,
    UsageRecord,
)
from farebox_collector.model.units import PER_HOUR, TOKEN_BUCKETS
from farebox_collector.pricing.catalogue import genai_prices_catalogue
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

COUNT = st.one_of(st.integers(0, 50), st.integers(0, 10**10))
HABITS = st.builds(
    Habits,
    cache_inside=st.sampled_from((True, False, None)),
    reasoning_inside=st.sampled_from((True, False, None)),
    rest_is_output=st.sampled_from((True, False, None)),
    adds_up=st.booleans(),
    embeds=st.booleans(),
)


SLOTS = slots_of(Keys())
SENT = st.one_of(st.just(0), COUNT, st.sampled_from((0.0, 2.0, 2.5, -1, 10**11, 2**63, True, False, "", "3", "many")))
HALF_OF_THEM = [key for number, key in enumerate(SLOTS) if number < 3 or number % 2]


@given(
    st.dictionaries(st.sampled_from(HALF_OF_THEM), st.just(0) | SENT),
    st.dictionaries(st.sampled_from(("gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens")), COUNT),
    HABITS,
)
@settings(max_examples=500)
def test_the_short_way_of_text_calls_comes_out_where_the_long_way_does(
    some: Attributes, text: Attributes, habits: Habits
) -> None:
    attributes = {**some, **text}
    places = SLOTS.among(attributes)

    def long_way() -> Reading:
        reported = reported_in(attributes, places)
        return disjoint(reported, habits) if reported is not None else Reading(None)

    def outcome(way: Callable[[], object]) -> str:
        try:
            return repr(way())
        except InvalidCount as error:
            return str(error)

    assert outcome(lambda: Counts(places, habits).reading(attributes)) == outcome(long_way)


def test_usage_in_json_is_read_by_its_shape() -> None:
    openai = {"prompt_tokens": 10, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 4}}
    assert disjoint(*provider_usage(openai))[0] == Buckets(input=6, cache_read=4, output=5)
    anthropic = {"input_tokens": 10, "output_tokens": 5, "cache_read_input_tokens": 40}
    assert disjoint(*provider_usage(anthropic))[0] == Buckets(input=10, cache_read=40, output=5)
    named = {"input": 10, "output": 5, "input_cached_tokens": 4, "output_reasoning_tokens": 2, "input_audio_tokens": 3}
    assert disjoint(*named_buckets(named))[0] == Buckets(input=10, input_audio=3, cache_read=4, output=7, reasoning=2)
    assert provider_usage({"prompt_tokens": "many", "completion_tokens": "5.0"})[0].output == 5
    with pytest.raises(InvalidCount):
        provider_usage({"prompt_tokens": -1})


@given(st.dictionaries(st.sampled_from(("input", "output", "input_cached_tokens", "cache_creation_1h")), COUNT))
def test_named_buckets_are_never_added_to_themselves(usage: dict[str, int]) -> None:
    buckets = disjoint(*named_buckets(usage)).buckets
    if buckets is not None:
        assert buckets.total == sum(usage.values())


def test_of_texts_only_ids_and_numbers_are_kept() -> None:
    assert response_id_of('{"id":"chatcmpl-1","choices":[]}') == "chatcmpl-1"
    assert response_id_of('{"generations": [{"text": "hi"}], "llm_output": {"id": "msg_2"}}') == "msg_2"
    assert response_id_of('he said "id": "msg_2"') is None
    assert response_id_of('{"text": "\\"id\\": \\"msg_2"}') is None
    assert response_id_of('{"id":"' + "x" * 500) is None
    assert numbers_in('{"a": "secret", "usage": {"input_tokens": 3, "b": {"c": "secret"}}}') == (
        '{"usage":{"input_tokens":3,"b":{}}}'
    )
    assert numbers_in("[1]") is None
    assert numbers_in("{" + " " * 20_000 + "}") is None


def reading(scope: str, attributes: Attributes) -> UsageRecord | NotBillable | Rejected:
    span = Span(b"t" * 16, b"s" * 8, b"", 10**18, 10**18 + 1, False, attributes, {}, scope, "1")
    found = dialects.read(span, ())
    assert isinstance(found, UsageRecord | NotBillable | Rejected)
    return found


CALL: Attributes = {
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "aws.bedrock",
    "gen_ai.request.model": "claude-sonnet-4-5",
    "gen_ai.usage.input_tokens": 100,
    "gen_ai.usage.output_tokens": 5,
    "gen_ai.usage.cache_read.input_tokens": 40,
}


def test_habits_that_were_not_recorded() -> None:
    bedrock = reading("opentelemetry.instrumentation.bedrock", CALL)
    assert isinstance(bedrock, UsageRecord)
    assert bedrock.buckets == Buckets(input=100, cache_read=40, output=5)
    converse = reading(
        "openinference.instrumentation.bedrock",
        {
            "openinference.span.kind": "LLM",
            "llm.model_name": "claude-sonnet-4-5",
            "llm.token_count.prompt": 100,
            "llm.token_count.completion": 5,
            "llm.token_count.prompt_details.cache_read": 40,
        },
    )
    assert isinstance(converse, UsageRecord)
    assert converse.buckets == Buckets(input=60, cache_read=40, output=5)
    assert "provider_from_model" in converse.assumptions


def test_partial_usage_and_summaries_without_usage_are_no_calls() -> None:
    base = {"gen_ai.operation.name": "chat", "gen_ai.provider.name": "anthropic", "gen_ai.request.model": "claude-x"}
    assert reading("logfire.claude", {**base, "gen_ai.usage.partial.input_tokens": 3}) == NotBillable(
        "usage_is_on_the_parent"
    )
    assert reading("pydantic-ai", {**base, "gen_ai.operation.name": "invoke_agent"}) == NotBillable(
        "summary_without_usage"
    )
    assert reading("any", {**base, "gen_ai.operation.name": "fetch_response"}) == NotBillable(
        "operation_makes_no_tokens"
    )


def test_other_units_and_image_tokens_are_read_from_attributes_of_our_own() -> None:
    usage = reading(
        "farebox.httpx",
        {
            **CALL,
            "farebox.units.web_searches": 2,
            "farebox.units.images": 1,
            "farebox.usage.input_image_tokens": 30,
        },
    )
    assert isinstance(usage, UsageRecord)
    assert usage.units == (("images", 1), ("web_searches", 2))
    assert usage.buckets == Buckets(input=30, input_image=30, cache_read=40, output=5)
    assert isinstance(reading("farebox.httpx", {**CALL, "farebox.units.images": -1}), Rejected)
    absurd = reading("farebox.httpx", {**CALL, "farebox.units.images": 10**12})
    assert isinstance(absurd, UsageRecord)
    assert (absurd.buckets, absurd.units) == (None, ())
    assert IMPLAUSIBLE in absurd.assumptions


def test_every_unit_that_has_a_price_can_be_reported() -> None:
    units = {row.unit for row in genai_prices_catalogue().prices.rows}
    assert units - TOKEN_BUCKETS - {*PER_HOUR.values()} <= {*UNIT_NAMES}


def test_a_call_may_be_billed_by_other_units_alone() -> None:
    image = {"gen_ai.operation.name": "image_generation", "gen_ai.provider.name": "openai", "gen_ai.request.model": "x"}
    usage = reading("farebox.httpx", {**image, "farebox.units.images": 2})
    assert isinstance(usage, UsageRecord)
    assert (usage.buckets, usage.units) == (Buckets(), (("images", 2),))
    scanned = reading("farebox.httpx", {**image, "farebox.units.pages": 3})
    assert isinstance(scanned, UsageRecord)
    assert scanned.units == (("input_document_pages", 3),)
    unknown = reading("farebox.httpx", image)
    assert isinstance(unknown, UsageRecord)
    assert unknown.buckets is None


def test_older_spans_of_openllmetry_are_calls_and_sums() -> None:
    old: dict[str, Any] = {
        "gen_ai.system": "OpenAI",
        "gen_ai.request.model": "gpt-4o",
        "gen_ai.usage.prompt_tokens": 10,
        "gen_ai.usage.completion_tokens": 5,
        "gen_ai.usage.cache_read_input_tokens": 4,
        "llm.usage.total_tokens": 15,
    }
    call = reading("opentelemetry.instrumentation.openai.v1", {**old, "llm.request.type": "chat"})
    assert isinstance(call, UsageRecord)
    assert (call.operation, call.buckets) == ("chat", Buckets(input=6, cache_read=4, output=5))
    crew = reading("opentelemetry.instrumentation.crewai", {**old, "traceloop.span.kind": "agent"})
    assert isinstance(crew, UsageRecord)
    assert crew.summary


def test_every_flag_in_the_code_is_documented() -> None:
    found: set[str] = set()
    for module in Path(dialects.__file__).parent.glob("*.py"):
        if module.stem != "assumptions":
            found.update(re.findall(r'\("([a-z]+(?:_[a-z]+){2,})",\)', module.read_text(encoding="utf-8")))
    assert len(found) > 8
    assert found <= ASSUMPTIONS.keys()
    assert ASSUMPTIONS.keys() > DOUBTFUL


def test_a_stream_whose_usage_is_missing_is_a_call_of_unknown_usage() -> None:
    usage = reading(
        "farebox.httpx",
        {"gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "farebox.usage.missing": "stream"},
    )
    assert isinstance(usage, UsageRecord)
    assert usage.buckets is None


VALUES = st.one_of(
    st.text(max_size=12),
    st.sampled_from(("LLM", "AGENT", "chat", "generation", "ai.generateText.doGenerate", "agent", "log", "anthropic")),
    st.sampled_from(('{"input_tokens": -1}', '{"prompt_tokens": 1e999}', '{"input": 3, "output": true}', "[" * 3999)),
    st.integers(-5, 2**70),
    st.floats(),
    st.booleans(),
    st.tuples(st.text(max_size=3)),
)
SPANS = st.fixed_dictionaries(
    {}, optional={key: VALUES for key in sorted(dialects.wanted_attributes(())) if not key.startswith("farebox.units")}
)
SCOPES = ("", "openlit.x", "logfire.openai", "pydantic-ai", "opentelemetry.instrumentation.vertexai", "gen_ai", "ai")


@given(SPANS, st.sampled_from(SCOPES))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_whatever_a_span_says_it_is_read_or_refused(attributes: Attributes, scope: str) -> None:
    reduced = dialects.reduced_attributes()
    at_the_door = {
        key: kept
        for key, value in attributes.items()
        if (kept := reduced[key](value) if key in reduced and isinstance(value, str) else value) is not None
    }
    span = Span(b"t" * 16, b"s" * 8, b"", 10**18, 10**18 + 1, False, at_the_door, {}, scope, "1")
    usage = dialects.read(span, ())
    if isinstance(usage, UsageRecord) and usage.buckets:
        assert min(usage.buckets) >= 0
        assert usage.buckets.reasoning <= usage.buckets.output
    if isinstance(usage, UsageRecord):
        assert set(usage.assumptions) <= ASSUMPTIONS.keys()
        assert usage.buckets is None or max(usage.buckets) <= 10**9
