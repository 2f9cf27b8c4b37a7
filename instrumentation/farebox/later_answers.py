"""Meter background answers, whose usage arrives when the application fetches them, perhaps repeatedly.

The call that started the work has no usage. It is held until a later answer with its id states the usage and replaces
it. A call held too long is sent as it is, so that no call is lost.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

KEPT_MAX: Final = 1_000
"""Maximum held calls; above it the oldest is sent."""
KEPT_S: Final = 3_600.0
"""Maximum seconds that a call is held; then it is sent without usage."""
COUNTED_MAX: Final = 1_000
"""Maximum kept answer ids; fetching a known answer again is not a call."""


class _Kept(NamedTuple):
    since_s: float
    send: Callable[[], None]
    tags: Mapping[str, Any]


class LaterAnswers:
    """The held calls that wait for their usage."""

    def __init__(self) -> None:
        """None wait."""
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._lock = threading.Lock()

    def __bool__(self) -> bool:
        """Return whether any call is held."""
        return bool(self._kept)

    def keep(self, response_id: str, send: Callable[[], None], tags: Mapping[str, Any], now_s: float) -> None:
        """Hold a call; ``send`` sends it without usage. ``tags`` are its action's."""
        with self._lock:
            before = self._kept.pop(response_id, None)
            self._kept[response_id] = before or _Kept(now_s, send, tags)
        self.send_old(now_s)

    def answered(self, response_id: object) -> Mapping[str, Any]:
        """Drop the held call, which an answer with usage replaces. Returns the call's tags."""
        if not isinstance(response_id, str):
            return {}
        with self._lock:
            kept = self._kept.pop(response_id, None)
        return kept.tags if kept else {}

    def send_old(self, now_s: float) -> None:
        """Send calls held too long or beyond the maximum."""
        while True:
            with self._lock:
                oldest = next(iter(self._kept.values()), None)
                if oldest is None or (len(self._kept) <= KEPT_MAX and now_s - oldest.since_s < KEPT_S):
                    return
                self._kept.popitem(last=False)
            oldest.send()

    def send_all(self) -> None:
        """Send all held calls when metering ends."""
        self.send_old(time.monotonic() + 2 * KEPT_S)


_counted: OrderedDict[str, None] = OrderedDict()
_counted_lock = threading.Lock()


def is_first(response_id: str | None) -> bool:
    """Return whether an answer with usage is the first with its id in this process, and remember the id."""
    if not response_id:
        return True
    with _counted_lock:
        first = response_id not in _counted
        _counted[response_id] = None
        _counted.move_to_end(response_id)
        if len(_counted) > COUNTED_MAX:
            _counted.popitem(last=False)
    return first
