"""Usage of a wallet since its lots were last drawn on, by the start of the calls.

Each transaction states when the calls started that it charged or gave back. If a lot expired between the first and the
last of them, the records show which calls came before. So usage draws on the lots that were valid when it happened,
however late it was reported. It is drawn in the order of posting: the result does not depend on how often lots are
drawn up.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, func, select

from farebox_collector.ledger.credits.lot import NewLot
from farebox_collector.ledger.credits.returned_credits import DEBT_MOVE, RETURNED_MOVE
from farebox_collector.ledger.journal.posting_index import legs_of
from farebox_collector.ledger.storage.differences import has_one_writer
from farebox_collector.ledger.tables.books import postings, transactions, usage_records
from farebox_collector.ledger.tables.corrections import corrections
from farebox_collector.ledger.tables.credits import lot_moves, lots
from farebox_collector.model.money import MAX_NANO
from farebox_collector.model.verdicts import Verdict

LONGEST_TRANSACTION_NS = 120 * 10**9
"""Twice the longest time of a transaction: the bound on how much older its id is than its postings."""
_STEP = 1_000
_USAGE = ("usage", "correction")
"""Kinds of transactions that charge calls or give charges back."""


class Used(NamedTuple):
    """Credits used at a moment; a negative figure was given back."""

    amount_nano: int
    at_ns: int


class Unseen:
    """The postings of a wallet's account since its lots were drawn up."""

    def __init__(self, connection: Connection, account: Row[Any]) -> None:
        self._connection, self._account = connection, account
        self._first = _first_transaction(connection, int(account.drawn_posting_id))
        moments: list[int] = []
        self.gives_back = False
        for part in legs_of(connection, [account.id]):
            leg, made = part.c, transactions.c
            earliest = func.min(func.coalesce(made.calls_from_ns, made.recorded_at_ns))
            latest = func.max(func.coalesce(made.calls_to_ns, made.recorded_at_ns))
            query = select(earliest, latest, func.max(leg.amount_nano)).join(
                transactions, made.id == leg.transaction_id
            )
            row = connection.execute(query.where(*self._since(leg))).one()
            if row[0] is not None:
                moments += [int(row[0]), int(row[1])]
                self.gives_back |= row[2] > 0
        self.first_ns, self.last_ns = min(moments, default=None), max(moments, default=None)

    def _since(self, leg: Any) -> tuple[Any, ...]:
        return leg.id > self._account.drawn_posting_id, leg.transaction_id >= self._first

    def parts(self, ends: Sequence[int]) -> list[Used]:
        """Return usage in the order of posting, split at the expiries of lots (`ends`, ascending)."""
        found: list[tuple[int, Any]] = []
        for part in legs_of(self._connection, [self._account.id]):
            leg, made = part.c, transactions.c
            times = (made.calls_from_ns, made.calls_to_ns, made.recorded_at_ns)
            query = (
                select(func.min(leg.id), func.sum(leg.amount_nano).label("amount"), made.id, made.kind, *times)
                .join(transactions, made.id == leg.transaction_id)
                .where(*self._since(leg))
                .group_by(made.id, made.kind, *times)
            )
            found += [(int(row[0]), row) for row in self._connection.execute(query)]
        used: list[Used] = []
        for _, row in sorted(found, key=lambda one: one[0]):
            used += _of_transaction(self._connection, self._account, row, ends)
        return used


def first_return(connection: Connection, account: Row[Any]) -> Callable[[], int]:
    """Return a query for the time at which a returned payment first moved credits of a wallet; MAX_NANO if none did."""
    move = lot_moves.c
    query = (
        select(func.min(move.recorded_at_ns))
        .join(lots, lots.c.id == move.lot_id)
        .where(lots.c.tenant_id == account.tenant_id, lots.c.wallet == account.name)
        .where(move.kind.in_((RETURNED_MOVE, DEBT_MOVE)))
    )
    return lambda: int(connection.execute(query).scalar() or MAX_NANO)


def may_pay(connection: Connection, account: Row[Any], lot: NewLot, overdraft: int, at_ns: int) -> int:
    """Return how much of the overdraft a new lot may pay; an expired lot pays no usage from after its expiry."""
    if lot.expires_at_ns is not None and lot.expires_at_ns < at_ns:
        overdraft = max(overdraft - _used_after(connection, account, lot.expires_at_ns), 0)
    return min(overdraft, lot.amount_nano)


def _used_after(connection: Connection, account: Row[Any], end_ns: int) -> int:
    """Return a wallet's usage after a moment, less corrections of it; at least 0."""
    used = 0
    for part in legs_of(connection, [account.id]):
        leg, made = part.c, transactions.c
        times = (made.calls_from_ns, made.calls_to_ns, made.recorded_at_ns)
        query = (
            select(func.sum(leg.amount_nano).label("amount"), made.id, made.kind, *times)
            .join(transactions, made.id == leg.transaction_id)
            .where(made.kind.in_(_USAGE), func.coalesce(made.calls_to_ns, made.recorded_at_ns) > end_ns)
            .group_by(made.id, made.kind, *times)
        )
        for row in connection.execute(query).all():
            parts = _of_transaction(connection, account, row, [end_ns])
            used += sum(one.amount_nano for one in parts if one.at_ns > end_ns)
    return max(used, 0)


def _of_transaction(connection: Connection, account: Row[Any], row: Any, ends: Sequence[int]) -> list[Used]:
    """Return what a transaction charged to a wallet, split at the expiries of lots."""
    amount = -int(row.amount)
    if row.calls_from_ns is None:
        return [Used(amount, int(row.recorded_at_ns))]
    first_ns, last_ns = int(row.calls_from_ns), int(row.calls_to_ns)
    if bisect_left(ends, first_ns) == bisect_left(ends, last_ns):
        return [Used(amount, first_ns)]
    sums: defaultdict[int, int] = defaultdict(int)
    moments: dict[int, int] = {}
    for at_ns, charge in moments_of(connection, account, row.id, row.kind):
        place = bisect_left(ends, at_ns)
        sums[place] += charge
        moments.setdefault(place, at_ns)
    parts = [Used(sums[place], moments[place]) for place in sorted(sums)]
    # Calls whose records are past retention count as the earliest.
    rest = amount - sum(part.amount_nano for part in parts)
    return [Used(rest, first_ns), *parts] if rest else parts


def _first_transaction(connection: Connection, posting_id: int) -> int:
    """Return a transaction id such that no earlier transaction has a posting after this posting."""
    made = transactions.c
    drawn = connection.execute(
        select(made.id, made.recorded_at_ns)
        .join(postings, postings.c.transaction_id == made.id)
        .where(postings.c.id == posting_id)
    ).first()
    if drawn is None:
        return 0
    if has_one_writer(connection):
        return int(drawn.id)  # Ids are in the order of commits.
    first, step = int(drawn.id), _STEP
    while first > 0:
        first, step = first - step, 2 * step
        known = select(made.recorded_at_ns).where(made.id <= first).order_by(made.id.desc()).limit(1)
        recorded_ns = connection.execute(known).scalar()
        if recorded_ns is None or recorded_ns < drawn.recorded_at_ns - LONGEST_TRANSACTION_NS:
            break
    return max(first, 0)


def moments_of(connection: Connection, account: Row[Any], transaction_id: int, kind: str) -> Iterator[tuple[int, int]]:
    """Yield (moment, nanocredits) of a wallet's calls: the charges of usage, or the changes of a correction."""
    return (_charged if kind == "usage" else _corrected)(connection, account, transaction_id)


def _charged(connection: Connection, account: Row[Any], transaction_id: int) -> Iterator[tuple[int, int]]:
    """Yield (moment, nanocredits) of a wallet's calls as a transaction first charged them."""
    record, first = usage_records.c, corrections.c
    rows = connection.execute(
        select(record.priced_at_ns, record.verdict, record.charge_nanocredits, record.corrections)
        .add_columns(first.verdict_before, first.charge_nanocredits_before)
        .outerjoin(
            corrections,
            (first.tenant_id == record.tenant_id) & (first.usage_record_id == record.id) & (first.number == 1),
        )
        .where(record.transaction_id == transaction_id, record.wallet == account.name)
        .where(record.tenant_id == account.tenant_id)
    )
    for at_ns, verdict, charge, corrected, verdict_before, charge_before in rows:
        if (verdict_before if corrected else verdict) == Verdict.CHARGED:
            yield at_ns, int((charge_before if corrected else charge) or 0)


def _corrected(connection: Connection, account: Row[Any], transaction_id: int) -> Iterator[tuple[int, int]]:
    """Yield (moment, nanocredits) of a wallet's calls: how a correction changed their charges."""
    record, change = usage_records.c, corrections.c
    rows = connection.execute(
        select(record.priced_at_ns, change.charge_nanocredits_before, change.charge_nanocredits_after)
        .join(usage_records, record.id == change.usage_record_id)
        .where(change.transaction_id == transaction_id, record.wallet == account.name)
        .where(change.tenant_id == account.tenant_id, record.tenant_id == account.tenant_id)
    )
    for at_ns, before, after in rows:
        yield at_ns, int(after or 0) - int(before or 0)
