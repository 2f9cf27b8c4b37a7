"""Usage records as they come back out of the books: the same facts that pricing once gave them."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, Select, select

from farebox_collector.ledger.tables import TOKEN_COLUMNS, usage_records
from farebox_collector.records import Buckets, PricedUsage, Quality, UsageRecord
from farebox_collector.units import read_units
from farebox_collector.verdicts import Verdict


class StoredCall(NamedTuple):
    """One usage record as the books have it now."""

    record_id: int
    corrections: int
    """How many times it has been corrected."""
    received_at_ns: int
    call: PricedUsage
    action_share_nanocredits: int | None = None
    """What the call alone comes to where it is charged as part of its action; see `actions`."""
    call_key: bytes | None = None


def stored_calls(connection: Connection, query: Select[Any]) -> Iterator[StoredCall]:
    """The records of a query made by `usage_query`."""
    for row in connection.execute(query):
        yield stored_call(row)


def usage_query(tenant_id: int) -> Select[Any]:
    """All columns of a tenant's usage records; add what narrows it."""
    return select(usage_records).where(usage_records.c.tenant_id == tenant_id)


def stored_call(row: Row[Any]) -> StoredCall:
    """A row of `usage_records` as the priced call that it keeps."""
    counts = [getattr(row, name) for name in TOKEN_COLUMNS]
    verdict = Verdict(row.verdict)
    usage = UsageRecord(
        trace_id=bytes(row.trace_id),
        span_id=bytes(row.span_id),
        parent_span_id=bytes(row.parent_span_id),
        started_at_ns=row.started_at_ns,
        latency_ns=row.latency_ns,
        wallet=row.wallet,
        event=row.event,
        action_id=row.action_id,
        operation=row.operation,
        provider=row.reported_provider,
        request_model=row.request_model,
        response_model=row.response_model,
        response_id=row.response_id,
        service_tier=row.service_tier,
        error_type=row.error_type,
        buckets=None if counts[0] is None else Buckets(*counts),
        summary=bool(row.summary),
        time_to_first_chunk_ns=row.time_to_first_chunk_ns,
        dept=row.dept,
        project=row.project,
        task=row.task,
        route=row.route,
        region=row.region,
        dialect=row.dialect,
        assumptions=tuple(row.assumptions.split(",")) if row.assumptions else (),
        units=read_units(row.units),
        scope=row.scope,
        user_id=row.user_id,
        quality=Quality(*(getattr(row, name) for name in Quality._fields)),
    )
    call = PricedUsage(
        usage=usage,
        verdict=verdict,
        reason=row.reason,
        priced_at_ns=row.priced_at_ns,
        provider=row.provider,
        model=row.model,
        cost_nanousd=row.cost_nanousd,
        charge_nanocredits=row.charge_nanocredits,
        price_version_ids=row.price_version_ids,
        rule_version_id=row.rule_version_id,
        assumptions=usage.assumptions,
    )
    key = None if row.call_key is None else bytes(row.call_key)
    return StoredCall(row.id, row.corrections, row.received_at_ns, call, row.action_share_nanocredits, key)
