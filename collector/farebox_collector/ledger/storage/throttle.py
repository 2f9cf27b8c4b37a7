"""The pace of long work beside other work: pauses in proportion to what was done since the last one."""

import threading
import time
from collections.abc import Callable

Breathe = Callable[[], None]
"""To be called between the pieces of long work."""


class Stopped(Exception):
    """The work was told to stop; what it has not come to is left for another time."""


def no_breath() -> None:
    """For work that nobody else waits for."""


class Throttle:
    """Lets work take a share of one thread's time, and stops it between two of its pieces. One piece of work's."""

    def __init__(self, share: float, stop: threading.Event | None = None) -> None:
        """`share` of the time is for work, over 0 and at most 1."""
        self._pause_per_second = 1 / share - 1
        self._stop = stop or threading.Event()
        self._since_s = time.monotonic()

    def breathe(self) -> None:
        """Pause for as long as the pace asks for. Raises Stopped."""
        if self._stop.wait((time.monotonic() - self._since_s) * self._pause_per_second):
            raise Stopped("the collector is stopping")
        self._since_s = time.monotonic()
