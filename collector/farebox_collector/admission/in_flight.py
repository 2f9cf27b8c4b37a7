"""How much may be worked on at once: a bound in bytes, counted from the first byte of a request that arrives."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Overloaded(Exception):
    """Too much is being worked on already; the same request will be taken later."""


class ShuttingDown(Exception):
    """This process is draining; the same request will be taken by its successor."""


class Hold:
    """The room that one request takes."""

    def __init__(self, admission: "Admission") -> None:
        self._admission = admission
        self.size_bytes = 0

    def grow(self, more_bytes: int) -> None:
        """Take more room. Raises Overloaded when there is none left."""
        self._admission.take(more_bytes, own_bytes=self.size_bytes)
        self.size_bytes += more_bytes


class Admission:
    """Gives out room for requests, up to `limit_bytes` for all together. One event loop's; not thread-safe."""

    def __init__(self, limit_bytes: int, tell: Callable[[int], None]) -> None:
        """`tell` is called with the bytes in hand whenever they change."""
        self._limit_bytes = limit_bytes
        self._tell = tell
        self._in_hand_bytes = 0
        self._requests = 0
        self._closed = False
        self._idle = asyncio.Event()
        self._idle.set()

    @contextmanager
    def hold(self) -> Iterator[Hold]:
        """Room for one request for as long as the block runs. Raises ShuttingDown."""
        if self._closed:
            raise ShuttingDown("shutting down")
        self._requests += 1
        self._idle.clear()
        hold = Hold(self)
        try:
            yield hold
        finally:
            self.take(-hold.size_bytes)
            self._requests -= 1
            if not self._requests:
                self._idle.set()

    def take(self, more_bytes: int, own_bytes: int = 0) -> None:
        """Count bytes in, or out where negative; `own_bytes` are those that the same request has taken before.

        Raises Overloaded, and then counts nothing.
        """
        # A request that is alone is always taken, however small the limit, also where it arrives in pieces.
        alone = self._in_hand_bytes == own_bytes
        if more_bytes > 0 and not alone and self._in_hand_bytes + more_bytes > self._limit_bytes:
            raise Overloaded("too much is being worked on")
        self._in_hand_bytes += more_bytes
        self._tell(self._in_hand_bytes)

    def close(self) -> None:
        """Turn every new request away, from now on."""
        self._closed = True

    async def wait_until_idle(self) -> None:
        """Return when no request is in hand."""
        await self._idle.wait()
