"""Top-ups: orders of packs for wallets; credits are booked exactly once, when the payment is confirmed.

An order is stored before the payment provider learns of it, under a key of Farebox, so that every report finds it. Its
credits are booked in the transaction that sets its state to `paid`: of concurrent attempts only one succeeds.
"""

import json
from collections.abc import Sequence
from enum import StrEnum
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, and_, func, insert, or_, select, update

from farebox_collector.ledger.access.audit_log import note
from farebox_collector.ledger.credits.movements import (
    IdempotencyConflict,
    Kind,
    Movement,
    carry_out,
)
from farebox_collector.ledger.journal.journal import ISSUED_ACCOUNT, balance, begin, describe
from farebox_collector.ledger.payments.packs import pack_name, price_nanousd
from farebox_collector.ledger.storage import bulk_insert
from farebox_collector.ledger.storage.pages import newest_first
from farebox_collector.ledger.tables.books import transactions
from farebox_collector.ledger.tables.payments import payment_methods, topups
from farebox_collector.model.moments import DAY_NS
from farebox_collector.model.money import MAX_MOVEMENT_NANO, MAX_SUM_NANO, AmountError

_MAX_URL = 2_000
_OPEN_DAYS = 15


class TopupState(StrEnum):
    """State of a top-up."""

    OPEN = "open"
    """Not paid yet."""
    PAID = "paid"
    """Its credits are in the wallet."""
    FAILED = "failed"
    """The payment provider or the customer's bank declined it."""
    EXPIRED = "expired"
    """Not paid in time."""


class Order(NamedTuple):
    """An order of a pack for a wallet."""

    key: str
    """Reference for the payment provider; unguessable."""
    idempotency_key: str
    wallet: str
    pack: Row[Any]
    """The ordered version of the pack."""
    livemode: bool
    automatic: bool = False
    terms: str = ""
    """Further content that a repeat under the same idempotency key must have."""

    def request(self) -> str:
        """Return the text to compare with an earlier request under the same key."""
        # The pack's name, not its version: the same request stays the same when prices change.
        return json.dumps([self.wallet, self.pack.name, self.automatic, self.terms])


class Ordered(NamedTuple):
    """A top-up in the books."""

    row: Row[Any]
    repeated: bool


class PaymentMethod(NamedTuple):
    """A saved payment method, by the payment provider's ids; both empty for none."""

    customer: str
    payment_method: str


def order(connection: Connection, tenant_id: int, wanted: Order, at_ns: int) -> Ordered | None:
    """Store an order, once for each idempotency key; None if an automatic top-up is in flight already.

    Raises IdempotencyConflict, NoExchangeRate, AmountError.
    """
    earlier = _by(connection, tenant_id, topups.c.idempotency_key == wanted.idempotency_key)
    if earlier is None:
        pack = wanted.pack
        if pack.credits_nano > MAX_MOVEMENT_NANO:
            raise AmountError("too large: a top-up has at most 4,611,686,018 credits")
        if balance(connection, tenant_id, ISSUED_ACCOUNT) - pack.credits_nano < -MAX_SUM_NANO:
            raise AmountError("too large: total credits of the tenant would be out of range")
        values = {
            "tenant_id": tenant_id,
            "key": wanted.key,
            "idempotency_key": wanted.idempotency_key,
            "request": wanted.request(),
            "wallet": wanted.wallet,
            "automatic": int(wanted.automatic),
            "pack_id": pack.id,
            "amount_nano": pack.credits_nano,
            "currency": pack.currency,
            "amount_minor": pack.amount_minor,
            "price_nanousd": price_nanousd(connection, pack.currency, pack.amount_minor, at_ns),
            "expires_days": pack.expires_days,
            "livemode": int(wanted.livemode),
            "state": TopupState.OPEN,
            **dict.fromkeys(("reason", "checkout_id", "checkout_url", "payment_intent"), ""),
            "created_at_ns": at_ns,
        }
        new = bulk_insert.insert_ignoring_conflicts(
            connection, "topups", tuple(values), [tuple(values.values())], on=()
        )
        earlier = _by(connection, tenant_id, topups.c.idempotency_key == wanted.idempotency_key)
        if earlier is None:
            return None
        if new:
            after = {"key": wanted.key, "pack": pack.name, "automatic": wanted.automatic, "currency": pack.currency}
            after |= {"amount_minor": pack.amount_minor, "credits_nano": pack.credits_nano}
            note(connection, tenant_id, "topup.order", wanted.wallet, at_ns, after=after)
            return Ordered(earlier, False)
    if earlier.request != wanted.request():
        raise IdempotencyConflict(wanted.idempotency_key)
    return Ordered(earlier, True)


def note_checkout(connection: Connection, topup_id: int, checkout_id: str, url: str, until_ns: int) -> None:
    """Store the checkout of a top-up and its expiry."""
    values = {"checkout_id": checkout_id, "checkout_url": url, "checkout_until_ns": until_ns}
    connection.execute(update(topups).where(topups.c.id == topup_id).values(values))


def note_payment_intent(connection: Connection, topup_id: int, payment_intent: str) -> None:
    """Store the payment of an automatic top-up before its result is known, unless another top-up has it."""
    other = topups.alias()
    tenant = select(other.c.tenant_id).where(other.c.id == topup_id).scalar_subquery()
    taken = select(other.c.id).where(other.c.tenant_id == tenant, other.c.payment_intent == payment_intent)
    row = update(topups).where(topups.c.id == topup_id, topups.c.payment_intent == "", ~taken.exists())
    connection.execute(row.values(payment_intent=payment_intent))


def note_receipt(connection: Connection, topup: Row[Any], receipt_url: str) -> None:
    """Store the payment provider's receipt URL in the metadata of the payment."""
    of_topup = transactions.c.id == topup.transaction_id
    known = connection.execute(select(transactions.c.metadata).where(of_topup)).scalar_one()
    metadata = {**json.loads(known), "receipt_url": receipt_url}
    if receipt_url and len(receipt_url) <= _MAX_URL:
        text = json.dumps(metadata, sort_keys=True)
        describe(connection, topup.transaction_id, text)


def topup_by_key(connection: Connection, tenant_id: int, key: str) -> Row[Any] | None:
    """Return the top-up with this key; None if there is none."""
    return _by(connection, tenant_id, topups.c.key == key)


def topup_by_payment(connection: Connection, tenant_id: int, payment_intent: str) -> Row[Any] | None:
    """Return the top-up that a payment pays; None if there is none."""
    if not payment_intent:
        return None
    its = and_(topups.c.payment_intent == payment_intent, topups.c.second_of_payment == 0)
    return _by(connection, tenant_id, its)


def pay(connection: Connection, topup: Row[Any], payment_intent: str, paid_at_ns: int, at_ns: int) -> bool:
    """Book the credits of a paid top-up; False if they are booked already, and nothing changes."""
    columns = topups.c
    claimed = connection.execute(
        update(topups)
        .where(columns.id == topup.id, columns.state != TopupState.PAID)
        .values(
            state=TopupState.PAID, reason="", payment_intent=payment_intent, paid_at_ns=paid_at_ns, ended_at_ns=at_ns
        )
    )
    if not claimed.rowcount:
        return False
    tenant_id, how = topup.tenant_id, "automatic top-up" if topup.automatic else "top-up"
    transaction = begin(connection, tenant_id, Kind.TOPUP, at_ns, f"{how} {topup.key}")
    metadata = {"topup": topup.key, "payment_intent": payment_intent}
    metadata |= {"currency": topup.currency, "amount_minor": topup.amount_minor}
    movement = Movement(
        Kind.TOPUP,
        topup.wallet,
        topup.amount_nano,
        topup.price_nanousd,
        expires_at_ns=paid_at_ns + topup.expires_days * DAY_NS if topup.expires_days else None,
        metadata=json.dumps(metadata, sort_keys=True),
        pack=pack_name(connection, tenant_id, topup.pack_id),
    )
    made = carry_out(transaction, movement)
    row = update(topups).where(columns.id == topup.id)
    connection.execute(row.values(transaction_id=transaction.id, lot_id=made.lot_id))
    return True


def end(connection: Connection, topup: Row[Any], state: TopupState, reason: str, at_ns: int) -> bool:
    """End an open top-up without payment; False if it has ended before."""
    columns = topups.c
    row = update(topups).where(columns.id == topup.id, columns.state == TopupState.OPEN)
    return bool(connection.execute(row.values(state=state, reason=reason[:500], ended_at_ns=at_ns)).rowcount)


def let_expire(connection: Connection, tenant_id: int, at_ns: int) -> int:
    """Expire checkouts that can no longer be paid, even if Stripe did not report it; returns how many.

    Some payments take days after the checkout, hence the long wait. A later payment is still booked.
    """
    columns = topups.c
    over = update(topups).where(
        columns.tenant_id == tenant_id,
        columns.automatic == 0,
        columns.state == TopupState.OPEN,
        columns.created_at_ns < at_ns - _OPEN_DAYS * DAY_NS,
    )
    return connection.execute(over.values(state=TopupState.EXPIRED, ended_at_ns=at_ns)).rowcount


def topups_of(
    connection: Connection, tenant_id: int, wallet: str, before_id: int | None = None, limit: int = 100
) -> Sequence[Row[Any]]:
    """Return a wallet's top-ups, newest first."""
    columns = topups.c
    of_wallet = (columns.tenant_id == tenant_id, columns.wallet == wallet)
    return newest_first(connection, topups, columns.id, *of_wallet, before=before_id, limit=limit)


def all_topups(
    connection: Connection, tenant_id: int, state: str = "", before_id: int | None = None, limit: int = 100
) -> Sequence[Row[Any]]:
    """Return top-ups of every wallet of a tenant, newest first."""
    columns = topups.c
    chosen = [columns.tenant_id == tenant_id, *([columns.state == state] if state else [])]
    return newest_first(connection, topups, columns.id, *chosen, before=before_id, limit=limit)


def open_checkout(connection: Connection, tenant_id: int, wallet: str, pack_id: int, at_ns: int) -> Row[Any] | None:
    """Return a checkout of this pack version that the wallet can still pay; None if there is none."""
    columns = topups.c
    query = select(topups).where(
        columns.tenant_id == tenant_id,
        columns.wallet == wallet,
        columns.pack_id == pack_id,
        columns.automatic == 0,
        columns.state == TopupState.OPEN,
        columns.checkout_until_ns > at_ns,
    )
    return connection.execute(query.order_by(columns.id.desc()).limit(1)).first()


def checkouts_over(connection: Connection, tenant_id: int, wallet: str, pack_id: int, at_ns: int) -> int:
    """Return the id of a wallet's newest ended checkout of this pack version; 0 if there is none.

    Until the next one ends, all requests for a checkout get the same one.
    """
    columns = topups.c
    over = or_(columns.state != TopupState.OPEN, columns.checkout_until_ns <= at_ns)
    of_wallet = (
        columns.tenant_id == tenant_id,
        columns.wallet == wallet,
        columns.pack_id == pack_id,
        columns.automatic == 0,
    )
    return int(connection.execute(select(func.max(columns.id)).where(*of_wallet, over)).scalar() or 0)


def paid_between(connection: Connection, tenant_id: int, start_ns: int, end_ns: int) -> Sequence[Row[Any]]:
    """Return top-ups paid in [start, end), in the order of payment."""
    columns = topups.c
    paid = (columns.tenant_id == tenant_id, columns.paid_at_ns >= start_ns, columns.paid_at_ns < end_ns)
    return connection.execute(select(topups).where(*paid).order_by(columns.paid_at_ns, columns.id)).all()


def keep_payment_method(connection: Connection, tenant_id: int, wallet: str, method: PaymentMethod, at_ns: int) -> None:
    """Store the payment method of a wallet, unless it is known."""
    if payment_method(connection, tenant_id, wallet) != method:
        values = {"tenant_id": tenant_id, "wallet": wallet, "recorded_at_ns": at_ns, **method._asdict()}
        connection.execute(insert(payment_methods).values(values))


def payment_method(connection: Connection, tenant_id: int, wallet: str, at_ns: int | None = None) -> PaymentMethod:
    """Return the saved payment method of a wallet, now or as of a moment; both fields empty for none."""
    columns = payment_methods.c
    query = select(columns.customer, columns.payment_method)
    query = query.where(columns.tenant_id == tenant_id, columns.wallet == wallet)
    if at_ns is not None:
        query = query.where(columns.recorded_at_ns <= at_ns)
    found = connection.execute(query.order_by(columns.id.desc()).limit(1)).first()
    return PaymentMethod("", "") if found is None else PaymentMethod(*found)


def _by(connection: Connection, tenant_id: int, condition: Any) -> Row[Any] | None:
    return connection.execute(select(topups).where(topups.c.tenant_id == tenant_id, condition)).first()
