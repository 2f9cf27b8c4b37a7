"""The books in PostgreSQL, written by any number of collectors at once.

READ COMMITTED and unique keys decide which writer was first. All writers lock rows in one order, and a deadlock victim
runs its transaction again.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, create_engine, event, text
from sqlalchemy.exc import DBAPIError

from farebox_collector.ledger.storage.database import (
    Database,
    Result,
    UseServerTools,
    attach_box,
    collecting,
    has_unfolded,
)
from farebox_collector.ledger.storage.migrate import APPLICATION, newest_revision
from farebox_collector.model.secret_box import SecretBox

_CONNECTIONS = 8
_CONNECT_TIMEOUT_S = 5
_STATEMENT_TIMEOUT_MS = 60_000
_STARTING_LOCK = 0x6661726562  # an arbitrary number: "fareb"

_APPENDING = 0x6661726563
"""The advisory lock that transactions which append share."""
_LIMIT_TIME = f"set_config('statement_timeout', '{_STATEMENT_TIMEOUT_MS}', true)"
_BEGIN_APPENDING = f"SELECT {_LIMIT_TIME}, pg_advisory_xact_lock_shared({_APPENDING})"
_LOCK_APPENDING = text(f"SELECT pg_advisory_lock({_APPENDING})")
_UNLOCK_APPENDING = text(f"SELECT pg_advisory_unlock({_APPENDING})")

_RETRYABLE = frozenset(
    {
        "40001",  # serialization_failure
        "40P01",  # deadlock_detected
        "57P01",  # admin_shutdown
        "57P02",  # crash_shutdown
        "57P03",  # cannot_connect_now
    }
)


class PostgresqlDatabase(Database):
    """Books in a PostgreSQL database; `url` begins with postgresql+psycopg://."""

    shared = True
    changes_with = True

    def __init__(self, url: str, *, writable: bool = True, box: SecretBox | None = None) -> None:
        self._writable = writable
        self._engine = create_engine(
            url,
            isolation_level="READ COMMITTED",
            hide_parameters=True,
            pool_size=_CONNECTIONS,
            max_overflow=_CONNECTIONS,
            pool_pre_ping=True,
            connect_args={
                "connect_timeout": _CONNECT_TIMEOUT_S,
                # An upgrade recognises older collectors by this name.
                "application_name": f"{APPLICATION} {newest_revision()}",
            },
        )
        self._reading = self._engine.execution_options(
            isolation_level="REPEATABLE READ", postgresql_readonly=True, postgresql_deferrable=False
        )

        # For single statements: the server makes each a transaction, and a lost connection raises.
        self._at_once = create_engine(
            url,
            isolation_level="AUTOCOMMIT",
            hide_parameters=True,
            pool_size=1,
            connect_args={"connect_timeout": _CONNECT_TIMEOUT_S, "application_name": "farebox"},
        )

        @event.listens_for(self._at_once, "connect")
        def _limit(connection: Any, _record: Any) -> None:
            connection.execute(f"SET statement_timeout TO {_STATEMENT_TIMEOUT_MS}")
            connection.commit()

        @event.listens_for(self._at_once, "connect")
        @event.listens_for(self._engine, "connect")
        def _configure(connection: Any, _record: Any) -> None:
            with connection.cursor() as cursor:
                # Independent of the server's default: a commit that returned is on disk.
                cursor.execute("SET synchronous_commit TO on")
            connection.commit()

        attach_box(self._engine, box or SecretBox())
        self._folding = threading.Lock()

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """As in the base class."""
        if not self._writable:
            raise RuntimeError("the database is open for reading only")
        with self._engine.connect() as connection:
            self._fold_unfolded(connection)
            with connection.begin(), collecting(connection):
                # Only for writing: an audit may read for as long as it needs.
                connection.exec_driver_sql(f"SET LOCAL statement_timeout TO {_STATEMENT_TIMEOUT_MS}")
                yield connection

    @contextmanager
    def appending(self) -> Iterator[Connection]:
        """As in the base class."""
        if not self._writable:
            raise RuntimeError("the database is open for reading only")
        with self._engine.begin() as connection, collecting(connection):
            connection.exec_driver_sql(_BEGIN_APPENDING)
            yield connection

    def _fold_unfolded(self, connection: Connection) -> None:
        """Fold in a transaction of its own, if there is something to fold."""
        if self._fold is not None:
            with connection.begin(), collecting(connection):
                if has_unfolded(connection):
                    self._fold(connection)

    def transact_at_once(self, work: Callable[[Connection], Result]) -> Result:
        """As in the base class: one round trip in total."""
        if not self._writable:
            raise RuntimeError("the database is open for reading only")
        return self._again(self._at_once_folded, work)

    @contextmanager
    def _at_once_folded(self) -> Iterator[Connection]:
        with self._at_once.begin() as connection:
            if self._fold is not None and has_unfolded(connection):
                with self._engine.connect() as other:
                    self._fold_unfolded(other)
            yield connection

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """As in the base class."""
        if not self._writable:
            with self._reading_of_others() as connection:
                yield connection
            return
        with ExitStack() as stack:
            connection = stack.enter_context(self._reading.begin())
            if self._fold is not None and has_unfolded(connection):
                stack.close()
                connection = stack.enter_context(self._folded_snapshot())
            yield connection

    @contextmanager
    def _folded_snapshot(self) -> Iterator[Connection]:
        """A snapshot right after a fold: no collector appends in between."""
        with self._reading.connect() as connection:
            # One thread of this process at a time: each needs two connections.
            with self._folding, self._engine.connect() as other:
                connection.execute(_LOCK_APPENDING)
                connection.commit()
                try:
                    self._fold_unfolded(other)
                finally:
                    # The first statement of the transaction takes the snapshot.
                    connection.execute(_UNLOCK_APPENDING)
            yield connection

    @contextmanager
    def snapshot(self) -> Iterator[Connection]:
        """As in the base class."""
        with self._reading.begin() as connection:
            yield connection

    @contextmanager
    def alone(self) -> Iterator[None]:
        """As in the base class, by an advisory lock that ends with its connection."""
        with self._engine.connect() as connection:
            connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": _STARTING_LOCK})
            connection.commit()
            try:
                yield
            finally:
                connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": _STARTING_LOCK})
                connection.commit()

    @contextmanager
    def turn(self, kind: int) -> Iterator[bool]:
        """As in the base class, by an advisory lock that ends with its connection; no transaction is open meanwhile."""
        with self._engine.connect() as connection:
            mine = bool(connection.execute(text("SELECT pg_try_advisory_lock(:key)"), {"key": kind}).scalar_one())
            connection.commit()
            try:
                yield mine
            finally:
                if mine:
                    connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": kind})
                    connection.commit()

    def back_up(self, target: Path) -> None:
        """Raise UseServerTools."""
        raise UseServerTools("PostgreSQL has tools of its own for this: pg_basebackup with WAL archiving, or pg_dump")

    def is_transient(self, error: DBAPIError) -> bool:
        """Collisions with other replicas, and lost connections."""
        state = getattr(error.orig, "sqlstate", None)
        # Without a SQLSTATE the connection failed, not a statement; class 08 means the same.
        lost = error.connection_invalidated or (state is None and type(error.orig).__name__ == "OperationalError")
        return lost or state in _RETRYABLE or str(state).startswith("08")

    def close(self) -> None:
        """Close all connections."""
        self._at_once.dispose()
        self._engine.dispose()
