"""Large requests give way to small ones: work on them stands back for a moment, again and again, while others wait.

Threads of one Python process take turns at five milliseconds each. Next to somebody who never stops, a small request
that takes ten turns would take fifty milliseconds longer.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_PAUSE_S = 0.005

Pause = Callable[[], None]
"""To be called by work on a large request after each millisecond or so."""


def no_pause() -> None:
    """For what is small."""


class Yielding:
    """Knows whether small requests are in hand. They are counted on one thread; any may pause."""

    def __init__(self) -> None:
        self._small = 0

    @contextmanager
    def small(self) -> Iterator[None]:
        """A small request is in hand for as long as the block runs."""
        self._small += 1
        try:
            yield
        finally:
            self._small -= 1

    def pause(self) -> None:
        """Stand back for a moment if a small request is in hand."""
        if self._small:
            time.sleep(_PAUSE_S)
