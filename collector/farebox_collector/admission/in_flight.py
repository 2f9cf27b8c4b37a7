"""Bound the bytes of requests in progress, counted from the first byte that arrives."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Overloaded(Exception):
    """Too many bytes are in progress; the client may retry later."""


class ShuttingDown(Exception):
    """This process is draining; its successor will accept a retry."""


class Hold:
    """The bytes reserved for one request."""

    def __init__(self, admission: "Admission") -> None:
        self._admission = admission
        self.size_bytes = 0

    def grow(self, more_bytes: int) -> None:
        """Reserve more bytes. Raises Overloaded if none are left."""
        self._admission.take(more_bytes, own_bytes=self.size_bytes)
        self.size_bytes += more_bytes


class Admission:
    """Reserve bytes for requests, up to `limit_bytes` in total. Use on one event loop; not thread-safe."""

    def __init__(self, limit_bytes: int, on_change: Callable[[int], None]) -> None:
        """`on_change` is called with the bytes in progress whenever they change."""
        self._limit_bytes = limit_bytes
        self._on_change = on_change
        self._in_progress_bytes = 0
        self._requests = 0
        self._closed = False
        self._idle = asyncio.Event()
        self._idle.set()

    @contextmanager
    def hold(self) -> Iterator[Hold]:
        """Reserve bytes for one request while the block runs. Raises ShuttingDown."""
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
        """Reserve bytes, or release them if negative. `own_bytes` are those that the same request reserved before.

        Raises Overloaded, and then reserves nothing.
        """
        # A single request is always accepted, also above the limit and in pieces.
        alone = self._in_progress_bytes == own_bytes
        if more_bytes > 0 and not alone and self._in_progress_bytes + more_bytes > self._limit_bytes:
            raise Overloaded("too many requests in progress; try again")
        self._in_progress_bytes += more_bytes
        self._on_change(self._in_progress_bytes)

    def close(self) -> None:
        """Refuse new requests."""
        self._closed = True

    async def wait_until_idle(self) -> None:
        """Return when no request is in progress."""
        await self._idle.wait()
