"""The GenAI conventions, current and older keys, as the released emitters write them."""

from typing import Any

import pytest
from farebox_collector import dialects
from farebox_collector.model.records import (
    Attributes,
    Buckets,
    NotBillable,
    Rejected,
    Span,
    UsageRecord,
)
from hypothesis import given
from hypothesis import strategies as st

WALLET_ATTRIBUTES = ("user.id", "enduser.id")


def span(attributes: Attributes, **changes: Any) -> Span:
    """A span of half a second with these attributes."""
    made = Span(b"t" * 16, b"s" * 8, b"", 10**18, 10**18 + 500_000_000, False, attributes, {}, "scope", "1")
    return made._replace(**changes)


def read(attributes: Attributes, **changes: Any) -> UsageRecord:
    """The usage record of a span with these attributes."""
    reading = dialects.read(span(attributes, **changes), WALLET_ATTRIBUTES)
    assert isinstance(reading, UsageRecord), reading
    return reading


CALL: Attributes = {
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "openai",
    "gen_ai.request.model": "gpt-4o-mini",
}

# Recorded from the released packages against the bundled model server, which had answered: 1,000 in of which 400 were
# read from and 100 written to the cache, 200 out of which 50 were reasoning; Anthropic counts the cache on top.
GENAI_OPENAI_CHAT: Attributes = {
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "openai",
    "gen_ai.request.model": "gpt-4o-mini",
    "gen_ai.response.finish_reasons": ("stop",),
    "gen_ai.response.id": "chatcmpl-b191d179be4d4819ba1380a8",
    "gen_ai.response.model": "gpt-4o-mini",
    "gen_ai.usage.cache_read.input_tokens": 400,
    "gen_ai.usage.cache_write.input_tokens": 100,
    "gen_ai.usage.input_tokens": 1000,
    "gen_ai.usage.output_tokens": 200,
    "gen_ai.usage.reasoning.output_tokens": 50,
    "openai.response.service_tier": "default",
}
GENAI_ANTHROPIC: Attributes = {
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "anthropic",
    "gen_ai.request.model": "claude-sonnet-4-5",
    "gen_ai.response.id": "msg_94d7e05ae0a14f1ea543db54",
    "gen_ai.response.model": "claude-sonnet-4-5",
    "gen_ai.usage.cache_read.input_tokens": 400,
    "gen_ai.usage.cache_write.input_tokens": 100,
    "gen_ai.usage.input_tokens": 1500,
    "gen_ai.usage.output_tokens": 200,
    "gen_ai.usage.reasoning.output_tokens": 50,
}
ANTHROPIC_CLIENT: Attributes = {
    **GENAI_ANTHROPIC,
    "anthropic.response.service_tier": "standard",
    "anthropic.usage.cache_creation.ephemeral_1h_input_tokens": 30,
    "anthropic.usage.cache_creation.ephemeral_5m_input_tokens": 70,
}


@pytest.mark.parametrize(
    ("attributes", "buckets"),
    [
        (GENAI_OPENAI_CHAT, Buckets(input=500, cache_read=400, cache_write=100, output=200, reasoning=50)),
        (GENAI_ANTHROPIC, Buckets(input=1000, cache_read=400, cache_write=100, output=200, reasoning=50)),
        (
            ANTHROPIC_CLIENT,
            Buckets(input=1000, cache_read=400, cache_write=70, cache_write_1h=30, output=200, reasoning=50),
        ),
    ],
    ids=["genai-openai", "genai-anthropic", "anthropic-client"],
)
def test_recorded_spans_come_out_in_disjoint_buckets(attributes: Attributes, buckets: Buckets) -> None:
    assert read(attributes).buckets == buckets


def test_older_keys_are_read_and_never_added_to_the_newer() -> None:
    old: dict[str, Any] = {
        "gen_ai.system": "openai",
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": "m",
        "gen_ai.usage.prompt_tokens": 10,
        "gen_ai.usage.completion_tokens": 5,
    }
    assert read(old).provider == "openai"
    assert read(old).buckets == Buckets(input=10, output=5)
    both: dict[str, Any] = {**old, "gen_ai.usage.input_tokens": 10, "gen_ai.usage.output_tokens": 5}
    assert read(both).buckets == Buckets(input=10, output=5)
    cache: dict[str, Any] = {"gen_ai.usage.cache_creation.input_tokens": 4, "gen_ai.usage.cache_write.input_tokens": 4}
    assert read({**both, **cache}).buckets == Buckets(input=6, cache_write=4, output=5)


def test_a_cache_larger_than_the_input_is_outside_it_and_said_so() -> None:
    record = read({**CALL, "gen_ai.usage.input_tokens": 10, "gen_ai.usage.cache_read.input_tokens": 900})
    assert record.buckets == Buckets(input=10, cache_read=900)
    assert "cache_outside_input" in record.assumptions


def test_the_lifetime_of_a_cache_write_is_assumed_only_where_it_is_unknown() -> None:
    assert "cache_write_lifetime_unknown" in read(GENAI_ANTHROPIC).assumptions
    assert "cache_write_lifetime_unknown" not in read(ANTHROPIC_CLIENT).assumptions


def test_audio_is_taken_out_of_the_text() -> None:
    record = read(
        {
            **CALL,
            "gen_ai.usage.input_tokens": 100,
            "gen_ai.usage.output_tokens": 50,
            "gen_ai.usage.audio.input_tokens": 30,
            "gen_ai.usage.audio.output_tokens": 20,
        }
    )
    assert record.buckets == Buckets(input=70, input_audio=30, output=30, output_audio=20)


@pytest.mark.parametrize("value", [-1, -(2**63), 2**63, 1e300, "-5", "99999999999999999999", "9" * 50])
def test_an_impossible_count_is_rejected_by_name(value: object) -> None:
    reading = dialects.read(span({**CALL, "gen_ai.usage.input_tokens": value}), ())  # type: ignore[dict-item]
    assert isinstance(reading, Rejected)
    assert "gen_ai.usage.input_tokens" in reading.reason


@pytest.mark.parametrize(("value", "count"), [("1234", 1234), ("1234.0", 1234), (" 7 ", 7), (12.0, 12), ("1e3", 1000)])
def test_digits_as_text_are_a_number(value: str | float, count: int) -> None:
    record = read({**CALL, "gen_ai.usage.input_tokens": value, "gen_ai.usage.output_tokens": "5"})
    assert record.buckets == Buckets(input=count, output=5)
    assert "count_unreadable" not in record.assumptions


@pytest.mark.parametrize("value", [1.5, float("nan"), float("inf"), True, "NaN", "many", "1,000", ("1",), "\u0661"])
def test_what_is_no_number_is_an_absent_count(value: object) -> None:
    record = read({**CALL, "gen_ai.usage.input_tokens": value, "gen_ai.usage.output_tokens": 5})  # type: ignore[dict-item]
    assert record.buckets == Buckets(output=5)
    assert {"count_unreadable", "input_tokens_missing"} <= set(record.assumptions)
    alone = read({**CALL, "gen_ai.usage.input_tokens": value})  # type: ignore[dict-item]
    assert alone.buckets is None
    # Another name of the same count stands in for it.
    both = read({**CALL, "gen_ai.usage.input_tokens": value, "gen_ai.usage.prompt_tokens": 9})  # type: ignore[dict-item]
    assert both.buckets == Buckets(input=9)


@pytest.mark.parametrize("operation", ["chat", "dream", "invoke_agent"])
def test_a_count_of_more_than_a_billion_is_kept_and_not_charged(operation: str) -> None:
    record = read({**CALL, "gen_ai.operation.name": operation, "gen_ai.usage.input_tokens": 10**9 + 1})
    assert record.buckets is None
    assert "count_over_a_billion" in record.assumptions
    assert read({**CALL, "gen_ai.usage.input_tokens": 10**9}).buckets == Buckets(input=10**9)


@pytest.mark.parametrize("identifier", ["trace_id", "span_id"])
@pytest.mark.parametrize("value", [b"", b"short", bytes(16), bytes(8), b"x" * 40])
def test_a_call_without_usable_ids_is_rejected(identifier: str, value: bytes) -> None:
    assert isinstance(dialects.read(span(CALL, **{identifier: value}), ()), Rejected)


@pytest.mark.parametrize("operation", ["execute_tool", "create_agent", "fetch_response"])
def test_operations_without_tokens_are_not_billable(operation: str) -> None:
    assert isinstance(dialects.read(span({**CALL, "gen_ai.operation.name": operation}), ()), NotBillable)


def test_other_spans_are_not_billable() -> None:
    assert dialects.read(span({}), ()) == NotBillable("not_genai")
    assert dialects.read(span({"farebox.wallet": "ada"}), ()) == NotBillable("not_genai")


def test_an_unknown_operation_that_used_tokens_is_a_call() -> None:
    record = read({**CALL, "gen_ai.operation.name": "dream", "gen_ai.usage.output_tokens": 1})
    assert record.buckets == Buckets(output=1)
    assert "operation_unknown" in record.assumptions


def test_agents_are_told_from_calls() -> None:
    used = {"gen_ai.usage.input_tokens": 1, "gen_ai.usage.output_tokens": 1}
    assert read({**CALL, **used, "gen_ai.operation.name": "invoke_agent"}).summary
    assert not read(CALL).summary


def test_no_usage_is_unknown_usage_not_zero() -> None:
    assert read(CALL).buckets is None


@pytest.mark.parametrize(
    ("attributes", "wallet"),
    [
        ({"farebox.wallet": "ada", "user.id": "bob"}, "ada"),
        ({"enduser.id": "eve", "user.id": "bob"}, "bob"),
        ({"enduser.id": "eve"}, "eve"),
        ({"user.id": 42}, "42"),
        ({"user.id": ""}, "unattributed"),
        ({}, "unattributed"),
        ({"farebox.wallet": "x" * 201, "user.id": "bob"}, "unattributed"),
        ({"farebox.wallet": "ada\n"}, "unattributed"),
        ({"farebox.wallet": ("ada", "bob")}, "unattributed"),
        ({"farebox.wallet": True}, "unattributed"),
        ({"farebox.wallet": 1.5}, "unattributed"),
    ],
)
def test_the_wallet_is_the_first_that_is_named_and_nobody_else(attributes: Attributes, wallet: str) -> None:
    assert read({**CALL, **attributes}).wallet == wallet


def test_texts_are_bounded_and_printable() -> None:
    record = read({**CALL, "gen_ai.request.model": "m" * 10_000, "farebox.event": "a\x00b\nc"})
    assert record.request_model == "m" * 200
    assert record.event == "a\ufffdb\ufffdc"


counts = st.integers(0, 10**6)


@given(counts, counts, counts, counts, counts, counts, counts, st.booleans())
def test_buckets_are_never_negative_and_sum_to_what_was_reported(
    fresh: int, read_: int, write: int, hour: int, audio: int, output: int, reasoning: int, inclusive: bool
) -> None:
    reported = fresh + audio + (read_ + write if inclusive else 0)
    attributes = {
        **CALL,
        "gen_ai.usage.input_tokens": reported,
        "gen_ai.usage.output_tokens": output,
        "gen_ai.usage.cache_read.input_tokens": read_,
        "gen_ai.usage.cache_write.input_tokens": write,
        "anthropic.usage.cache_creation.ephemeral_1h_input_tokens": hour,
        "gen_ai.usage.audio.input_tokens": audio,
        "gen_ai.usage.reasoning.output_tokens": reasoning,
    }
    reading = read(attributes)
    buckets = reading.buckets
    assert buckets is not None
    assert min(buckets) >= 0
    assert buckets.cache_write + buckets.cache_write_1h == write
    cached_audio = dict(reading.units).get("cache_audio_read_tokens", 0)
    outside = "cache_outside_input" in reading.assumptions
    beside = audio if "modalities_beside_text" in reading.assumptions else 0
    assert buckets.inclusive_input + cached_audio == reported + beside + (read_ + write if outside else 0)
    assert buckets.output + buckets.output_audio == output + (reasoning if reasoning > output else 0)
    assert buckets.reasoning <= buckets.output
