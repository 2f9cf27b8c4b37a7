"""Total credits added to wallets, by source. It only grows."""

from sqlalchemy import Connection, select

from farebox_collector.ledger.storage import bulk_insert
from farebox_collector.ledger.tables.service import credit_totals
from farebox_collector.model.money import MAX_SUM_NANO, AmountError


def add_credits(connection: Connection, tenant_id: int, source: str, amount_nanocredits: int) -> None:
    """Add credits that a source, such as `deposit`, put into wallets. Raises ValueError for 0 or less.

    Raises AmountError if the sum would be out of range.
    """
    if amount_nanocredits <= 0:
        raise ValueError("totals only grow")
    table = credit_totals.c
    known = select(table.amount_nanocredits).where(table.tenant_id == tenant_id, table.source == source)
    if int(connection.execute(known).scalar() or 0) + amount_nanocredits > MAX_SUM_NANO:
        raise AmountError(f"too large: all credits of the source {source} together would be out of range")
    key, sums = ("tenant_id", "source"), ("movements", "amount_nanocredits")
    bulk_insert.insert_adding(connection, credit_totals.name, key, sums, [(tenant_id, source, 1, amount_nanocredits)])
