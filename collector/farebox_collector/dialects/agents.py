"""What the dialects of coding agents have in common: who pays, the session, and the record of a call.

These tools report by log events, and some of them by spans too. Both go through `agent_record`, so that one call is
attributed alike by both.
"""

from typing import NamedTuple

from farebox_collector.dialects.attribution import WALLET, Origin
from farebox_collector.dialects.event_identity import ids_of
from farebox_collector.dialects.reconcile import Reading
from farebox_collector.dialects.record import Named, usage_record
from farebox_collector.dialects.text import MAX_BUCKET, clean, first_identity, first_text
from farebox_collector.model.names import is_valid_text
from farebox_collector.model.records import (
    NO_EVENT,
    UNDER_SUBSCRIPTION,
    Attributes,
    AttributeValue,
    Buckets,
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
BILLING = ("auth_mode", "auth_type")
"""Attributes by which some tools tell how the developer is logged in: with a subscription, a key, a cloud account."""
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
    session, sequence, request_id, response_id, took_ns, first_chunk_ns, subscription, subagent = told
    _, _, _, start_ns, end_ns, failed, attributes, resource, scope_name, scope_version = span
    trace_id, span_id, parent = ids_of(span, named.dialect, request_id, session, sequence, reading.buckets or ())
    if took_ns is not None and start_ns == end_ns:
        start_ns = max(0, end_ns - took_ns)
    times = start_ns, end_ns, failed
    span = _named(Span, (trace_id, span_id, parent, *times, attributes, resource, scope_name, scope_version))
    if not origin.of_agent:
        origin = agent_origin(origin, attributes, resource)
    if subagent and not origin.route:
        origin = origin._replace(route=clean(subagent))
    if reading.buckets is None and (named.error_type or failed):
        response_id = request_id = ""
    record = usage_record(
        span, origin, named, reading, units, response_id or request_id, first_chunk_ns, action_id=session
    )
    return under_subscription(record) if subscription and not isinstance(record, Rejected) else record


def under_subscription(record: UsageRecord) -> UsageRecord:
    """Return the record of a call that a subscription pays."""
    if UNDER_SUBSCRIPTION in record.assumptions:
        return record
    return record._replace(stated_cost_nanousd=0, assumptions=(*record.assumptions, UNDER_SUBSCRIPTION))


def accounts_of(span: Span) -> list[str]:
    """Return the accounts that a coding agent's call names: those of the developer, and the organization."""
    return [first_identity(span.attributes, key) for key in (*PERSON, ORGANIZATION) if key in span.attributes]


def is_logged_in(record: UsageRecord, span: Span) -> bool:
    """Return whether a call may belong to a seat: its tool names the account of a person, and no API key."""
    told = any(span.attributes.get(key) for key in BILLING)
    if told:
        return UNDER_SUBSCRIPTION in record.assumptions
    return any(first_identity(span.attributes, key) for key in PERSON)


def agent_origin(origin: Origin, attributes: Attributes, resource: Attributes) -> Origin:
    """Return who pays for a coding agent's call, and its tags.

    The wallet is `farebox.wallet`, else what the configured attributes name, else the developer, else the organization.
    An installation's id counts only if no attribute names the developer.
    """
    person = first_identity(attributes, *PERSON)
    wallet, assumptions = origin.wallet, origin.assumptions
    unnamed = "wallet_missing" in assumptions
    if unnamed or (not attributes.get(WALLET) and wallet == str(attributes.get(INSTALLATION, ""))):
        found = _name(attributes, (*PERSON, INSTALLATION, ORGANIZATION))
        if found:
            wallet, assumptions = found, tuple(one for one in assumptions if one != "wallet_missing")
    user_id = person or origin.user_id

    def tag(keys: tuple[str, ...]) -> str:
        return first_text(attributes, *keys) or first_text(resource, *keys)

    return origin._replace(
        wallet=wallet,
        assumptions=assumptions,
        event=AGENT_EVENT if origin.event == NO_EVENT else origin.event,
        dept=origin.dept or tag(_TEAM),
        project=origin.project or tag(_REPOSITORY),
        task=origin.task or tag(_WORK),
        user_id="" if user_id == wallet else user_id,
        of_agent=True,
    )


class PlainCounts(NamedTuple):
    """The attributes of an event whose cache is beside its input, for the fast path of `reading`."""

    input: str
    cache_read: str
    cache_write: str
    output: str

    def reading(self, attributes: Attributes) -> Reading | None:
        """Return the reading of four plausible counts, numbers or digits as text; None for anything else.

        Equal to what `reconcile.disjoint` makes of them, in a fifth of the time.
        """
        counts = []
        for key in self:
            value = attributes.get(key)
            if type(value) is str and len(value) <= _SHORT_NUMBER and value.isdecimal() and value.isascii():
                value = int(value)
            if type(value) is not int or not 0 <= value < MAX_BUCKET:
                return None
            counts.append(value)
        went_in, read, written, out = counts
        buckets = _named(Buckets, (went_in, read, written, 0, 0, 0, out, 0, 0, 0))
        return _named(Reading, (buckets, _WRITTEN if written else (), (), None))


_WRITTEN = ("cache_write_lifetime_unknown",)
_SHORT_NUMBER = 9
_named = tuple.__new__


def reported_usage(reading: Reading) -> Reading:
    """Return the reading of an event. If all counts are zero, it tells no usage: tools write zeros where the provider
    reported nothing."""
    buckets = reading.buckets
    used = buckets is None or buckets.input or buckets.output or buckets.total
    return reading if used else reading._replace(buckets=None)


def text_of(value: AttributeValue | None) -> str:
    """Return a number or a text as a text: tools write the same attribute in both forms."""
    return "" if value is None else clean(value)


def nanoseconds_of_ms(value: AttributeValue | None) -> int | None:
    """Convert milliseconds, as a number or a text, to nanoseconds; None unless they are less than a day."""
    if value is None or isinstance(value, bool | tuple):
        return None
    if type(value) is str and len(value) <= _SHORT_NUMBER and value.isdecimal():
        whole = int(value)
        return whole * 1_000_000 if whole < _DAY_MS else None
    if len(str(value)) > _LONGEST_NUMBER:
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
