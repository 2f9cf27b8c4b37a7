"""Count, rank and sum all wallets of a tenant from `wallet_blocks`: a row for eight days of a wallet.

A block has the calls and the cost of each of its days, so that counting and ranking read nothing else. Other sums of a
part of a block are those of its days in `wallet_days`, or the block less its other days, whichever are fewer.
"""

from collections.abc import Iterator, Sequence
from functools import reduce
from itertools import islice
from operator import add, sub
from typing import Any, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Connection,
    CursorResult,
    Select,
    Subquery,
    and_,
    case,
    func,
    select,
    union_all,
)

from farebox_collector.ledger.journal.journal import WALLET
from farebox_collector.ledger.tables.books import accounts
from farebox_collector.ledger.tables.rollups import (
    BLOCK_COSTS,
    BLOCK_DAYS,
    BLOCK_REQUESTS,
    DAY_SUMS,
    wallet_blocks,
    wallet_days,
    within,
)
from farebox_collector.model.moments import Days
from farebox_collector.model.money import Commodity

ROWS_AT_ONCE = 1_000
"""Rows that a report fetches from the database at a time."""
_FIRST_ROWS = 128
"""The same for the first rows of a ranking: often no more are read."""

Conditions = Sequence[ColumnElement[bool]]
"""Conditions on the accounts of the wallets."""


class ServedWallet(NamedTuple):
    """A wallet with the sums of its charged calls in some days, and its account as it is now."""

    wallet: str
    requests: int
    errors: int
    input_tokens: int
    output_tokens: int
    cost_nanousd: int
    charge_nanocredits: int
    balance_nano: int
    created_at_ns: int


class _Calls(NamedTuple):
    """Blocks of some days, and the expressions for the calls and their cost in these days."""

    within: ColumnElement[bool]
    requests: ColumnElement[int]
    cost_nanousd: ColumnElement[int]


class _Split(NamedTuple):
    """Some days as whole blocks, plus days of other blocks, less days of these blocks."""

    blocks: range
    plus: Sequence[int]
    less: Sequence[int]


def active_wallets(connection: Connection, tenant_id: int, days: Days) -> int:
    """Return how many wallets were charged in these days."""
    calls = _calls(tenant_id, _to_last_block(connection, tenant_id, days))
    different = select(wallet_blocks.c.wallet).where(calls.within, calls.requests > 0).distinct().subquery()
    return int(connection.execute(select(func.count()).select_from(different)).scalar_one())


def active_wallets_by_day(connection: Connection, tenant_id: int, days: Days) -> dict[int, int]:
    """Return how many wallets were charged on each of these days; days without any are missing."""
    table = wallet_blocks.c
    charged = [func.count().filter(table[name] > 0) for name in BLOCK_REQUESTS]
    overlapping = Days(days.first // BLOCK_DAYS, _blocks_until(days.end))
    query = select(table.block, *charged).where(table.tenant_id == tenant_id, within(table.block, overlapping))
    return {
        block * BLOCK_DAYS + place: int(wallets)
        for block, *counts in connection.execute(query.group_by(table.block))
        for place, wallets in enumerate(counts)
        if wallets and days.first <= block * BLOCK_DAYS + place < days.end
    }


def ranked_wallets(
    connection: Connection, tenant_id: int, days: Days, chosen: Conditions = (), limit: int | None = None
) -> Iterator[ServedWallet]:
    """Yield wallets that were charged in these days, highest cost first, then by name."""
    whole = _to_last_block(connection, tenant_id, days)
    calls, wallet = _calls(tenant_id, whole), wallet_blocks.c.wallet
    query = (
        select(wallet)
        .where(calls.within, *(wallet.in_(only) for only in _filter(tenant_id, chosen)))
        .group_by(wallet)
        .having(func.sum(calls.requests) > 0)
        .order_by(func.sum(calls.cost_nanousd).desc(), wallet)
        .limit(limit)
    )
    names = connection.execute(query, execution_options={"yield_per": ROWS_AT_ONCE}).scalars()
    size = _FIRST_ROWS
    while wallets := list(islice(names, size)):
        found = _described(connection, tenant_id, whole, wallets)
        yield from (found[wallet] for wallet in wallets if wallet in found)
        size = ROWS_AT_ONCE


def sums_of_wallets(
    connection: Connection, tenant_id: int, days: Days, chosen: Conditions = ()
) -> CursorResult[tuple[int, ...]]:
    """Return one row with the sums (`DAY_SUMS`) of these wallets; NULL, or 0, if they have no calls."""
    parts = sums_by_wallet(connection, tenant_id, days, chosen).c
    return connection.execute(select(*(func.sum(parts[name]).label(name) for name in DAY_SUMS)))


def sums_by_wallet(connection: Connection, tenant_id: int, days: Days, chosen: Conditions = ()) -> Subquery:
    """Return a subquery of wallets with parts of their sums (`DAY_SUMS`) in these days, which add up to them."""
    return _parts(tenant_id, _to_last_block(connection, tenant_id, days), _filter(tenant_id, chosen))


def charges_of(connection: Connection, tenant_id: int, days: Days, wallets: Sequence[str]) -> dict[str, int]:
    """Return what some wallets were charged in these days, in nanocredits; wallets without calls are missing."""
    parts = _parts(tenant_id, _to_last_block(connection, tenant_id, days), [wallets]).c
    query = select(parts.wallet, func.sum(parts.charge_nanocredits)).group_by(parts.wallet)
    return {name: int(charge or 0) for name, charge in connection.execute(query)}


def _calls(tenant_id: int, days: Days) -> _Calls:
    """Return what the blocks of some days say of these days."""
    table = wallet_blocks.c
    first, end = days.first // BLOCK_DAYS, _blocks_until(days.end)
    parts: list[tuple[ColumnElement[bool], slice]] = []
    for block in sorted({first, end - 1}):
        begin = block * BLOCK_DAYS
        places = slice(max(days.first - begin, 0), min(days.end - begin, BLOCK_DAYS))
        if places != slice(0, BLOCK_DAYS):
            parts.append((table.block == block, places))

    def of_days(whole: str, names: Sequence[str]) -> ColumnElement[int]:
        cases = [(block, _of_places(whole, names, places)) for block, places in parts]
        return case(*cases, else_=table[whole]) if cases else table[whole]

    return _Calls(
        and_(table.tenant_id == tenant_id, within(table.block, Days(first, end))),
        of_days("requests", BLOCK_REQUESTS),
        of_days("cost_nanousd", BLOCK_COSTS),
    )


def _of_places(whole: str, names: Sequence[str], places: slice) -> ColumnElement[int]:
    """Return the sum of some days of a block from as few columns as possible: SQLite sorts rows with all of them."""
    table, own = wallet_blocks.c, names[places]
    if len(own) <= BLOCK_DAYS // 2:
        return reduce(add, (table[name] for name in own))
    return reduce(sub, (table[name] for name in names if name not in own), table[whole])


def _described(connection: Connection, tenant_id: int, days: Days, wallets: Sequence[str]) -> dict[str, ServedWallet]:
    """Return these wallets with their sums; wallets without an account are missing."""
    parts = _parts(tenant_id, days, [wallets]).c
    sums = {
        row.wallet: row
        for row in connection.execute(
            select(parts.wallet, *(func.sum(parts[name]).label(name) for name in DAY_SUMS)).group_by(parts.wallet)
        )
    }
    account = accounts.c
    query = select(account.name, account.balance_nano, account.created_at_ns)
    own_rows = (*_of_wallets(tenant_id), account.name.in_(wallets))
    return {
        name: ServedWallet(name, *map(int, (*sums[name][1:], *now)))
        for name, *now in connection.execute(query.where(*own_rows))
        if name in sums
    }


def _parts(tenant_id: int, days: Days, wanted: Sequence[Any]) -> Subquery:
    """Return a subquery of wallets and parts of their sums."""
    split = _split(days)
    pieces = (
        (wallet_blocks, wallet_blocks.c.block, split.blocks, 1),
        (wallet_days, wallet_days.c.day, split.plus, 1),
        (wallet_days, wallet_days.c.day, split.less, -1),
    )
    # One place after the other: with a range SQLite would not look wallets up.
    return union_all(
        *(
            select(table.c.wallet, *((sign * table.c[name]).label(name) for name in DAY_SUMS)).where(
                table.c.tenant_id == tenant_id, column.in_(places), *(table.c.wallet.in_(only) for only in wanted)
            )
            for table, column, places, sign in pieces
            if places
        )
    ).subquery("parts")


def _split(days: Days) -> _Split:
    """Return these days in as few rows as possible."""
    if days.end - days.first <= BLOCK_DAYS // 2:
        return _Split(range(0), range(*days), ())
    first, end = days.first // BLOCK_DAYS, _blocks_until(days.end)
    plus: list[int] = []
    less: list[int] = []
    before, after = range(first * BLOCK_DAYS, days.first), range(days.end, end * BLOCK_DAYS)
    if len(before) <= BLOCK_DAYS // 2:
        less += before
    else:
        first += 1
        plus += range(days.first, first * BLOCK_DAYS)
    if len(after) <= BLOCK_DAYS // 2:
        less += after
    else:
        end -= 1
        plus += range(end * BLOCK_DAYS, days.end)
    return _Split(range(first, end), plus, less)


def _blocks_until(day: int) -> int:
    """Return the number of the first block that begins on a day or after it."""
    return -(-day // BLOCK_DAYS)


def _to_last_block(connection: Connection, tenant_id: int, days: Days) -> Days:
    """Return the days, up to the end of their last block if it has no later calls: then it counts as a whole.

    Reports usually end today.
    """
    table, end = wallet_days.c, _blocks_until(days.end) * BLOCK_DAYS
    later = select(table.day).where(table.tenant_id == tenant_id, within(table.day, Days(days.end, end))).limit(1)
    return days if connection.execute(later).first() else Days(days.first, end)


def _filter(tenant_id: int, chosen: Conditions) -> list[Select[tuple[str]]]:
    """Return a query of the names of chosen wallets; nothing for all wallets."""
    return [select(accounts.c.name).where(*_of_wallets(tenant_id), *chosen)] if chosen else []


def _of_wallets(tenant_id: int) -> Conditions:
    account = accounts.c
    return account.tenant_id == tenant_id, account.kind == WALLET, account.commodity == Commodity.CREDIT
