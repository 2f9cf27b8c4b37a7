"""Recorded sessions of Claude Code, Codex CLI and Gemini CLI are read as what the model server answered."""

import json
import re
from pathlib import Path

import pytest
from agent_sessions import (
    ANSWERS,
    BY_SUBSCRIPTION,
    FAILURES,
    NAMES_NOBODY,
    SESSIONS,
    SPANS_ARE_CALLS,
    calls_in,
    read,
    records_of,
    requests_of,
    session,
    spans_of,
)
from farebox_collector.dialects.assumptions import ASSUMPTIONS
from farebox_collector.model.records import NotBillable, UsageRecord


def answered(usages: list[UsageRecord]) -> list[UsageRecord]:
    return [usage for usage in usages if not usage.error_type]


def test_all_sessions_are_compared() -> None:
    assert ANSWERS.keys() == set(SESSIONS)
    for name, answers in ANSWERS.items():
        assert len([step for step in session(name)["answered"] if "usage" in step]) == len(answers)


@pytest.mark.parametrize("name", SESSIONS)
def test_events_are_read_as_what_was_answered(name: str) -> None:
    usages = calls_in(records_of(name))
    assert [usage.buckets for usage in answered(usages)] == [answer.buckets for answer in ANSWERS[name]]
    assert [usage.error_type for usage in usages if usage.error_type] == FAILURES.get(name, [])
    for usage in usages:
        payer = ("unattributed", "") if name in NAMES_NOBODY else ("platform", "shop")
        assert (usage.wallet, usage.project) == payer
        assert usage.event == "agent.code"
        assert usage.request_model
        assert set(usage.assumptions) <= ASSUMPTIONS.keys()
        assert (usage.stated_cost_nanousd == 0) is (name in BY_SUBSCRIPTION)


@pytest.mark.parametrize("name", SESSIONS)
def test_each_call_has_ids_of_its_own_and_the_session_as_its_action(name: str) -> None:
    usages = calls_in(records_of(name))
    assert len({(usage.trace_id, usage.span_id) for usage in usages}) == len(usages)
    assert {len(usage.trace_id) for usage in usages} == {16}
    assert {len(usage.span_id) for usage in usages} == {8}
    assert calls_in(records_of(name)) == usages
    assert all(usage.action_id for usage in usages)


@pytest.mark.parametrize("name", SPANS_ARE_CALLS)
def test_spans_tell_the_same_calls_by_the_same_request_ids(name: str) -> None:
    by_log, by_span = answered(calls_in(records_of(name))), calls_in(spans_of(name))
    told = ("response_id", "buckets", "provider", "request_model", "wallet", "project", "event", "user_id", "action_id")
    assert [[getattr(usage, field) for field in told] for usage in by_span] == [
        [getattr(usage, field) for field in told] for usage in by_log
    ]
    request_ids = [step["request_id"] for step in session(name)["answered"] if "usage" in step]
    assert [usage.response_id for usage in by_log] == request_ids
    assert all(usage.time_to_first_chunk_ns for usage in by_span)


@pytest.mark.parametrize("name", sorted(set(SESSIONS) - set(SPANS_ARE_CALLS)))
def test_other_spans_are_no_calls_because_events_tell_them(name: str) -> None:
    assert all(isinstance(read(span), NotBillable) for span in spans_of(name))


def test_an_account_names_the_developer() -> None:
    for name in ("claude-code-account", "codex-cli-account"):
        (usage,) = calls_in(records_of(name))
        assert (usage.wallet, usage.user_id) == ("platform", "dev@example.com")


def test_a_subagent_is_named_by_its_events() -> None:
    assert [usage.route for usage in calls_in(records_of("claude-code-subagent"))] == ["", "Explore", ""]


@pytest.mark.parametrize("name", [name for name in SESSIONS if name.startswith("claude-code")])
def test_claude_code_s_own_figure_is_the_cost_that_was_worked_out(name: str) -> None:
    stated = [
        int(pair["value"]["intValue"]) * 1000
        for body in requests_of(name, "logs")
        for resource in json.loads(body)["resourceLogs"]
        for scope in resource["scopeLogs"]
        for record in scope["logRecords"]
        for pair in record["attributes"]
        if pair["key"] == "cost_usd_micros"
    ]
    assert stated == [answer.cost_nanousd for answer in ANSWERS[name]]


def test_calls_take_the_time_that_the_tool_measured() -> None:
    for name in ("claude-code", "gemini-cli"):
        assert all(0 < usage.latency_ns < 10 * 10**9 for usage in calls_in(records_of(name)))


def test_every_reason_to_charge_nothing_is_documented() -> None:
    repository = Path(__file__).parents[2]
    sources = (repository / "collector" / "farebox_collector" / "dialects").glob("*.py")
    told = {reason for path in sources for reason in re.findall(r'NotBillable\("(\w+)"\)', path.read_text("utf-8"))}
    section = (
        (repository / "docs/reference/verdicts.md").read_text("utf-8").partition("## Reasons of `not_billable`")[2]
    )
    assert set(re.findall(r"^\| `(\w+)` \|", section.partition("\n## ")[0], re.MULTILINE)) == told


@pytest.mark.parametrize("name", SESSIONS)
def test_nothing_that_was_said_passes_the_door(name: str) -> None:
    assert "[cut]" in json.dumps(session(name))
    for span in records_of(name) + spans_of(name):
        for key, value in span.attributes.items():
            # The recordings have this in place of prompts, answers, and results of tools.
            assert "[cut]" not in str(value), key
            assert len(str(value)) < 300, key
