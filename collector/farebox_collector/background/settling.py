"""Settle open records: calls that now have a price, spans of a charged call, agents with or without calls."""

import contextlib
import logging
from collections.abc import Callable
from functools import partial

from sqlalchemy import Connection

from farebox_collector.cache.tariffs import Tariffs, reprice
from farebox_collector.ledger.access.tenants import tenant_ids
from farebox_collector.ledger.journal.watermarks import set_watermark, watermark
from farebox_collector.ledger.storage.database import Database
from farebox_collector.ledger.storage.locks import SETTLING, try_lock_stripe
from farebox_collector.ledger.usage import settlement
from farebox_collector.ledger.usage.corrections import CorrectionsFrozen
from farebox_collector.ledger.usage.entries import SpanKey
from farebox_collector.ledger.usage.parts_settlement import FIRST, PartStep, settle_parts
from farebox_collector.ledger.usage.running_totals import TotalLabels
from farebox_collector.ledger.usage.settlement import (
    PaidAgents,
    Pricing,
    Step,
    Waiting,
)
from farebox_collector.ledger.usage.stored_usage import StoredCall
from farebox_collector.model.money import AmountError
from farebox_collector.model.records import PricedUsage
from farebox_collector.model.verdicts import Verdict
from farebox_collector.settings import Settings

_CHUNK = 500
_COMMITTED_NS = 120 * 10**9
"""Twice the longest transaction: after this time no record with a lower id can appear."""
_HOUR_NS = 3600 * 10**9

_logger = logging.getLogger(__name__)

_Work = Callable[[Connection, Waiting], Step]


class Settling:
    """Settle the open records of every tenant, as a periodic job. Collectors take turns."""

    def __init__(self, settings: Settings, database: Database, tariffs: Tariffs, clock: Callable[[], int]) -> None:
        self._database = database
        self._tariffs = tariffs
        self._clock = clock
        self._quiet_ns = int(settings.agent_quiet_seconds * 10**9)
        self._late_ns = settings.max_span_age_hours * _HOUR_NS
        self._labels = TotalLabels()
        self._exposed_hour: dict[int, int] = {}
        self._parts_done: dict[int, tuple[tuple[int, ...], int]] = {}

    def round(self) -> int:
        """Settle what can be settled. Return the number of records. Does nothing while corrections are frozen."""
        self._tariffs.refresh()
        with self._database.snapshot() as connection:
            tenants = tenant_ids(connection)
        with contextlib.suppress(CorrectionsFrozen):
            return sum(self._settle(tenant_id) for tenant_id in tenants)
        return 0

    def _settle(self, tenant_id: int) -> int:
        now_ns = self._clock()
        tariff = self._tariffs.of(tenant_id)
        edition = "{}-{}".format(*self._tariffs.edition)

        def price(stored: StoredCall) -> PricedUsage:
            return reprice(stored, tariff)

        def settle(connection: Connection, waiting: Waiting) -> Step:
            return settlement.settle_open(connection, tenant_id, waiting, price, now_ns, self._labels)

        def unmetered(connection: Connection, waiting: Waiting) -> Step:
            return settlement.settle_unmetered(connection, tenant_id, waiting, now_ns, self._labels)

        def doubles(connection: Connection, waiting: Waiting) -> Step:
            return settlement.settle_doubles(connection, tenant_id, waiting, now_ns, self._labels)

        before_ns = now_ns - _COMMITTED_NS
        quiet_ns = now_ns - max(self._quiet_ns, _COMMITTED_NS)
        # The watermark's name holds the edition: new tariffs begin at the first record again.
        settled = self._pass(f"unpriced {tenant_id} {edition}", Verdict.UNPRICED, before_ns, tenant_id, settle)
        settled += self._pass(f"unmetered {tenant_id}", Verdict.UNMETERED, before_ns, tenant_id, unmetered)
        settled += self._exposed(tenant_id, now_ns, before_ns, unmetered)
        settled += self._parts(tenant_id, now_ns, price)
        settled += self._pass(f"doubles {tenant_id}", Verdict.CHARGED, before_ns, tenant_id, doubles)
        settled += self._pass(f"agents {tenant_id}", Verdict.DEFERRED, quiet_ns, tenant_id, settle)
        return settled + self._give_back_agents(tenant_id, now_ns)

    def _exposed(self, tenant_id: int, now_ns: int, before_ns: int, work: _Work) -> int:
        """Cover calls whose end was not seen if another span of them arrived. Begin at the first record every hour."""
        name, hour = f"exposed {tenant_id}", now_ns // _HOUR_NS
        if self._exposed_hour.get(tenant_id) != hour:
            self._exposed_hour[tenant_id] = hour
            self._database.transact(lambda connection: set_watermark(connection, name, 0))
        return self._pass(name, Verdict.EXPOSED, before_ns, tenant_id, work)

    def _parts(self, tenant_id: int, now_ns: int, price: Pricing) -> int:
        """Charge parts of charged calls that had no price: when prices change, and every hour."""
        done = self._tariffs.edition, now_ns // _HOUR_NS
        if self._parts_done.get(tenant_id) == done:
            return 0
        settled, after = 0, FIRST
        while True:

            def work(connection: Connection, after: SpanKey = after) -> PartStep:
                if not try_lock_stripe(connection, SETTLING, tenant_id):
                    return PartStep(None, 0)
                return settle_parts(connection, tenant_id, after, _CHUNK, price, now_ns, self._labels)

            step = self._database.transact(work)
            settled += step.corrected
            if step.last is None:
                self._parts_done[tenant_id] = done
                return settled
            after = step.last

    def _give_back_agents(self, tenant_id: int, now_ns: int) -> int:
        """Refund agents whose calls were charged separately, a few agents at a time."""
        settled, after_id = 0, 0
        while True:
            done = self._database.transact(
                partial(
                    settlement.give_back_agents,
                    tenant_id=tenant_id,
                    paid=PaidAgents(now_ns - self._late_ns, after_id, _CHUNK),
                    at_ns=now_ns,
                    labels=self._labels,
                )
            )
            settled += done.corrected
            if done.last_id is None:
                return settled
            after_id = done.last_id

    def _pass(self, name: str, verdict: Verdict, before_ns: int, tenant_id: int, work: _Work) -> int:
        """Process every record of a verdict after the watermark."""

        def step(connection: Connection, limit: int, *, leave: bool = False) -> Step:
            if not try_lock_stripe(connection, SETTLING, tenant_id):
                return Step(None, 0)
            waiting = Waiting(verdict, watermark(connection, name), before_ns, limit)
            done = settlement.skip(connection, tenant_id, waiting) if leave else work(connection, waiting)
            if done.last_id is not None:
                set_watermark(connection, name, done.last_id)
            return done

        settled, limit = 0, _CHUNK
        while True:
            try:
                done = self._database.transact(partial(step, limit=limit))
            except AmountError as error:
                # One record that exceeds the bounds of sums must not block the others.
                if limit > 1:
                    limit //= 2
                    continue
                done = self._database.transact(partial(step, limit=1, leave=True))
                _logger.error(
                    "a record cannot be settled: %s", error, extra={"tenant": tenant_id, "record": done.last_id}
                )
            if done.last_id is None:
                return settled
            settled += done.corrected
            limit = min(2 * limit, _CHUNK)
