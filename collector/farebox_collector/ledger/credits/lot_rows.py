"""Rows of lots: read, insert and update the lots of one wallet, and find wallets whose lots are due."""

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, bindparam, func, insert, or_, select, tuple_, update

from farebox_collector.ledger.credits.lot import COLUMNS, Lot, NewLot
from farebox_collector.ledger.credits.lot_rollups import add_lot_days
from farebox_collector.ledger.journal.journal import WALLET
from farebox_collector.ledger.tables.books import accounts
from farebox_collector.ledger.tables.credits import lot_moves, lots

WALLETS_AT_ONCE = 50
_USED_UP_LOTS = 1_000
_UPDATE = update(lots).where(lots.c.id == bindparam("lot")).values({name: bindparam(f"new_{name}") for name in COLUMNS})


class LotRows:
    """The rows of one wallet's lots. The caller holds the lock of the wallet's account."""

    def __init__(self, connection: Connection, tenant_id: int, wallet: str) -> None:
        self._connection = connection
        self._tenant_id, self._wallet = tenant_id, wallet
        self._made: list[Row[Any]] = []

    def _query(self, *conditions: ColumnElement[bool]) -> Select[Any]:
        return select(lots).where(lots.c.tenant_id == self._tenant_id, lots.c.wallet == self._wallet, *conditions)

    def _found(self, query: Select[Any]) -> list[Lot]:
        return [Lot(row) for row in self._connection.execute(query)]

    def open(self) -> list[Lot]:
        """Return lots with remaining credits or with a part in returned payments."""
        table = lots.c
        return self._found(self._query(or_(table.remaining_nano > 0, table.out_nano > 0, table.lent_nano > 0)))

    def used_up(self, moment_ns: int) -> list[Lot]:
        """Return the newest used-up lots that usage of this moment may have drawn on."""
        table = lots.c
        lives = or_(table.expires_at_ns.is_(None), table.expires_at_ns >= moment_ns)
        return self._found(self._query(table.remaining_nano == 0, lives).order_by(table.id.desc()).limit(_USED_UP_LOTS))

    def ending(self, first_ns: int, last_ns: int) -> list[Lot]:
        """Return lots that expire between two moments, both included."""
        table = lots.c
        return self._found(self._query(table.expires_at_ns >= first_ns, table.expires_at_ns <= last_ns))

    def lot(self, lot_id: int) -> Lot | None:
        """Return a lot of the wallet; None if the wallet has no such lot."""
        row = self._connection.execute(self._query(lots.c.id == lot_id)).first()
        return None if row is None else Lot(row)

    def expired_of(self, lot_id: int) -> int:
        """Return the credits of a lot that expired unused, as written."""
        move = lot_moves.c
        written = self._connection.execute(
            select(func.coalesce(func.sum(move.amount_nano), 0)).where(move.lot_id == lot_id, move.kind == "expire")
        ).scalar_one()
        return -int(written)

    def insert(self, lot: NewLot, transaction_id: int | None, at_ns: int) -> Lot:
        """Insert a new lot."""
        row = self._connection.execute(
            insert(lots)
            .values(
                tenant_id=self._tenant_id,
                wallet=self._wallet,
                transaction_id=transaction_id,
                origin=lot.origin,
                amount_nano=lot.amount_nano,
                remaining_nano=lot.amount_nano,
                taken_nano=0,
                price_nanousd=lot.price_nanousd,
                recognised_nanousd=0,
                returned_nanousd=0,
                priority=lot.priority,
                promotional=int(lot.promotional),
                expires_at_ns=lot.expires_at_ns,
                created_at_ns=at_ns,
                pack=lot.pack,
            )
            .returning(lots)
        ).one()
        self._made.append(row)
        return Lot(row)

    def write(self, changed: Iterable[Lot], transaction_id: int | None) -> None:
        """Update the lots whose figures differ from their rows, insert their moves, and add all to the days of lots."""
        changed = list(changed)
        differ = [lot for lot in changed if any(lot.row._mapping[name] != it for name, it in lot.values().items())]
        if differ:
            self._connection.execute(_UPDATE, [_new_values(lot) for lot in differ])
        moves = [move | {"transaction_id": transaction_id} for lot in changed for move in lot.changes()]
        if moves:
            self._connection.execute(insert(lot_moves), moves)
        made, self._made = self._made, []
        changes = ((lot.row, move) for lot in changed for move in lot.changes())
        add_lot_days(self._connection, self._tenant_id, made, changes)


def _new_values(lot: Lot) -> dict[str, int]:
    return {"lot": lot.row.id, **{f"new_{name}": figure for name, figure in lot.values().items()}}


def wallets_with_expired_lots(connection: Connection, tenant_id: int, names: Iterable[str], at_ns: int) -> list[str]:
    """Return those of some wallets that have an expired lot whose expiry is not posted yet."""
    table = lots.c
    query = select(table.wallet).distinct().where(table.tenant_id == tenant_id, table.wallet.in_(sorted(names)))
    found = connection.execute(query.where(table.remaining_nano > 0, table.expires_at_ns <= at_ns))
    return sorted(found.scalars())


def wallets_to_draw(
    connection: Connection, at_ns: int, limit: int = WALLETS_AT_ONCE, after: tuple[int, str] = (0, "")
) -> Sequence[tuple[int, str]]:
    """Return (tenant_id, name) of wallets whose lots are behind their balance or have an expired lot to post.

    Ordered by both; `after` skips wallets up to and including that one.
    """
    columns, table = accounts.c, lots.c
    due = select(table.id).where(
        table.tenant_id == columns.tenant_id,
        table.wallet == columns.name,
        table.remaining_nano > 0,
        table.expires_at_ns <= at_ns,
    )
    behind = or_(columns.balance_nano != columns.drawn_balance_nano, due.exists())
    later = tuple_(columns.tenant_id, columns.name) > tuple_(*after)
    query = select(columns.tenant_id, columns.name).where(columns.kind == WALLET, behind, later)
    found = connection.execute(query.order_by(columns.tenant_id, columns.name).limit(limit))
    return [(tenant_id, name) for tenant_id, name in found]


def lots_of(connection: Connection, tenant_id: int, wallet: str, after_id: int, limit: int) -> Sequence[Row[Any]]:
    """Return the lots of a wallet, oldest first, as of its last update."""
    table = lots.c
    query = select(lots).where(table.tenant_id == tenant_id, table.wallet == wallet, table.id > after_id)
    return connection.execute(query.order_by(table.id).limit(limit)).all()
