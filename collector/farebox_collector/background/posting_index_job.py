"""Bring the index of postings by account up to date, where commits leave it behind: a stretch at a time, so that nobody
waits long for the writer's lock.
"""

import contextlib
import threading
import time
from collections.abc import Callable

from sqlalchemy import Connection

from farebox_collector.ledger.journal.posting_index import (
    Sweep,
    behind,
    index_pieces,
    plan,
)
from farebox_collector.ledger.storage.database import Database
from farebox_collector.ledger.storage.throttle import Stopped, Throttle

TAIL = 20_000
"""So many postings that are not in the index are brought in at once: every read of an account reads through them."""
_LATEST_NS = 60 * 10**9
"""However few there are, they wait no longer."""
_SWEEP = 2 * TAIL
"""Most postings of one sweep: each of its transactions reads through all of them."""
_PIECE = 500
"""Postings in the shortest transaction: with as many accounts it writes a page for each of them."""
_MOST_PIECES = 40
_LONG_S = 0.02
"""How long a transaction may be: whoever brings calls waits for it."""
_SHARE = 0.5
"""Of the time, while there is something to do: the rest is for whoever waits for the lock."""


class PostingIndexJob:
    """Looks once a second, in a round of its own."""

    def __init__(self, database: Database, clock: Callable[[], int]) -> None:
        self._database = database
        self._clock = clock
        self._pieces = 2
        self._up_to_date_ns = clock()
        self._stop = threading.Event()

    def stop(self) -> None:
        """End between two stretches."""
        self._stop.set()

    def round(self) -> None:
        """Bring the index up to date if it is due."""
        with self._database.reading() as connection:
            waiting = behind(connection)
        waited_ns = self._clock() - self._up_to_date_ns
        if waiting >= TAIL or (waiting and not 0 <= waited_ns < _LATEST_NS):
            with contextlib.suppress(Stopped):
                self._bring_up(Throttle(_SHARE, self._stop))
        elif not waiting:
            self._up_to_date_ns = self._clock()

    def _bring_up(self, pace: Throttle) -> None:
        waiting = TAIL
        while waiting >= TAIL:
            with self._database.reading() as connection:
                sweep = plan(connection, _SWEEP, _PIECE)
            if sweep is not None:
                self._make(sweep, pace)
            with self._database.reading() as connection:
                waiting = behind(connection)
        self._up_to_date_ns = self._clock()

    def _make(self, sweep: Sweep, pace: Throttle) -> None:
        done = 0
        while done < sweep.pieces:
            upto = min(done + self._pieces, sweep.pieces)
            took_s = self._take_in(sweep, done, upto)
            if upto < sweep.pieces:
                self._pieces = min(_MOST_PIECES, max(1, int(self._pieces * min(2, _LONG_S / took_s))))
            done = upto
            pace.pause()

    def _take_in(self, sweep: Sweep, start: int, stop: int) -> float:
        """Take some pieces in; how many seconds it took, without waiting for the lock."""
        began_s = 0.0

        def work(connection: Connection) -> None:
            nonlocal began_s
            began_s = time.monotonic()
            index_pieces(connection, sweep, start, stop)

        self._database.transact(work)
        return time.monotonic() - began_s
