"""Order top-ups and receive Stripe's webhook.

An installation has one Stripe account, for the tenant `default`. Other tenants use deposits.
"""

import hashlib
import json
import secrets
import threading
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

from pydantic import SecretStr
from sqlalchemy import Connection, Row

from farebox_collector.ledger.access.erased import ERASED, NameErased, is_erased
from farebox_collector.ledger.payments import auto_topups, topups
from farebox_collector.ledger.payments.auto_topups import AutoTerms
from farebox_collector.ledger.payments.packs import pack_in_force
from farebox_collector.ledger.payments.payment_facts import Paid
from farebox_collector.ledger.payments.provider_events import Refused, book_event
from farebox_collector.ledger.payments.topups import Order, TopupState
from farebox_collector.ledger.payments.unmatched import keep_payment
from farebox_collector.ledger.storage.database import Database
from farebox_collector.model.money import format_nano
from farebox_collector.model.records import DEFAULT_TENANT_ID
from farebox_collector.payments.events import read_event, verify
from farebox_collector.payments.stripe_client import Charge, GatewayRefused, StripeGateway

_STRIPES = 32


class NoStripe(Exception):
    """No Stripe account is set for this tenant; the message says what to do."""


class NoSuchPack(LookupError):
    """No pack has this name."""


class Account(NamedTuple):
    """A Stripe account: its API key and the secret of its webhook."""

    api_key: SecretStr
    webhook_secret: SecretStr
    api_base: str


class CheckoutWanted(NamedTuple):
    """The pack to pay for, and the pages that the customer returns to."""

    wallet: str
    pack: str
    success_url: str
    cancel_url: str
    keep_method: bool = False
    """Whether to store the payment method for automatic top-ups."""


class CheckoutMade(NamedTuple):
    """A top-up that can be paid or was paid, and whether the request repeats an earlier one."""

    topup: Row[Any]
    repeated: bool


class PaymentDesk:
    """Order top-ups and book their events. Blocking: call it from threads."""

    def __init__(self, database: Database, clock: Callable[[], int], account: Account | None) -> None:
        self.database = database
        self.clock = clock
        self._account = account
        self._gateway: StripeGateway | None = None
        self._turns = tuple(threading.Lock() for _ in range(_STRIPES))

    @property
    def is_open(self) -> bool:
        """Whether a Stripe account is set."""
        return self._account is not None

    def serves(self, tenant_id: int) -> bool:
        """Whether this tenant can use Stripe."""
        return self.is_open and tenant_id == DEFAULT_TENANT_ID

    def gateway(self, tenant_id: int) -> StripeGateway:
        """The gateway to a tenant's Stripe account. Raises NoStripe."""
        account = self._of(tenant_id)
        if self._gateway is None:
            self._gateway = StripeGateway(account.api_key.get_secret_value(), account.api_base)
        return self._gateway

    def checkout(self, tenant_id: int, wanted: CheckoutWanted, idempotency_key: str) -> CheckoutMade:
        """Create a page where the customer pays, once for each idempotency key.

        Raises NoStripe, NoSuchPack, IdempotencyConflict, NoExchangeRate, AmountError, GatewayRefused, and
        GatewayUnavailable, after which a retry of the request continues where this one ended.
        """
        gateway = self.gateway(tenant_id)
        ordered = self.database.transact(
            lambda connection: self._order(connection, tenant_id, wanted, idempotency_key, gateway.livemode)
        )
        assert ordered is not None, "only automatic top-ups exclude each other"
        topup = ordered.row
        if topup.state == TopupState.FAILED:
            raise GatewayRefused(topup.reason)
        if topup.checkout_url or topup.state != TopupState.OPEN:
            return CheckoutMade(topup, True)
        try:
            page = gateway.open_checkout(
                charge_of(topup), wanted.success_url, wanted.cancel_url, self._customer(topup), wanted.keep_method
            )
        except GatewayRefused as error:
            why = str(error)
            self.database.transact(
                lambda connection: topups.end(connection, topup, TopupState.FAILED, why, self.clock())
            )
            raise
        self.database.transact(
            lambda connection: topups.note_checkout(connection, topup.id, page.checkout_id, page.url, page.until_ns)
        )
        with self.database.reading() as connection:
            made = topups.topup_by_key(connection, tenant_id, topup.key)
        assert made is not None
        return CheckoutMade(made, ordered.repeated)

    def open_checkout(self, tenant_id: int, wanted: CheckoutWanted) -> CheckoutMade:
        """Return an open page where the customer pays for this pack, or create one. Raises as `checkout` does."""
        self._of(tenant_id)
        with self.database.reading() as connection:
            pack = pack_in_force(connection, tenant_id, wanted.pack)
            now_ns = self.clock()
            known = pack and topups.open_checkout(connection, tenant_id, wanted.wallet, pack.id, now_ns)
            over = topups.checkouts_over(connection, tenant_id, wanted.wallet, pack.id, now_ns) if pack else 0
        if known:
            return CheckoutMade(known, True)
        if pack is None:
            raise NoSuchPack(wanted.pack)
        # Simultaneous requests have the same key at every replica, so they get the same checkout.
        asked = json.dumps([wanted, pack.id, over])
        key = f"link {hashlib.sha256(asked.encode()).hexdigest()}"
        with self._turn_of(key):
            return self.checkout(tenant_id, wanted, key)

    def _turn_of(self, key: str) -> threading.Lock:
        """A lock that serialises requests for the same checkout in this process."""
        return self._turns[zlib.crc32(key.encode()) % _STRIPES]

    def set_auto_topup(self, tenant_id: int, terms: AutoTerms, author: str, reason: str) -> None:
        """Set the terms of a wallet's automatic top-ups. Raises NoStripe, BadAutoTopup."""
        self._of(tenant_id)
        self.database.transact(
            lambda connection: auto_topups.set_auto_topup(connection, tenant_id, terms, author, reason, self.clock())
        )

    def receive(self, body: bytes, signature: str | None) -> str:
        """Book an event from the webhook. Return its outcome.

        Raises NoStripe, NotStripe, Unreadable, Refused, EventConflict.
        """
        account, gateway = self._of(DEFAULT_TENANT_ID), self.gateway(DEFAULT_TENANT_ID)
        verify(body, signature, account.webhook_secret.get_secret_value(), self.clock())
        event = read_event(body)
        try:
            return self.database.transact(
                lambda connection: book_event(connection, DEFAULT_TENANT_ID, event, gateway.livemode, self.clock())
            )
        except Refused as error:
            why = str(error)
            if isinstance(event.fact, Paid) and event.livemode == gateway.livemode:
                paid = event.fact
                self.database.transact(
                    lambda connection: keep_payment(connection, DEFAULT_TENANT_ID, paid, why, self.clock())
                )
            raise

    def _order(
        self, connection: Connection, tenant_id: int, wanted: CheckoutWanted, idempotency_key: str, livemode: bool
    ) -> topups.Ordered | None:
        pack = pack_in_force(connection, tenant_id, wanted.pack)
        if pack is None:
            raise NoSuchPack(wanted.pack)
        if is_erased(connection, tenant_id, wanted.wallet):
            raise NameErased(ERASED)
        terms = f"{wanted.success_url} {wanted.cancel_url} {wanted.keep_method}"
        order = Order(new_key(), idempotency_key, wanted.wallet, pack, livemode, terms=terms)
        return topups.order(connection, tenant_id, order, self.clock())

    def _customer(self, topup: Row[Any]) -> str:
        with self.database.reading() as connection:
            return topups.payment_method(connection, topup.tenant_id, topup.wallet).customer

    def _of(self, tenant_id: int) -> Account:
        if self._account is None:
            raise NoStripe("no Stripe account is set: set FAREBOX_STRIPE_API_KEY and FAREBOX_STRIPE_WEBHOOK_SECRET")
        if tenant_id != DEFAULT_TENANT_ID:
            raise NoStripe("only the tenant `default` has a Stripe account; use deposits")
        return self._account


def new_key() -> str:
    """Make the unguessable name of a new top-up at Stripe."""
    return f"topup_{secrets.token_hex(12)}"


def charge_of(topup: Row[Any]) -> Charge:
    """The charge of a top-up for Stripe."""
    credits = format_nano(topup.amount_nano).rstrip("0").removesuffix(".")
    return Charge(topup.key, topup.wallet, f"{credits} credits", topup.currency, topup.amount_minor)
