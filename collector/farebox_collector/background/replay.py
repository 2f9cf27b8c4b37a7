"""Replay: price past calls again, with the prices and rules now known for the time of each call.

First `compare`, which writes nothing, then `post`, which posts only the differences. Both read a thousand records at a
time, which bounds memory and the time that locks are held. A replay that stops continues from there; a second replay
posts nothing.
"""

import contextlib
from collections.abc import Callable, Collection
from functools import partial
from typing import NamedTuple

from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from farebox_collector.cache.tariffs import Tariffs, reprice
from farebox_collector.ledger.access.audit_log import note
from farebox_collector.ledger.journal.watermarks import delete_watermarks, set_watermark, watermark
from farebox_collector.ledger.reports.replay_difference import Difference, DifferenceSums, Largest
from farebox_collector.ledger.storage.database import Database
from farebox_collector.ledger.storage.locks import SETTLING, lock_stripes
from farebox_collector.ledger.usage.corrections import (
    Cause,
    Correction,
    correct,
    preview_corrections,
)
from farebox_collector.ledger.usage.replay_candidates import (
    Decided,
    Position,
    ReplayScope,
    count_replayed,
    decide,
    replayed_calls,
)
from farebox_collector.ledger.usage.running_totals import TotalLabels
from farebox_collector.ledger.usage.settlement import give_back_agents_around
from farebox_collector.ledger.usage.stored_usage import StoredCall
from farebox_collector.ledger.usage.tombstones import require_detail
from farebox_collector.model.records import PricedUsage

CHUNK = 1_000
"""Records per transaction."""
SHOWN = 20
"""Number of models and wallets that a report names; the rest are summed."""
_ATTEMPTS = 3

Progress = Callable[[int, int], None]


def _no_progress(done: int, total: int) -> None:
    """Ignore progress."""


class ReplayReport(NamedTuple):
    """The changes of a replay, planned or posted."""

    looked_at: int
    total: Difference
    """Sum over the records that change."""
    without_price: int
    """Charged records that no longer have a price; they stay unchanged."""
    still_unpriced: int
    models: Largest
    wallets: Largest
    next: Position | None
    """Where to continue; None at the end."""


class _Chunk(NamedTuple):
    """Records of one transaction, and their corrections."""

    stored: list[StoredCall]
    decided: Decided
    changed: list[Correction]


class Replay:
    """A replay of records of one tenant, by the tariffs known when this object is made."""

    def __init__(
        self,
        database: Database,
        tenant_id: int,
        scope: ReplayScope,
        clock: Callable[[], int],
        chunk: int = CHUNK,
        charge_exposed: Collection[str] = (),
    ) -> None:
        """`charge_exposed` names the tenants that are charged the estimate for calls whose end was not seen."""
        self._database = database
        self._tenant_id = tenant_id
        self._scope = scope
        self._clock = clock
        self._chunk = chunk
        self._labels = TotalLabels()
        tariffs = Tariffs(database, clock, charge_exposed)
        self._tariff = tariffs.of(tenant_id)
        self._about = f"replay {tenant_id} {scope.digest} "
        # The mark holds for these tariffs only: other tariffs give other differences.
        self._mark = self._about + "{}-{}".format(*tariffs.edition)

    def compare(self, progress: Progress = _no_progress) -> ReplayReport:
        """Return what posting would change. Writes nothing. Raises DetailRetired."""
        return self._run(self._compare_chunk, progress, self._start(), None)

    def post(self, progress: Progress = _no_progress) -> ReplayReport:
        """Post the differences, from where the same replay stopped. Return what was posted.

        Raises CorrectionsFrozen, DetailRetired, and AmountError if the tenant's sums would no longer fit the books.
        """
        with self._database.reading() as connection:
            come_to_ns = watermark(connection, self._mark)
        # Begin with the same moment again: several records may share it.
        start = max(self._start(), Position(come_to_ns, 0))
        report = self._run(partial(self._post_chunk, keep_mark=True), progress, start, None)
        self._database.transact(lambda connection: delete_watermarks(connection, self._about))
        return report

    def compare_some(self, after: Position | None, limit: int) -> ReplayReport:
        """Return what posting the next records after a position would change. Writes nothing."""
        return self._run(self._compare_chunk, _no_progress, after or self._start(), limit)

    def post_some(self, after: Position | None, limit: int) -> ReplayReport:
        """Post the differences of the next records after a position. Raises as `post` does."""
        return self._run(self._post_chunk, _no_progress, after or self._start(), limit)

    def _start(self) -> Position:
        return Position(self._scope.from_ns, 0)

    def _run(
        self, work: Callable[[Position, int], _Chunk], progress: Progress, start: Position, limit: int | None
    ) -> ReplayReport:
        total = limit or self._count()
        looked_at = without_price = still_unpriced = 0
        position: Position | None = start
        with contextlib.closing(DifferenceSums()) as sums:
            while position is not None and (limit is None or looked_at < limit):
                size = self._chunk if limit is None else min(self._chunk, limit - looked_at)
                stored, decided, changed = work(position, size)
                position = _last(stored) if len(stored) == size else None
                sums.add(changed)
                looked_at += len(stored)
                without_price += decided.without_price
                still_unpriced += decided.still_unpriced
                progress(looked_at if position else total, total)
            models, wallets = sums.by_model(SHOWN), sums.by_wallet(SHOWN)
            return ReplayReport(looked_at, sums.total(), without_price, still_unpriced, models, wallets, position)

    def _count(self) -> int:
        with self._database.reading() as connection:
            return count_replayed(connection, self._tenant_id, self._scope)

    def _compare_chunk(self, after: Position, size: int) -> _Chunk:
        with self._database.reading() as connection:
            stored, decided = self._read_chunk(connection, after, size)
            return _Chunk(stored, decided, preview_corrections(connection, self._tenant_id, decided.wanted))

    def _post_chunk(self, after: Position, size: int, *, keep_mark: bool = False) -> _Chunk:
        def post(connection: Connection) -> _Chunk:
            # Replays and settlement take turns, so that they do not correct the same calls.
            lock_stripes(connection, SETTLING, [self._tenant_id])
            stored, decided = self._read_chunk(connection, after, size)
            now_ns = self._clock()
            done = correct(connection, self._tenant_id, Cause.REPLAY, decided.wanted, now_ns, self._labels)
            give_back_agents_around(connection, self._tenant_id, done, now_ns, self._labels)
            if stored and keep_mark:
                set_watermark(connection, self._mark, _last(stored).priced_at_ns)
            if done:
                about = {name: value for name, value in self._scope._asdict().items() if value}
                facts = {**about, "records": len(done)}
                note(connection, self._tenant_id, "replay.post", self._scope.digest, now_ns, after=facts)
            return _Chunk(stored, decided, done)

        for attempt in range(1, _ATTEMPTS + 1):
            try:
                return self._database.transact(post)
            except IntegrityError:
                # A call arrived at the same moment with the response id of a call that was to be charged.
                if attempt == _ATTEMPTS:
                    raise
        raise AssertionError("unreachable")

    def _read_chunk(self, connection: Connection, after: Position, size: int) -> tuple[list[StoredCall], Decided]:
        stored = replayed_calls(connection, self._tenant_id, self._scope, after, size)
        # Checked every time: records may be retired during a replay.
        scope = self._scope
        require_detail(connection, self._tenant_id, scope.from_ns, scope.to_ns, "calls can be replayed")
        return stored, decide(connection, self._tenant_id, stored, self._price)

    def _price(self, stored: StoredCall) -> PricedUsage:
        return reprice(stored, self._tariff)


def _last(stored: list[StoredCall]) -> Position:
    return Position(stored[-1].call.priced_at_ns, stored[-1].record_id)
