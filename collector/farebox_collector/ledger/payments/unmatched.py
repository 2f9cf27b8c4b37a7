"""Payments, refunds and disputes that match nothing in the books: stored for review, without effect on balances."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, func, select

from farebox_collector.ledger.payments.payment_facts import Paid
from farebox_collector.ledger.storage import bulk_insert
from farebox_collector.ledger.tables.payments import payment_returns, unmatched_payments

PAYMENT = "payment"
_COLUMNS = (
    "tenant_id",
    "topup_key",
    "payment_intent",
    "currency",
    "amount_minor",
    "reason",
    "paid_at_ns",
    "recorded_at_ns",
)


class Unmatched(NamedTuple):
    """A payment, refund or dispute that matches nothing in the books."""

    kind: str
    """`payment`, `refund` or `dispute`."""
    id: str
    payment_intent: str
    currency: str
    amount_minor: int
    reason: str
    made_at_ns: int


def keep_payment(connection: Connection, tenant_id: int, fact: Paid, reason: str, at_ns: int) -> bool:
    """Store a payment that matches no top-up, with the reason; False if it is stored already."""
    row = (
        tenant_id,
        fact.topup_key,
        fact.payment_intent,
        fact.currency,
        fact.amount_minor,
        reason[:500],
        fact.paid_at_ns,
        at_ns,
    )
    key = ("tenant_id", "payment_intent", "topup_key")
    return bool(bulk_insert.insert_ignoring_conflicts(connection, unmatched_payments.name, _COLUMNS, [row], on=key))


def unmatched_between(connection: Connection, tenant_id: int, start_ns: int, end_ns: int) -> list[Unmatched]:
    """Return unmatched items made in [start, end), in the order of creation."""
    found = [
        Unmatched(
            PAYMENT,
            row.payment_intent,
            row.payment_intent,
            row.currency,
            row.amount_minor,
            row.reason,
            row.paid_at_ns,
        )
        for row in _payments(connection, tenant_id, start_ns, end_ns)
    ]
    found += _returns(connection, tenant_id, start_ns, end_ns)
    return sorted(found, key=lambda one: (one.made_at_ns, one.id))


def count_unmatched(connection: Connection) -> dict[str, int]:
    """Count unmatched items of all tenants, by kind."""
    columns = payment_returns.c
    of_returns = select(columns.kind, func.count()).where(columns.unmatched != "").group_by(columns.kind)
    counts = {kind: int(count) for kind, count in connection.execute(of_returns)}
    payments = connection.execute(select(func.count()).select_from(unmatched_payments)).scalar_one()
    return {"refund": 0, "dispute": 0} | counts | {PAYMENT: int(payments)}


def _payments(connection: Connection, tenant_id: int, start_ns: int, end_ns: int) -> Sequence[Row[Any]]:
    columns = unmatched_payments.c
    made = (columns.tenant_id == tenant_id, columns.paid_at_ns >= start_ns, columns.paid_at_ns < end_ns)
    return connection.execute(select(unmatched_payments).where(*made)).all()


def _returns(connection: Connection, tenant_id: int, start_ns: int, end_ns: int) -> Iterator[Unmatched]:
    columns = payment_returns.c
    made = (columns.tenant_id == tenant_id, columns.created_at_ns >= start_ns, columns.created_at_ns < end_ns)
    for row in connection.execute(select(payment_returns).where(*made, columns.unmatched != "")):
        facts = (row.kind, row.return_id, row.payment_intent, row.currency, row.amount_minor)
        yield Unmatched(*facts, row.unmatched, row.created_at_ns)
