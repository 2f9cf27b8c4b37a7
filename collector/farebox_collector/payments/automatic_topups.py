"""Pay automatic top-ups, book the fees of payments, and end expired checkouts, as a periodic job.

Each step of a run handles a bounded number of items, and the next run continues with others, so that a failing item
blocks no other. A top-up is stored in a separate transaction before the request to Stripe, and requested under the same
idempotency key until the answer is known: a crash in between charges the customer once.
"""

import logging
from collections.abc import Callable
from functools import partial
from typing import Any

from sqlalchemy import Connection, Row

from farebox_collector.ledger.payments import auto_topups
from farebox_collector.ledger.payments.auto_topups import Due
from farebox_collector.ledger.payments.packs import has_rate
from farebox_collector.ledger.payments.payment_facts import NotPaid
from farebox_collector.ledger.payments.payment_fees import (
    PAYMENT,
    book_or_wait,
    book_waiting,
    currencies_waited_for,
    topups_with_waiting_fees,
    topups_without_fee,
)
from farebox_collector.ledger.payments.provider_events import Refused, book
from farebox_collector.ledger.payments.refunds import carried_over, settle_carried
from farebox_collector.ledger.payments.topups import let_expire, note_payment_intent, note_receipt
from farebox_collector.ledger.storage.locks import TOPPING_UP
from farebox_collector.model.money import AmountError
from farebox_collector.model.records import DEFAULT_TENANT_ID
from farebox_collector.payments.desk import PaymentDesk, charge_of, new_key
from farebox_collector.payments.stripe_client import (
    GatewayRefused,
    GatewayUnavailable,
    Payment,
    PaymentFee,
    StripeGateway,
)
from farebox_collector.pricing.currencies import NoExchangeRate

_AT_ONCE = 50
_HOUR_NS = 3_600 * 10**9
_KEY_LIVES_NS = 20 * _HOUR_NS
"""Stripe forgets idempotency keys after a day: a later retry could charge again."""
_PENDING = frozenset({"processing", "requires_capture"})
_MOST_FAILURES = 3
"""Failed requests after which a step ends: Stripe may fail for one payment, or for all."""

_logger = logging.getLogger(__name__)


class AutomaticTopups:
    """The periodic job of top-ups. Collectors take turns."""

    def __init__(self, desk: PaymentDesk) -> None:
        self._desk = desk
        self._database = desk.database
        self._clock: Callable[[], int] = desk.clock
        self._fees_after = 0
        """The top-up whose fee was requested last; the next run continues after it."""
        self._all_carried = False

    def round(self) -> None:
        """Order top-ups, end expired checkouts, pay, book fees.

        Raises GatewayUnavailable at the end if Stripe failed to answer some requests.
        """
        if not self._desk.is_open:
            return
        with self._database.turn(TOPPING_UP) as mine:
            if mine:
                self._settle_carried()
                self._order()
                self._book_waiting_fees()
                self._database.transact(partial(let_expire, tenant_id=DEFAULT_TENANT_ID, at_ns=self._clock()))
                failures = [*self._pay(), *self._book_fees()]
                if failures:
                    raise failures[0]

    def _order(self) -> None:
        with self._database.reading() as connection:
            below = auto_topups.wallets_below(connection, DEFAULT_TENANT_ID, _AT_ONCE, self._clock())
        livemode = self._desk.gateway(DEFAULT_TENANT_ID).livemode if below else False
        for terms in below:
            try:
                self._database.transact(
                    partial(
                        auto_topups.order_automatic,
                        tenant_id=DEFAULT_TENANT_ID,
                        terms=terms,
                        key=new_key(),
                        livemode=livemode,
                        at_ns=self._clock(),
                    )
                )
            except (NoExchangeRate, AmountError) as error:
                self._disable(terms, str(error))

    def _pay(self) -> list[GatewayUnavailable]:
        """Pay top-ups in flight. Return failed requests; their top-ups come last in the next run."""
        with self._database.reading() as connection:
            due = auto_topups.in_flight(connection, DEFAULT_TENANT_ID, _AT_ONCE)
        failures: list[GatewayUnavailable] = []
        for one in due:
            try:
                self._settle(one, self._ask(self._desk.gateway(DEFAULT_TENANT_ID), one))
            except GatewayRefused as error:
                self._fail(one.topup, str(error))
            except GatewayUnavailable as error:
                self._database.transact(partial(auto_topups.note_asked, topup=one.topup, at_ns=self._clock()))
                failures.append(error)
                if len(failures) == _MOST_FAILURES:
                    break
        return failures

    def _ask(self, gateway: StripeGateway, due: Due) -> Payment:
        topup = due.topup
        if topup.payment_intent:
            return gateway.payment(topup.payment_intent)
        if self._clock() - topup.created_at_ns > _KEY_LIVES_NS:
            raise GatewayRefused("Stripe was unavailable for 20 hours: check in its dashboard whether it was paid")
        payment = gateway.charge_kept_method(charge_of(topup), due.method)
        self._database.transact(partial(note_payment_intent, topup_id=topup.id, payment_intent=payment.payment_intent))
        return payment

    def _settle(self, due: Due, payment: Payment) -> None:
        if payment.status == "succeeded":
            try:
                self._database.transact(
                    partial(book, tenant_id=DEFAULT_TENANT_ID, fact=payment.fact, at_ns=self._clock())
                )
            except Refused as error:
                self._fail(due.topup, str(error))
        elif payment.status in _PENDING:
            self._database.transact(partial(auto_topups.note_asked, topup=due.topup, at_ns=self._clock()))
        else:
            self._fail(due.topup, f"the payment requires an action of the customer ({payment.status})")

    def _fail(self, topup: Row[Any], reason: str) -> None:
        _logger.warning(
            "an automatic top-up failed: automatic top-ups are off for its wallet", extra={"topup": topup.key}
        )
        fact = NotPaid(topup.key, reason)
        self._database.transact(partial(book, tenant_id=DEFAULT_TENANT_ID, fact=fact, at_ns=self._clock()))

    def _disable(self, terms: Row[Any], reason: str) -> None:
        self._database.transact(
            partial(
                auto_topups.disable,
                tenant_id=DEFAULT_TENANT_ID,
                wallet=terms.wallet,
                reason=reason,
                at_ns=self._clock(),
            )
        )

    def _book_fees(self) -> list[GatewayUnavailable]:
        """Request and book fees. Return failed requests. The next run continues after the last fee requested."""
        with self._database.reading() as connection:
            without = topups_without_fee(connection, DEFAULT_TENANT_ID, 0, _AT_ONCE, self._fees_after)
        gateway = self._desk.gateway(DEFAULT_TENANT_ID)
        failures: list[GatewayUnavailable] = []
        for topup in without:
            self._fees_after = topup.id
            if bool(topup.livemode) is not gateway.livemode:
                continue
            try:
                kept = gateway.kept(topup.payment_intent)
            except GatewayRefused:
                _logger.warning("Stripe does not report the fee of a payment", extra={"topup": topup.key})
                continue
            except GatewayUnavailable as error:
                failures.append(error)
                if len(failures) == _MOST_FAILURES:
                    return failures
                continue
            if kept is not None:
                self._book_fee(topup, kept)
        if len(without) < _AT_ONCE:
            self._fees_after = 0
        return failures

    def _book_fee(self, topup: Row[Any], kept: PaymentFee) -> None:
        def work(connection: Connection) -> None:
            facts = (topup.payment_intent, topup, kept.fee, PAYMENT, self._clock())
            book_or_wait(connection, topup.tenant_id, *facts)
            note_receipt(connection, topup, kept.receipt_url)

        self._database.transact(work)

    def _book_waiting_fees(self) -> None:
        """Book fees whose currency now has an exchange rate."""
        with self._database.reading() as connection:
            currencies = currencies_waited_for(connection, DEFAULT_TENANT_ID)
            waiting = [
                topup
                for currency in currencies
                if has_rate(connection, currency, self._clock())
                for topup in topups_with_waiting_fees(connection, DEFAULT_TENANT_ID, currency, _AT_ONCE)
            ]
        for topup in waiting:
            self._database.transact(partial(book_waiting, topup=topup, at_ns=self._clock()))

    def _settle_carried(self) -> None:
        """Recompute returned credits of payments whose returns an older version booked, until none are left."""
        if self._all_carried:
            return
        with self._database.reading() as connection:
            carried = carried_over(connection, _AT_ONCE)
        for topup in carried:
            self._database.transact(partial(settle_carried, topup=topup, at_ns=self._clock()))
        self._all_carried = not carried
