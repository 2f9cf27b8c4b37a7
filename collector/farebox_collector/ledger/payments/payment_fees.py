"""Fees of the payment provider, withheld or given back: book each once.

A fee that cannot be booked yet waits with a reason: its payment is unknown, or its currency has no exchange rate.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, delete, func, literal, select, update

from farebox_collector.ledger.journal.journal import (
    Account,
    Leg,
    begin,
)
from farebox_collector.ledger.payments.packs import price_nanousd
from farebox_collector.ledger.payments.payment_facts import Fee
from farebox_collector.ledger.storage import bulk_insert
from farebox_collector.ledger.tables.payments import payment_fees, topups, waiting_fees
from farebox_collector.model.money import Commodity
from farebox_collector.pricing.currencies import NoExchangeRate

FEES_ACCOUNT = Account("fees", "stripe", Commodity.USD)
"""Fees that the payment provider charged."""
WITHHELD_ACCOUNT = Account("withheld", "stripe", Commodity.USD)
"""Fees withheld from receipts, as a negative figure."""

PAYMENT = "payment"
"""Source of a fee: the payment itself."""
NO_PAYMENT, NO_RATE, NOT_REPORTED = "payment_unknown", "no_exchange_rate", "not_told"
"""Why a fee waits; `not_told`: the provider has not reported the fee of the payment yet."""

_COLUMNS = (
    "tenant_id",
    "fee_id",
    "topup_id",
    "currency",
    "fee_minor",
    "fee_nanousd",
    "transaction_id",
    "recorded_at_ns",
    "source",
)
_WAITING = ("tenant_id", "fee_id", "payment_intent", "source", "currency", "fee_minor", "reason", "recorded_at_ns")


def book_fee(connection: Connection, topup: Row[Any], fee: Fee, at_ns: int, source: str = PAYMENT) -> bool:
    """Book a fee; False if it is booked already. Raises NoExchangeRate if its currency has no rate."""
    nanousd = price_nanousd(connection, fee.currency, fee.fee_minor, at_ns)
    transaction = begin(connection, topup.tenant_id, "fee", at_ns, f"{fee.fee_id} of top-up {topup.key}")
    row = (topup.tenant_id, fee.fee_id, topup.id, fee.currency, fee.fee_minor, nanousd, transaction.id, at_ns, source)
    new = bool(
        bulk_insert.insert_ignoring_conflicts(connection, "payment_fees", _COLUMNS, [row], on=("tenant_id", "fee_id"))
    )
    if new:
        legs = [Leg(FEES_ACCOUNT, nanousd), Leg(WITHHELD_ACCOUNT, -nanousd)] if nanousd else []
        transaction.post(legs)
    else:
        transaction.abandon()
    if source == PAYMENT:
        _note_known(connection, topup)
    return new


def book_or_wait(
    connection: Connection,
    tenant_id: int,
    payment_intent: str,
    topup: Row[Any] | None,
    fee: Fee,
    source: str,
    at_ns: int,
) -> bool:
    """Book a fee, or store it until its payment and a rate are known; True if it is booked now."""
    if topup is not None:
        try:
            return book_fee(connection, topup, fee, at_ns, source)
        except NoExchangeRate:
            if source == PAYMENT:
                _note_known(connection, topup)
    booked = select(payment_fees.c.id).where(payment_fees.c.tenant_id == tenant_id, payment_fees.c.fee_id == fee.fee_id)
    if connection.execute(booked).first() is None:
        reason = NO_PAYMENT if topup is None else NO_RATE
        row = (tenant_id, fee.fee_id, payment_intent, source, fee.currency, fee.fee_minor, reason, at_ns)
        bulk_insert.insert_ignoring_conflicts(
            connection, waiting_fees.name, _WAITING, [row], on=("tenant_id", "fee_id")
        )
    return False


def book_waiting(connection: Connection, topup: Row[Any], at_ns: int) -> int:
    """Book waiting fees of a payment; those without a rate keep waiting. Returns how many were booked."""
    columns = waiting_fees.c
    of_payment = (columns.tenant_id == topup.tenant_id, columns.payment_intent == topup.payment_intent)
    booked = 0
    for row in connection.execute(select(waiting_fees).where(*of_payment).order_by(columns.fee_id)).all():
        this = (columns.tenant_id == row.tenant_id, columns.id == row.id)
        try:
            book_fee(connection, topup, Fee(row.fee_id, row.currency, row.fee_minor), at_ns, row.source)
        except NoExchangeRate:
            connection.execute(update(waiting_fees).where(*this).values(reason=NO_RATE))
            continue
        connection.execute(delete(waiting_fees).where(*this))
        booked += 1
    return booked


def currencies_waited_for(connection: Connection, tenant_id: int) -> list[str]:
    """Return the currencies of fees that wait for an exchange rate."""
    columns = waiting_fees.c
    query = select(columns.currency).distinct().where(columns.tenant_id == tenant_id, columns.reason == NO_RATE)
    return sorted(connection.execute(query).scalars())


def topups_with_waiting_fees(connection: Connection, tenant_id: int, currency: str, limit: int) -> Sequence[Row[Any]]:
    """Return top-ups with a fee that waits for a rate of one currency."""
    columns = waiting_fees.c
    query = (
        select(topups)
        .join(waiting_fees, (columns.tenant_id == topups.c.tenant_id) & _of_payment())
        .where(columns.tenant_id == tenant_id, columns.reason == NO_RATE, columns.currency == currency)
    )
    return connection.execute(query.order_by(columns.id).limit(limit)).all()


def topups_without_fee(
    connection: Connection, tenant_id: int, since_ns: int, limit: int, after_id: int = 0
) -> Sequence[Row[Any]]:
    """Return top-ups paid since a moment whose own fee is not known yet, oldest first."""
    columns = topups.c
    query = select(topups).where(
        columns.tenant_id == tenant_id,
        columns.state == "paid",
        columns.fee_known == 0,
        columns.paid_at_ns >= since_ns,
        columns.id > after_id,
    )
    return connection.execute(query.order_by(columns.id).limit(limit)).all()


def booked_fees(connection: Connection, topup: Row[Any]) -> list[Row[Any]]:
    """Return booked and waiting fees of a top-up: fee_id, currency, fee_minor, reason (empty if booked)."""
    booked, waiting = payment_fees.c, waiting_fees.c
    query = select(booked.fee_id, booked.currency, booked.fee_minor, literal("").label("reason")).where(
        booked.tenant_id == topup.tenant_id, booked.topup_id == topup.id
    )
    rows = list(connection.execute(query.order_by(booked.id)))
    query = select(waiting.fee_id, waiting.currency, waiting.fee_minor, waiting.reason).where(
        waiting.tenant_id == topup.tenant_id, waiting.payment_intent == topup.payment_intent
    )
    return [*rows, *connection.execute(query.order_by(waiting.id))]


def fee_of(connection: Connection, tenant_id: int, topup_ids: Sequence[int]) -> dict[int, int]:
    """Return fees in nano-USD by top-up; top-ups whose fee is not known yet are left out."""
    columns = payment_fees.c
    query = select(columns.topup_id, columns.fee_nanousd).where(
        columns.tenant_id == tenant_id, columns.topup_id.in_(topup_ids)
    )
    sums: dict[int, int] = {}
    for topup_id, nanousd in connection.execute(query):
        sums[topup_id] = sums.get(topup_id, 0) + nanousd
    return sums


def count_waiting(connection: Connection) -> dict[str, int]:
    """Count waiting fees of all tenants, by reason."""
    counts = {NO_PAYMENT: 0, NO_RATE: 0}
    query = select(waiting_fees.c.reason, func.count()).group_by(waiting_fees.c.reason)
    counts |= {reason: int(count) for reason, count in connection.execute(query)}
    not_reported = select(func.count()).where(topups.c.state == "paid", topups.c.fee_known == 0)
    return counts | {NOT_REPORTED: int(connection.execute(not_reported).scalar_one())}


def _of_payment() -> Any:
    return (waiting_fees.c.payment_intent == topups.c.payment_intent) & (topups.c.second_of_payment == 0)


def _note_known(connection: Connection, topup: Row[Any]) -> None:
    known = update(topups).where(topups.c.tenant_id == topup.tenant_id, topups.c.id == topup.id)
    connection.execute(known.values(fee_known=1))
