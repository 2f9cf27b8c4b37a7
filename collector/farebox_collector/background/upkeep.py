"""What a collector does beside its work: audit the books without end, and let go of what has had its time."""

import contextlib
import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from functools import partial

from farebox_collector.background.retention_job import retire_some
from farebox_collector.ledger.access.audit_log import retire_entries
from farebox_collector.ledger.access.chain import Head, heads, move_anchor
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
    tell_of_limits,
    tenants_with_policies,
)
from farebox_collector.ledger.credits.lots import WALLETS_AT_ONCE, draw_up, wallets_to_draw
from farebox_collector.ledger.journal.watermarks import set_watermark, watermark
from farebox_collector.ledger.storage.database import Database, is_storage_outage
from farebox_collector.ledger.storage.locks import AUDITING
from farebox_collector.ledger.storage.throttle import Stopped, Throttle
from farebox_collector.ledger.usage import dead_letters
from farebox_collector.ledger.usage.corrections import are_frozen
from farebox_collector.ledger.usage.long_actions import count_long_actions
from farebox_collector.ledger.usage.retention import RetentionFrozen
from farebox_collector.model.mismatches import Mismatch
from farebox_collector.settings import Settings

_SETTLED_NS = 120 * 10**9
"""Twice the longest that a transaction may take: older ones can no longer appear between those that were audited."""
_HOUR_NS = 3600 * 10**9
_AUDITED = "audited"
"""The watermark: the last transaction that an audit has looked at."""
_SOONER = 0.9
"""How much of its time must be gone for an audit to be due: rounds come a little early or late."""
_SHOWN = 20
_DRAWINGS = 100
"""Most groups of wallets whose lots one round brings up to date; the next round goes on where it ended."""
_FIRST_WALLET = (0, "")
_WATCHINGS = 5
"""Most steps of a tenant's walk over its limits in one round; the next round goes on where it ended."""
_ACTION_STEPS = 10
"""Most steps of the walk over all actions in one round; the next round goes on where it ended."""
_STRETCHES = 80
"""Most stretches of old records that one round retires: 28 million records a day, and no round is long."""
_RETIRING_SHARE = 0.25

_logger = logging.getLogger(__name__)


class Upkeep:
    """One collector's rounds. Several collectors take turns: what is due is decided by the log of audits."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        clock: Callable[[], int],
        set_aside: Callable[[int], None] = lambda wallets: None,
        long_actions: Callable[[int], None] = lambda actions: None,
    ) -> None:
        """`set_aside` is told how many wallets have lots that cannot be drawn up, when all had their turn.

        `long_actions` is told how many actions are too long, when all were looked at.
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
        self._tell_long_actions = long_actions
        self._actions_upto = self._long_actions = 0
        self._watched_upto: dict[int, Place] = {}
        self._stop = threading.Event()

    def stop(self) -> None:
        """End what takes long between two of its pieces; the next collector begins it anew."""
        self._stop.set()

    def round(self) -> None:
        """One round: what is due of the purge, the retirement of old records, the recent audit and the full one."""
        self._database.transact(lambda connection: dead_letters.purge(connection, self._clock()))
        self._database.transact(lambda connection: proposals.expire(connection, self._clock()))
        self._retire_audit_log()
        self._let_holds_expire()
        self._draw_lots_up()
        self._tell_of_limits()
        self._count_long_actions()
        self._retire()
        self.audit()

    def audit(self) -> None:
        """Audit what is due, unless another collector is at it."""
        with self._database.turn(AUDITING) as mine:
            if mine:
                self._audit_what_is_due()

    def _retire(self) -> None:
        """Retire some of the records whose time is up, if there is a time."""
        if self._retention_ns:
            pace = Throttle(_RETIRING_SHARE, self._stop)
            with contextlib.suppress(Stopped, RetentionFrozen):
                retire_some(self._database, self._clock() - self._retention_ns, _STRETCHES, pace.pause)

    def _retire_audit_log(self) -> None:
        """Let go of some of the oldest entries of the audit log, if there is a time for that."""
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
        """Bring the lots up to the balances, wallet after wallet, each in a transaction of its own."""
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
                    # The others must not wait for it; it comes again with the next turn.
                    self._aside += 1
                    _logger.exception("a wallet's lots cannot be drawn up", extra={"tenant_id": tenant_id})
            if len(behind) < WALLETS_AT_ONCE:
                # All had their turn.
                self._set_aside(self._aside)
                self._drawn_upto, self._aside = _FIRST_WALLET, 0
                return

    def _tell_of_limits(self) -> None:
        """Tell of limits that usage went past; holds tell of theirs at once."""
        now_ns = self._clock()
        with self._database.reading() as connection:
            tenants = tenants_with_policies(connection)
        for tenant_id in tenants:
            for _ in range(_WATCHINGS):
                with self._database.reading() as connection:
                    after = self._watched_upto.get(tenant_id, START)
                    passed, self._watched_upto[tenant_id] = passed_limits(connection, tenant_id, now_ns, after)
                if passed:
                    self._database.transact(partial(tell_of_limits, tenant_id=tenant_id, passed=passed, at_ns=now_ns))
                if self._watched_upto[tenant_id] == START:
                    break

    def _count_long_actions(self) -> None:
        """Go on with the walk over all actions that counts those that are too long."""
        for _ in range(_ACTION_STEPS):
            with self._database.reading() as connection:
                found = count_long_actions(connection, self._clock(), self._actions_upto)
            self._long_actions += found.long
            if found.last_id is None:
                self._tell_long_actions(self._long_actions)
                self._actions_upto = self._long_actions = 0
                return
            self._actions_upto = found.last_id

    def _audit_what_is_due(self) -> None:
        with self._database.reading() as connection:
            # Corrections wait for a clean full audit: it comes soon, and does not come without end.
            every_ns = min(self._full_ns, _HOUR_NS) if are_frozen(connection) else self._full_ns
            last = [last_audit(connection, scope) for scope in (FULL, RECENT)]
            full = self._is_due(last[0], every_ns)
            # A full audit has looked at what is recent, too.
            recent = all(self._is_due(audited, self._recent_ns) for audited in last)
            upto = last_transaction(connection, self._clock() - _SETTLED_NS)
            after = watermark(connection, _AUDITED)
        if full:
            pace = Throttle(self._full_share, self._stop)
            found = audit_all(self._database.reading, upto, confirm=self._move, pause=pace.pause, verified=self._anchor)
            with contextlib.suppress(Stopped):
                self._note(FULL, upto, found)
        elif recent:
            found = audit_recent(self._database.reading, after, upto, self._move, self._anchor)
            self._note(RECENT, max(after, upto), found)

    def _is_due(self, last: Audited | None, every_ns: int) -> bool:
        """Whether so much time has gone. An audit of the future is a clock's mistake, and counts for nothing."""
        return last is None or not 0 <= self._clock() - last.ended_at_ns < _SOONER * every_ns

    def _move(self, standing: Sequence[Standing], upto: int) -> None:
        self._database.transact(lambda connection: move_checkpoints(connection, standing, upto))

    def _anchor(self, head: Head) -> None:
        self._database.transact(lambda connection: move_anchor(connection, head, self._clock()))

    def _note(self, scope: str, upto: int, mismatches: Iterable[Mismatch]) -> None:
        """Go through an audit to its end, tell what it finds, and write down that it was made."""
        found = 0
        for mismatch in mismatches:
            found += 1
            if found <= _SHOWN:
                _logger.critical("the books do not add up", extra={"mismatch": str(mismatch), "scope": scope})
        audited = Audited(scope, self._clock(), upto, found)

        with self._database.transaction() as connection:
            note_audit(connection, audited)
            set_watermark(connection, _AUDITED, max(upto, watermark(connection, _AUDITED)))
