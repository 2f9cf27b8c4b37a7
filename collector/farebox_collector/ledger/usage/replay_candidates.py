"""The usage records that a replay looks at, in the order of the moments whose prices they had."""

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
"""Verdicts of the records that a replay prices anew; what the others wait for, if anything, is no price."""


class ReplayScope(NamedTuple):
    """Which records of a tenant to price anew: those priced at from <= moment < to. Empty names mean all."""

    from_ns: int
    to_ns: int
    wallet: str = ""
    provider: str = ""
    model: str = ""
    event: str = ""

    @property
    def digest(self) -> str:
        """A short text that only an equal scope has."""
        return blake2b(repr(tuple(self)).encode(), digest_size=8).hexdigest()


class Position(NamedTuple):
    """The record that a replay looked at last."""

    priced_at_ns: int
    record_id: int


class Decided(NamedTuple):
    """What a replay makes of some records."""

    wanted: list[Correction]
    without_price: int
    """Charged records that have no price any more; they stay as they are."""
    still_unpriced: int


def count_replayed(connection: Connection, tenant_id: int, scope: ReplayScope) -> int:
    """How many records a replay looks at."""
    query = select(func.count()).where(usage_records.c.tenant_id == tenant_id, *_within(scope))
    return int(connection.execute(query).scalar_one())


def replayed_calls(
    connection: Connection, tenant_id: int, scope: ReplayScope, after: Position, limit: int
) -> list[StoredCall]:
    """The next few records of a replay after a position."""
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
    """What becomes of records at the prices that are now known. Writes nothing."""
    charged = [one for one in stored if one.call.verdict is Verdict.CHARGED]
    unpriced = [one for one in stored if one.call.verdict is Verdict.UNPRICED]
    closing = closing_corrections(connection, tenant_id, unpriced, price)
    anew = [Correction(one, charged_anew(one, price)) for one in charged]
    priced = [correction for correction in anew if correction.after.charged]
    return Decided([*priced, *closing], len(anew) - len(priced), len(unpriced) - len(closing))


def charged_anew(stored: StoredCall, price: Pricing) -> Entry:
    """A charged record at other prices. It is the same call, and keeps what was decided about its response id."""
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
    # As the price book names them, or as the span did: a wrong mapping is found by either.
    if scope.provider:
        conditions.append(or_(table.provider == scope.provider, table.reported_provider == scope.provider))
    if scope.model:
        names = (table.model, table.request_model, table.response_model)
        conditions.append(or_(*(name == scope.model for name in names)))
    return conditions
