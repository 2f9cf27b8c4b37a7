"""Book events of a payment provider, each once: one transaction claims the event and posts its fact.

A fact that contradicts the books is refused or kept as unmatched; neither moves anything.
"""

from typing import Any
from zlib import crc32

from sqlalchemy import Connection, Row, select, update

from farebox_collector.ledger.payments import (
    auto_topups,
    payment_fees,
    refunds,
    topups,
    unmatched,
)
from farebox_collector.ledger.payments.payment_facts import (
    CheckoutOver,
    Event,
    Fact,
    NotOurs,
    NotPaid,
    Paid,
    Returned,
)
from farebox_collector.ledger.payments.topups import TopupState
from farebox_collector.ledger.storage import bulk_insert
from farebox_collector.ledger.storage.locks import PAYMENTS, lock_stripes
from farebox_collector.ledger.tables.payments import payment_events

_COLUMNS = ("tenant_id", "event_id", "type", "digest", "created_at_ns", "received_at_ns", "outcome")

REPEATED = "repeated"
"""Outcome of an event that was booked before."""


class Refused(Exception):
    """An event contradicts the books; the message states how."""


class EventConflict(Exception):
    """An event was redelivered under the same id with different content."""


def book_event(connection: Connection, tenant_id: int, event: Event, livemode: bool, at_ns: int) -> str:
    """Book an event; returns the outcome in a few words. Raises Refused, EventConflict.

    `livemode` is the mode of the configured key: an event of the other mode is refused.
    """
    if event.livemode != livemode:
        raise Refused(
            f"the event is in {_mode(event.livemode)} mode, but the configured key is for {_mode(livemode)} mode"
        )
    claim = (tenant_id, event.event_id, event.type, event.digest, event.created_at_ns, at_ns, "")
    if not bulk_insert.insert_ignoring_conflicts(
        connection, "payment_events", _COLUMNS, [claim], on=("tenant_id", "event_id")
    ):
        known = select(payment_events.c.digest).where(
            payment_events.c.tenant_id == tenant_id, payment_events.c.event_id == event.event_id
        )
        if bytes(connection.execute(known).scalar_one()) != event.digest:
            raise EventConflict(event.event_id)
        return REPEATED
    outcome = book(connection, tenant_id, event.fact, at_ns)
    row = update(payment_events).where(
        payment_events.c.tenant_id == tenant_id, payment_events.c.event_id == event.event_id
    )
    connection.execute(row.values(outcome=outcome))
    return outcome


def book(connection: Connection, tenant_id: int, fact: Fact, at_ns: int) -> str:
    """Book a fact of a payment from any source; a known fact changes nothing. Raises Refused."""
    if isinstance(fact, Paid):
        return _paid(connection, tenant_id, fact, at_ns)
    if isinstance(fact, Returned):
        return _returned(connection, tenant_id, fact, at_ns)
    if isinstance(fact, NotOurs):
        return fact.reason
    topup = topups.topup_by_key(connection, tenant_id, fact.topup_key)
    if topup is None:
        return "not a top-up of Farebox"
    if isinstance(fact, NotPaid):
        if not topup.automatic:
            return "the customer may try again"
        if not topups.end(connection, topup, TopupState.FAILED, fact.reason, at_ns):
            return "known"
        auto_topups.disable(connection, tenant_id, topup.wallet, fact.reason, at_ns)
        return "failed"
    assert isinstance(fact, CheckoutOver)
    state = TopupState.FAILED if fact.reason else TopupState.EXPIRED
    return str(state) if topups.end(connection, topup, state, fact.reason, at_ns) else "known"


def _paid(connection: Connection, tenant_id: int, fact: Paid, at_ns: int) -> str:
    lock_stripes(connection, PAYMENTS, [crc32(fact.payment_intent.encode())])
    topup = topups.topup_by_key(connection, tenant_id, fact.topup_key)
    if topup is None:
        return "not a top-up of Farebox"
    if fact.currency != topup.currency:
        raise Refused(f"top-up {topup.key} is in {topup.currency}, but the payment is in {fact.currency}")
    if fact.amount_minor != topup.amount_minor:
        raise Refused(
            f"top-up {topup.key} costs {topup.amount_minor} minor units of {topup.currency},"
            f" but {fact.amount_minor} were paid"
        )
    if topup.state == TopupState.PAID and topup.payment_intent != fact.payment_intent:
        raise Refused(
            f"top-up {topup.key} was already paid by {topup.payment_intent}; {fact.payment_intent} pays it again"
        )
    owner = topups.topup_by_payment(connection, tenant_id, fact.payment_intent)
    if owner is not None and owner.id != topup.id:
        reason = f"the payment already paid top-up {owner.key}"
        unmatched.keep_payment(connection, tenant_id, fact, reason, at_ns)
        return f"unmatched: {reason}"
    new = topups.pay(connection, topup, fact.payment_intent, fact.paid_at_ns, at_ns)
    if fact.method.payment_method:
        topups.keep_payment_method(connection, tenant_id, topup.wallet, fact.method, at_ns)
    if not new:
        return "known"
    paid = topups.topup_by_key(connection, tenant_id, fact.topup_key)
    assert paid is not None
    payment_fees.book_waiting(connection, paid, at_ns)
    returns = refunds.returns_of(connection, paid)
    if returns:
        standing = [row for row in returns if row.wanted and row.currency == paid.currency]
        for row in standing[:1]:
            auto_topups.pause(connection, tenant_id, paid.wallet, _pause_reason(row, paid), at_ns)
        first = (standing or returns)[0]
        refunds.settle(connection, paid, first.kind, first.return_id, at_ns)
    return "paid"


def _returned(connection: Connection, tenant_id: int, fact: Returned, at_ns: int) -> str:
    lock_stripes(connection, PAYMENTS, [crc32(fact.payment_intent.encode())])
    new = refunds.note(connection, tenant_id, fact, at_ns)
    row = refunds.return_by_id(connection, tenant_id, fact.return_id)
    topup = topups.topup_by_payment(connection, tenant_id, row.payment_intent)
    if topup is not None and topup.lot_id is None:
        topup = None
    for fee in fact.fees:
        payment_fees.book_or_wait(connection, tenant_id, row.payment_intent, topup, fee, fact.kind, at_ns)
    if topup is None:
        refunds.wait_for_payment(connection, row)
        return "kept until its payment is known"
    if not new:
        return "known"
    if row.wanted and row.currency == topup.currency:
        auto_topups.pause(connection, tenant_id, topup.wallet, _pause_reason(row, topup), at_ns)
    moved = refunds.settle(connection, topup, row.kind, row.return_id, at_ns)
    if row.currency != topup.currency:
        return f"unmatched: {refunds.OTHER_CURRENCY}"
    return f"{fact.kind}: {'credits moved' if moved else 'noted'}"


def _pause_reason(row: Row[Any], topup: Row[Any]) -> str:
    return f"paused: {row.kind} {row.return_id} of top-up {topup.key}; resume it when that is settled"


def _mode(livemode: bool) -> str:
    return "live" if livemode else "test"
