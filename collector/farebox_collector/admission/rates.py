"""Limit the rate of requests, spans and bytes of a tenant and of a key. Off by default.

Each collector counts separately, in memory, in fixed windows. A request is refused if a window is already used up. A
request that exceeds the rest of a window is accepted whole and counted, because a request cannot be split.
"""

import math
import time
from typing import NamedTuple

from limits import RateLimitItem, parse
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import FixedWindowRateLimiter

from farebox_collector.model.credentials import Caller
from farebox_collector.settings import Settings

_LEAST_DELAY_S = 0.1
_OWNERS = ("tenant", "key")
_UNITS = ("requests", "spans", "bytes")


class TooMuch(Exception):
    """A window is used up; the client may retry after it ends, in `delay_s` seconds."""

    def __init__(self, limit: str, delay_s: float) -> None:
        super().__init__(f"over the limit of {limit}; try again in {math.ceil(delay_s)} s")
        self.delay_s = delay_s


class _Limit(NamedTuple):
    owner: str
    unit: str
    item: RateLimitItem

    def of(self, caller: Caller) -> tuple[str, str, str]:
        """The key of the caller's window."""
        whose = str(caller.tenant_id) if self.owner == "tenant" else f"{caller.tenant_id} {caller.key_id}"
        return self.owner, self.unit, whose

    def __str__(self) -> str:
        seconds = self.item.get_expiry()
        return f"{self.item.amount:,} {self.unit} in {seconds:,} s for each {self.owner}"


class Rates:
    """The rate limits of one collector. Use on one event loop."""

    def __init__(self, settings: Settings) -> None:
        self._limits = tuple(
            _Limit(owner, unit, parse(text))
            for owner in _OWNERS
            for unit in _UNITS
            if (text := getattr(settings, f"limit_{owner}_{unit}"))
        )
        self._windows = FixedWindowRateLimiter(MemoryStorage())

    @property
    def are_set(self) -> bool:
        """Whether any limit is set."""
        return bool(self._limits)

    async def admit(self, caller: Caller, *, brings_usage: bool) -> None:
        """Count a request. Raises TooMuch while a window of its caller is used up.

        Windows of spans and bytes limit only requests that bring usage.
        """
        for limit in self._limits:
            if (brings_usage or limit.unit == "requests") and not await self._windows.test(
                limit.item, *limit.of(caller)
            ):
                stats = await self._windows.get_window_stats(limit.item, *limit.of(caller))
                raise TooMuch(str(limit), max(_LEAST_DELAY_S, stats.reset_time - time.time()))
        await self._count(caller, "requests", 1)

    async def count(self, caller: Caller, *, spans: int = 0, size_bytes: int = 0) -> None:
        """Count the spans and bytes of a request."""
        await self._count(caller, "spans", spans)
        await self._count(caller, "bytes", size_bytes)

    async def _count(self, caller: Caller, unit: str, number: int) -> None:
        for limit in self._limits:
            if limit.unit == unit and number:
                await self._windows.hit(limit.item, *limit.of(caller), cost=number)
