"""Keep the SDK's own faults away from the application: log them at most once a minute and drop them."""

from __future__ import annotations

import logging
import math
import threading
import time
from types import TracebackType

_LOG_INTERVAL_S = 60.0
_logger = logging.getLogger("farebox")
_lock = threading.Lock()
_last_logged: dict[str, float] = {}
_left_out: dict[str, int] = {}


def report(topic: str, message: str, error: BaseException | None = None) -> None:
    """Log a warning that begins with ``farebox:``, at most once a minute per topic.

    The next one states how many were suppressed.

    Topics are constants in the code, never data, so their number is bounded.
    """
    now = time.monotonic()
    with _lock:
        last = _last_logged.get(topic)
        if last is not None and now - last < _LOG_INTERVAL_S:
            _left_out[topic] = _left_out.get(topic, 0) + 1
            return
        _last_logged[topic] = now
        left_out = _left_out.pop(topic, 0)
    more = f" (and {left_out} more like it since the last message)" if left_out else ""
    _logger.warning("farebox: %s%s", message, more, exc_info=error)


def forget() -> None:
    """Reset all topics, so that each replayed recording is logged separately."""
    with _lock:
        _last_logged.clear()
        _left_out.clear()


def report_once(topic: str, message: str) -> None:
    """Log a warning once per process, for permanent conditions such as settings."""
    with _lock:
        if topic in _last_logged:
            return
        _last_logged[topic] = math.inf
    _logger.warning("farebox: %s", message)


def fault(doing: str, error: Exception) -> None:
    """Report a fault of the SDK as ``guarded`` does, in code that runs too often for a ``with``."""
    report(doing, f"a fault while {doing}; the application's call is not affected", error)


class guarded:
    """Context manager around SDK code: reports and suppresses an Exception.

    Application code must not run inside such a block: its exceptions belong to it.
    """

    __slots__ = ("_doing",)

    def __init__(self, doing: str) -> None:
        """``doing`` names the block in the log, such as "reading a request"."""
        self._doing = doing

    def __enter__(self) -> None:
        """Do nothing."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        """Suppress an Exception; let KeyboardInterrupt and the like pass."""
        if not isinstance(error, Exception):
            return False
        fault(self._doing, error)
        return True
