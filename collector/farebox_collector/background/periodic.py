"""Rounds: what a collector does again and again beside its work."""

import asyncio
import logging
from collections.abc import Callable
from typing import NamedTuple

_logger = logging.getLogger(__name__)


class Round(NamedTuple):
    """Some work, and how long to wait before it is done again."""

    name: str
    pause_s: float
    work: Callable[[], object]

    def make(self) -> None:
        """Do the work once. Never raises: what goes wrong is logged, and the next time tries again."""
        try:
            self.work()
        except Exception:
            _logger.exception("a round failed", extra={"round": self.name})


async def repeat(round_: Round) -> None:
    """Make rounds in a thread of their own until cancelled."""
    while True:
        await asyncio.sleep(round_.pause_s)
        await asyncio.to_thread(round_.make)
