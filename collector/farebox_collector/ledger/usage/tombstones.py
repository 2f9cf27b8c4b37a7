"""Retired spans as the books remember them: the dedupe promise, and one charge a call, outlive the detail.

`retirement` writes what is read here.
"""

import json
from collections.abc import Collection, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import NamedTuple

from sqlalchemy import Connection, delete, func, select, text, tuple_

from farebox_collector.ledger.tables.books import usage_records
from farebox_collector.ledger.tables.tombstones import retired_days, retired_spans
from farebox_collector.ledger.usage.entries import RetiredFacts, SpanKey
from farebox_collector.ledger.usage.span_matching import likeness
from farebox_collector.model.moments import day_of
from farebox_collector.model.records import UsageRecord

RETIRED_REASON = "a span of the same call, whose detail is retired, stands for it"
_ANYTHING = "SELECT EXISTS (SELECT 1 FROM retired_spans)"
_AMONG_NEW = text(
    "SELECT u.id, u.trace_id, u.span_id, r.facts FROM usage_records u JOIN retired_spans r ON r.tenant_id = u.tenant_id"
    " AND r.trace_id = u.trace_id AND r.span_id = u.span_id WHERE u.transaction_id = :made"
)


class DetailRetired(Exception):
    """What is asked for needs detail of calls that is retired, and could only be half right; the message says more."""


class RetiredSpan(NamedTuple):
    """What is left of a span that was charged."""

    trace_id: bytes
    span_id: bytes
    likeness: bytes
    started_at_ns: int
    latency_ns: int

    def shows_call_of(self, usage: UsageRecord) -> bool:
        """Whether another span, without a response id, shows the same call, as far as one can still tell."""
        return (
            self.span_id != usage.span_id
            and self.likeness == likeness_digest(usage)
            and self.started_at_ns <= usage.started_at_ns + usage.latency_ns
            and usage.started_at_ns <= self.started_at_ns + self.latency_ns
        )

    def is_within(self, agent: UsageRecord, slack_ns: int) -> bool:
        """Whether the span lies within an agent's of the same trace, by time: its parent is forgotten."""
        end_ns = self.started_at_ns + self.latency_ns
        return (
            self.trace_id == agent.trace_id
            and self.span_id != agent.span_id
            and agent.started_at_ns <= self.started_at_ns
            and end_ns <= agent.started_at_ns + agent.latency_ns + slack_ns
        )


def likeness_digest(usage: UsageRecord) -> bytes:
    """A digest of what two spans of one call have in common."""
    return blake2b(json.dumps(likeness(usage)).encode(), digest_size=8).digest()


def anything_retired(connection: Connection) -> bool:
    """Whether any record of any tenant was ever retired: whoever never retires pays no more than this question."""
    return bool(connection.exec_driver_sql(_ANYTHING).scalar())


def take_out_retired(connection: Connection, transaction_id: int) -> dict[SpanKey, RetiredFacts]:
    """Of the spans that a transaction has just recorded, take those out again that are retired; returns their facts.

    To be asked after the insert. A record is deleted in the transaction that remembers its span, and an insert of the
    same key waits for that transaction: whoever could insert sees what it remembers, on any number of replicas.
    """
    if not anything_retired(connection):
        return {}
    found = connection.execute(_AMONG_NEW, {"made": transaction_id}).all()
    if found:
        connection.execute(delete(usage_records).where(usage_records.c.id.in_([row[0] for row in found])))
    return {(bytes(row[1]), bytes(row[2])): RetiredFacts(bytes(row[3])) for row in found}


def retired_facts(connection: Connection, tenant_id: int, keys: Collection[SpanKey]) -> dict[SpanKey, RetiredFacts]:
    """The facts of retired spans, by their keys."""
    if not keys:
        return {}
    table = retired_spans.c
    found = connection.execute(
        select(table.trace_id, table.span_id, table.facts).where(
            table.tenant_id == tenant_id, tuple_(table.trace_id, table.span_id).in_(sorted(keys))
        )
    )
    return {(bytes(row[0]), bytes(row[1])): RetiredFacts(bytes(row[2])) for row in found}


def retired_in_traces(connection: Connection, tenant_id: int, trace_ids: Iterable[bytes]) -> Iterator[RetiredSpan]:
    """The retired spans of some traces that were charged."""
    table = retired_spans.c
    columns = (table.trace_id, table.span_id, table.likeness, table.started_at_ns, table.latency_ns)
    query = select(*columns).where(
        table.tenant_id == tenant_id, table.trace_id.in_(sorted(trace_ids)), table.charged == 1
    )
    for trace_id, span_id, alike, start, latency in connection.execute(query):
        yield RetiredSpan(bytes(trace_id), bytes(span_id), bytes(alike), start, latency)


def is_retired(connection: Connection, tenant_id: int, trace_id: bytes, span_id: bytes) -> bool:
    """Whether a span had a record whose detail is retired."""
    table = retired_spans.c
    found = select(table.charged).where(
        table.tenant_id == tenant_id, table.trace_id == trace_id, table.span_id == span_id
    )
    return connection.execute(found).first() is not None


def require_detail(connection: Connection, tenant_id: int, from_ns: int, to_ns: int, what: str) -> None:
    """Raise DetailRetired if records priced within [from, to) may be retired; looks at whole days."""
    table = retired_days.c
    last = connection.execute(
        select(func.max(table.day)).where(
            table.tenant_id == tenant_id, table.day >= day_of(from_ns), table.day <= day_of(max(from_ns, to_ns - 1))
        )
    ).scalar()
    if last is not None:
        first_whole = datetime.fromtimestamp(0, UTC).date() + timedelta(days=int(last) + 1)
        raise DetailRetired(f"the detail of calls of this time is retired: {what} from {first_whole} (UTC) on")
