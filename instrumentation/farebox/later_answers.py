"""Answers that a provider makes in the background: their usage comes when the application asks for them, maybe often.

The call that began the work has no usage. It is kept back until a later answer with its id tells the usage, which then
stands for it; what is kept too long is sent as it is, so that no call is lost.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

KEPT_MAX: Final = 1_000
"""How many calls whose answers are made in the background are kept back at most; then the oldest is sent."""
KEPT_S: Final = 3_600.0
"""How many seconds such a call is kept back; then it is sent as one without usage."""
COUNTED_MAX: Final = 1_000
"""How many of the latest answers are remembered by their ids, so that asking again for one is no call."""


class _Kept(NamedTuple):
    since_s: float
    send: Callable[[], None]
    tags: Mapping[str, Any]


class LaterAnswers:
    """The calls that wait for their usage."""

    def __init__(self) -> None:
        """None wait."""
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._lock = threading.Lock()

    def __bool__(self) -> bool:
        """Whether any waits."""
        return bool(self._kept)

    def keep(self, response_id: str, send: Callable[[], None], tags: Mapping[str, Any], now_s: float) -> None:
        """Keep a call back; ``send`` sends it after all. ``tags`` are those of its action."""
        with self._lock:
            before = self._kept.pop(response_id, None)
            self._kept[response_id] = before or _Kept(now_s, send, tags)
        self.send_old(now_s)

    def answered(self, response_id: object) -> Mapping[str, Any]:
        """An answer with usage is here: it stands for the call. Returns the tags of the call."""
        if not isinstance(response_id, str):
            return {}
        with self._lock:
            kept = self._kept.pop(response_id, None)
        return kept.tags if kept else {}

    def send_old(self, now_s: float) -> None:
        """Send the calls that have waited too long, and those that are too many."""
        while True:
            with self._lock:
                oldest = next(iter(self._kept.values()), None)
                if oldest is None or (len(self._kept) <= KEPT_MAX and now_s - oldest.since_s < KEPT_S):
                    return
                self._kept.popitem(last=False)
            oldest.send()

    def send_all(self) -> None:
        """Send all that wait, as metering ends."""
        self.send_old(time.monotonic() + 2 * KEPT_S)


_counted: OrderedDict[str, None] = OrderedDict()
_counted_lock = threading.Lock()


def is_first(response_id: str | None) -> bool:
    """Whether an answer with usage is the first of its id that this process has seen; remember that it was here."""
    if not response_id:
        return True
    with _counted_lock:
        first = response_id not in _counted
        _counted[response_id] = None
        _counted.move_to_end(response_id)
        if len(_counted) > COUNTED_MAX:
            _counted.popitem(last=False)
    return first
