"""Roll up usage by day, in the transaction that records the calls. The day is that of the price: a late call counts
on its own day, and corrections subtract there.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from operator import add
from typing import Any

from sqlalchemy import Connection

from farebox_collector.ledger.storage import bulk_insert
from farebox_collector.ledger.tables.rollups import (
    BLOCK_COSTS,
    BLOCK_DAYS,
    BLOCK_REQUESTS,
    DAY_SUMS,
    usage_days,
    wallet_blocks,
    wallet_days,
)
from farebox_collector.model.records import PricedUsage

_USAGE_KEY = ("tenant_id", "day", "event", "provider", "model", "verdict")
_WALLET_KEY = ("tenant_id", "day", "wallet", "event", "provider", "model")
_BLOCK_KEY = ("tenant_id", "block", "wallet")
_REQUESTS, _COST = DAY_SUMS.index("requests"), DAY_SUMS.index("cost_nanousd")

DayKey = tuple[int, str, str, str, str]
"""The day and the four names of a roll-up's row."""


def add_usage_days(connection: Connection, tenant_id: int, rows: Iterable[tuple[DayKey, Sequence[int]]]) -> None:
    """Add sums (`DAY_SUMS`) to (day, event, provider, model, verdict); negative ones take back."""
    sums: defaultdict[DayKey, Sequence[int]] = defaultdict(lambda: (0,) * len(DAY_SUMS))
    for key, row in rows:
        sums[key] = list(map(add, sums[key], row))
    table_rows = [(tenant_id, *key, *row) for key, row in sorted(sums.items())]
    bulk_insert.insert_adding(connection, usage_days.name, _USAGE_KEY, DAY_SUMS, table_rows)


WalletKey = tuple[int, str, str, str, str, int | None]
"""Day, wallet, event, provider, model, and the version of the charge rule."""
WalletSums = Mapping[WalletKey, Sequence[int]]
"""The sums (`DAY_SUMS`) of charged calls."""


def figures_of(call: PricedUsage) -> list[int]:
    """Return one call's part of `DAY_SUMS`."""
    buckets = call.usage.buckets
    tokens_in = buckets.inclusive_input if buckets else 0
    tokens_out = buckets.total - tokens_in if buckets else 0
    money = (call.cost_nanousd or 0, call.charge_nanocredits or 0)
    return [1, 1 if call.usage.error_type else 0, tokens_in, tokens_out, *money]


def add_wallet_days(connection: Connection, tenant_id: int, sums: WalletSums, sign: int = 1) -> None:
    """Add sums to the days and to the blocks of their wallets; with a sign of -1 subtract them."""
    days: dict[DayKey, Sequence[int]] = {}
    for wallet_key, row in sums.items():
        key = wallet_key[:5]
        earlier = days.get(key)
        days[key] = row if earlier is None else list(map(add, earlier, row))
    # All writers use one order, so that they cannot deadlock.
    if sign > 0:
        rows = [(tenant_id, *key, *row) for key, row in sorted(days.items())]
    else:
        rows = [(tenant_id, *key, *(-figure for figure in row)) for key, row in sorted(days.items())]
    bulk_insert.insert_adding(connection, wallet_days.name, _WALLET_KEY, DAY_SUMS, rows)
    _add_wallet_blocks(connection, rows)


def _add_wallet_blocks(connection: Connection, rows: Sequence[tuple[Any, ...]]) -> None:
    """Add rows of `wallet_days` to the blocks of their wallets."""
    places = {row[1] % BLOCK_DAYS for row in rows}
    # A batch is nearly always of one day: then only the columns of that day are written. Few combinations of columns
    # mean few prepared statements, and few temporary tables on PostgreSQL.
    written = tuple(places) if len(places) == 1 else tuple(range(BLOCK_DAYS))
    columns = (*(BLOCK_REQUESTS[place] for place in written), *(BLOCK_COSTS[place] for place in written))
    blocks: dict[tuple[int, int, str], Sequence[int]] = {}
    for row in rows:
        day, figures = row[1], row[-len(DAY_SUMS) :]
        if len(written) == 1:
            sums: Sequence[int] = (*figures, figures[_REQUESTS], figures[_COST])
        else:
            place = day % BLOCK_DAYS
            before, after = (0,) * place, (0,) * (BLOCK_DAYS - place - 1)
            sums = (*figures, *before, figures[_REQUESTS], *after, *before, figures[_COST], *after)
        key = row[0], day // BLOCK_DAYS, row[2]
        earlier = blocks.get(key)
        blocks[key] = sums if earlier is None else tuple(map(add, earlier, sums))
    # In one order as well.
    table_rows = [(*key, *sums) for key, sums in sorted(blocks.items())]
    bulk_insert.insert_adding(connection, wallet_blocks.name, _BLOCK_KEY, (*DAY_SUMS, *columns), table_rows)
