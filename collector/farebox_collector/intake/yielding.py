"""Let work on large requests yield to small ones: it pauses repeatedly while a small request is in progress.

Threads of one Python process alternate every five milliseconds. Beside a thread that never pauses, a small request that
takes ten turns would take fifty milliseconds longer.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_PAUSE_S = 0.005

Pause = Callable[[], None]
"""Called by work on a large request about every millisecond."""


def no_pause() -> None:
    """Do not pause; for small requests."""


class Yielding:
    """Count small requests in progress, on one thread. Any thread may pause."""

    def __init__(self) -> None:
        self._small = 0

    @contextmanager
    def small(self) -> Iterator[None]:
        """Count a small request while the block runs."""
        self._small += 1
        try:
            yield
        finally:
            self._small -= 1

    def pause(self) -> None:
        """Sleep briefly if a small request is in progress."""
        if self._small:
            time.sleep(_PAUSE_S)
