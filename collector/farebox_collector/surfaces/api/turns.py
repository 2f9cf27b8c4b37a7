"""Turns at reading the books over the API: no tenant takes all of the readers, and slow questions not most of them."""

import asyncio
from collections import defaultdict

from starlette.types import Message, Send

from farebox_collector.surfaces.api.problems import ApiError

TURN = "farebox.turn"
"""Where a request's scope has its `Turn`."""
QUICK_OF_TENANT = 8
"""Most questions of one tenant at once."""
SLOW_OF_TENANT = 2
"""Most slow questions of one tenant at once: reports, exports, replays, simulations, alerts."""
SLOW = 4
"""Most slow questions of all tenants at once."""
WAIT_SECONDS = 10.0
"""How long a question waits for its turn before it is refused."""


class Turns:
    """Who is being answered. One event loop's; not thread-safe."""

    def __init__(self) -> None:
        self._quick: defaultdict[int, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(QUICK_OF_TENANT))
        self._slow: defaultdict[int, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(SLOW_OF_TENANT))
        self._all_slow = asyncio.Semaphore(SLOW)

    def of(self, tenant_id: int, *, slow: bool) -> tuple[asyncio.Semaphore, ...]:
        """What a question has to take, in this order."""
        return (self._slow[tenant_id], self._all_slow) if slow else (self._quick[tenant_id],)


class Turn:
    """One request's turn, which ends when its answer begins: a client that reads slowly holds nothing up."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self._taken: list[asyncio.Semaphore] = []

    async def take(self, tenant_id: int, *, slow: bool) -> None:
        """Wait for the turn. Raises ApiError 429 where that takes too long."""
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                for semaphore in self._turns.of(tenant_id, slow=slow):
                    await semaphore.acquire()
                    self._taken.append(semaphore)
        except TimeoutError:
            self.end()
            what = "slow questions" if slow else "questions"
            raise ApiError(429, f"too many {what} at once; try again", headers={"Retry-After": "5"}) from None

    def end(self) -> None:
        """Let the next one have its turn."""
        while self._taken:
            self._taken.pop().release()

    def watched(self, send: Send) -> Send:
        """Sending that ends the turn when the answer begins."""

        async def watched(message: Message) -> None:
            if message["type"] == "http.response.start":
                self.end()
            await send(message)

        return watched
