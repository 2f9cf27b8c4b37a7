"""Select the usage records of a replay, in the order of the times whose prices they had."""

from collections.abc import Sequence
from hashlib import blake2b
from typing import NamedTuple

from sqlalchemy import ColumnElement, Connection, and_, func, or_, select

from farebox_collector.ledger.tables.books import usage_records
from farebox_collector.ledger.usage.corrections import Correction
from farebox_collector.ledger.usage.entries import Entry
from farebox_collector.ledger.usage.settlement import Pricing, closing_corrections
from farebox_collector.ledger.usage.stored_usage import StoredCall, stored_calls, usage_query
from farebox_collector.model.verdicts import Verdict

REPRICED = (Verdict.CHARGED, Verdict.UNPRICED)
"""Verdicts of the records that a replay reprices; the others do not wait for a price."""


class ReplayScope(NamedTuple):
    """The records of a tenant to reprice: those priced at from <= time < to. Empty names mean all."""

    from_ns: int
    to_ns: int
    wallet: str = ""
    provider: str = ""
    model: str = ""
    event: str = ""

    @property
    def digest(self) -> str:
        """Return a short text that is unique to the scope."""
        return blake2b(repr(tuple(self)).encode(), digest_size=8).hexdigest()


class Position(NamedTuple):
    """The last record that a replay read."""

    priced_at_ns: int
    record_id: int


class Decided(NamedTuple):
    """The result of repricing some records."""

    wanted: list[Correction]
    without_price: int
    """Charged records that have no price any more; they stay as they are."""
    still_unpriced: int


def count_replayed(connection: Connection, tenant_id: int, scope: ReplayScope) -> int:
    """Return the number of records in a replay."""
    query = select(func.count()).where(usage_records.c.tenant_id == tenant_id, *_within(scope))
    return int(connection.execute(query).scalar_one())


def replayed_calls(
    connection: Connection, tenant_id: int, scope: ReplayScope, after: Position, limit: int
) -> list[StoredCall]:
    """Return the next few records of a replay after a position."""
    table = usage_records.c
    query = (
        usage_query(tenant_id)
        .where(
            *_within(scope),
            table.priced_at_ns >= after.priced_at_ns,
            or_(table.priced_at_ns > after.priced_at_ns, table.id > after.record_id),
        )
        .order_by(table.priced_at_ns, table.id)
        .limit(limit)
    )
    return list(stored_calls(connection, query))


def decide(connection: Connection, tenant_id: int, stored: Sequence[StoredCall], price: Pricing) -> Decided:
    """Reprice records at the current prices. Writes nothing."""
    charged = [one for one in stored if one.call.verdict is Verdict.CHARGED]
    unpriced = [one for one in stored if one.call.verdict is Verdict.UNPRICED]
    closing = closing_corrections(connection, tenant_id, unpriced, price)
    corrections = [Correction(one, repriced(one, price)) for one in charged]
    priced = [correction for correction in corrections if correction.after.charged]
    return Decided([*priced, *closing], len(corrections) - len(priced), len(unpriced) - len(closing))


def repriced(stored: StoredCall, price: Pricing) -> Entry:
    """Reprice a charged record. It is the same call, and keeps the decision about its response id."""
    entry = Entry(price(stored))
    entry.call_key = stored.call_key if entry.charged else None
    return entry


def _within(scope: ReplayScope) -> list[ColumnElement[bool]]:
    table = usage_records.c
    conditions = [
        and_(table.priced_at_ns >= scope.from_ns, table.priced_at_ns < scope.to_ns),
        table.verdict.in_(REPRICED),
    ]
    if scope.wallet:
        conditions.append(table.wallet == scope.wallet)
    if scope.event:
        conditions.append(table.event == scope.event)
    # Names of the price book or of the span: a wrong mapping is found by either.
    if scope.provider:
        conditions.append(or_(table.provider == scope.provider, table.reported_provider == scope.provider))
    if scope.model:
        names = (table.model, table.request_model, table.response_model)
        conditions.append(or_(*(name == scope.model for name in names)))
    return conditions
