"""Run the periodic jobs of a collector."""

import asyncio
import logging
from collections.abc import Callable
from typing import NamedTuple

_logger = logging.getLogger(__name__)


class PeriodicJob(NamedTuple):
    """A job, and the pause before each run."""

    name: str
    pause_s: float
    work: Callable[[], object]

    def run(self) -> None:
        """Run the job once. Never raises: an error is logged, and the next run tries again."""
        try:
            self.work()
        except Exception:
            _logger.exception("a periodic job failed", extra={"job": self.name})


async def repeat(job: PeriodicJob) -> None:
    """Run a job repeatedly, each time in a thread, until cancelled."""
    while True:
        await asyncio.sleep(job.pause_s)
        await asyncio.to_thread(job.run)
