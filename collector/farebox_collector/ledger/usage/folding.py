"""Append batches of calls, and fold them: add their sums to accounts, roll-ups and totals.

A commit writes the records, their claims and one row with its sums. So all commits of a collector are appends, and no
replica waits for another one's wallets. About twice a second, and before anything else reads or writes the books,
a fold posts the batches that wait (`storage.database`): one ledger transaction for all batches of a collector since the
last fold, under the id that its records have already.

A ledger transaction stays open while its collector appends batches. A commit locks its row in shared mode and a fold
exclusively, so no batch is added to a transaction that was posted, and none is posted twice, by any replica.
"""

import json
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from sqlalchemy import Connection, bindparam, delete, func, insert, select
from sqlalchemy.exc import IntegrityError

from farebox_collector.ledger.credits.hold_release import settle_holds
from farebox_collector.ledger.journal.journal import LedgerTransaction, begin, post_together
from farebox_collector.ledger.journal.legs import Charged, legs_of
from farebox_collector.ledger.journal.usage_rollups import WalletSums
from farebox_collector.ledger.storage.database import Database
from farebox_collector.ledger.storage.differences import has_one_writer, newest_id
from farebox_collector.ledger.tables.books import transactions, unfolded_batches, usage_records
from farebox_collector.ledger.usage.batch_sums import BatchSums, SumsInProgress, summed
from farebox_collector.ledger.usage.claims import any_claimed, claim_late, claim_slots
from farebox_collector.ledger.usage.running_totals import TotalLabels, count_new_calls
from farebox_collector.ledger.usage.span_counts import add_span_counts
from farebox_collector.ledger.usage.span_index import TailTraces
from farebox_collector.ledger.usage.stakes import add_stakes
from farebox_collector.model.moments import day_of
from farebox_collector.model.verdicts import Verdict

USAGE = "usage"
"""The kind of the ledger transactions that charge calls."""

MOST_UNFOLDED = 256
"""From this many batches on, a commit folds them first: a folder that cannot keep up slows senders down."""

_BATCHES_OF_A_BURST = 50
"""For this many batches after a second span of a call, further ones are expected."""

_batch = unfolded_batches.c
# Built once: building such a statement takes longer than running it.
_IS_OPEN = (
    select(transactions.c.recorded_at_ns)
    .where(
        transactions.c.id == bindparam("id"),
        transactions.c.tenant_id == bindparam("tenant"),
        transactions.c.is_open == 1,
    )
    # One that is being folded counts as folded: a commit does not wait for it.
    .with_for_update(read=True, skip_locked=True)
)
_WAITING = select(func.count()).select_from(unfolded_batches).where(_batch.tenant_id == bindparam("tenant"))
_APPEND = insert(unfolded_batches)
_UNFOLDED = select(_batch.tenant_id, _batch.transaction_id).distinct()
_FURTHER = (
    select(unfolded_batches)
    .where(
        _batch.tenant_id == bindparam("tenant"),
        _batch.transaction_id == bindparam("transaction"),
        _batch.number > bindparam("upto"),
    )
    .order_by(_batch.number)
)
_TRANSACTION = (transactions.c.id, transactions.c.tenant_id, transactions.c.kind, transactions.c.recorded_at_ns)


Pair = tuple[int, bytes]
"""Slot and key of a claim."""


class Appending(NamedTuple):
    """An open ledger transaction that gets a batch."""

    transaction: LedgerTransaction
    after_id: int
    """The newest usage record before this batch."""
    is_new: bool


@dataclass
class _Opened:
    """An open ledger transaction in memory."""

    id: int
    batches: int = 0
    """The number of its batches, and of the last one."""
    claims: set[Pair] = field(default_factory=set)
    """The claims of its calls, where they are written with the fold."""


class OpenTransactions:
    """The open ledger transactions of this collector. For one committing thread.

    With one writer the claims of a transaction are kept in memory until it is folded: sorted, they take a fraction of
    the writing. They can be made again from the records at any time.
    """

    def __init__(self, labels: TotalLabels) -> None:
        self.tail = TailTraces()
        self._labels = labels
        self._opened: dict[int, _Opened] = {}
        self._twins = 0
        """The number of batches for which claims are looked up before the insert."""
        self._apart: Counter[int] = Counter()
        """Batches with transactions of their own since they were last folded here."""

    def current(self, connection: Connection, tenant_id: int, received_at_ns: int) -> Appending:
        """Return the tenant's open transaction, or a new one if it is folded, full or of another day."""
        known = self._opened.get(tenant_id)
        if known is not None and known.batches < MOST_UNFOLDED:
            began_ns = connection.execute(_IS_OPEN, {"id": known.id, "tenant": tenant_id}).scalar()
            if began_ns is not None and day_of(int(began_ns)) == day_of(received_at_ns):
                transaction = LedgerTransaction(connection, tenant_id, known.id, USAGE, received_at_ns)
                return Appending(transaction, newest_id(connection, usage_records.name), False)
        # With one writer the claims of what is left open are not in memory from here on.
        if has_one_writer(connection) or self._many_wait(connection, tenant_id):
            fold(connection, self._labels, tenant_id)
        transaction = begin(connection, tenant_id, USAGE, received_at_ns, is_open=True)
        self._opened[tenant_id] = _Opened(transaction.id)
        return Appending(transaction, newest_id(connection, usage_records.name), True)

    def _many_wait(self, connection: Connection, tenant_id: int) -> bool:
        return int(connection.execute(_WAITING, {"tenant": tenant_id}).scalar_one()) >= MOST_UNFOLDED

    def forget(self, tenant_id: int) -> None:
        """Forget the open transaction of a tenant: its beginning was taken back, and its id may be given again."""
        self._opened.pop(tenant_id, None)

    def expects_twins(self, connection: Connection, tenant_id: int, claims: Sequence[Pair]) -> bool:
        """Return whether to look up the claims of new calls before they are inserted: after others were claimed.

        Claims that are in memory are written first, if one of these is among them.
        """
        if not self._twins:
            return False
        self._twins -= 1
        known = self._opened.get(tenant_id)
        if has_one_writer(connection) and (known is None or not known.claims.isdisjoint(claims)):
            fold(connection, self._labels, tenant_id)
            self._opened[tenant_id] = _Opened(0)
        return True

    def expect_twins(self) -> None:
        """Expect other spans of calls in the books for some batches from now on: they come in bursts."""
        self._twins = _BATCHES_OF_A_BURST

    def claim(self, into: Appending, claims: Sequence[Pair], record_ids: Iterable[int]) -> bool:
        """Claim the calls of records that were just inserted. Return whether no other record has claimed one.

        With several writers `record_ids` has the record of each claim; otherwise they are read when they are needed.
        After False the caller rolls back.
        """
        connection, tenant_id = into.transaction.connection, into.transaction.tenant_id
        if not has_one_writer(connection):
            try:
                claim_slots(connection, tenant_id, ((*pair, of) for pair, of in zip(claims, record_ids, strict=True)))
            except IntegrityError:
                return False
            return True
        earlier = self._opened[tenant_id].claims
        return earlier.isdisjoint(claims) and not any_claimed(connection, tenant_id, claims)

    def append(
        self,
        transaction: LedgerTransaction,
        sums: BatchSums,
        claims: Sequence[Pair],
        calls_ns: tuple[int, int],
        spans: Mapping[str, int],
    ) -> None:
        """Write the sums of a batch. `spans` counts its spans by outcome, with `span_counts.ACCEPTED`."""
        opened = self._opened[transaction.tenant_id]
        opened.batches += 1
        if has_one_writer(transaction.connection):
            opened.claims.update(claims)
        append_batch(transaction, opened.batches, sums, calls_ns, spans)

    def make_room(self, connection: Connection, tenant_id: int) -> None:
        """Fold before a batch with a transaction of its own, if claims are in memory or many such batches wait."""
        self._apart[tenant_id] += 1
        known = self._opened.get(tenant_id)
        if self._apart[tenant_id] >= MOST_UNFOLDED or (has_one_writer(connection) and (known is None or known.claims)):
            fold(connection, self._labels, tenant_id)
            self._apart[tenant_id] = 0
            # Its claims are in the books now, as are those that an earlier process left.
            self._opened[tenant_id] = _Opened(0)


def append_batch(
    transaction: LedgerTransaction,
    number: int,
    sums: BatchSums,
    calls_ns: tuple[int, int],
    spans: Mapping[str, int],
) -> None:
    """Write the sums of a batch into an open transaction. `spans` counts its spans by outcome."""
    add_stakes(transaction.connection, transaction.tenant_id, sums.stakes)
    row = {
        "tenant_id": transaction.tenant_id,
        "transaction_id": transaction.id,
        "number": number,
        "received_at_ns": transaction.at_ns,
        "calls_from_ns": calls_ns[0],
        "calls_to_ns": calls_ns[1],
        "sums": f"[[{','.join(sums.texts)}],{json.dumps(spans)}]",
    }
    transaction.connection.execute(_APPEND, row)


def fold_waiting(database: Database) -> None:
    """Fold what waits in books that no collector has open."""
    database.fold_with(Folder(TotalLabels()))
    database.fold()


class _Waiting:
    """What the batches of one open transaction come to, as far as they were added up."""

    def __init__(self) -> None:
        self.sums = SumsInProgress()
        self.spans: Counter[str] = Counter()
        self.batches = 0
        self.received_at_ns = 0
        self.calls_ns = (0, 0)
        self.claimed_upto = 0
        """The calls of all records up to this one are claimed in the books."""
        self._upto = -1

    def add_further(self, connection: Connection, tenant_id: int, transaction_id: int) -> None:
        """Add the batches that were appended since the last time: one collector numbers and commits them in order."""
        key = {"tenant": tenant_id, "transaction": transaction_id, "upto": self._upto}
        for row in connection.execute(_FURTHER, key):
            requests, counted = json.loads(row.sums)
            for request in requests:
                self.sums.add(request)
            self.spans.update(counted)
            first, last = self.calls_ns if self.batches else (row.calls_from_ns, row.calls_to_ns)
            self.calls_ns = min(first, row.calls_from_ns), max(last, row.calls_to_ns)
            self.received_at_ns = max(self.received_at_ns, row.received_at_ns)
            self.batches += 1
            self._upto = row.number


class Folder:
    """Folds what waits, of all tenants and replicas; called in a database transaction of its own.

    A job may prepare a fold: `prepare` adds up, `claim` writes the claims. What they leave to do holds the locks for a
    shorter time. Only one thread prepares; any thread may fold meanwhile.
    """

    def __init__(
        self, labels: TotalLabels, observe: Callable[[int, float], None] = lambda batches, seconds: None
    ) -> None:
        """`observe` receives the number of batches and the seconds of each fold of some, before its commit."""
        self._labels = labels
        self._observe = observe
        self._waiting: dict[int, _Waiting] = {}

    def prepare(self, connection: Connection) -> None:
        """Add up what waits, in a snapshot, so that the fold that follows holds its locks for a shorter time."""
        opened = connection.execute(_UNFOLDED).all()
        # A fold in another thread takes what it finds here, and adds up the rest itself.
        taken = {row.transaction_id: self._waiting.pop(row.transaction_id, _Waiting()) for row in opened}
        for row in opened:
            taken[row.transaction_id].add_further(connection, row.tenant_id, row.transaction_id)
        self._waiting = taken

    def claim(self, connection: Connection) -> int:
        """Write the claims of what waits, where they are in memory. Pass the result to `claimed` after the commit."""
        if not has_one_writer(connection):
            return 0
        for transaction_id, own in list(self._waiting.items()):
            claim_late(connection, transaction_id, own.claimed_upto)
        return newest_id(connection, usage_records.name)

    def claimed(self, upto: int) -> None:
        """Note that the calls of all records up to this one are claimed in the books."""
        for own in list(self._waiting.values()):
            own.claimed_upto = upto

    def __call__(self, connection: Connection) -> None:
        """Post all unfolded batches."""
        started = time.perf_counter()
        batches = fold(connection, self._labels, waiting=self._waiting)
        if batches:
            self._observe(batches, time.perf_counter() - started)


def fold(
    connection: Connection,
    labels: TotalLabels,
    tenant_id: int | None = None,
    waiting: dict[int, _Waiting] | None = None,
) -> int:
    """Post the unfolded batches of a tenant or of all. Return their number.

    `waiting` has sums that are already made, by transaction; the fold takes them out.
    """
    of_tenant = () if tenant_id is None else (_batch.tenant_id == tenant_id,)
    ids = [row.transaction_id for row in connection.execute(_UNFOLDED.where(*of_tenant))]
    if not ids:
        return 0
    # A commit or another fold that has one of these locked ends first; the next statement sees what it did.
    opened = (
        select(*_TRANSACTION)
        .where(transactions.c.id.in_(ids), transactions.c.is_open == 1)
        .order_by(transactions.c.tenant_id, transactions.c.id)
        .with_for_update()
    )
    by_tenant: defaultdict[int, list[LedgerTransaction]] = defaultdict(list)
    for row in connection.execute(opened):
        by_tenant[row.tenant_id].append(
            LedgerTransaction(connection, row.tenant_id, row.id, row.kind, row.recorded_at_ns)
        )
    return sum(_fold(own, labels, {} if waiting is None else waiting) for own in by_tenant.values())


def _fold(opened: Sequence[LedgerTransaction], labels: TotalLabels, waiting: dict[int, _Waiting]) -> int:
    """Post the batches of some open transactions of one tenant, and close these. Return the number of batches."""
    connection, tenant_id = opened[0].connection, opened[0].tenant_id
    ids = [transaction.id for transaction in opened]
    found = [waiting.pop(transaction_id, _Waiting()) for transaction_id in ids]
    posted, sums = [], []
    for transaction, own in zip(opened, found, strict=True):
        own.add_further(connection, tenant_id, transaction.id)
        sums.append(own.sums.sums())
        posted.append((transaction, legs_of(charges_of(sums[-1].wallets))))
        transaction.close(own.calls_ns)
        if has_one_writer(connection):
            claim_late(connection, transaction.id, own.claimed_upto)
    at_ns = max(own.received_at_ns for own in found)
    with_holds = post_together(posted, frozenset().union(*(own.uncharged for own in sums)), at_ns)
    if with_holds:
        settle_holds(connection, tenant_id, _charges_of_actions(opened, with_holds), at_ns)
    count_new_calls(connection, tenant_id, sums[0] if len(sums) == 1 else summed(sums), labels)
    connection.execute(delete(unfolded_batches).where(_batch.tenant_id == tenant_id, _batch.transaction_id.in_(ids)))
    # Last: other transactions wait for these rows.
    add_span_counts(connection, tenant_id, sum((own.spans for own in found), Counter()))
    return sum(own.batches for own in found)


def _charges_of_actions(opened: Sequence[LedgerTransaction], wallets: frozenset[str]) -> dict[tuple[str, str], int]:
    """Return (wallet, action id) → nanocredits of the calls of some wallets that name an action."""
    record = usage_records.c
    query = (
        select(record.wallet, record.action_id, func.sum(record.charge_nanocredits))
        .where(
            record.transaction_id.in_([transaction.id for transaction in opened]),
            record.wallet.in_(sorted(wallets)),
            record.action_id != "",
            record.verdict == Verdict.CHARGED,
        )
        .group_by(record.wallet, record.action_id)
    )
    return {(wallet, action): int(charge or 0) for wallet, action, charge in opened[0].connection.execute(query)}


def charges_of(sums: WalletSums) -> Iterator[Charged]:
    """Yield the total charge and cost of the calls of each sum."""
    for (_, wallet, event, provider, model, rule_id), (calls, _, _, _, cost, charge) in sums.items():
        yield wallet, event, rule_id, charge, provider, model, cost, calls
