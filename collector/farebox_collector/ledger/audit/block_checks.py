"""Verify the blocks of wallets against their days, one block of a tenant at a time.

The days have checks of their own.
"""

from collections.abc import Iterator

from sqlalchemy import Connection, select, text, union

from farebox_collector.ledger.tables.rollups import (
    BLOCK_COSTS,
    BLOCK_DAYS,
    BLOCK_REQUESTS,
    BLOCK_SUMS,
    DAY_SUMS,
    wallet_blocks,
    wallet_days,
)
from farebox_collector.model.mismatches import Mismatch

BLOCK_CHECKS = (("wallet blocks", "the usage of every wallet by blocks of eight days is the sum of its days"),)

_OF_DAYS = {name: name for name in DAY_SUMS} | {
    column: f"CASE WHEN day % {BLOCK_DAYS} = {place} THEN {name} ELSE 0 END"
    for name, columns in (("requests", BLOCK_REQUESTS), ("cost_nanousd", BLOCK_COSTS))
    for place, column in enumerate(columns)
}
"""The SQL for each of `BLOCK_SUMS` over a row of `wallet_days`."""
_COMPARISON = text(f"""
    SELECT wallet, {", ".join(f"sum({name}) AS {name}" for name in BLOCK_SUMS)}
    FROM (
        SELECT wallet, {", ".join(f"-({_OF_DAYS[name]}) AS {name}" for name in BLOCK_SUMS)}
        FROM wallet_days WHERE tenant_id = :tenant_id AND day >= :first AND day < :end
        UNION ALL
        SELECT wallet, {", ".join(BLOCK_SUMS)} FROM wallet_blocks WHERE tenant_id = :tenant_id AND block = :block
    ) both_sides
    GROUP BY wallet HAVING {" OR ".join(f"sum({name}) <> 0" for name in BLOCK_SUMS)}
    ORDER BY wallet
""")


def blocks_of(connection: Connection) -> list[tuple[int, int]]:
    """Return every (tenant, block) that has days or is in a roll-up, in order."""
    days, blocks = wallet_days.c, wallet_blocks.c
    of_days = select(days.tenant_id, (days.day // BLOCK_DAYS).label("block"))
    found = connection.execute(union(of_days, select(blocks.tenant_id, blocks.block)))
    return sorted((row.tenant_id, row.block) for row in found)


def compare_block(connection: Connection, tenant_id: int, block: int) -> Iterator[Mismatch]:
    """Yield mismatches between one block of the wallets and the sum of its days."""
    bounds = {"first": block * BLOCK_DAYS, "end": (block + 1) * BLOCK_DAYS}
    for wallet, *off in connection.execute(_COMPARISON, {"tenant_id": tenant_id, "block": block, **bounds}):
        what = f"tenant {tenant_id}, block {block}, {wallet}"
        wrong = (f"{name} {int(by):+}" for name, by in zip(BLOCK_SUMS, off, strict=True) if by)
        yield Mismatch("wallet blocks", what, "the sum of its days", f"off by {', '.join(wrong)}")
