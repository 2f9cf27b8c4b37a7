"""When a rule or a price may begin: once its transaction is committed, and never before.

A collector prices a call by what is committed when it reads it. So a moment of beginning that came before the commit
would leave calls between the two without it, on every collector that read them by then.
"""

import time
from collections.abc import Callable
from typing import TypeVar

from sqlalchemy import Connection

from farebox_collector.ledger.storage.database import Database

AHEAD_NS = 250 * 10**6
"""How far ahead a rule or a price begins that is to begin now."""
_MOST_AHEAD_NS = 64 * AHEAD_NS
Result = TypeVar("Result")


class CannotBegin(TimeoutError):
    """The books were too busy to write down in time when something begins; nothing was changed."""

    def __init__(self) -> None:
        super().__init__("the books are too busy to let it begin now: try again, or let it begin a minute from now")


class _TooLate(Exception):
    """The transaction may not be committed before the moment that it states."""


def starts_ns(at_ns: int, stated_ns: int | None, ahead_ns: int = AHEAD_NS) -> int:
    """When something begins that was asked for at a moment: as stated, or so far ahead where that is too near.

    A moment of the past stays what it is.
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
    """Write down, in a transaction of its own, something that begins at a moment or, where none is stated, now.

    `put` is given the connection, the moment now and that of the beginning; it is called again with a later one where
    it took too long. What begins now has begun when this returns. Raises CannotBegin.
    """
    ahead_ns, start_ns = AHEAD_NS, 0

    def work(connection: Connection) -> Result:
        nonlocal start_ns
        at_ns = clock()
        start_ns = starts_ns(at_ns, stated_ns, ahead_ns)
        result = put(connection, at_ns, start_ns)
        # Half of the time is for the commit.
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
