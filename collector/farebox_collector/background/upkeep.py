"""Regular upkeep of the books: audits, expiry, retention, and jobs that commits leave behind."""

import contextlib
import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from functools import partial

from farebox_collector.background.retention_job import retire_some
from farebox_collector.ledger.access.audit_log import retire_entries
from farebox_collector.ledger.access.audit_log_chain import Head, heads, move_anchor
from farebox_collector.ledger.approvals import proposals
from farebox_collector.ledger.audit.audit_runs import (
    FULL,
    RECENT,
    Audited,
    last_audit,
    note_audit,
)
from farebox_collector.ledger.audit.books_audit import audit_all, audit_recent, last_transaction
from farebox_collector.ledger.audit.checkpoints import Standing, move_checkpoints
from farebox_collector.ledger.credits.hold_release import MOST_EXPIRED_AT_ONCE, expire_holds
from farebox_collector.ledger.credits.limit_watch import (
    START,
    Place,
    passed_limits,
    report_limits,
    tenants_with_policies,
)
from farebox_collector.ledger.credits.lot_rows import WALLETS_AT_ONCE, wallets_to_draw
from farebox_collector.ledger.credits.lots import draw_up
from farebox_collector.ledger.journal.watermarks import set_watermark, watermark
from farebox_collector.ledger.storage.database import Database, is_storage_outage
from farebox_collector.ledger.storage.locks import AUDITING
from farebox_collector.ledger.storage.throttle import Stopped, Throttle
from farebox_collector.ledger.usage import agent_meters, dead_letters
from farebox_collector.ledger.usage.corrections import are_frozen
from farebox_collector.ledger.usage.long_actions import count_long_actions
from farebox_collector.ledger.usage.retention import RetentionFrozen
from farebox_collector.model.mismatches import Mismatch
from farebox_collector.settings import Settings

_SETTLED_NS = 120 * 10**9
"""Twice the longest transaction: after this time no transaction with a lower id can appear."""
_HOUR_NS = 3600 * 10**9
_AUDITED = "audited"
"""The watermark of the last audited transaction."""
_SOONER = 0.9
"""Share of its period after which an audit is due: runs of the job vary a little in time."""
_SHOWN = 20
_DRAWINGS = 100
"""Most groups of wallets whose lots one run updates; the next run continues from there."""
_FIRST_WALLET = (0, "")
_WATCHINGS = 5
"""Most steps through a tenant's limits in one run; the next run continues from there."""
_ACTION_STEPS = 10
"""Most steps through all actions in one run; the next run continues from there."""
_BATCHES = 80
"""Most transactions that retire records in one run: up to 28 million records a day, in short runs."""
_RETIRING_SHARE = 0.25

_logger = logging.getLogger(__name__)


class Upkeep:
    """The upkeep job of one collector. Collectors take turns: the log of audits decides what is due."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        clock: Callable[[], int],
        set_aside: Callable[[int], None] = lambda wallets: None,
        long_actions: Callable[[int], None] = lambda actions: None,
    ) -> None:
        """Set callbacks for metrics.

        `set_aside` gets the number of wallets whose lots cannot be updated, after each pass over all wallets.
        `long_actions` gets the number of actions that are too long, after each pass over all actions.
        """
        self._database = database
        self._clock = clock
        self._recent_ns = int(settings.audit_seconds * 10**9)
        self._full_ns = int(settings.full_audit_hours * _HOUR_NS)
        self._full_share = settings.full_audit_share
        self._retention_ns = settings.retention_days * 24 * _HOUR_NS
        self._audit_log_ns = settings.audit_log_days * 24 * _HOUR_NS
        self._drawn_upto = _FIRST_WALLET
        self._aside = 0
        self._set_aside = set_aside
        self._report_long_actions = long_actions
        self._actions_upto = self._long_actions = 0
        self._watched_upto: dict[int, Place] = {}
        self._stop = threading.Event()

    def stop(self) -> None:
        """Stop long steps between two transactions; the next collector starts them again."""
        self._stop.set()

    def round(self) -> None:
        """Do what is due: purge, expire, retire old records, update lots, and audit."""
        self._database.transact(lambda connection: dead_letters.purge(connection, self._clock()))
        self._database.transact(lambda connection: agent_meters.forget_old(connection, self._clock()))
        self._database.transact(lambda connection: proposals.expire(connection, self._clock()))
        self._retire_audit_log()
        self._let_holds_expire()
        self._draw_lots_up()
        self._tell_of_limits()
        self._count_long_actions()
        self._retire()
        self.audit()

    def audit(self) -> None:
        """Audit what is due, unless another collector is auditing."""
        with self._database.turn(AUDITING) as mine:
            if mine:
                self._audit_what_is_due()

    def _retire(self) -> None:
        """Retire some of the records older than the retention, if one is set."""
        if self._retention_ns:
            throttle = Throttle(_RETIRING_SHARE, self._stop)
            with contextlib.suppress(Stopped, RetentionFrozen):
                retire_some(self._database, self._clock() - self._retention_ns, _BATCHES, throttle.pause)

    def _retire_audit_log(self) -> None:
        """Delete some of the entries of the audit log older than its retention, if one is set."""
        if not self._audit_log_ns:
            return
        now_ns = self._clock()
        with self._database.reading() as connection:
            tenants = [head.tenant_id for head in heads(connection)]
        for tenant_id in tenants:
            self._database.transact(
                partial(retire_entries, tenant_id=tenant_id, before_ns=now_ns - self._audit_log_ns, at_ns=now_ns)
            )

    def _let_holds_expire(self) -> None:
        now_ns = self._clock()
        while self._database.transact(lambda connection: expire_holds(connection, now_ns)) == MOST_EXPIRED_AT_ONCE:
            pass

    def _draw_lots_up(self) -> None:
        """Update the lots to the balances, each wallet in a separate transaction."""
        now_ns = self._clock()
        for _ in range(_DRAWINGS):
            with self._database.reading() as connection:
                behind = wallets_to_draw(connection, now_ns, after=self._drawn_upto)
            for tenant_id, wallet in behind:
                self._drawn_upto = (tenant_id, wallet)
                try:
                    self._database.transact(partial(draw_up, tenant_id=tenant_id, wallet=wallet, at_ns=now_ns))
                except Exception as error:
                    if is_storage_outage(error):
                        raise
                    # It must not delay other wallets; the next pass tries it again.
                    self._aside += 1
                    _logger.exception("the lots of a wallet cannot be updated", extra={"tenant_id": tenant_id})
            if len(behind) < WALLETS_AT_ONCE:
                # The pass over all wallets is complete.
                self._set_aside(self._aside)
                self._drawn_upto, self._aside = _FIRST_WALLET, 0
                return

    def _tell_of_limits(self) -> None:
        """Report limits that usage exceeded; holds report theirs at once."""
        now_ns = self._clock()
        with self._database.reading() as connection:
            tenants = tenants_with_policies(connection)
        for tenant_id in tenants:
            for _ in range(_WATCHINGS):
                with self._database.reading() as connection:
                    after = self._watched_upto.get(tenant_id, START)
                    passed, self._watched_upto[tenant_id] = passed_limits(connection, tenant_id, now_ns, after)
                if passed:
                    self._database.transact(partial(report_limits, tenant_id=tenant_id, passed=passed, at_ns=now_ns))
                if self._watched_upto[tenant_id] == START:
                    break

    def _count_long_actions(self) -> None:
        """Continue the pass over all actions that counts those that are too long."""
        for _ in range(_ACTION_STEPS):
            with self._database.reading() as connection:
                found = count_long_actions(connection, self._clock(), self._actions_upto)
            self._long_actions += found.long
            if found.last_id is None:
                self._report_long_actions(self._long_actions)
                self._actions_upto = self._long_actions = 0
                return
            self._actions_upto = found.last_id

    def _audit_what_is_due(self) -> None:
        with self._database.reading() as connection:
            # Corrections stay frozen until a clean full audit: repeat it hourly, not continuously.
            every_ns = min(self._full_ns, _HOUR_NS) if are_frozen(connection) else self._full_ns
            last = [last_audit(connection, scope) for scope in (FULL, RECENT)]
            full = self._is_due(last[0], every_ns)
            # A full audit covers recent transactions too.
            recent = all(self._is_due(audited, self._recent_ns) for audited in last)
            upto = last_transaction(connection, self._clock() - _SETTLED_NS)
            after = watermark(connection, _AUDITED)
        if full:
            throttle = Throttle(self._full_share, self._stop)
            found = audit_all(
                self._database.reading, upto, confirm=self._move, pause=throttle.pause, verified=self._anchor
            )
            with contextlib.suppress(Stopped):
                self._note(FULL, upto, found)
        elif recent:
            found = audit_recent(self._database.reading, after, upto, self._move, self._anchor)
            self._note(RECENT, max(after, upto), found)

    def _is_due(self, last: Audited | None, every_ns: int) -> bool:
        """Whether an audit is due. One with a time in the future, from a wrong clock, is ignored."""
        return last is None or not 0 <= self._clock() - last.ended_at_ns < _SOONER * every_ns

    def _move(self, standing: Sequence[Standing], upto: int) -> None:
        self._database.transact(lambda connection: move_checkpoints(connection, standing, upto))

    def _anchor(self, head: Head) -> None:
        self._database.transact(lambda connection: move_anchor(connection, head, self._clock()))

    def _note(self, scope: str, upto: int, mismatches: Iterable[Mismatch]) -> None:
        """Run an audit to its end, log its mismatches, and store its result."""
        found = 0
        for mismatch in mismatches:
            found += 1
            if found <= _SHOWN:
                _logger.critical("the books do not add up", extra={"mismatch": str(mismatch), "scope": scope})
        audited = Audited(scope, self._clock(), upto, found)

        with self._database.transaction() as connection:
            note_audit(connection, audited)
            set_watermark(connection, _AUDITED, max(upto, watermark(connection, _AUDITED)))
