"""Total corrections by cause, increases and decreases separately, because counters must not fall."""

from collections.abc import Iterable

from sqlalchemy import Connection

from farebox_collector.ledger.storage import bulk_insert
from farebox_collector.ledger.tables.corrections import correction_totals

SUMS = (
    "corrections",
    "cost_up_nanousd",
    "cost_down_nanousd",
    "charge_up_nanocredits",
    "charge_down_nanocredits",
)


def count_corrections(connection: Connection, tenant_id: int, cause: str, changes: Iterable[tuple[int, int]]) -> None:
    """Add corrections of one cause, each as the changes of its record's cost and charge."""
    sums = [0] * len(SUMS)
    for cost_nanousd, charge_nanocredits in changes:
        one = (
            1,
            max(0, cost_nanousd),
            max(0, -cost_nanousd),
            max(0, charge_nanocredits),
            max(0, -charge_nanocredits),
        )
        sums = [total + figure for total, figure in zip(sums, one, strict=True)]
    bulk_insert.insert_adding(
        connection, correction_totals.name, ("tenant_id", "cause"), SUMS, [(tenant_id, cause, *sums)]
    )
