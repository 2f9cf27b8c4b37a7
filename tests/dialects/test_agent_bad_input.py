"""Log events of coding agents with bad input: read alike, bounded, or refused with a reason."""

from collections.abc import Mapping

import pytest
from agent_sessions import records_of
from farebox_collector import dialects
from farebox_collector.dialects.text import MAX_BUCKET
from farebox_collector.intake.decoding.otlp_json_logs import JsonLogDecoder
from farebox_collector.intake.decoding.protobuf_logs import ProtobufLogDecoder
from farebox_collector.model.records import EVENT_NAME, AttributeValue, NotBillable, Rejected, Span, UsageRecord
from hypothesis import given, settings
from hypothesis import strategies as st
from logs import LogSpec, logs_as_json, logs_request

MANY = settings(max_examples=100, deadline=None, database=None)
NOW_NS = 1_790_000_000_123_000_000
COUNTS = {
    "claude_code": ("input_tokens", "output_tokens", "cache_read_tokens", "cache_creation_tokens"),
    "codex_cli": ("input_token_count", "output_token_count", "cached_token_count", "reasoning_token_count"),
    "gemini_cli": ("input_token_count", "output_token_count", "cached_content_token_count", "thoughts_token_count"),
    "qwen_code": ("input_token_count", "output_token_count", "cached_content_token_count", "thoughts_token_count"),
}
SCOPES = {
    "claude_code": "com.anthropic.claude_code.events",
    "codex_cli": "codex_otel.log_only",
    "gemini_cli": "gemini-cli",
    "qwen_code": "qwen-code",
}
CALLS: dict[str, dict[str, AttributeValue]] = {
    "claude_code": {EVENT_NAME: "claude_code.api_request", "model": "claude-sonnet-4-5", "session.id": "s"},
    "codex_cli": {
        EVENT_NAME: "codex.sse_event",
        "event.kind": "response.completed",
        "model": "gpt-5-mini",
        "conversation.id": "s",
    },
    "gemini_cli": {EVENT_NAME: "gemini_cli.api_response", "model": "gemini-2.5-flash", "session.id": "s"},
    "qwen_code": {EVENT_NAME: "qwen-code.api_response", "model": "qwen3-coder-plus", "session.id": "s"},
}
TOOLS = sorted(CALLS)
each_tool = pytest.mark.parametrize("tool", TOOLS)
NUMBERS = st.integers(0, 10**6)
ODD = st.one_of(
    st.none(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(),
    st.booleans(),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
    st.sampled_from(["", "NaN", "1e3", "12 ", "-1", "9" * 50, "1_000", "٣"]),
)


def event(tool: str, counts: Mapping[str, AttributeValue], at_ns: int = NOW_NS, **more: AttributeValue) -> Span:
    """A call's event at the door; `__` for a dot."""
    told = CALLS[tool] | dict(counts) | {key.replace("__", "."): value for key, value in more.items()}
    return Span(b"", b"", b"", at_ns, at_ns, False, told, {}, SCOPES[tool], "1")


def usage(span: Span) -> UsageRecord:
    reading = dialects.read(span, ())
    assert isinstance(reading, UsageRecord), reading
    return reading


@each_tool
@MANY
@given(numbers=st.tuples(NUMBERS, NUMBERS, NUMBERS, NUMBERS))
def test_numbers_as_text_are_numbers(tool: str, numbers: tuple[int, ...]) -> None:
    counts = dict(zip(COUNTS[tool], numbers, strict=True))
    as_numbers = usage(event(tool, counts))
    as_texts = usage(event(tool, {key: str(count) for key, count in counts.items()}, duration_ms="12"))
    assert as_texts.buckets == as_numbers.buckets
    assert (as_texts.trace_id, as_texts.span_id) == (as_numbers.trace_id, as_numbers.span_id)
    assert as_texts.latency_ns == 12 * 10**6


@each_tool
@MANY
@given(values=st.tuples(ODD, ODD, ODD, ODD), took=ODD)
def test_any_value_is_read_or_refused(
    tool: str, values: tuple[AttributeValue | None, ...], took: AttributeValue
) -> None:
    told = zip((*COUNTS[tool], "duration_ms"), (*values, took), strict=True)
    span = event(tool, {key: value for key, value in told if value is not None})
    reading = dialects.read(span, ())
    if isinstance(reading, UsageRecord) and reading.buckets is not None:
        assert all(0 <= count <= MAX_BUCKET for count in reading.buckets)
        assert reading.buckets.total > 0
        assert reading.latency_ns >= 0
    elif isinstance(reading, Rejected):
        assert reading.reason
    else:
        # Without counts Codex's event is the one for the end of the stream.
        assert isinstance(reading, UsageRecord) or tool == "codex_cli"


@each_tool
def test_zeros_are_no_usage_and_not_free(tool: str) -> None:
    assert usage(event(tool, dict.fromkeys(COUNTS[tool], 0))).buckets is None


@each_tool
def test_an_event_that_is_sent_again_is_the_same_call(tool: str) -> None:
    counts = dict.fromkeys(COUNTS[tool], 5)
    sent = usage(event(tool, counts, event__sequence=3))
    assert usage(event(tool, counts, event__sequence=3)) == sent
    assert usage(event(tool, counts, event__sequence="3"))[:2] == sent[:2]


@each_tool
@MANY
@given(later_ns=st.integers(1, 10**18))
def test_a_sequence_that_restarts_is_another_call_of_the_session(tool: str, later_ns: int) -> None:
    counts = dict.fromkeys(COUNTS[tool], 5)
    first, again = (usage(event(tool, counts, at_ns, event__sequence=0)) for at_ns in (NOW_NS, NOW_NS + later_ns))
    assert first.action_id == again.action_id == "s"
    assert first.trace_id != again.trace_id
    assert first.span_id != again.span_id


@each_tool
def test_two_sessions_with_the_same_numbers_are_two_calls(tool: str) -> None:
    counts: dict[str, AttributeValue] = dict.fromkeys(COUNTS[tool], 5)
    key = "conversation.id" if tool == "codex_cli" else "session.id"
    one, other = (usage(event(tool, counts | {key: session})) for session in ("a", "b"))
    assert one.trace_id != other.trace_id
    assert one.span_id != other.span_id


@each_tool
@pytest.mark.parametrize("at_ns", [0, 1, 2**63 - 1, 2**64 - 1])
def test_a_laptop_s_clock_does_not_refuse_a_call(tool: str, at_ns: int) -> None:
    told = usage(event(tool, dict.fromkeys(COUNTS[tool], 5), at_ns, duration_ms=10))
    assert told.buckets is not None
    assert 0 <= told.started_at_ns < 2**63


def test_a_call_without_an_id_and_a_session_is_a_call() -> None:
    for tool in TOOLS:
        counts: dict[str, AttributeValue] = dict.fromkeys(COUNTS[tool], 5)
        empty: dict[str, AttributeValue] = {
            "session.id": "",
            "conversation.id": "",
            "request_id": "",
            "event.sequence": "",
        }
        told = usage(event(tool, counts | empty))
        assert any(told.trace_id)
        assert any(told.span_id)
        assert told.response_id == ""


def test_megabytes_of_prompt_are_dropped_at_the_door() -> None:
    huge = "words " * 400_000
    texts = {"prompt": huge, "response": huge, "error": huge, "arguments": huge, "response_text": huge}
    wanted, reduced = dialects.wanted_log_attributes(()), dialects.reduced_attributes()
    decode_json = JsonLogDecoder(dialects.told_events(), wanted, reduced)
    decode = ProtobufLogDecoder(dialects.told_events(), wanted, dialects.unique_attributes(), reduced)
    for tool in TOOLS:
        told = {key: str(value) for key, value in CALLS[tool].items() if key != EVENT_NAME}
        counts = dict.fromkeys(COUNTS[tool], 5)
        name = str(CALLS[tool][EVENT_NAME])
        spec = LogSpec({**told, **counts, **texts, "error.message": huge}, name, huge, NOW_NS, NOW_NS)
        request = logs_request([spec], scope=(SCOPES[tool], "1"))
        for spans in (decode(request.SerializeToString()), decode_json(logs_as_json(request))):
            (span,) = spans
            assert sum(len(str(value)) for value in span.attributes.values()) < 1_000
            assert usage(span).buckets is not None


def test_a_model_name_of_megabytes_is_cut() -> None:
    for tool in TOOLS:
        told = usage(event(tool, dict.fromkeys(COUNTS[tool], 5), model="m" * 3_000_000))
        assert len(told.request_model) <= 200


def test_events_of_another_scope_or_name_are_no_calls() -> None:
    counts = dict.fromkeys(COUNTS["claude_code"], 5)
    for span in (
        event("claude_code", counts)._replace(scope_name="somebody.else"),
        event("claude_code", counts, event__name="claude_code.assistant_response"),
        event("gemini_cli", counts, event__name="gen_ai.client.inference.operation.details"),
    ):
        assert isinstance(dialects.read(span, ()), NotBillable)


def test_the_event_of_a_stream_s_end_repeats_the_one_with_counts() -> None:
    kinds = [record.attributes.get("event.kind") for record in records_of("codex-cli")]
    counted = [
        usage for record in records_of("codex-cli") if isinstance(usage := dialects.read(record, ()), UsageRecord)
    ]
    assert kinds.count("response.completed") == 2 * len(counted)


@pytest.mark.parametrize(
    ("told", "failure"),
    [
        ({EVENT_NAME: "codex.api_request", "http.response.status_code": 429, "endpoint": "/responses"}, "429"),
        ({EVENT_NAME: "codex.api_request", "http.response.status_code": "503"}, "503"),
        ({EVENT_NAME: "codex.api_request", "error.message": "error"}, "error"),
        ({EVENT_NAME: "codex.api_request", "http.response.status_code": 404, "endpoint": "/models"}, ""),
        ({EVENT_NAME: "codex.api_request", "http.response.status_code": 200, "endpoint": "/responses"}, ""),
        ({EVENT_NAME: "codex.api_request", "http.response.status_code": -1}, ""),
        ({EVENT_NAME: "codex.sse_event", "event.kind": "response.failed", "error.message": "error"}, "response.failed"),
        ({EVENT_NAME: "codex.sse_event", "error.message": "error"}, "stream"),
        ({EVENT_NAME: "codex.sse_event", "event.kind": "response.created"}, ""),
    ],
)
def test_failures_of_codex(told: dict[str, AttributeValue], failure: str) -> None:
    span = Span(b"", b"", b"", NOW_NS, NOW_NS, False, {"model": "gpt-5-mini", **told}, {}, SCOPES["codex_cli"], "1")
    reading = dialects.read(span, ())
    if failure:
        assert isinstance(reading, UsageRecord)
        assert (reading.error_type, reading.buckets, reading.response_id) == (failure, None, "")
    else:
        assert isinstance(reading, NotBillable)


@pytest.mark.parametrize(
    ("counts", "input_tokens", "output_tokens"),
    [
        ({"input": 100, "output": 20, "tool": 7, "total": 127}, 107, 20),
        ({"input": 100, "output": 20, "tool": 7, "total": 0}, 107, 20),
        ({"input": 100, "output": 20, "tool": 7, "total": 120}, 100, 20),
        ({"input": 100, "output": 20, "thoughts": 30, "total": 150}, 100, 50),
    ],
)
def test_tokens_of_tools_and_thoughts_of_gemini(counts: dict[str, int], input_tokens: int, output_tokens: int) -> None:
    buckets = usage(event("gemini_cli", {f"{key}_token_count": count for key, count in counts.items()})).buckets
    assert buckets is not None
    assert (buckets.input, buckets.output) == (input_tokens, output_tokens)


@pytest.mark.parametrize(
    ("model", "provider", "name"),
    [
        ("claude-sonnet-4-5", "anthropic", "claude-sonnet-4-5"),
        ("claude-sonnet-4-5[1m]", "anthropic", "claude-sonnet-4-5"),
        ("us.anthropic.claude-sonnet-4-5-20250929-v1:0", "aws.bedrock", "us.anthropic.claude-sonnet-4-5-20250929-v1:0"),
        ("claude-sonnet-4-5@20250929", "gcp.vertex_ai", "claude-sonnet-4-5@20250929"),
    ],
)
def test_a_model_s_id_shows_the_cloud(model: str, provider: str, name: str) -> None:
    told = usage(event("claude_code", dict.fromkeys(COUNTS["claude_code"], 5), model=model))
    assert (told.provider, told.request_model) == (provider, name)


@pytest.mark.parametrize(
    ("told", "provider", "input_tokens", "output_tokens"),
    [
        ({"auth_type": "openai", "model": "qwen3-coder-plus", "total_token_count": 150}, "alibaba", 60, 50),
        ({"auth_type": "openai", "model": "gpt-5-mini", "total_token_count": 150}, "openai", 60, 50),
        ({"auth_type": "gemini", "model": "gemini-2.5-flash", "total_token_count": 180}, "gcp.gemini", 60, 80),
        ({"auth_type": "openai", "model": "own-model", "total_token_count": 150}, "", 60, 50),
        ({"auth_type": "openai", "model": "own-model", "farebox.provider": "groq"}, "groq", 60, 50),
    ],
)
def test_qwen_code_calls_any_provider(
    told: dict[str, AttributeValue], provider: str, input_tokens: int, output_tokens: int
) -> None:
    counts: dict[str, AttributeValue] = {"input_token_count": 100, "output_token_count": 50}
    counts |= {"cached_content_token_count": 40, "thoughts_token_count": 30}
    reading = usage(event("qwen_code", counts | told))
    assert reading.buckets is not None
    assert (reading.provider, reading.buckets.input, reading.buckets.output) == (provider, input_tokens, output_tokens)
    assert usage(event("qwen_code", counts, auth_type="qwen-oauth")).stated_cost_nanousd == 0
    assert usage(event("qwen_code", counts, response_id="chatcmpl-1")).response_id == "chatcmpl-1"


def test_speed_subagents_and_plans() -> None:
    counts = dict.fromkeys(COUNTS["claude_code"], 5)
    assert usage(event("claude_code", counts, speed="fast")).speed == "fast"
    assert usage(event("claude_code", counts, speed="normal")).speed == ""
    assert usage(event("claude_code", counts, query_source="agent:builtin:Explore")).route == "agent:builtin:Explore"
    assert usage(event("claude_code", counts, query_source="repl_main_thread")).route == ""
    counts = dict.fromkeys(COUNTS["codex_cli"], 5)
    for mode, free in (("Chatgpt", True), ("ApiKey", False), ("", False)):
        assert (usage(event("codex_cli", counts, auth_mode=mode)).stated_cost_nanousd == 0) is free
    counts = dict.fromkeys(COUNTS["gemini_cli"], 5)
    for login, free in (("oauth-personal", True), ("gemini-api-key", False), ("vertex-ai", False)):
        assert (usage(event("gemini_cli", counts, auth_type=login)).stated_cost_nanousd == 0) is free
    assert usage(event("gemini_cli", counts, role="subagent")).route == "subagent"
    assert usage(event("gemini_cli", counts, role="main")).route == ""
