"""What the dialects of coding agents have in common: who pays, the session, and the record of a call.

These tools report by log events, and some of them by spans too. Both go through `agent_record`, so that one call is
attributed alike by both.
"""

from typing import NamedTuple

from farebox_collector.dialects.attribution import WALLET, Origin
from farebox_collector.dialects.event_identity import identified
from farebox_collector.dialects.reconcile import Reading
from farebox_collector.dialects.record import Named, usage_record
from farebox_collector.dialects.text import clean, first_identity, first_text
from farebox_collector.model.names import is_valid_text
from farebox_collector.model.records import (
    NO_EVENT,
    UNDER_SUBSCRIPTION,
    Attributes,
    AttributeValue,
    Rejected,
    Span,
    UsageRecord,
)
from farebox_collector.model.units import Units

AGENT_EVENT = "agent.code"
"""The event of a coding agent's calls unless the tool names another one with `farebox.event`."""

TOOLS = ("claude_code", "codex_cli", "gemini_cli", "qwen_code")
"""The dialects of coding agents."""

PERSON = ("user.email", "user.account_uuid", "user.account_id")
"""Attributes that name the developer, in order."""
INSTALLATION = "user.id"
"""Names an installation and not a person in Claude Code, so the attributes above come before it."""
ORGANIZATION = "organization.id"
_TEAM = ("team.id", "team", "department")
_REPOSITORY = ("vcs.repository.name", "vcs.repository.url.full", "repository")
_WORK = ("vcs.change.id", "vcs.ref.head.name", "branch")
"""What is worked on: a pull request, else a branch."""
_RESOURCE_TAGS = frozenset({*_TEAM, *_REPOSITORY, *_WORK})
_DAY_MS = 86_400_000
_LONGEST_NUMBER = 40

KEYS = _RESOURCE_TAGS.union(PERSON, {INSTALLATION, ORGANIZATION})
"""The attributes read here. A dialect of an agent adds its own."""


class Told(NamedTuple):
    """What an event tells about its call besides names and counts. Texts are empty if the tool does not tell."""

    session: str = ""
    sequence: str = ""
    """The position of the event in its session, as the tool numbers events."""
    request_id: str = ""
    """The provider's id of the request (`req_…`)."""
    response_id: str = ""
    """The provider's id of the response (`msg_…`, `resp_…`)."""
    took_ns: int | None = None
    first_chunk_ns: int | None = None
    subscription: bool = False
    """Whether the tool says that a subscription pays, so that the provider bills nothing for the call."""
    subagent: str = ""


def agent_record(
    span: Span, origin: Origin, named: Named, reading: Reading, told: Told, units: Units = ()
) -> UsageRecord | Rejected:
    """Build the record of a coding agent's call from a log event or a span; `named.dialect` names the tool.

    Log events get permanent ids (`event_identity`). They are written at the end of a call: the start is `took_ns`
    before. A failed call without usage has no response id, and costs nothing.
    """
    span = identified(
        span,
        named.dialect,
        request_id=told.request_id,
        session=told.session,
        sequence=told.sequence,
        counts=reading.buckets or (),
    )
    if told.took_ns is not None and span.start_ns == span.end_ns:
        span = span._replace(start_ns=max(0, span.end_ns - told.took_ns))
    failed = reading.buckets is None and bool(named.error_type or span.failed)
    response_id = "" if failed else told.response_id or told.request_id
    record = usage_record(
        span, agent_origin(origin, span, told.subagent), named, reading, units, response_id, told.first_chunk_ns
    )
    if isinstance(record, Rejected):
        return record
    if not record.action_id and told.session:
        record = record._replace(action_id=told.session)
    if told.subscription:
        record = record._replace(stated_cost_nanousd=0, assumptions=(*record.assumptions, UNDER_SUBSCRIPTION))
    return record


def agent_origin(origin: Origin, span: Span, subagent: str = "") -> Origin:
    """Return who pays for a coding agent's call, and its tags.

    The wallet is `farebox.wallet`, else what the configured attributes name, else the developer, else the organization.
    An installation's id counts only if no attribute names the developer.
    """
    attributes = span.attributes
    person = first_identity(attributes, *PERSON)
    wallet, assumptions = origin.wallet, origin.assumptions
    unnamed = "wallet_missing" in assumptions
    if unnamed or (not attributes.get(WALLET) and wallet == str(attributes.get(INSTALLATION, ""))):
        found = _name(attributes, (*PERSON, INSTALLATION, ORGANIZATION))
        if found:
            wallet, assumptions = found, tuple(one for one in assumptions if one != "wallet_missing")
    user_id = person or origin.user_id
    return origin._replace(
        wallet=wallet,
        assumptions=assumptions,
        event=AGENT_EVENT if origin.event == NO_EVENT else origin.event,
        dept=origin.dept or _tag(span, _TEAM),
        project=origin.project or _tag(span, _REPOSITORY),
        task=origin.task or _tag(span, _WORK),
        route=origin.route or clean(subagent),
        user_id="" if user_id == wallet else user_id,
    )


def reported_usage(reading: Reading) -> Reading:
    """Return the reading of an event. If all counts are zero, it tells no usage: tools write zeros where the provider
    reported nothing."""
    buckets = reading.buckets
    return reading if buckets is None or buckets.total else reading._replace(buckets=None)


def text_of(value: AttributeValue | None) -> str:
    """Return a number or a text as a text: tools write the same attribute in both forms."""
    return "" if value is None else clean(value)


def nanoseconds_of_ms(value: AttributeValue | None) -> int | None:
    """Convert milliseconds, as a number or a text, to nanoseconds; None unless they are less than a day."""
    if isinstance(value, bool) or not isinstance(value, int | float | str) or len(str(value)) > _LONGEST_NUMBER:
        return None
    try:
        milliseconds = float(value)
    except ValueError:
        return None
    return round(milliseconds * 1e6) if 0 <= milliseconds < _DAY_MS else None


def _name(attributes: Attributes, keys: tuple[str, ...]) -> str:
    """Return the first usable name; empty if there is none. Names are never altered."""
    for key in keys:
        value = attributes.get(key)
        if isinstance(value, str) and value and is_valid_text(value):
            return value
    return ""


def _tag(span: Span, keys: tuple[str, ...]) -> str:
    return first_text(span.attributes, *keys) or first_text(span.resource, *keys)
