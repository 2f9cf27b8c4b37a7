"""What the payment provider keeps of what customers paid: fees, each booked once, in accounts of their own."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, delete, select

from farebox_collector.ledger import bulk
from farebox_collector.ledger.journal import Account, Leg, open_transaction, post
from farebox_collector.ledger.packs import price_nanousd
from farebox_collector.ledger.payment_facts import Fee
from farebox_collector.ledger.payment_tables import payment_fees, topups
from farebox_collector.ledger.tables import transactions
from farebox_collector.money import Commodity

FEES_ACCOUNT = Account("fees", "stripe", Commodity.USD)
"""What the payment provider charged us."""
WITHHELD_ACCOUNT = Account("withheld", "stripe", Commodity.USD)
"""What it kept back of our receipts for that, as a negative figure."""

_COLUMNS = (
    "tenant_id",
    "fee_id",
    "topup_id",
    "currency",
    "fee_minor",
    "fee_nanousd",
    "transaction_id",
    "recorded_at_ns",
)


def book_fee(connection: Connection, topup: Row[Any], fee: Fee, at_ns: int) -> bool:
    """Book a fee; False where it is booked already. Raises NoExchangeRate for one in a currency without a rate."""
    nanousd = price_nanousd(connection, fee.currency, fee.fee_minor, at_ns)
    transaction_id = open_transaction(connection, topup.tenant_id, "fee", at_ns, f"{fee.fee_id} of top-up {topup.key}")
    row = (topup.tenant_id, fee.fee_id, topup.id, fee.currency, fee.fee_minor, nanousd, transaction_id, at_ns)
    if not bulk.insert_ignoring_conflicts(connection, "payment_fees", _COLUMNS, [row], on=("tenant_id", "fee_id")):
        connection.execute(delete(transactions).where(transactions.c.id == transaction_id))
        return False
    legs = [Leg(FEES_ACCOUNT, nanousd), Leg(WITHHELD_ACCOUNT, -nanousd)] if nanousd else []
    post(connection, topup.tenant_id, transaction_id, at_ns, legs)
    return True


def topups_without_fee(connection: Connection, tenant_id: int, since_ns: int, limit: int) -> Sequence[Row[Any]]:
    """Top-ups that were paid since a moment, and whose fee is not known yet, oldest first."""
    fees = select(payment_fees.c.id).where(
        payment_fees.c.tenant_id == topups.c.tenant_id, payment_fees.c.topup_id == topups.c.id
    )
    query = select(topups).where(topups.c.tenant_id == tenant_id, topups.c.paid_at_ns >= since_ns, ~fees.exists())
    return connection.execute(query.order_by(topups.c.id).limit(limit)).all()


def fee_of(connection: Connection, tenant_id: int, topup_ids: Sequence[int]) -> dict[int, int]:
    """Fees in nano US dollars by top-up; those whose fee is not known yet are left out."""
    columns = payment_fees.c
    query = select(columns.topup_id, columns.fee_nanousd).where(
        columns.tenant_id == tenant_id, columns.topup_id.in_(topup_ids)
    )
    sums: dict[int, int] = {}
    for topup_id, nanousd in connection.execute(query):
        sums[topup_id] = sums.get(topup_id, 0) + nanousd
    return sums
