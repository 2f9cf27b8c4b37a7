"""Retire old usage records in short transactions, with little memory.

The collector does it in its periodic job, `farebox maintain` in one run; replicas take turns. A run that stops keeps
what it retired; the next run continues from there.
"""

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from sqlalchemy import Connection, func, select

from farebox_collector.ledger.journal.watermarks import set_watermark, watermark
from farebox_collector.ledger.storage.database import Database
from farebox_collector.ledger.storage.locks import RETIRING
from farebox_collector.ledger.storage.throttle import Pause, no_pause
from farebox_collector.ledger.tables.books import usage_records
from farebox_collector.ledger.usage.retention import (
    Kept,
    RetentionBatch,
    preview_retention,
    retire,
)
from farebox_collector.model.moments import DAY_NS
from farebox_collector.settings import MIN_RETENTION_DAYS, Settings

AT_ONCE = 1_000
"""Records per transaction of `farebox maintain`."""
BESIDE_INTAKE = 250
"""Records per transaction beside intake, which on SQLite waits for the lock: some 30 ms."""
_HOUR_NS = 3600 * 10**9
_RETIRED = "retired"
"""The watermark of the last record that the periodic job examined."""

Progress = Callable[[int, int], None]


class TooRecent(Exception):
    """The moment is too recent: records of that age are still needed. The message names the shortest retention."""


class AlreadyRunning(Exception):
    """Another process is retiring records of these books."""


class Retired(NamedTuple):
    """The result for the records examined."""

    retired: int
    kept: Counter[Kept]
    ended: bool
    """Whether all records that are old enough were examined."""

    def plus(self, batch: RetentionBatch) -> "Retired":
        """Add the result of a further transaction."""
        return Retired(self.retired + batch.retired, self.kept + batch.kept, batch.ended)


def require_age(before_ns: int, now_ns: int, settings: Settings) -> None:
    """Raise TooRecent if closing a month, or late spans, may still need records from after this moment."""
    least_ns = max(MIN_RETENTION_DAYS * DAY_NS, settings.max_span_age_hours * _HOUR_NS)
    if before_ns > now_ns - least_ns:
        raise TooRecent(
            f"records are kept for at least {least_ns // DAY_NS} days, to close a month; give an earlier moment"
        )


def preview_retirement(database: Database, before_ns: int, progress: Progress) -> Retired:
    """Return what `retire_all` would do. Writes nothing."""

    def step(after_id: int) -> RetentionBatch:
        with database.reading() as connection:
            return preview_retention(connection, after_id, before_ns, AT_ONCE)

    return _run(step, 0, _reported(database, progress), None)


def retire_all(database: Database, before_ns: int, progress: Progress, pause: Pause = no_pause) -> Retired:
    """Retire records received before a moment, from the first record on. Raises AlreadyRunning and RetentionFrozen."""
    report = _reported(database, progress)

    def step(after_id: int) -> RetentionBatch:
        return database.transact(partial(retire, after_id=after_id, before_ns=before_ns, limit=AT_ONCE))

    def after(batch: RetentionBatch) -> None:
        report(batch)
        pause()

    with database.turn(RETIRING) as mine:
        if not mine:
            raise AlreadyRunning("another process is retiring records of these books; wait for it to finish")
        return _run(step, 0, after, None)


def retire_some(database: Database, before_ns: int, batches: int, pause: Pause) -> Retired:
    """Retire records in a few transactions, from the watermark on. Does nothing while another process retires some.

    Raises RetentionFrozen, and what `pause` raises.
    """

    def work(connection: Connection, after_id: int) -> RetentionBatch:
        batch = retire(connection, after_id, before_ns, BESIDE_INTAKE)
        if batch.last_id > after_id:
            set_watermark(connection, _RETIRED, batch.last_id)
        return batch

    with database.turn(RETIRING) as mine:
        if not mine:
            return Retired(0, Counter(), ended=True)
        with database.reading() as connection:
            after_id = watermark(connection, _RETIRED)
        return _run(
            lambda last_id: database.transact(partial(work, after_id=last_id)),
            after_id,
            lambda batch: pause(),
            batches,
        )


def _run(
    step: Callable[[int], RetentionBatch], after_id: int, then: Callable[[RetentionBatch], None], most: int | None
) -> Retired:
    done, made = Retired(0, Counter(), ended=False), 0
    while not done.ended and (most is None or made < most):
        batch = step(after_id)
        done, made, after_id = done.plus(batch), made + 1, batch.last_id
        if not done.ended:
            then(batch)
    return done


def _reported(database: Database, progress: Progress) -> Callable[[RetentionBatch], None]:
    with database.reading() as connection:
        newest = int(connection.execute(select(func.coalesce(func.max(usage_records.c.id), 0))).scalar_one())
    return lambda batch: progress(batch.last_id, newest)
