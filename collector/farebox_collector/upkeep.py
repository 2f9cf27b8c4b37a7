"""What a collector does beside its work: audit the books without end, and let go of dead letters whose time is up."""

import logging
from collections.abc import Callable

from farebox_collector.ledger import dead_letters
from farebox_collector.ledger.audit import Window, audit, last_transaction
from farebox_collector.ledger.database import Database
from farebox_collector.metrics.meters import Meters
from farebox_collector.settings import Settings

_SETTLED_NS = 120 * 10**9
"""Twice the longest that a transaction may take: older ones can no longer appear between those that were audited."""
_HOUR_NS = 3600 * 10**9
_SHOWN = 20

_logger = logging.getLogger(__name__)


class Upkeep:
    """One collector's rounds."""

    def __init__(self, settings: Settings, database: Database, meters: Meters, clock: Callable[[], int]) -> None:
        self._settings = settings
        self._database = database
        self._meters = meters
        self._clock = clock
        self._audited_upto = 0
        self._full_audit_at_ns = 0

    def round(self) -> None:
        """One round: what is due of the full audit, the recent audit and the purge."""
        now_ns = self._clock()
        if now_ns >= self._full_audit_at_ns:
            self._audit("full", None)
            self._full_audit_at_ns = now_ns + int(self._settings.full_audit_hours * _HOUR_NS)
        with self._database.reading() as connection:
            upto = last_transaction(connection, now_ns - _SETTLED_NS)
        if upto > self._audited_upto:
            self._audit("recent", Window(self._audited_upto, upto))
            self._audited_upto = upto
        self._database.transact(lambda connection: dead_letters.purge(connection, now_ns))

    def _audit(self, scope: str, window: Window | None) -> None:
        with self._database.reading() as connection:
            if window is None:
                # What the full audit sees need not be looked at again.
                self._audited_upto = last_transaction(connection, self._clock() - _SETTLED_NS)
            found = 0
            for mismatch in audit(connection, window=window):
                found += 1
                if found <= _SHOWN:
                    _logger.critical("the books do not add up", extra={"mismatch": str(mismatch), "scope": scope})
        self._meters.audited(scope, found, self._clock() / 1e9)
