"""Settle records that wait for a price, for a twin that paid, or for the calls of an agent, by corrections.

Each function handles a few records in one transaction and returns its progress; the next call continues from there.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Select, select

from farebox_collector.ledger.tables.books import usage_records
from farebox_collector.ledger.tables.corrections import corrections
from farebox_collector.ledger.usage.corrections import (
    Cause,
    Correction,
    correct,
    cover,
)
from farebox_collector.ledger.usage.deduplication import (
    Payers,
    charge_each_response_once,
    related_to,
    signature_of,
)
from farebox_collector.ledger.usage.entries import Entry, SpanKey
from farebox_collector.ledger.usage.running_totals import TotalLabels
from farebox_collector.ledger.usage.span_index import beside, of_traces
from farebox_collector.ledger.usage.span_matching import is_outranked, show_one_call
from farebox_collector.ledger.usage.stored_usage import (
    StoredCall,
    of_verdict,
    stored_calls,
    usage_query,
)
from farebox_collector.ledger.usage.summed_calls import SUMMED_UP, wrappers_in_the_books
from farebox_collector.ledger.usage.tombstones import has_retired_spans, retired_in_traces
from farebox_collector.model.records import PricedUsage
from farebox_collector.model.verdicts import Verdict

Pricing = Callable[[StoredCall], PricedUsage]
"""Reprices a record, as of the time whose prices it had."""

CALLS_CHARGED = "its calls were charged"
_MAX_RELATIVES = 64
_SLACK_NS = 10**9
"""How much later than its agent a call may appear to end: two clocks, two exporters."""


class Waiting(NamedTuple):
    """The records to settle: those with a verdict that were received before a time, a few after an id."""

    verdict: Verdict
    after_id: int
    received_before_ns: int
    limit: int


class Step(NamedTuple):
    """Progress of a function: the last record that it read, None when there was none left; and its results."""

    last_id: int | None
    corrected: int


def settle_open(
    connection: Connection, tenant_id: int, waiting: Waiting, price: Pricing, at_ns: int, labels: TotalLabels
) -> Step:
    """Charge records that can be priced, unless a twin or a call within them was charged; the others keep waiting."""
    stored = _waiting(connection, tenant_id, waiting)
    wanted = closing_corrections(connection, tenant_id, stored, price)
    cause = Cause.AGENT if waiting.verdict is Verdict.DEFERRED else Cause.LATE_PRICE
    done = correct(connection, tenant_id, cause, wanted, at_ns, labels)
    given_back = give_back_agents_around(connection, tenant_id, done, at_ns, labels)
    return Step(stored[-1].record_id if stored else None, len(done) + given_back)


def closing_corrections(
    connection: Connection, tenant_id: int, stored: Sequence[StoredCall], price: Pricing
) -> list[Correction]:
    """Return the corrections of open records, from their prices and from related charges. Writes nothing."""
    entries = {one.record_id: Entry(price(one)) for one in stored}
    charge_each_response_once(entries.values())
    payers = Payers(connection, tenant_id, entries.values())
    traces = _Traces(connection, tenant_id, (one for one in stored if one.call.usage.summary))
    summed_up = _summed_up(connection, tenant_id, stored)
    wanted = []
    # Innermost first: a charged agent counts as a call of the agents around it.
    for one in sorted(stored, key=lambda one: one.call.usage.latency_ns):
        entry = entries[one.record_id]
        if one.record_id in summed_up:
            entry.cover(SUMMED_UP)
        else:
            _cover_if_paid(entry, one, payers, traces)
        if entry.charged:
            traces.charge(one)
        if entry.verdict is not one.call.verdict:
            wanted.append(Correction(one, entry))
    return wanted


def _summed_up(connection: Connection, tenant_id: int, stored: Sequence[StoredCall]) -> frozenset[int]:
    """Return the ids of records that sum up calls which arrived after them: these are not priced."""
    traces = {one.call.usage.trace_id for one in stored if one.call.verdict is Verdict.UNPRICED}
    return frozenset(one.record_id for one in wrappers_in_the_books(connection, tenant_id, traces))


def _cover_if_paid(entry: Entry, one: StoredCall, payers: Payers, traces: "_Traces") -> None:
    """Cover an entry whose call another record paid for."""
    if one.call.usage.summary and traces.has_charged_call(one):
        entry.cover(CALLS_CHARGED)
    elif payers.paid(entry.call):
        entry.cover()
    elif entry.charged and payers.repeated(entry.call):
        entry.charge_apart()


def settle_unmetered(connection: Connection, tenant_id: int, waiting: Waiting, at_ns: int, labels: TotalLabels) -> Step:
    """Cover calls without usage if another span of the same call had usage and was charged."""
    stored = _waiting(connection, tenant_id, waiting)
    payers = Payers(connection, tenant_id, [Entry(one.call) for one in stored])
    wanted = [cover(one) for one in stored if payers.paid(one.call)]
    return _step(stored, correct(connection, tenant_id, Cause.TWIN, wanted, at_ns, labels))


def settle_doubles(connection: Connection, tenant_id: int, waiting: Waiting, at_ns: int, labels: TotalLabels) -> Step:
    """Give back charges of spans without a response id whose calls were charged again, by a later span with an id or
    by several spans within it."""
    table = usage_records.c
    stored = _waiting(connection, tenant_id, waiting, table.response_id == "")
    by_key = {(one.call.usage.trace_id, one.call.usage.span_id): one for one in stored}
    others = stored_calls(connection, _relatives(connection, tenant_id, by_key)) if stored else ()
    wanted: dict[int, Correction] = {}
    charged = [*stored, *(one for one in others if (one.call.usage.trace_id, one.call.usage.span_id) not in by_key)]
    by_trace: defaultdict[bytes, list[StoredCall]] = defaultdict(list)
    for one in charged:
        if len(by_trace[one.call.usage.trace_id]) < _MAX_RELATIVES:
            by_trace[one.call.usage.trace_id].append(one)
    for one in stored:
        for other in by_trace[one.call.usage.trace_id]:
            if one is not other and show_one_call(one.call, other.call):
                loser = one if is_outranked(one.call, other.call) else other
                wanted[loser.record_id] = cover(loser)
    for wrapper in wrappers_in_the_books(connection, tenant_id, {one.call.usage.trace_id for one in stored}):
        wanted[wrapper.record_id] = cover(wrapper, SUMMED_UP)
    return _step(stored, correct(connection, tenant_id, Cause.TWIN, wanted.values(), at_ns, labels))


def _relatives(connection: Connection, tenant_id: int, by_key: Mapping[SpanKey, StoredCall]) -> Select[Any]:
    """Select the charged records that may show the same calls as some others."""
    calls = [one.call.usage for one in by_key.values()]
    parents, looks = (usage.parent_span_id for usage in calls), (signature_of(usage) for usage in calls)
    related = related_to(connection, tenant_id, by_key, parents, looks)
    return select(usage_records).where(related, usage_records.c.verdict == Verdict.CHARGED)


def skip(connection: Connection, tenant_id: int, waiting: Waiting) -> Step:
    """Skip records, which stay as they are."""
    stored = _waiting(connection, tenant_id, waiting)
    return _step(stored, ())


class PaidAgents(NamedTuple):
    """The agents to check: those charged since a time, a few after a record's id."""

    charged_after_ns: int
    after_id: int
    limit: int


def give_back_agents(connection: Connection, tenant_id: int, paid: PaidAgents, at_ns: int, labels: TotalLabels) -> Step:
    """Give back charges of agents whose calls were charged later."""
    record, made = usage_records.c, corrections.c
    other = usage_records.alias()
    query = (
        usage_query(tenant_id)
        .join(corrections, (made.tenant_id == record.tenant_id) & (made.usage_record_id == record.id))
        .where(
            record.id > paid.after_id,
            record.summary == 1,
            made.verdict_after == Verdict.CHARGED,
            made.recorded_at_ns >= paid.charged_after_ns,
            made.number == record.corrections,
            record.verdict == Verdict.CHARGED,
            select(other.c.id).where(beside(connection, other.c), other.c.verdict == Verdict.CHARGED).exists(),
        )
        .order_by(record.id)
        .limit(paid.limit)
    )
    agents = list(stored_calls(connection, query))
    given_back = _give_back(connection, tenant_id, agents, at_ns, labels)
    return Step(agents[-1].record_id if agents else None, given_back)


def give_back_agents_around(
    connection: Connection, tenant_id: int, done: Iterable[Correction], at_ns: int, labels: TotalLabels
) -> int:
    """Give back charges of agents, of any age, around calls that have just been charged. Returns their number."""
    newly = [one.stored for one in done if one.after.charged and one.stored.call.verdict is not Verdict.CHARGED]
    trace_ids = sorted({stored.call.usage.trace_id for stored in newly})
    if not trace_ids:
        return 0
    record = usage_records.c
    query = select(usage_records).where(
        of_traces(connection, tenant_id, trace_ids), record.summary == 1, record.verdict == Verdict.CHARGED
    )
    return _give_back(connection, tenant_id, list(stored_calls(connection, query)), at_ns, labels)


def _give_back(
    connection: Connection, tenant_id: int, agents: Sequence[StoredCall], at_ns: int, labels: TotalLabels
) -> int:
    traces = _Traces(connection, tenant_id, agents)
    wanted = [cover(agent, CALLS_CHARGED) for agent in agents if traces.has_charged_call(agent)]
    return len(correct(connection, tenant_id, Cause.AGENT, wanted, at_ns, labels))


class _Traces:
    """The records of some agents' traces: which call belongs to which agent."""

    def __init__(self, connection: Connection, tenant_id: int, agents: Iterable[StoredCall]) -> None:
        trace_ids = sorted({agent.call.usage.trace_id for agent in agents})
        query = select(usage_records).where(of_traces(connection, tenant_id, trace_ids))
        self._parents: dict[SpanKey, bytes] = {}
        self._charged: defaultdict[bytes, list[PricedUsage]] = defaultdict(list)
        for stored in stored_calls(connection, query) if trace_ids else ():
            usage = stored.call.usage
            self._parents[usage.trace_id, usage.span_id] = usage.parent_span_id
            if stored.call.verdict is Verdict.CHARGED:
                self._charged[usage.trace_id].append(stored.call)
        retired = trace_ids and has_retired_spans(connection)
        self._retired = list(retired_in_traces(connection, tenant_id, trace_ids)) if retired else []

    def charge(self, agent: StoredCall) -> None:
        """Count this agent as a call of the agents around it from now on."""
        self._charged[agent.call.usage.trace_id].append(agent.call)

    def has_charged_call(self, agent: StoredCall) -> bool:
        """Return whether a call within this agent was charged."""
        usage = agent.call.usage
        return any(self._is_within(call, agent.call) for call in self._charged[usage.trace_id]) or any(
            one.is_within(usage, _SLACK_NS) for one in self._retired
        )

    def _is_within(self, call: PricedUsage, agent: PricedUsage) -> bool:
        """Compare parents as far as they are known; compare times if a span in between is not in the books."""
        inner, outer = call.usage, agent.usage
        if inner.span_id == outer.span_id:
            return False
        seen = set()
        parent = inner.parent_span_id
        while parent and parent not in seen:
            if parent == outer.span_id:
                return True
            seen.add(parent)
            known = self._parents.get((inner.trace_id, parent))
            if known is None:
                return (
                    outer.started_at_ns <= inner.started_at_ns
                    and inner.started_at_ns + inner.latency_ns <= outer.started_at_ns + outer.latency_ns + _SLACK_NS
                )
            parent = known
        return False


def _waiting(
    connection: Connection, tenant_id: int, waiting: Waiting, *conditions: ColumnElement[bool]
) -> list[StoredCall]:
    table = usage_records.c
    query = (
        usage_query(tenant_id)
        .where(
            of_verdict(waiting.verdict),
            table.id > waiting.after_id,
            table.received_at_ns < waiting.received_before_ns,
            *conditions,
        )
        .order_by(table.id)
        .limit(waiting.limit)
    )
    return list(stored_calls(connection, query))


def _step(stored: Sequence[StoredCall], done: Sequence[Correction]) -> Step:
    return Step(stored[-1].record_id if stored else None, len(done))
