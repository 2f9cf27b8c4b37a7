"""Collect refused attempts for the audit log; repeats are counted, so that a flood becomes a few entries.

Equal attempts have the same actor and target. The first is written within a second; repeats are counted and written as
one entry a minute.
"""

import threading
from collections.abc import Callable
from typing import NamedTuple

from sqlalchemy import Connection

from farebox_collector.ledger.access.actors import Actor
from farebox_collector.ledger.access.audit_log import REFUSED, note
from farebox_collector.ledger.storage.database import Database

EVERY_NS = 60 * 10**9
"""Interval between entries of a repeated attempt."""
MOST_KINDS = 500
"""Most distinct attempts; further ones are counted together."""
MOST_ADDRESSES = 20
"""Most addresses in one entry."""


class Attempt(NamedTuple):
    """A refused attempt. Equal attempts are counted together."""

    tenant_id: int
    actor: str
    what: str
    """Method and route."""
    why: str


class _Counted:
    """Count of equal attempts since the last entry."""

    def __init__(self) -> None:
        self.times = 0
        self.addresses: dict[str, None] = {}
        self.written_at_ns: int | None = None


class Refusals:
    """Refused attempts that are not in the audit log yet. Thread-safe."""

    def __init__(self, database: Database, clock: Callable[[], int]) -> None:
        self._database = database
        self._clock = clock
        self._lock = threading.Lock()
        self._counted: dict[Attempt, _Counted] = {}

    def count(self, attempt: Attempt, address: str) -> None:
        """Count an attempt; `write` is called periodically."""
        with self._lock:
            if attempt not in self._counted and len(self._counted) >= MOST_KINDS:
                attempt = Attempt(attempt.tenant_id, "", "several", "too many different attempts")
            counted = self._counted.setdefault(attempt, _Counted())
            counted.times += 1
            if len(counted.addresses) < MOST_ADDRESSES:
                counted.addresses[address] = None

    def write(self, *, everything: bool = False) -> None:
        """Write due entries to the audit log; with `everything`, also those still waiting for their interval."""
        now_ns = self._clock()
        due = self._take_due(now_ns, everything=everything)
        if due:
            self._database.transact(lambda connection: _note(connection, due, now_ns))

    def _take_due(self, now_ns: int, *, everything: bool) -> list[tuple[Attempt, int, list[str]]]:
        due = []
        with self._lock:
            for attempt, counted in list(self._counted.items()):
                since = counted.written_at_ns
                if not everything and since is not None and 0 <= now_ns - since < EVERY_NS:
                    continue
                if not counted.times:
                    del self._counted[attempt]
                    continue
                due.append((attempt, counted.times, list(counted.addresses)))
                counted.times, counted.addresses, counted.written_at_ns = 0, {}, now_ns
        return due


def _note(connection: Connection, due: list[tuple[Attempt, int, list[str]]], at_ns: int) -> None:
    for attempt, times, addresses in due:
        note(
            connection,
            attempt.tenant_id,
            "access.refuse",
            attempt.what,
            at_ns,
            after={"why": attempt.why, "times": times, "addresses": addresses},
            outcome=REFUSED,
            actor=Actor(attempt.actor, addresses[0] if len(addresses) == 1 else ""),
        )
