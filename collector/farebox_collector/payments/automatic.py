"""Rounds of one collector: pay automatic top-ups, ask what Stripe kept of each payment, end checkouts that are over.

A top-up is ordered in a transaction of its own before Stripe hears of it, and asked for under the same idempotency key
until the answer is known: a crash in between charges nobody twice.
"""

import logging
from collections.abc import Callable
from functools import partial
from typing import Any

from sqlalchemy import Row

from farebox_collector.ledger import auto_topups
from farebox_collector.ledger.auto_topups import Due
from farebox_collector.ledger.locks import TOPPING_UP
from farebox_collector.ledger.payment_facts import NotPaid
from farebox_collector.ledger.payment_fees import book_fee, topups_without_fee
from farebox_collector.ledger.payments import Refused, book
from farebox_collector.ledger.topups import let_expire, note_payment_intent, note_receipt
from farebox_collector.payments.desk import PaymentDesk, charge_of, new_key
from farebox_collector.payments.gateway import GatewayRefused, Kept, Payment, StripeGateway
from farebox_collector.pricing.currencies import NoExchangeRate
from farebox_collector.records import DEFAULT_TENANT_ID

_AT_ONCE = 50
_HOUR_NS = 3_600 * 10**9
_KEY_LIVES_NS = 20 * _HOUR_NS
"""Stripe forgets idempotency keys after a day: later, asking again could charge again."""
_FEES_SINCE_NS = 7 * 24 * _HOUR_NS
_PENDING = frozenset({"processing", "requires_capture"})

_logger = logging.getLogger(__name__)


class AutomaticTopups:
    """Of several collectors one makes the round at a time."""

    def __init__(self, desk: PaymentDesk) -> None:
        self._desk = desk
        self._database = desk.database
        self._clock: Callable[[], int] = desk.clock

    def round(self) -> None:
        """Order what wallets need, pay it, book fees, end checkouts. Raises GatewayUnavailable; the next goes on."""
        if not self._desk.is_open:
            return
        with self._database.turn(TOPPING_UP) as mine:
            if mine:
                self._order()
                self._pay()
                self._book_fees()
                self._database.transact(partial(let_expire, tenant_id=DEFAULT_TENANT_ID, at_ns=self._clock()))

    def _order(self) -> None:
        with self._database.reading() as connection:
            below = auto_topups.wallets_below(connection, DEFAULT_TENANT_ID, _AT_ONCE)
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
            except NoExchangeRate as error:
                self._disable(terms, str(error))

    def _pay(self) -> None:
        with self._database.reading() as connection:
            due = auto_topups.in_flight(connection, DEFAULT_TENANT_ID, _AT_ONCE)
        for one in due:
            try:
                self._settle(one, self._ask(self._desk.gateway(DEFAULT_TENANT_ID), one))
            except GatewayRefused as error:
                self._fail(one.topup, str(error))

    def _ask(self, gateway: StripeGateway, due: Due) -> Payment:
        topup = due.topup
        if topup.payment_intent:
            return gateway.payment(topup.payment_intent)
        if self._clock() - topup.created_at_ns > _KEY_LIVES_NS:
            raise GatewayRefused("Stripe could not be asked for most of a day: look there whether it was paid")
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
        elif payment.status not in _PENDING:
            self._fail(due.topup, f"the payment needs the customer ({payment.status})")

    def _fail(self, topup: Row[Any], reason: str) -> None:
        _logger.warning("an automatic top-up failed, and is off for its wallet", extra={"topup": topup.key})
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

    def _book_fees(self) -> None:
        with self._database.reading() as connection:
            since_ns = self._clock() - _FEES_SINCE_NS
            without = topups_without_fee(connection, DEFAULT_TENANT_ID, since_ns, _AT_ONCE)
        gateway = self._desk.gateway(DEFAULT_TENANT_ID)
        for topup in without:
            if bool(topup.livemode) is not gateway.livemode:
                continue
            try:
                kept = gateway.kept(topup.payment_intent)
            except GatewayRefused:
                _logger.warning("Stripe does not say what it kept of a payment", extra={"topup": topup.key})
                continue
            if kept is not None:
                self._book_fee(topup, kept)

    def _book_fee(self, topup: Row[Any], kept: Kept) -> None:
        try:
            self._database.transact(partial(book_fee, topup=topup, fee=kept.fee, at_ns=self._clock()))
            self._database.transact(partial(note_receipt, topup=topup, receipt_url=kept.receipt_url))
        except NoExchangeRate as error:
            _logger.warning("a fee waits for an exchange rate", extra={"topup": topup.key, "reason": str(error)})
