"""Spans of the real emitters: the same calls have the same buckets with every emitter."""

import pytest
from farebox_collector.dialects.assumptions import ASSUMPTIONS
from farebox_collector.model.records import Span, UsageRecord
from goldens import ANTHROPIC_CLIENT, CALLS, EMITTERS, calls_of, read_all, spans_of
from lacking import NOT_INSTRUMENTED, expected_of

# Its streams with tools answer without calling one, and pydantic-ai always streams from Anthropic.
SINGLE_CALLS = {("pydantic-ai", "anthropic.agent")}


def calls(spans: list[Span]) -> list[tuple[str, UsageRecord]]:
    """The model calls that spans tell of, with the scope that told of each; what sums up others is left out."""
    return [
        (span.scope_name, reading)
        for span, reading in read_all(spans)
        if isinstance(reading, UsageRecord) and not reading.summary
    ]


def test_all_emitters_were_recorded() -> None:
    assert len(EMITTERS) >= 20
    assert {call for emitter in EMITTERS for call in calls_of(emitter).values()} == CALLS.keys()


@pytest.mark.parametrize("emitter", EMITTERS)
def test_the_same_calls_have_the_same_buckets(emitter: str) -> None:
    spans = spans_of(emitter)
    for call in calls_of(emitter).values():
        found = calls(spans.get(call, []))
        assert bool(found) is ((emitter, call) not in NOT_INSTRUMENTED), call
        for scope in {scope for scope, _ in found}:
            told = [(usage.buckets, usage.units) for by, usage in found if by == scope]
            if (emitter, call) == ("vercel", "openai.embeddings"):
                told.remove((None, ()))  # the span around the call, which says nothing
            wanted = 1 if (emitter, call) in SINGLE_CALLS else CALLS[call].calls
            assert told == [expected_of(emitter, scope, call)] * wanted, (call, scope)


@pytest.mark.parametrize("emitter", EMITTERS)
def test_providers_models_and_assumptions_are_known_ones(emitter: str) -> None:
    for call, spans in spans_of(emitter).items():
        for scope, usage in calls(spans):
            client = call.split(".")[0]
            providers = ("google", "gemini", "gcp") if client == "google" else (client,)
            assert usage.provider.startswith(providers), (call, scope)
            assert usage.request_model or usage.response_model
            assert set(usage.assumptions) <= ASSUMPTIONS.keys()
            assert (usage.operation == "embeddings") is call.endswith("embeddings")


@pytest.mark.parametrize("emitter", EMITTERS)
def test_failures_are_told_from_calls_without_usage(emitter: str) -> None:
    for call, spans in spans_of(emitter).items():
        for scope, usage in calls(spans):
            if emitter != "mistralai":  # it leaves the status of a refused call unset
                assert bool(usage.error_type) is call.endswith(".error"), (call, scope)


@pytest.mark.parametrize("emitter", EMITTERS)
def test_what_sums_up_calls_is_no_call(emitter: str) -> None:
    spans = spans_of(emitter)
    for call in ("openai.agent", "anthropic.agent"):
        readings = [reading for _, reading in read_all(spans.get(call, [])) if isinstance(reading, UsageRecord)]
        for summary in (usage for usage in readings if usage.summary and usage.buckets):
            assert summary.buckets is not None
            parts = [usage for usage in readings if not usage.summary and usage.buckets]
            assert sum(usage.buckets.output for usage in parts if usage.buckets) >= summary.buckets.output


@pytest.mark.parametrize("emitter", EMITTERS)
def test_nothing_that_was_said_passes_the_door(emitter: str) -> None:
    for spans in spans_of(emitter).values():
        for span in spans:
            for key, value in span.attributes.items():
                # The recordings have this in place of prompts and answers.
                assert "[cut]" not in str(value), key
                assert len(str(value)) < 1000, key


def test_the_anthropic_client_is_heard_beside_every_instrumentation() -> None:
    for emitter in ("genai-anthropic", "openllmetry", "openinference", "logfire", "pydantic-ai"):
        scopes = {span.scope_name for span in spans_of(emitter)["anthropic.chat"]}
        assert ANTHROPIC_CLIENT in scopes
        assert len(scopes) > 1


def test_a_stream_that_logfire_reports_when_it_is_over_has_the_time_that_it_took() -> None:
    spans = spans_of("logfire")["anthropic.stream"]
    (own,) = (usage for scope, usage in calls(spans) if scope == ANTHROPIC_CLIENT)
    (told,) = (usage for scope, usage in calls(spans) if scope != ANTHROPIC_CLIENT)
    assert told.latency_ns > 0
    assert own.started_at_ns < told.started_at_ns < own.started_at_ns + own.latency_ns
