"""Throttle long work next to other work: pause in proportion to the work done since the last pause."""

import threading
import time
from collections.abc import Callable

Pause = Callable[[], None]
"""Called between the pieces of long work."""


class Stopped(Exception):
    """The work was stopped; the remaining work is done another time."""


def no_pause() -> None:
    """For work that no other thread waits for."""


class Throttle:
    """Limits work to a share of one thread's time, and stops it between two pieces. Used for one job at a time."""

    def __init__(self, share: float, stop: threading.Event | None = None) -> None:
        """`share` of the time is for work, over 0 and at most 1."""
        self._pause_per_second = 1 / share - 1
        self._stop = stop or threading.Event()
        self._since_s = time.monotonic()

    def pause(self) -> None:
        """Pause as the share requires. Raises Stopped."""
        if self._stop.wait((time.monotonic() - self._since_s) * self._pause_per_second):
            raise Stopped("the collector is stopping")
        self._since_s = time.monotonic()
