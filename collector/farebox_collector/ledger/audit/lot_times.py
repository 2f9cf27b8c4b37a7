"""Verify lots by time: which usage may have drawn on a lot that has ended, and which must have.

The check uses the times of the calls and does not repeat the drawing, for each lot that has ended:

- Usage drew no more from the lots that had ended by then than was used by then.
- If some of a lot expired, no usage during its life was paid by a lot that is drawn later, or became overdraft.

Both are bounds that hold in any order of reports, corrections and withdrawals. Wallets with a returned payment are
left to the check `returns`. If corrections gave credits back, only the first bound holds. Lots from before the upgrade
to the first version with this check are skipped.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, func, or_, select

from farebox_collector.ledger.credits.lot import Lot
from farebox_collector.ledger.credits.lot_usage import LONGEST_TRANSACTION_NS, moments_of
from farebox_collector.ledger.credits.lots import EXPIRY, RECOGNITION
from farebox_collector.ledger.credits.movements import OUTGOING
from farebox_collector.ledger.journal.journal import WALLET
from farebox_collector.ledger.journal.posting_index import legs_of
from farebox_collector.ledger.journal.watermarks import watermark
from farebox_collector.ledger.tables.books import accounts, transactions
from farebox_collector.ledger.tables.credits import lot_moves, lots
from farebox_collector.model.mismatches import Mismatch

LOT_TIME_CHECKS = (("lot times", "usage drew on lots that existed at the time of the calls"),)
LOTS_BEFORE = "lots before their times were kept right"
"""The watermark: the newest lot that is not checked."""

_NO_USAGE = (EXPIRY, RECOGNITION, *sorted(OUTGOING))
"""Kinds of transactions that take credits out of a wallet without drawing on a lot."""


@dataclass
class _Ended:
    """A lot that has ended, and the usage by its end and after it."""

    lot: Lot
    ends_ns: int
    expired: int
    by_then: int = 0
    """The most that may have been drawn by its end."""
    elsewhere: int = 0
    """The most that other lots may have paid although some of this lot expired."""

    def count(self, amount: int, at_ns: int | None, recorded_ns: int) -> None:
        """Count usage at a time; None if the time is no longer known."""
        # Usage posted before the lot existed is overdraft that the lot pays, or was paid by other lots.
        before = recorded_ns <= self.lot.row.created_at_ns + LONGEST_TRANSACTION_NS
        if at_ns is None or before or at_ns <= self.ends_ns:
            self.by_then += amount
        if at_ns is None or before or at_ns > self.ends_ns:
            self.elsewhere += amount


def compare_lot_times(connection: Connection) -> Iterator[Mismatch]:
    """Yield lots that paid for usage which they cannot have paid, or did not pay for usage that they had to."""
    newest_ns = connection.execute(select(func.coalesce(func.max(transactions.c.recorded_at_ns), 0))).scalar_one()
    lot, mark = lots.c, watermark(connection, LOTS_BEFORE)
    ended = (lot.id > mark, lot.expires_at_ns <= newest_ns)
    wallets = connection.execute(select(lot.tenant_id, lot.wallet).distinct().where(*ended)).all()
    for tenant_id, wallet in sorted(tuple(row) for row in wallets):
        rows = connection.execute(select(lots).where(lot.tenant_id == tenant_id, lot.wallet == wallet)).all()
        if not any(row.out_nano or row.lent_nano for row in rows):
            yield from _of_wallet(connection, tenant_id, wallet, rows, (mark, newest_ns))


def _of_wallet(
    connection: Connection, tenant_id: int, wallet: str, rows: Sequence[Row[Any]], bounds: tuple[int, int]
) -> Iterator[Mismatch]:
    account = connection.execute(
        select(accounts).where(accounts.c.tenant_id == tenant_id, accounts.c.kind == WALLET, accounts.c.name == wallet)
    ).first()
    if account is None:
        return
    mark, newest_ns = bounds
    expired = _expired(connection, tenant_id, [row.id for row in rows])
    by_usage = {row.id: Lot(row).used - expired.get(row.id, 0) for row in rows}
    ended = [
        _Ended(Lot(row), int(row.expires_at_ns), expired.get(row.id, 0))
        for row in rows
        if row.id > mark and row.expires_at_ns is not None and row.expires_at_ns <= newest_ns
    ]
    gave_back = _count_usage(connection, account, ended)
    for one in ended:
        drawn = sum(by_usage[row.id] for row in rows if (row.expires_at_ns or newest_ns + 1) <= one.ends_ns)
        what = f"wallet {wallet}, lots that ended by the end of lot {one.lot.row.id}"
        if drawn > one.by_then:
            yield Mismatch("lot times", what, f"at most {one.by_then} used by then", f"{drawn} drawn")
        after = [row.id for row in rows if Lot(row).order() > one.lot.order()]
        others = sum(by_usage[lot_id] for lot_id in after) + account.overdraft_nano
        if one.expired > 0 and not gave_back and others > one.elsewhere:
            what = f"wallet {wallet}, lot {one.lot.row.id}, of which {one.expired} expired"
            yield Mismatch("lot times", what, f"at most {one.elsewhere} paid by others", f"{others} paid by others")


def _expired(connection: Connection, tenant_id: int, lot_ids: Sequence[int]) -> dict[int, int]:
    move = lot_moves.c
    query = select(move.lot_id, func.sum(-move.amount_nano)).where(
        move.tenant_id == tenant_id, move.lot_id.in_(lot_ids), move.kind == "expire"
    )
    return {lot_id: int(amount) for lot_id, amount in connection.execute(query.group_by(move.lot_id))}


def _count_usage(connection: Connection, account: Row[Any], ended: Sequence[_Ended]) -> bool:
    """Pass all usage of the wallet to ended lots; return whether corrections gave any of it back."""
    gave_back = False
    for row in _postings(connection, account):
        amount, recorded_ns = -int(row.amount), int(row.recorded_at_ns)
        first_ns, last_ns = row.calls_from_ns, row.calls_to_ns
        if row.kind == "usage" and first_ns is not None and not any(first_ns <= one.ends_ns < last_ns for one in ended):
            parts: list[tuple[int | None, int]] = [(int(first_ns), amount)]
        elif row.kind in ("usage", "correction"):
            parts = list(moments_of(connection, account, row.id, row.kind))
            rest = amount - sum(part for _, part in parts)
            # Retired detail: the usage may have been at any time, and given back as well as used.
            gave_back |= row.kind == "correction" and bool(rest)
            parts.append((None, abs(rest)))
        else:
            parts = [(recorded_ns, amount)]
        for at_ns, part in parts:
            gave_back |= row.kind == "correction" and part < 0
            for one in ended if part > 0 else ():
                one.count(part, at_ns, recorded_ns)
    return gave_back


def _postings(connection: Connection, account: Row[Any]) -> Iterator[Any]:
    """Yield the wallet's movement in each transaction that may use credits."""
    for part in legs_of(connection, [account.id]):
        leg, made = part.c, transactions.c
        about = (made.id, made.kind, made.calls_from_ns, made.calls_to_ns, made.recorded_at_ns)
        query = (
            select(func.sum(leg.amount_nano).label("amount"), *about)
            .join(transactions, made.id == leg.transaction_id)
            .where(made.kind.not_in(_NO_USAGE), or_(leg.amount_nano < 0, made.kind == "correction"))
            .group_by(*about)
        )
        yield from connection.execute(query)
