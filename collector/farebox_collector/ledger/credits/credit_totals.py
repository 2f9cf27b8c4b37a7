"""How many credits ever came in, by source: a total that only grows."""

from sqlalchemy import Connection, select

from farebox_collector.ledger.storage import bulk_insert
from farebox_collector.ledger.tables.service import credit_totals
from farebox_collector.model.money import MAX_SUM_NANO, AmountError


def add_credits(connection: Connection, tenant_id: int, source: str, amount_nanocredits: int) -> None:
    """Count credits that came into (positive) wallets from a source, such as `deposit`. Only ever adds.

    Raises AmountError where the sum would be out of range.
    """
    if amount_nanocredits <= 0:
        raise ValueError("totals only grow")
    table = credit_totals.c
    known = select(table.amount_nanocredits).where(table.tenant_id == tenant_id, table.source == source)
    if int(connection.execute(known).scalar() or 0) + amount_nanocredits > MAX_SUM_NANO:
        raise AmountError("too large: all that ever came in this way would be out of range")
    key, sums = ("tenant_id", "source"), ("movements", "amount_nanocredits")
    bulk_insert.insert_adding(connection, credit_totals.name, key, sums, [(tenant_id, source, 1, amount_nanocredits)])
