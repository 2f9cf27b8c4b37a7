"""Books what a payment provider tells, once for each of its events: the event is claimed, and what it says is posted,
in one transaction. What cannot be right is refused, and leaves no trace in the books.
"""

from zlib import crc32

from sqlalchemy import Connection, select, update

from farebox_collector.ledger import auto_topups, bulk, payment_returns, topups
from farebox_collector.ledger.locks import PAYMENTS, wait_in_turn
from farebox_collector.ledger.payment_facts import CheckoutOver, Event, Fact, NotOurs, NotPaid, Paid, Returned
from farebox_collector.ledger.payment_fees import book_fee
from farebox_collector.ledger.payment_tables import payment_events
from farebox_collector.ledger.topups import TopupState
from farebox_collector.pricing.currencies import NoExchangeRate

_COLUMNS = ("tenant_id", "event_id", "type", "digest", "created_at_ns", "received_at_ns", "outcome")

REPEATED = "repeated"
"""The outcome of an event that was booked before."""


class Refused(Exception):
    """What an event says cannot be right; the message says why."""


class EventConflict(Exception):
    """An event came again under the same id with another content."""


def book_event(connection: Connection, tenant_id: int, event: Event, livemode: bool, at_ns: int) -> str:
    """Book an event; returns what came of it, in a few words. Raises Refused, EventConflict.

    `livemode` is what our own key is for: an event of the other mode is refused.
    """
    if event.livemode != livemode:
        raise Refused(f"the event is in {_mode(event.livemode)} mode, and the key here is for {_mode(livemode)} mode")
    claim = (tenant_id, event.event_id, event.type, event.digest, event.created_at_ns, at_ns, "")
    if not bulk.insert_ignoring_conflicts(
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
    """Book what is known of a payment, from wherever; what is booked already changes nothing. Raises Refused."""
    if isinstance(fact, Paid):
        return _paid(connection, tenant_id, fact, at_ns)
    if isinstance(fact, Returned):
        return _returned(connection, tenant_id, fact, at_ns)
    if isinstance(fact, NotOurs):
        return fact.why
    topup = topups.topup_by_key(connection, tenant_id, fact.topup_key)
    if topup is None:
        return "no top-up of ours"
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
    wait_in_turn(connection, PAYMENTS, [crc32(fact.payment_intent.encode())])
    topup = topups.topup_by_key(connection, tenant_id, fact.topup_key)
    if topup is None:
        return "no top-up of ours"
    if fact.currency != topup.currency:
        raise Refused(f"top-up {topup.key} costs {topup.currency}, and the payment is in {fact.currency}")
    if fact.amount_minor != topup.amount_minor:
        raise Refused(
            f"top-up {topup.key} costs {topup.amount_minor} in the smallest unit of {topup.currency},"
            f" and {fact.amount_minor} were paid"
        )
    if topup.state == TopupState.PAID and topup.payment_intent != fact.payment_intent:
        raise Refused(f"top-up {topup.key} was paid by {topup.payment_intent}, and now by {fact.payment_intent} again")
    new = topups.pay(connection, topup, fact.payment_intent, fact.paid_at_ns, at_ns)
    if fact.method.payment_method:
        topups.keep_payment_method(connection, tenant_id, topup.wallet, fact.method, at_ns)
    if not new:
        return "known"
    paid = topups.topup_by_key(connection, tenant_id, fact.topup_key)
    assert paid is not None
    payment_returns.settle(connection, paid, at_ns)
    return "paid"


def _returned(connection: Connection, tenant_id: int, fact: Returned, at_ns: int) -> str:
    wait_in_turn(connection, PAYMENTS, [crc32(fact.payment_intent.encode())])
    topup = topups.topup_by_payment(connection, tenant_id, fact.payment_intent)
    if topup is not None and fact.currency != topup.currency:
        raise Refused(f"top-up {topup.key} was paid in {topup.currency}, and the {fact.kind} is in {fact.currency}")
    new = payment_returns.note(connection, tenant_id, fact, at_ns)
    if topup is None:
        return "kept until its payment is known"
    for fee in fact.fees:
        try:
            book_fee(connection, topup, fee, at_ns)
        except NoExchangeRate:
            continue  # the fee of another currency is no reason to let the credits be
    if not new:
        return "known"
    moved = payment_returns.settle(connection, topup, at_ns)
    return f"{fact.kind}: {'credits moved' if moved else 'noted'}"


def _mode(livemode: bool) -> str:
    return "live" if livemode else "test"
