"""What every database of the books can do; `connect.open_database` chooses one by its URL.

Transactions are durable when they return: SQLite with synchronous=FULL, PostgreSQL with synchronous_commit=on.
"""

import logging
import random
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, event
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError

from farebox_collector.model.secret_box import SecretBox

Result = TypeVar("Result")

_ATTEMPTS = 8
_FIRST_PAUSE_S = 0.02

_logger = logging.getLogger(__name__)

_BEFORE_COMMIT = "farebox.before_commit"
_SECRET_BOX = "farebox.secret_box"  # noqa: S105  (a name, and no secret)
_NO_KEY = SecretBox()

LastWork = Callable[[Connection, list[Any]], None]
"""Is given what was collected during a transaction, just before it commits."""


@contextmanager
def collecting(connection: Connection) -> Iterator[None]:
    """Let `before_commit` be used while the block runs, and do its work at the end of a block that succeeds."""
    collected: dict[LastWork, list[Any]] = {}
    # Kept, since a connection that is lost on the way has no such place any more, and would say that instead.
    info = connection.info
    info[_BEFORE_COMMIT] = collected
    try:
        yield
        for work, items in collected.items():
            work(connection, items)
    finally:
        info.pop(_BEFORE_COMMIT, None)


def before_commit(connection: Connection, work: LastWork, item: Any) -> None:
    """Call `work` once, just before this transaction commits, with every item that was handed in for it.

    What all writers need at the same place (a row that is a queue of its own) is locked last and briefly that way.
    Raises KeyError on a connection that no `Database.transaction` opened: the work would never be done.
    """
    connection.info[_BEFORE_COMMIT].setdefault(work, []).append(item)


def secret_box_of(connection: Connection) -> SecretBox:
    """What seals and opens the secrets of these books."""
    box = connection.info.get(_SECRET_BOX, _NO_KEY)
    assert isinstance(box, SecretBox)
    return box


def hand_box_to(engine: Engine, box: SecretBox) -> None:
    """Let every connection of an engine that is made from now on have the box."""

    @event.listens_for(engine, "connect")
    def _give(_connection: Any, record: Any) -> None:
        record.info[_SECRET_BOX] = box


class DatabaseInUse(Exception):
    """Another process writes this database; the message says which and what to do."""


class NotADatabase(Exception):
    """What is at the given place is no database; the message says so."""


class UseServerTools(Exception):
    """The database server does this with its own tools; the message names them."""


class Database(ABC):
    """The books' database."""

    shared = False
    """Whether other processes may write the same books at the same time."""
    changes_with = False
    """Whether a statement may change tables in its WITH clause, and return what it changed."""

    @abstractmethod
    def transaction(self) -> AbstractContextManager[Connection]:
        """A writing transaction: durable when the block ends well, undone when it raises."""

    @abstractmethod
    def reading(self) -> AbstractContextManager[Connection]:
        """A consistent snapshot to read from; never waits for writers, nor holds them up."""

    @abstractmethod
    def close(self) -> None:
        """Let go of the database."""

    def files(self) -> list[Path]:
        """The files of the books that exist now; none where a server keeps them."""
        return []

    def back_up(self, target: Path) -> None:
        """Copy the books as they are at one moment into a new file. Raises FileExistsError, UseServerTools."""
        raise UseServerTools("use the database server's own tools for backups")

    @abstractmethod
    def is_transient(self, error: DBAPIError) -> bool:
        """Whether the same transaction may succeed if it is run again (deadlock, serialization, lost connection)."""

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep every other process out of this block: for migrations and what a first start creates."""
        yield

    @contextmanager
    def turn(self, kind: int) -> Iterator[bool]:
        """Keep every other process from work of a kind during this block: False, at once, if one is at it already."""
        yield True

    def transact(self, work: Callable[[Connection], Result]) -> Result:
        """Run `work` in a transaction, and all of it again after a transient failure.

        That includes a connection that is lost during COMMIT, when nobody knows whether it was done: `work` must change
        nothing the second time, which unique keys see to.
        """
        return self._again(self.transaction, work)

    def transact_at_once(self, work: Callable[[Connection], Result]) -> Result:
        """As `transact`, for work that is a single statement: if it can be, without round trips to begin and to end."""
        return self.transact(work)

    def _again(
        self, transaction: Callable[[], AbstractContextManager[Connection]], work: Callable[[Connection], Result]
    ) -> Result:
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                with transaction() as connection:
                    return work(connection)
            except DBAPIError as error:
                if attempt == _ATTEMPTS or not self.is_transient(error):
                    raise
                _logger.info("running a transaction again", extra={"attempt": attempt, "reason": str(error.orig)})
            # Two that collided must not collide again in step.
            time.sleep(random.uniform(0.5, 1.5) * _FIRST_PAUSE_S * 2 ** (attempt - 1))  # noqa: S311
        raise AssertionError("unreachable")


def is_storage_outage(error: Exception) -> bool:
    """Whether an error is the storage's (full, locked, gone, another schema), not that of what was to be stored."""
    return isinstance(error, DBAPIError) and not isinstance(error, DataError | IntegrityError)
