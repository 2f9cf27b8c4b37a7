"""Settle charged records with parts that had no price, by a correction when the price is added."""

from typing import NamedTuple

from sqlalchemy import Connection, select

from farebox_collector.ledger.tables.books import usage_records
from farebox_collector.ledger.usage.corrections import Cause, Correction, correct
from farebox_collector.ledger.usage.entries import SpanKey
from farebox_collector.ledger.usage.replay_candidates import repriced
from farebox_collector.ledger.usage.running_totals import TotalLabels
from farebox_collector.ledger.usage.settlement import Pricing
from farebox_collector.ledger.usage.span_index import of_spans
from farebox_collector.ledger.usage.stakes import keys_at_stake
from farebox_collector.ledger.usage.stored_usage import stored_calls
from farebox_collector.model.records import PricedUsage
from farebox_collector.model.verdicts import Verdict
from farebox_collector.pricing.parts import WITHOUT_PRICE

FIRST: SpanKey = (b"", b"")
"""Before the first record."""


class PartStep(NamedTuple):
    """Progress of a round: the last span that it read, None when there was none left; and its results."""

    last: SpanKey | None
    corrected: int


def settle_parts(
    connection: Connection,
    tenant_id: int,
    after: SpanKey,
    limit: int,
    price: Pricing,
    at_ns: int,
    labels: TotalLabels,
) -> PartStep:
    """Charge what now has a price in the next few records; the others keep waiting."""
    keys = keys_at_stake(connection, tenant_id, WITHOUT_PRICE, after, limit)
    if not keys:
        return PartStep(None, 0)
    table = usage_records.c
    query = select(usage_records).where(of_spans(connection, tenant_id, keys), table.verdict == Verdict.CHARGED)
    wanted = []
    for stored in stored_calls(connection, query):
        entry = repriced(stored, price)
        if entry.charged and _lacking(entry.call) < _lacking(stored.call):
            wanted.append(Correction(stored, entry))
    done = correct(connection, tenant_id, Cause.LATE_PRICE, wanted, at_ns, labels)
    return PartStep(keys[-1], len(done))


def _lacking(call: PricedUsage) -> int:
    """Return how many kinds of units of a call have no price."""
    return 0 if call.particulars is None else len(call.particulars.unpriced)
