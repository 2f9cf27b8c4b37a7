"""Limit concurrent reads of the API per tenant, and slow reads in total."""

import asyncio
from collections import defaultdict

from starlette.types import Message, Send

from farebox_collector.surfaces.api.problems import ApiError

TURN = "farebox.turn"
"""The key of a request's `Turn` in its ASGI scope."""
QUICK_OF_TENANT = 8
"""Maximum concurrent reads of a tenant."""
SLOW_OF_TENANT = 2
"""Maximum concurrent slow reads of a tenant: reports, exports, replays, simulations, alerts."""
SLOW = 4
"""Maximum concurrent slow reads of all tenants."""
WAIT_SECONDS = 10.0
"""Seconds that a read waits for its turn before it is refused."""


class Turns:
    """The semaphores of concurrent reads. For one event loop; not thread-safe."""

    def __init__(self) -> None:
        self._quick: defaultdict[int, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(QUICK_OF_TENANT))
        self._slow: defaultdict[int, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(SLOW_OF_TENANT))
        self._all_slow = asyncio.Semaphore(SLOW)

    def of(self, tenant_id: int, *, slow: bool) -> tuple[asyncio.Semaphore, ...]:
        """Return the semaphores to acquire, in this order."""
        return (self._slow[tenant_id], self._all_slow) if slow else (self._quick[tenant_id],)


class Turn:
    """The turn of a request. It ends when the response begins, so a slow client blocks no other read."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self._taken: list[asyncio.Semaphore] = []

    async def take(self, tenant_id: int, *, slow: bool) -> None:
        """Wait for the turn. Raises ApiError 429 after the timeout."""
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
        """Release the turn."""
        while self._taken:
            self._taken.pop().release()

    def watched(self, send: Send) -> Send:
        """Wrap `send` so that the turn ends when the response begins."""

        async def watched(message: Message) -> None:
            if message["type"] == "http.response.start":
                self.end()
            await send(message)

        return watched
