"""Roll up by day what happens to lots, and how overdraft changes: the bridge and deferred revenue are read from these.

Written in the transaction that changes the lots, so that the sums equal the lots and their moves at any time.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from operator import add
from typing import Any

from sqlalchemy import Connection, Row, func, select

from farebox_collector.ledger.credits.returned_credits import DEBT_MOVE
from farebox_collector.ledger.storage import bulk_insert
from farebox_collector.ledger.tables.books import accounts
from farebox_collector.ledger.tables.credits import lot_moves, lots
from farebox_collector.ledger.tables.rollups import (
    LOT_NAMES,
    LOT_SUMS,
    LOT_WAYS,
    OVERDRAFT_SUMS,
    lot_days,
    overdraft_days,
)
from farebox_collector.model.mismatches import Mismatch
from farebox_collector.model.moments import day_of, month_of

LOT_DAY_CHECKS = (
    ("lot days", "the days of lots are the sums of the lots and their moves"),
    ("overdraft days", "the daily changes of overdraft sum to what wallets owe"),
)

TRANSFER = "transfer"
_WAY_OF_MOVE = {"draw": "used", "return": "used", DEBT_MOVE: "used", "expire": "expired", TRANSFER: "transferred"}
"""Kind of a lot move → what happened to the credits; any other kind returned them to the customer."""
_KEY = ("tenant_id", "day", *LOT_NAMES)
_PLACE = {way: 2 * number for number, way in enumerate(LOT_WAYS)}
_ROWS = 10_000

LotKey = tuple[int, str, str, int, int]
"""The day, and `LOT_NAMES`."""


def add_lot_days(
    connection: Connection,
    tenant_id: int,
    made: Iterable[Row[Any]],
    changes: Iterable[tuple[Row[Any], Mapping[str, Any]]],
) -> None:
    """Add new lots, and (lot, move) of changed ones, to the days of lots."""
    sums = _summed([*(_of_new(lot) for lot in made), *(_of_move(lot, move) for lot, move in changes)])
    # All writers use one order, so that they cannot deadlock.
    rows = [(tenant_id, *key, *figures) for key, figures in sorted(sums.items()) if any(figures)]
    if rows:
        bulk_insert.insert_adding(connection, lot_days.name, _KEY, LOT_SUMS, rows)


def add_overdraft(connection: Connection, tenant_id: int, changes: Sequence[int], at_ns: int) -> None:
    """Add changes of a wallet's overdraft (`OVERDRAFT_SUMS`, nanocredits) to their day."""
    if any(changes):
        rows = [(tenant_id, day_of(at_ns), *changes)]
        bulk_insert.insert_adding(connection, overdraft_days.name, ("tenant_id", "day"), OVERDRAFT_SUMS, rows)


def _summed(parts: Iterable[tuple[LotKey, Sequence[int]]]) -> dict[LotKey, Sequence[int]]:
    sums: defaultdict[LotKey, Sequence[int]] = defaultdict(lambda: (0,) * len(LOT_SUMS))
    for key, figures in parts:
        sums[key] = tuple(map(add, sums[key], figures))
    return sums


def _of_new(lot: Any) -> tuple[LotKey, Sequence[int]]:
    way = "transferred" if lot.origin == TRANSFER else "sold"
    return _key(lot, lot.created_at_ns), _figures(way, lot.amount_nano, lot.price_nanousd)


def _of_move(lot: Any, move: Mapping[str, Any]) -> tuple[LotKey, Sequence[int]]:
    way, amount = _WAY_OF_MOVE.get(move["kind"], "returned"), -move["amount_nano"]
    recognised, returned = move["recognised_nanousd"], move["returned_nanousd"]
    key = _key(lot, move["recorded_at_ns"])
    if way == "transferred":
        return key, _figures(way, -amount, -returned)
    if way == "returned":
        return key, _figures(way, amount, returned)
    # Moves from older versions also return a part of the price here.
    return key, tuple(map(add, _figures(way, amount, recognised), _figures("returned", 0, returned)))


def _key(lot: Any, at_ns: int) -> LotKey:
    return day_of(at_ns), lot.origin, lot.pack, month_of(lot.created_at_ns), int(lot.price_nanousd > 0)


def _figures(way: str, credits_nano: int, price_nanousd: int) -> Sequence[int]:
    place = _PLACE[way]
    return (*(0,) * place, credits_nano, price_nanousd, *(0,) * (len(LOT_SUMS) - place - 2))


def compare_lot_days(connection: Connection) -> Iterator[Mismatch]:
    """Yield mismatches between the roll-ups of lots and overdraft and what they sum up."""
    off: dict[tuple[int, LotKey], Sequence[int]] = {}

    def count(tenant_id: int, key: LotKey, figures: Sequence[int], sign: int) -> None:
        before = off.get((tenant_id, key), (0,) * len(LOT_SUMS))
        off[tenant_id, key] = [a + sign * int(b) for a, b in zip(before, figures, strict=True)]

    for lot in connection.execute(select(lots), execution_options={"yield_per": _ROWS}):
        count(lot.tenant_id, *_of_new(lot), 1)
    names = ("origin", "pack", "created_at_ns", "price_nanousd")
    moves = select(lot_moves, *(lots.c[name] for name in names)).join(lots, lots.c.id == lot_moves.c.lot_id)
    for row in connection.execute(moves, execution_options={"yield_per": _ROWS}):
        count(row.tenant_id, *_of_move(row, dict(row._mapping)), 1)
    for row in connection.execute(select(lot_days)):
        key = (row.day, *(getattr(row, name) for name in LOT_NAMES))
        count(row.tenant_id, key, [getattr(row, name) for name in LOT_SUMS], -1)
    for (tenant_id, (day, origin, pack, month, paid)), figures in sorted(off.items()):
        if any(figures):
            by = ", ".join(f"{name} {-figure:+}" for name, figure in zip(LOT_SUMS, figures, strict=True) if figure)
            what = f"tenant {tenant_id}, day {day}, {origin} {pack or 'without pack'}, month {month}, paid {paid}"
            yield Mismatch("lot days", what, "no difference", f"off by {by}")
    yield from _compare_overdraft(connection)


def _compare_overdraft(connection: Connection) -> Iterator[Mismatch]:
    account, lot, table = accounts.c, lots.c, overdraft_days.c

    def by_tenant(tenant: Any, *figures: Any, where: Any = None) -> dict[int, list[int]]:
        query = select(tenant, *(func.sum(figure) for figure in figures)).group_by(tenant)
        found = connection.execute(query if where is None else query.where(where))
        return {row[0]: [int(figure or 0) for figure in row[1:]] for row in found}

    owed = by_tenant(account.tenant_id, account.overdraft_nano, where=account.overdraft_nano != 0)
    displaced = by_tenant(lot.tenant_id, lot.displaced_nano - lot.lent_nano, where=lot.displaced_nano != lot.lent_nano)
    rolled_up = by_tenant(table.tenant_id, *(table[name] for name in OVERDRAFT_SUMS))
    for tenant_id in sorted({*owed, *displaced, *rolled_up}):
        (overdraft,), (moved,) = owed.get(tenant_id, [0]), displaced.get(tenant_id, [0])
        expected, found = [overdraft, overdraft - moved], rolled_up.get(tenant_id, [0, 0])
        if expected != found:
            words = (f"{overdraft} owed, {unpaid} never paid" for overdraft, unpaid in (expected, found))
            yield Mismatch("overdraft days", f"tenant {tenant_id}", *words)
