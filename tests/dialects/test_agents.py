"""Who pays for a coding agent's call, and what its record has beside names and counts."""

from typing import Any

import pytest
from farebox_collector.cache.tariffs import Tariffs
from farebox_collector.dialects.agents import PERSON, PlainCounts, Told, agent_record, nanoseconds_of_ms
from farebox_collector.dialects.attribution import ATTRIBUTION_KEYS, origin_of
from farebox_collector.dialects.counts import Counts, Slots
from farebox_collector.dialects.memo import SpanShape
from farebox_collector.dialects.reconcile import Habits, Reading, Reported
from farebox_collector.dialects.record import Named
from farebox_collector.intake.reader import SpanReader
from farebox_collector.ledger.storage.database import Database
from farebox_collector.model.records import EVENT_NAME, Buckets, PricedUsage, Span, UsageRecord
from farebox_collector.settings import Settings
from hypothesis import given
from hypothesis import strategies as st

NOW_NS = 1_790_000_000_000_000_000
NAMED = Named("a_tool", "scope", "chat", "anthropic", "claude-sonnet-4-5", "claude-sonnet-4-5")
CONFIGURED = ("user.id", "enduser.id", "customer")


def told_by(attributes: dict[str, Any], told: Told = Told(), **more: Any) -> UsageRecord:  # noqa: B008
    """The record of an event with these attributes."""
    reading = more.pop("reading", Reading(Buckets(input=10, output=2)))
    span = Span(b"", b"", b"", NOW_NS, NOW_NS, False, attributes | {EVENT_NAME: "a_tool.call"}, {}, "scope", "1")
    shape = SpanShape("", frozenset(attributes), attributes)
    assert frozenset(attributes) >= ATTRIBUTION_KEYS & attributes.keys()
    record = agent_record(span, origin_of(shape, CONFIGURED), more.pop("named", NAMED), reading, told)
    assert isinstance(record, UsageRecord)
    return record


@pytest.mark.parametrize(
    ("attributes", "wallet", "user"),
    [
        ({"farebox.wallet": "team", "user.email": "ada@example.com", "user.id": "f00"}, "team", "ada@example.com"),
        ({"user.email": "ada@example.com", "user.account_uuid": "u", "user.id": "f00"}, "ada@example.com", ""),
        ({"user.email": "", "user.account_uuid": "u", "user.id": "f00"}, "u", ""),
        ({"user.account_id": "a", "organization.id": "o"}, "a", ""),
        ({"customer": "c", "user.email": "ada@example.com"}, "c", "ada@example.com"),
        ({"user.id": "f00", "organization.id": "o"}, "f00", ""),
        ({"organization.id": "o"}, "o", ""),
        ({"user.email": "x" * 201, "organization.id": "o"}, "o", None),
        ({}, "unattributed", ""),
    ],
)
def test_who_pays(attributes: dict[str, Any], wallet: str, user: str | None) -> None:
    record = told_by(attributes)
    assert record.wallet == wallet
    assert user is None or record.user_id == user
    assert ("wallet_missing" in record.assumptions) is (wallet == "unattributed")


def test_event_session_and_tags() -> None:
    plain = told_by({}, Told(session="s1"))
    assert (plain.event, plain.action_id) == ("agent.code", "s1")
    attributes = {
        "farebox.event": "agent.review",
        "farebox.action.id": "job-7",
        "team.id": "platform",
        "vcs.repository.name": "shop",
        "vcs.ref.head.name": "main",
        "vcs.change.id": "412",
    }
    tagged = told_by(attributes, Told(session="s1", subagent="reviewer"))
    assert (tagged.event, tagged.action_id) == ("agent.review", "job-7")
    assert (tagged.dept, tagged.project, tagged.task, tagged.route) == ("platform", "shop", "412", "reviewer")
    own = told_by(attributes | {"farebox.dept": "d", "farebox.project": "p", "farebox.task": "t", "farebox.route": "r"})
    assert (own.dept, own.project, own.task, own.route) == ("d", "p", "t", "r")


def test_times_ids_and_failures() -> None:
    call = told_by({}, Told(request_id="req_1", took_ns=5_000, first_chunk_ns=7))
    assert (call.started_at_ns, call.latency_ns, call.time_to_first_chunk_ns) == (NOW_NS - 5_000, 5_000, 7)
    assert call.response_id == "req_1"
    assert told_by({}, Told(request_id="req_1", response_id="msg_1")).response_id == "msg_1"
    failed = told_by({}, Told(request_id="req_1"), reading=Reading(None), named=NAMED._replace(error_type="529"))
    assert (failed.response_id, failed.error_type, failed.buckets) == ("", "529", None)
    assert failed.span_id == call.span_id  # the request's, under the same event
    subscribed = told_by({}, Told(subscription=True))
    assert (subscribed.stated_cost_nanousd, "under_subscription" in subscribed.assumptions) == (0, True)


@given(st.one_of(st.integers(), st.floats(), st.text(max_size=50), st.booleans(), st.none()))
def test_milliseconds_of_any_form(value: Any) -> None:
    found = nanoseconds_of_ms(value)
    assert found is None or 0 <= found <= 86_400 * 10**9
    if type(value) is int and 0 <= value < 86_400_000:
        assert found == nanoseconds_of_ms(str(value)) == value * 10**6


def test_a_tool_s_event_can_be_set(database: Database) -> None:
    settings = Settings.model_validate({"agent_events": "claude_code=agent.review"})
    reader = SpanReader(settings, Tariffs(database, lambda: NOW_NS))
    attributes = {
        EVENT_NAME: "claude_code.api_request",
        "model": "claude-sonnet-4-5",
        "input_tokens": "10",
        "output_tokens": "2",
        "cost_usd": "0.1",
        PERSON[0]: "ada@example.com",
    }
    span = Span(b"", b"", b"", NOW_NS, NOW_NS, False, attributes, {}, "com.anthropic.claude_code.events", "2")
    for event, expected in ((None, "agent.review"), ("agent.mine", "agent.mine")):
        told = attributes | ({"farebox.event": event} if event else {})
        read = reader.read(span._replace(attributes=told), 1, NOW_NS)
        assert isinstance(read, PricedUsage)
        assert (read.usage.event, read.usage.wallet) == (expected, "ada@example.com")


@pytest.mark.parametrize("key", [*PERSON, "organization.id"])
def test_accounts_of_a_subscription_are_billed_nothing(database: Database, key: str) -> None:
    settings = Settings.model_validate({"subscription_accounts": "other, the-account"})
    reader = SpanReader(settings, Tariffs(database, lambda: NOW_NS))
    for account, subscribed in (("the-account", True), ("another", False)):
        attributes = {
            EVENT_NAME: "claude_code.api_request",
            "model": "claude-sonnet-4-5",
            "input_tokens": "10",
            "output_tokens": "2",
            key: account,
        }
        span = Span(b"", b"", b"", NOW_NS, NOW_NS, False, attributes, {}, "com.anthropic.claude_code.events", "2")
        read = reader.read(span, 1, NOW_NS)
        assert isinstance(read, PricedUsage)
        listed = 10 * 3_000 + 2 * 15_000
        assert read.cost_nanousd == (0 if subscribed else listed)
        assert ("under_subscription" in read.assumptions) is subscribed
        assert (read.particulars and read.particulars.list_cost_nanousd) == (listed if subscribed else None)


COUNT_KEYS = PlainCounts("input_tokens", "cache_read_tokens", "cache_creation_tokens", "output_tokens")
COUNT_VALUES = st.one_of(
    st.integers(-1, 2**31),
    st.integers(0, 10**6).map(str),
    st.sampled_from(["", "x", "007", "1.0", " 5", "٣", True, 2.0, str(10**9), 10**9]),
)


@given(st.dictionaries(st.sampled_from(COUNT_KEYS), COUNT_VALUES))
def test_the_fast_path_of_counts_reads_what_the_slow_one_reads(attributes: dict[str, Any]) -> None:
    fast = COUNT_KEYS.reading(attributes)
    if fast is not None:
        fields = ("input", "cache_read", "cache_write", "output")
        slots = Slots({key: (Reported._fields.index(name), 0) for key, name in zip(COUNT_KEYS, fields, strict=True)})
        assert fast == Counts.of(slots, attributes, Habits(cache_inside=False)).reading(attributes)
    elif attributes.keys() == set(COUNT_KEYS):
        assert not all(type(value) is int and 0 <= value < 10**9 for value in attributes.values())
