"""The interface of every database of the books; `connect.open_database` chooses one by its URL.

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

from sqlalchemy import Connection, Engine, event, inspect
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError

from farebox_collector.model.secret_box import SecretBox

Result = TypeVar("Result")

_ATTEMPTS = 8
_FIRST_PAUSE_S = 0.02

_logger = logging.getLogger(__name__)

_BEFORE_COMMIT = "farebox.before_commit"
_SECRET_BOX = "farebox.secret_box"  # noqa: S105  (a name, not a secret)
_NO_KEY = SecretBox()

LastWork = Callable[[Connection, list[Any]], None]
"""Receives the items collected during a transaction, just before it commits."""

Fold = Callable[[Connection], None]
"""Posts all unfolded batches."""
_UNFOLDED = "unfolded_batches"
_ANY_UNFOLDED = f"SELECT EXISTS (SELECT 1 FROM {_UNFOLDED})"
_WAIT_FOR_FOLD_S = 2.0
"""Several times the pause between two folds."""
_LOOK_AGAIN_S = 0.002


@contextmanager
def collecting(connection: Connection) -> Iterator[None]:
    """Enable `before_commit` in the block, and run its work at the end of a block that succeeds."""
    collected: dict[LastWork, list[Any]] = {}
    # Kept here: a connection that was lost has no `info` any more, and accessing it would hide the original error.
    info = connection.info
    info[_BEFORE_COMMIT] = collected
    try:
        yield
        for work, items in collected.items():
            work(connection, items)
    finally:
        info.pop(_BEFORE_COMMIT, None)


def before_commit(connection: Connection, work: LastWork, item: Any) -> None:
    """Call `work` once, just before this transaction commits, with all items that were passed for it.

    So rows that every writer updates (one row that all wait for) are locked last and briefly. Raises KeyError on a
    connection that `Database.transaction` did not open: the work would never run.
    """
    connection.info[_BEFORE_COMMIT].setdefault(work, []).append(item)


def is_writing(connection: Connection) -> bool:
    """Return whether a connection is in a writing transaction of `Database`."""
    return _BEFORE_COMMIT in connection.info


def secret_box_of(connection: Connection) -> SecretBox:
    """Return the box that seals and opens the secrets of these books."""
    box = connection.info.get(_SECRET_BOX, _NO_KEY)
    assert isinstance(box, SecretBox)
    return box


def has_unfolded(connection: Connection) -> bool:
    """Return whether there are batches to fold."""
    return bool(connection.exec_driver_sql(_ANY_UNFOLDED).scalar_one())


def attach_box(engine: Engine, box: SecretBox) -> None:
    """Give the box to every new connection of an engine."""

    @event.listens_for(engine, "connect")
    def _give(_connection: Any, record: Any) -> None:
        record.info[_SECRET_BOX] = box


class DatabaseInUse(Exception):
    """Another process writes this database; the message says which and what to do."""


class NotADatabase(Exception):
    """The file at the given path is not a database; the message says so."""


class UseServerTools(Exception):
    """The database server does this with its own tools; the message names them."""


class Database(ABC):
    """The books' database.

    A transaction and a snapshot begin without unfolded batches: those are folded first, by the function given to
    `fold_with`. So nothing that reads the books has to add batches to what it reads. `append` does not fold.
    """

    shared = False
    """Whether other processes may write the same books at the same time."""
    _fold: Fold | None = None
    changes_with = False
    """Whether a statement may change tables in its WITH clause, and return the changes."""

    @abstractmethod
    def transaction(self) -> AbstractContextManager[Connection]:
        """A writing transaction: durable when the block succeeds, rolled back when it raises."""

    @abstractmethod
    def reading(self) -> AbstractContextManager[Connection]:
        """A consistent snapshot for reading; does not wait for writers, and does not block them."""

    @abstractmethod
    def snapshot(self) -> AbstractContextManager[Connection]:
        """Like `reading`, without folding first: for readers of other things than usage."""

    @abstractmethod
    def appending(self) -> AbstractContextManager[Connection]:
        """A writing transaction that does not fold first, for appending a batch; do not open `reading` inside it."""

    @contextmanager
    def _reading_of_others(self) -> Iterator[Connection]:
        """A snapshot of books that another process writes: waits a moment for one without unfolded batches."""
        give_up_s = time.monotonic() + _WAIT_FOR_FOLD_S
        while True:
            with self.snapshot() as connection:
                # Books of another version may lack the table; the caller finds out.
                unfolded = inspect(connection).has_table(_UNFOLDED) and has_unfolded(connection)
                late = time.monotonic() > give_up_s
                if unfolded and late:
                    _logger.warning("some calls are not in accounts and reports yet: start a collector")
                if late or not unfolded:
                    yield connection
                    return
            time.sleep(_LOOK_AGAIN_S)

    def fold_with(self, fold: Fold) -> None:
        """Fold with this function from now on; it gets a transaction of its own."""
        self._fold = fold

    def fold(self) -> None:
        """Fold what is unfolded now."""
        with self.transaction():
            pass

    @abstractmethod
    def close(self) -> None:
        """Close all connections."""

    def files(self) -> list[Path]:
        """The files of the books that exist now; none where a server keeps them."""
        return []

    def back_up(self, target: Path) -> None:
        """Copy the books as they are at one moment into a new file. Raises FileExistsError, UseServerTools."""
        raise UseServerTools("use the database server's own tools for backups")

    @abstractmethod
    def is_transient(self, error: DBAPIError) -> bool:
        """Return whether retrying the same transaction may succeed (deadlock, serialization, lost connection)."""

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Exclude every other process during this block: for migrations and for rows created at the first start."""
        yield

    @contextmanager
    def turn(self, kind: int) -> Iterator[bool]:
        """Exclude other processes from one kind of work during this block; yield False, at once, if one is doing it."""
        yield True

    def transact(self, work: Callable[[Connection], Result]) -> Result:
        """Run `work` in a transaction, and all of it again after a transient failure.

        That includes a connection lost during COMMIT, when the outcome is unknown: `work` must change nothing the
        second time, which unique keys ensure.
        """
        return self._again(self.transaction, work)

    def append(self, work: Callable[[Connection], Result]) -> Result:
        """Like `transact`, in a transaction that does not fold first: for batches, and for work on other things."""
        return self._again(self.appending, work)

    def transact_at_once(self, work: Callable[[Connection], Result]) -> Result:
        """Like `transact`, for work that is a single statement: without round trips to begin and commit if possible."""
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
            # Jitter, so that two transactions that collided do not collide again.
            time.sleep(random.uniform(0.5, 1.5) * _FIRST_PAUSE_S * 2 ** (attempt - 1))  # noqa: S311
        raise AssertionError("unreachable")


def is_storage_outage(error: Exception) -> bool:
    """Return whether the storage caused an error (full, locked, missing, another schema), not the stored data."""
    return isinstance(error, DBAPIError) and not isinstance(error, DataError | IntegrityError)
