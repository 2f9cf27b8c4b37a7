"""Group commit: all requests that wait when a transaction begins share it.

A transaction has fixed costs, so it does not begin with the first request while others are about to be ready: it waits
until half of the announced requests are ready, at most `MAX_DELAY_S`. Under load two halves alternate: one is prepared
while the other commits.
"""

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

Work = TypeVar("Work")
Result = TypeVar("Result")

Answer = tuple[asyncio.Future[Any], Any, Exception | None]

COMMITTING = "commit"
"""The name of committing threads."""

MAX_DELAY_S = 0.02
"""Longest time that ready work waits for announced work, which may take long to prepare."""

_logger = logging.getLogger(__name__)


class GroupCommit(Generic[Work, Result]):
    """Commit work in groups of at most `max_weight`, in one thread.

    `commit_group` gets the waiting items and returns a result for each; if it raises, it must have stored nothing of
    the group. A failed group is retried item by item, so that a bad item fails alone; `rescue` then stores the valid
    parts of that item. After an error that `is_outage` nothing is retried: it affects all items alike.
    """

    def __init__(
        self,
        commit_group: Callable[[Sequence[Work]], Sequence[Result]],
        rescue: Callable[[Work], Result],
        weigh: Callable[[Work], int],
        max_weight: int,
        is_outage: Callable[[Exception], bool],
        max_delay_s: float = MAX_DELAY_S,
    ) -> None:
        self._commit_group = commit_group
        self._rescue = rescue
        self._weigh = weigh
        self._max_weight = max_weight
        self._is_outage = is_outage
        self._waiting: deque[tuple[Work, asyncio.Future[Result]]] = deque()
        self._max_delay_s = max_delay_s
        self._coming = 0
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name=COMMITTING, daemon=True)
        self._thread.start()

    @contextmanager
    def coming(self) -> Iterator[int]:
        """Announce work that is being prepared while the block runs. Yield how many others are announced."""
        with self._changed:
            others = self._coming
            self._coming += 1
        try:
            yield others
        finally:
            with self._changed:
                self._coming -= 1
                self._changed.notify()

    async def commit(self, work: Work) -> Result:
        """Wait until the work is committed and return its result, or raise the error of the commit."""
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        with self._changed:
            self._waiting.append((work, future))
            self._changed.notify()
        return await future

    def close(self) -> None:
        """Commit the waiting work and end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while group := self._next_group():
            for done in self._committed(group):
                loop = done[0][0].get_loop()
                # Nothing waits on a closed loop.
                if not loop.is_closed():
                    loop.call_soon_threadsafe(_resolve, done)

    def _next_group(self) -> list[tuple[Work, asyncio.Future[Result]]]:
        """Wait for work and for announced work. Return an empty list when closed and nothing is left."""
        with self._changed:
            while not self._waiting and not (self._closed and not self._coming):
                self._changed.wait()
            self._changed.wait_for(self._is_enough, self._max_delay_s if self._waiting else 0)
            group: list[tuple[Work, asyncio.Future[Result]]] = []
            weight = 0
            while self._waiting:
                weight += self._weigh(self._waiting[0][0])
                if group and weight > self._max_weight:
                    break
                group.append(self._waiting.popleft())
            return group

    def _is_enough(self) -> bool:
        """Whether to begin a transaction with the waiting work."""
        if not self._waiting:
            return False
        if len(self._waiting) >= self._coming:
            return True
        return sum(self._weigh(work) for work, _ in self._waiting) >= self._max_weight

    def _committed(self, group: list[tuple[Work, asyncio.Future[Result]]]) -> list[list[Answer]]:
        """Commit a group, or its items one by one if it fails. Return lists of answers that are ready together."""
        try:
            results = self._commit_group([work for work, _ in group])
        except Exception as error:
            if self._is_outage(error):
                _logger.exception("the database is unavailable: a group of requests was not committed")
                return [[(future, None, error) for _, future in group]]
            if len(group) > 1:
                return [answers for item in group for answers in self._committed([item])]
            return [[self._rescued(*group[0])]]
        return [[(future, result, None) for (_, future), result in zip(group, results, strict=True)]]

    def _rescued(self, work: Work, future: asyncio.Future[Result]) -> Answer:
        _logger.exception("a request could not be committed whole: storing its valid spans")
        try:
            return future, self._rescue(work), None
        except Exception as error:
            _logger.exception("a request could not be committed")
            return future, None, error


def _resolve(answers: list[Answer]) -> None:
    for future, result, error in answers:
        if future.cancelled():
            continue
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)
