"""Count container sessions of code execution: a session is billed once, however many answers use it."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Final

SESSION_S: Final = 20 * 60.0
"""Lifetime of an OpenAI container session in seconds; later work starts another session."""
SESSIONS_MAX: Final = 10_000
"""Maximum kept containers. The oldest are dropped first, and would count again."""


class Sessions:
    """The containers counted in this process, with their times. Thread-safe."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Start empty. ``clock`` returns seconds."""
        self._began: OrderedDict[str, tuple[float, str]] = OrderedDict()
        self._lock = threading.Lock()
        self._clock = clock

    def begun(self, containers: Iterable[str], answer_id: str) -> int:
        """Return how many of these containers start a session with an answer. One without an id always does.

        Reading an answer again returns the first result.
        """
        now_s, begun = self._clock(), 0
        with self._lock:
            for container in containers:
                since_s, by = self._began.get(container, (0.0, ""))
                goes_on = container in self._began and now_s - since_s < SESSION_S
                if goes_on and by != answer_id:
                    continue
                begun += 1
                if container and not goes_on:
                    self._began[container] = now_s, answer_id
                    self._began.move_to_end(container)
            while len(self._began) > SESSIONS_MAX:
                self._began.popitem(last=False)
        return begun


SESSIONS: Final = Sessions()
"""The sessions of this process."""
