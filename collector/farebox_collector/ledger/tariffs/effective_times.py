"""Start times of rules and prices: never before their transaction is committed.

A collector prices a call by what is committed when it reads the call. With a start before the commit, calls between the
two would be priced without the new version.
"""

import time
from collections.abc import Callable
from typing import TypeVar

from sqlalchemy import Connection

from farebox_collector.ledger.storage.database import Database

AHEAD_NS = 250 * 10**6
"""How far ahead a version starts that is requested to start now."""
_MOST_AHEAD_NS = 64 * AHEAD_NS
Result = TypeVar("Result")


class CannotBegin(TimeoutError):
    """The books were too busy to commit before the start; nothing was changed."""

    def __init__(self) -> None:
        super().__init__("the books are too busy for a start now: try again, or state a start a minute from now")


class _TooLate(Exception):
    """The transaction may not commit before its start time."""


def starts_ns(at_ns: int, stated_ns: int | None, ahead_ns: int = AHEAD_NS) -> int:
    """Return the start of a version requested at a moment: the stated one, or `ahead_ns` ahead if that is too near.

    A stated start in the past is kept.
    """
    if stated_ns is None or at_ns <= stated_ns < at_ns + ahead_ns:
        return at_ns + ahead_ns
    return stated_ns


def begin(
    database: Database,
    clock: Callable[[], int],
    stated_ns: int | None,
    put: Callable[[Connection, int, int], Result],
    wait: Callable[[float], None] = time.sleep,
) -> Result:
    """Store, in a separate transaction, a version that starts at the stated time, or now if none is stated.

    `put` gets the connection, the current time and the start time. If it takes too long, it is called again with a
    later start. A version that starts now has started when this returns. Raises CannotBegin.
    """
    ahead_ns, start_ns = AHEAD_NS, 0

    def work(connection: Connection) -> Result:
        nonlocal start_ns
        at_ns = clock()
        start_ns = starts_ns(at_ns, stated_ns, ahead_ns)
        result = put(connection, at_ns, start_ns)
        # Leave half of the time for the commit.
        if start_ns > at_ns and clock() > start_ns - ahead_ns // 2:
            raise _TooLate
        return result

    while True:
        try:
            result = database.transact(work)
        except _TooLate:
            ahead_ns *= 4
            if ahead_ns > _MOST_AHEAD_NS:
                raise CannotBegin from None
        else:
            break
    if stated_ns is None:
        wait(min(max(start_ns - clock(), 0), ahead_ns) / 10**9)
    return result
