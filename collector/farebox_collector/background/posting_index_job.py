"""Update the index of postings by account, which commits leave behind, in short transactions."""

import contextlib
import threading
import time
from collections.abc import Callable

from sqlalchemy import Connection

from farebox_collector.ledger.journal.late_index import Sweep
from farebox_collector.ledger.journal.posting_index import POSTING_INDEX
from farebox_collector.ledger.storage.database import Database
from farebox_collector.ledger.storage.throttle import Stopped, Throttle

TAIL = 20_000
"""Postings outside the index that make an update due: every read of an account scans them."""
_LATEST_NS = 60 * 10**9
"""Longest time that postings stay outside the index, however few they are."""
_SWEEP = 2 * TAIL
"""Most postings of one sweep: each of its transactions scans all of them."""
_PIECE = 500
"""Postings in the shortest transaction: with as many accounts it writes one page for each."""
_MOST_PIECES = 40
_LONG_S = 0.02
"""Target length of a transaction: intake waits for it."""
_SHARE = 0.5
"""Share of the time to work while there is work; the rest leaves the lock to other transactions."""


class PostingIndexJob:
    """Check every second whether the index needs an update."""

    def __init__(self, database: Database, clock: Callable[[], int]) -> None:
        self._database = database
        self._clock = clock
        self._pieces = 2
        self._up_to_date_ns = clock()
        self._stop = threading.Event()

    def stop(self) -> None:
        """Stop after the current transaction."""
        self._stop.set()

    def round(self) -> None:
        """Update the index if due."""
        with self._database.snapshot() as connection:
            waiting = POSTING_INDEX.behind(connection)
        waited_ns = self._clock() - self._up_to_date_ns
        if waiting >= TAIL or (waiting and not 0 <= waited_ns < _LATEST_NS):
            with contextlib.suppress(Stopped):
                self._update(Throttle(_SHARE, self._stop))
        elif not waiting:
            self._up_to_date_ns = self._clock()

    def _update(self, throttle: Throttle) -> None:
        waiting = TAIL
        while waiting >= TAIL:
            with self._database.snapshot() as connection:
                sweep = POSTING_INDEX.plan(connection, _SWEEP, _PIECE)
            if sweep is not None:
                self._run_sweep(sweep, throttle)
            with self._database.snapshot() as connection:
                waiting = POSTING_INDEX.behind(connection)
        self._up_to_date_ns = self._clock()

    def _run_sweep(self, sweep: Sweep, throttle: Throttle) -> None:
        done = 0
        while done < sweep.pieces:
            upto = min(done + self._pieces, sweep.pieces)
            took_s = self._take_in(sweep, done, upto)
            if upto < sweep.pieces:
                self._pieces = min(_MOST_PIECES, max(1, int(self._pieces * min(2, _LONG_S / took_s))))
            done = upto
            throttle.pause()

    def _take_in(self, sweep: Sweep, start: int, stop: int) -> float:
        """Index some pieces. Return the seconds it took, without the wait for the lock."""
        began_s = 0.0

        def work(connection: Connection) -> None:
            nonlocal began_s
            began_s = time.monotonic()
            POSTING_INDEX.take_in(connection, sweep, start, stop)

        self._database.append(work)
        return time.monotonic() - began_s
