"""The books in one SQLite file.

One writing connection, which also checkpoints, and read-only connections. Two connections that write or checkpoint at
the same time can corrupt the log of SQLite up to 3.51.2, so a second writing process is refused.
"""

import fcntl
import logging
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from threading import get_ident
from typing import IO, Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import QueuePool

from farebox_collector.ledger.storage.database import (
    Database,
    DatabaseInUse,
    NotADatabase,
    attach_box,
    collecting,
    is_storage_outage,
)
from farebox_collector.model.secret_box import SecretBox

_logger = logging.getLogger(__name__)

MINIMUM_SQLITE = (3, 37, 0)
"""The first version with STRICT tables is 3.37."""
PRIVATE = 0o600
"""Permissions of every created file: only its owner may read payment data."""
_READERS = 16
"""More readers than one tenant can use at once over the API. They are opened on demand, and the last is reused
first."""
_BUSY_TIMEOUT_MS = 10_000
_CACHE_KIB = 16_384
"""Cache of the writing connection. The system's cache holds the rest: four times as much was not faster, over empty
books or ten million records."""
_CHECKPOINT_PAGES = 4_000
"""Pages in the log before a checkpoint: a page that many transactions changed is written once. A larger log would save
little, and make the waiting transaction wait longer."""


class SqliteDatabase(Database):
    """Books in a file. Raises DatabaseInUse if `writable` and another process already writes them."""

    def __init__(self, url: str, *, writable: bool = True, box: SecretBox | None = None) -> None:
        if sqlite3.sqlite_version_info < MINIMUM_SQLITE:
            raise RuntimeError(f"SQLite {sqlite3.sqlite_version} is too old: 3.37 or later is needed")
        path = make_url(url).database
        if not path or path == ":memory:":
            raise ValueError("the books need a file: sqlite:///path/to/farebox.db")
        self.path = Path(path)
        self._lock_file: IO[str] | None = None
        if self.path.exists():
            _require_sqlite(self.path)
        if writable:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock_file = _lock(self.path)
            if not self.path.exists():
                # SQLite gives the log file the same permissions.
                os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, PRIVATE))
        elif not self.path.exists():
            raise FileNotFoundError(f"there are no books at {self.path}")
        self._writing = threading.Lock()
        self._owner = 0
        """The thread that writes, so that it can also read."""
        self._may_be_unfolded = writable
        self._writer = _engine(url, "writer") if writable else None
        self._readers = _engine(url, "reader")
        for engine in filter(None, (self._writer, self._readers)):
            attach_box(engine, box or SecretBox())

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """As in the base class; one thread at a time."""
        if self._writer is None:
            raise RuntimeError("the database is open for reading only")
        with self._alone(), self._writer.begin() as connection, collecting(connection):
            yield connection

    @contextmanager
    def appending(self) -> Iterator[Connection]:
        """As in the base class."""
        if self._writer is None:
            raise RuntimeError("the database is open for reading only")
        with self._exclusive(), self._writer.begin() as connection, collecting(connection):
            self._may_be_unfolded = True
            yield connection

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """As in the base class; waits for the writer if there is something to fold."""
        if self._writer is None:
            with self._reading_of_others() as connection:
                yield connection
            return
        with ExitStack() as stack:
            with ExitStack() as folded:
                if self._may_be_unfolded and self._owner != get_ident():
                    try:
                        folded.enter_context(self._alone())
                    except DBAPIError as error:
                        if not is_storage_outage(error):
                            raise
                        _logger.warning("batches cannot be folded: reports lack them for now", exc_info=error)
                connection = stack.enter_context(self._readers.begin())
                # A transaction sees the books as they were at its first statement.
                connection.exec_driver_sql("SELECT 1 FROM sqlite_master LIMIT 1").all()
            yield connection

    @contextmanager
    def snapshot(self) -> Iterator[Connection]:
        """As in the base class."""
        with self._readers.begin() as connection:
            yield connection

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other writers out of a block, and fold before it."""
        with self._exclusive():
            if self._may_be_unfolded and self._fold is not None and self._writer is not None:
                with self._writer.begin() as connection, collecting(connection):
                    self._fold(connection)
                self._may_be_unfolded = False
            yield

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        """Keep other writers out of a block, in which this thread may also read."""
        with self._writing:
            self._owner = get_ident()
            try:
                yield
            finally:
                self._owner = 0

    def is_transient(self, error: DBAPIError) -> bool:
        """Never: the only writer has no collisions, and a full disk does not recover in a moment."""
        return False

    def back_up(self, target: Path) -> None:
        """Copy a consistent snapshot of the books to a new file, while they are written. Raises FileExistsError."""
        if target.exists():
            raise FileExistsError(f"{target} exists already")
        unfinished = target.with_name(target.name + ".unfinished")
        unfinished.unlink(missing_ok=True)
        os.close(os.open(unfinished, os.O_CREAT | os.O_EXCL | os.O_RDWR, PRIVATE))
        source_uri = f"{self.path.resolve().as_uri()}?mode=ro"
        with closing(sqlite3.connect(source_uri, uri=True)) as source, closing(sqlite3.connect(unfinished)) as copy:
            # All pages in one step: a reader's snapshot, independent of writers.
            source.backup(copy, pages=-1)
        # Only a complete copy gets the name.
        unfinished.rename(target)

    def files(self) -> list[Path]:
        """Return the files of the books that exist now."""
        names = (self.path.name + ending for ending in ("", "-wal", "-shm", ".lock"))
        return [path for path in map(self.path.with_name, names) if path.exists()]

    def close(self) -> None:
        """Checkpoint the log into the database file and close it."""
        self._readers.dispose()
        if self._writer is not None:
            with self._writing:
                connection = self._writer.raw_connection()
                connection.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
                connection.close()
            self._writer.dispose()
        if self._lock_file is not None:
            self._lock_file.close()


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, PRIVATE)


def _require_sqlite(path: Path) -> None:
    """Raise NotADatabase for a file that SQLite cannot read; an empty file is a database."""
    with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as connection:
        try:
            connection.execute("PRAGMA schema_version").fetchone()
        except sqlite3.DatabaseError as error:
            raise NotADatabase(f"{path}: {error}") from None


def _lock(path: Path) -> IO[str]:
    lock_path = path.with_name(path.name + ".lock")
    file = open(lock_path, "a+", encoding="ascii", opener=_private)  # noqa: SIM115  (open while locked)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.seek(0)
        holder = file.read().strip() or "unknown"
        file.close()
        raise DatabaseInUse(
            f"process {holder} is writing the books at {path}, and SQLite takes one writing process;"
            " stop it first, or use its HTTP API"
        ) from None
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return file


def _engine(url: str, role: str) -> Engine:
    writer = role == "writer"
    engine = create_engine(
        url,
        # One thread at a time uses the pool's writing connection, under a lock, but not always the same thread.
        connect_args={"check_same_thread": False, "isolation_level": None, "cached_statements": 256},
        # Errors are logged, and parameters contain keys, names and money.
        hide_parameters=True,
        poolclass=QueuePool,
        pool_size=1 if writer else _READERS,
        max_overflow=0,
        # As few readers as there are concurrent queries: each has its own cache, which fills and stays.
        pool_use_lifo=True,
    )

    @event.listens_for(engine, "connect")
    def _configure(connection: sqlite3.Connection, _record: Any) -> None:
        connection.execute(f"PRAGMA busy_timeout={_BUSY_TIMEOUT_MS}")
        if writer:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute("PRAGMA foreign_keys=ON")
            connection.execute(f"PRAGMA cache_size=-{_CACHE_KIB}")
            connection.execute(f"PRAGMA wal_autocheckpoint={_CHECKPOINT_PAGES}")
        else:
            connection.execute("PRAGMA query_only=ON")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writer else "BEGIN")

    return engine
