"""Bring the index of postings by account up to date, where commits leave it behind: a stretch at a time, so that nobody
waits long for the writer's lock.
"""

import contextlib
import threading
import time
from collections.abc import Callable

from sqlalchemy import Connection

from farebox_collector.ledger.account_legs import behind, bring_up
from farebox_collector.ledger.database import Database
from farebox_collector.ledger.pace import Pace, Stopped

TAIL = 20_000
"""So many postings that are not in the index are brought in at once: every read of an account reads through them."""
_LATEST_NS = 60 * 10**9
"""However few there are, they wait no longer."""
_LEAST, _MOST = 500, 20_000
"""Postings of a stretch: that each has an account of its own, or a thousand accounts in all."""
_LONG_S = 0.05
_SHARE = 0.5
"""Of the time, while there is something to do: the rest is for whoever waits for the lock."""


class Indexing:
    """Looks once a second, in a round of its own."""

    def __init__(self, database: Database, clock: Callable[[], int]) -> None:
        self._database = database
        self._clock = clock
        self._stretch = _LEAST
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
                self._bring_up(Pace(_SHARE, self._stop))
        elif not waiting:
            self._up_to_date_ns = self._clock()

    def _bring_up(self, pace: Pace) -> None:
        while self._make_stretch():
            pace.breathe()
        self._up_to_date_ns = self._clock()

    def _make_stretch(self) -> bool:
        """Bring in one stretch; whether there may be more. The next is longer or shorter, as this one took."""
        began_s = time.monotonic()

        def work(connection: Connection) -> int:
            nonlocal began_s
            began_s = time.monotonic()  # Waiting for the lock is not holding it.
            return bring_up(connection, self._stretch)

        done = self._database.transact(work)
        if done < self._stretch:
            return False
        faster = _LONG_S / (time.monotonic() - began_s)
        self._stretch = min(_MOST, max(_LEAST, int(self._stretch * min(2, faster))))
        return True
