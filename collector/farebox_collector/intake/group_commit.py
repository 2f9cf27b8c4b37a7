"""Group commit: whatever waits when a transaction begins goes into it together.

A transaction has costs that do not grow with what is in it, so the next one is not begun with the first that comes
along while more is about to be ready: it waits until half of what is known of is there, though never for long. That
settles into two halves that take turns, one prepared while the other is committed.
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

HELD_BACK_S = 0.02
"""How long what is ready waits for what is coming, at most: somebody may send what takes long to prepare."""

_logger = logging.getLogger(__name__)


class GroupCommit(Generic[Work, Result]):
    """One thread that commits work in groups of at most `max_weight`.

    `commit_group` gets the waiting items and returns a result for each, or raises, and then nothing of the group may
    have been kept. A group that fails is tried again item by item, so that one bad item hurts only itself, and that one
    is given to `rescue`, to save what can be saved; not so after an error that `is_outage`, which hurts all alike.
    """

    def __init__(
        self,
        commit_group: Callable[[Sequence[Work]], Sequence[Result]],
        rescue: Callable[[Work], Result],
        weigh: Callable[[Work], int],
        max_weight: int,
        is_outage: Callable[[Exception], bool],
        held_back_s: float = HELD_BACK_S,
    ) -> None:
        self._commit_group = commit_group
        self._rescue = rescue
        self._weigh = weigh
        self._max_weight = max_weight
        self._is_outage = is_outage
        self._waiting: deque[tuple[Work, asyncio.Future[Result]]] = deque()
        self._held_back_s = held_back_s
        self._coming = 0
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name=COMMITTING, daemon=True)
        self._thread.start()

    @contextmanager
    def coming(self) -> Iterator[int]:
        """Something that is going to be committed is being prepared for as long as the block runs, which others have to
        wait for; yields how many others are."""
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
        """Wait until the work is committed and return its result; raises what committing it raised."""
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        with self._changed:
            self._waiting.append((work, future))
            self._changed.notify()
        return await future

    def close(self) -> None:
        """Commit what is waiting and end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while group := self._next_group():
            for done in self._committed(group):
                loop = done[0][0].get_loop()
                # A loop that is gone has nobody waiting any more.
                if not loop.is_closed():
                    loop.call_soon_threadsafe(_resolve, done)

    def _next_group(self) -> list[tuple[Work, asyncio.Future[Result]]]:
        """Wait for work, and for what comes with it; empty when closed and nothing is left."""
        with self._changed:
            while not self._waiting and not (self._closed and not self._coming):
                self._changed.wait()
            self._changed.wait_for(self._is_worth_it, self._held_back_s if self._waiting else 0)
            group: list[tuple[Work, asyncio.Future[Result]]] = []
            weight = 0
            while self._waiting:
                weight += self._weigh(self._waiting[0][0])
                if group and weight > self._max_weight:
                    break
                group.append(self._waiting.popleft())
            return group

    def _is_worth_it(self) -> bool:
        """Whether to begin with what is waiting."""
        if not self._waiting:
            return False
        if len(self._waiting) >= self._coming:
            return True
        return sum(self._weigh(work) for work, _ in self._waiting) >= self._max_weight

    def _committed(self, group: list[tuple[Work, asyncio.Future[Result]]]) -> list[list[Answer]]:
        """Commit a group, or its items one by one if it fails; a list of answers that are ready at the same moment."""
        try:
            results = self._commit_group([work for work, _ in group])
        except Exception as error:
            if self._is_outage(error):
                _logger.exception("a group could not be committed")
                return [[(future, None, error) for _, future in group]]
            if len(group) > 1:
                return [answers for item in group for answers in self._committed([item])]
            return [[self._rescued(*group[0])]]
        return [[(future, result, None) for (_, future), result in zip(group, results, strict=True)]]

    def _rescued(self, work: Work, future: asyncio.Future[Result]) -> Answer:
        _logger.exception("an item could not be committed whole")
        try:
            return future, self._rescue(work), None
        except Exception as error:
            _logger.exception("an item could not be committed at all")
            return future, None, error


def _resolve(answers: list[Answer]) -> None:
    for future, result, error in answers:
        if future.cancelled():
            continue
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)
