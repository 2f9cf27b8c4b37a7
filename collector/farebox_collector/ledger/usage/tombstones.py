"""Tombstones of retired spans: deduplication and one charge per call outlive the detail.

`retention` writes what this module reads.
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
    " AND r.trace_id = u.trace_id AND r.span_id = u.span_id WHERE u.transaction_id = :made AND u.id > :after"
)


class DetailRetired(Exception):
    """A request needs detail of calls that is retired, so its answer would be incomplete; the message gives the
    range."""


class RetiredSpan(NamedTuple):
    """The tombstone of a charged span."""

    trace_id: bytes
    span_id: bytes
    likeness: bytes
    started_at_ns: int
    latency_ns: int

    def shows_call_of(self, usage: UsageRecord) -> bool:
        """Return whether another span, without a response id, shows the same call, as far as the tombstone shows."""
        return (
            self.span_id != usage.span_id
            and self.likeness == likeness_digest(usage)
            and self.started_at_ns <= usage.started_at_ns + usage.latency_ns
            and usage.started_at_ns <= self.started_at_ns + self.latency_ns
        )

    def is_within(self, agent: UsageRecord, slack_ns: int) -> bool:
        """Return whether the span lies within an agent's span of the same trace, by time: its parent is not stored."""
        end_ns = self.started_at_ns + self.latency_ns
        return (
            self.trace_id == agent.trace_id
            and self.span_id != agent.span_id
            and agent.started_at_ns <= self.started_at_ns
            and end_ns <= agent.started_at_ns + agent.latency_ns + slack_ns
        )


def likeness_digest(usage: UsageRecord) -> bytes:
    """Return a digest of what two spans of one call have in common."""
    return blake2b(json.dumps(likeness(usage)).encode(), digest_size=8).digest()


def has_retired_spans(connection: Connection) -> bool:
    """Return whether any record of any tenant was ever retired, so that books without retention skip the look-ups."""
    return bool(connection.exec_driver_sql(_ANYTHING).scalar())


def delete_retired(connection: Connection, transaction_id: int, after_id: int = 0) -> dict[SpanKey, RetiredFacts]:
    """Delete the spans that a transaction has recorded after a record, but that are retired; return their facts.

    Call it after the insert. A record is deleted in the transaction that writes its tombstone, and an insert of the
    same key waits for that transaction: after the insert the tombstone is visible, on any number of replicas.
    """
    if not has_retired_spans(connection):
        return {}
    found = connection.execute(_AMONG_NEW, {"made": transaction_id, "after": after_id}).all()
    if found:
        connection.execute(delete(usage_records).where(usage_records.c.id.in_([row[0] for row in found])))
    return {(bytes(row[1]), bytes(row[2])): RetiredFacts(bytes(row[3])) for row in found}


def retired_facts(connection: Connection, tenant_id: int, keys: Collection[SpanKey]) -> dict[SpanKey, RetiredFacts]:
    """Return the facts of retired spans by their keys."""
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
    """Yield the charged retired spans of some traces."""
    table = retired_spans.c
    columns = (table.trace_id, table.span_id, table.likeness, table.started_at_ns, table.latency_ns)
    query = select(*columns).where(
        table.tenant_id == tenant_id, table.trace_id.in_(sorted(trace_ids)), table.charged == 1
    )
    for trace_id, span_id, alike, start, latency in connection.execute(query):
        yield RetiredSpan(bytes(trace_id), bytes(span_id), bytes(alike), start, latency)


def is_retired(connection: Connection, tenant_id: int, trace_id: bytes, span_id: bytes) -> bool:
    """Return whether the detail of a span's record is retired."""
    table = retired_spans.c
    found = select(table.charged).where(
        table.tenant_id == tenant_id, table.trace_id == trace_id, table.span_id == span_id
    )
    return connection.execute(found).first() is not None


def require_detail(connection: Connection, tenant_id: int, from_ns: int, to_ns: int, what: str) -> None:
    """Raise DetailRetired if records priced within [from, to) may be retired; compares whole days."""
    table = retired_days.c
    last = connection.execute(
        select(func.max(table.day)).where(
            table.tenant_id == tenant_id, table.day >= day_of(from_ns), table.day <= day_of(max(from_ns, to_ns - 1))
        )
    ).scalar()
    if last is not None:
        first_whole = datetime.fromtimestamp(0, UTC).date() + timedelta(days=int(last) + 1)
        raise DetailRetired(f"the detail of calls of this time is retired: {what} from {first_whole} (UTC) on")
