"""Speed, region, lines of other models, stated costs and exposure: read within bounds, or left out and flagged."""

import json

import pytest
from farebox_collector import dialects
from farebox_collector.model.records import (
    Attributes,
    AttributeValue,
    Buckets,
    ModelLine,
    Span,
    UsageRecord,
)
from hypothesis import given
from hypothesis import strategies as st

CALL: Attributes = {
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "anthropic",
    "gen_ai.request.model": "claude-opus-4-6",
    "gen_ai.usage.input_tokens": 10,
    "gen_ai.usage.output_tokens": 5,
}


def read(attributes: Attributes) -> UsageRecord:
    span = Span(b"t" * 16, b"s" * 8, b"", 10**18, 10**18 + 1, False, attributes, {}, "farebox.httpx", "1")
    found = dialects.read(span, ())
    assert isinstance(found, UsageRecord), found
    return found


def test_the_facts_of_a_call_are_on_its_record() -> None:
    line = {
        "label": "advisor",
        "model": "claude-sonnet-4-6",
        "tokens": {"input": 3, "output": 2},
        "units": {"images": 1},
    }
    record = read(
        {
            **CALL,
            "farebox.usage.speed": "Fast",
            "farebox.usage.inference_region": "us",
            "farebox.usage.service_tier": "flex",
            "farebox.usage.lines": json.dumps([line]),
            "farebox.cost.stated_usd": "0.0123456789",
        }
    )
    assert (record.speed, record.inference_region, record.service_tier) == ("fast", "us", "flex")
    assert record.stated_cost_nanousd == 12_345_679
    assert record.other_lines == (
        ModelLine("advisor", "", "claude-sonnet-4-6", buckets=Buckets(input=3, output=2), units=(("images", 1),)),
    )
    assert record.assumptions == ("wallet_missing",)


@pytest.mark.parametrize(("key", "value"), [("speed", "standard"), ("inference_region", "global"), ("speed", "")])
def test_the_ordinary_speed_and_region_are_none(key: str, value: str) -> None:
    record = read({**CALL, f"farebox.usage.{key}": value})
    assert (record.speed, record.inference_region, record.assumptions) == ("", "", ("wallet_missing",))


@pytest.mark.parametrize(
    ("key", "value", "flag"),
    [
        ("farebox.usage.speed", "fast; drop table", "billing_fact_unusable"),
        ("farebox.usage.inference_region", "x" * 50, "billing_fact_unusable"),
        ("farebox.cost.stated_usd", "NaN", "billing_fact_unusable"),
        ("farebox.cost.stated_usd", "-1", "billing_fact_unusable"),
        ("farebox.cost.stated_usd", "1e99", "billing_fact_unusable"),
        ("farebox.cost.stated_usd", True, "billing_fact_unusable"),
        ("farebox.usage.lines", "[" * 4_000, "line_unusable"),
        ("farebox.usage.lines", "[]" + " " * 9_000, "line_unusable"),
        ("farebox.usage.lines", '{"model": "m"}', "line_unusable"),
        ("farebox.usage.lines", '[{"model": ""}]', "line_unusable"),
        ("farebox.usage.lines", '[{"model": "m", "tokens": {"input": -1}}]', "line_unusable"),
        ("farebox.usage.lines", '[{"model": "m", "tokens": {"dreams": 1}}]', "line_unusable"),
        ("farebox.usage.lines", '[{"model": "m", "tokens": {"input": 1e12}}]', "line_unusable"),
        ("farebox.usage.lines", '[{"model": "m", "units": {"input": 3}}]', "line_unusable"),
        ("farebox.usage.lines", json.dumps([{"model": "m"}] * 17), "line_unusable"),
    ],
)
def test_what_cannot_be_used_is_left_out_and_flagged(key: str, value: AttributeValue, flag: str) -> None:
    record = read({**CALL, key: value})
    assert record.buckets == Buckets(input=10, output=5)
    assert flag in record.assumptions
    assert (record.speed, record.inference_region, record.stated_cost_nanousd) == ("", "", None)
    assert len(record.other_lines) <= 16


def test_a_call_whose_end_was_not_seen_is_an_estimate_of_no_less_than_what_had_arrived() -> None:
    asked: Attributes = {key: value for key, value in CALL.items() if "usage" not in key}
    estimate: Attributes = {"farebox.exposure.input_tokens": 100, "farebox.exposure.output_tokens": 40}
    record = read({**asked, **estimate, "farebox.exposure": "timeout"})
    assert (record.exposure, record.buckets) == ("timeout", Buckets(input=100, output=40))
    arrived = read({**CALL, **estimate, "farebox.exposure": "client_closed", "gen_ai.usage.output_tokens": 50})
    assert arrived.buckets == Buckets(input=100, output=50)
    alone = read({**asked, "farebox.exposure": "connection_lost"})
    assert (alone.exposure, alone.buckets) == ("connection_lost", None)


@given(st.one_of(st.text(max_size=40), st.recursive(st.none() | st.integers() | st.text(max_size=5), st.lists)))
def test_any_lines_are_read_or_left_out(found: object) -> None:
    record = read({**CALL, "farebox.usage.lines": found if isinstance(found, str) else json.dumps(found)})
    assert record.buckets == Buckets(input=10, output=5)
