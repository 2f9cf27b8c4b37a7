"""The desk where top-ups are asked for, and where Stripe's webhook is taken in.

One installation has one Stripe account: that of the tenant `default`. Other tenants pay in by deposits.
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
    """There is no Stripe account for this tenant; the message says what to do."""


class NoSuchPack(LookupError):
    """No pack of this name is sold."""


class Account(NamedTuple):
    """A Stripe account: the key and the webhook's secret belong together."""

    api_key: SecretStr
    webhook_secret: SecretStr
    api_base: str


class CheckoutWanted(NamedTuple):
    """What a checkout is for, and where the customer goes from it."""

    wallet: str
    pack: str
    success_url: str
    cancel_url: str
    keep_method: bool = False
    """Whether what it is paid with may be charged again, for automatic top-ups."""


class CheckoutMade(NamedTuple):
    """A top-up that can be paid, or was, and whether it was asked for before."""

    topup: Row[Any]
    repeated: bool


class PaymentDesk:
    """Orders top-ups and books what comes of them. Blocks: use it from threads."""

    def __init__(self, database: Database, clock: Callable[[], int], account: Account | None) -> None:
        self.database = database
        self.clock = clock
        self._account = account
        self._gateway: StripeGateway | None = None
        self._turns = tuple(threading.Lock() for _ in range(_STRIPES))

    @property
    def is_open(self) -> bool:
        """Whether there is a Stripe account."""
        return self._account is not None

    def serves(self, tenant_id: int) -> bool:
        """Whether this tenant can be paid by Stripe."""
        return self.is_open and tenant_id == DEFAULT_TENANT_ID

    def gateway(self, tenant_id: int) -> StripeGateway:
        """Stripe, for a tenant. Raises NoStripe."""
        account = self._of(tenant_id)
        if self._gateway is None:
            self._gateway = StripeGateway(account.api_key.get_secret_value(), account.api_base)
        return self._gateway

    def checkout(self, tenant_id: int, wanted: CheckoutWanted, idempotency_key: str) -> CheckoutMade:
        """A page where the customer pays, once for each idempotency key.

        Raises NoStripe, NoSuchPack, IdempotencyConflict, NoExchangeRate, AmountError, GatewayRefused, and
        GatewayUnavailable, after which the same request goes on where this one ended.
        """
        gateway = self.gateway(tenant_id)
        ordered = self.database.transact(
            lambda connection: self._order(connection, tenant_id, wanted, idempotency_key, gateway.livemode)
        )
        assert ordered is not None, "only automatic top-ups keep each other away"
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
        """A page where the customer pays: one that is open for this pack already, or a new one. Raises as above."""
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
        # All who ask at the same moment have the same key, at every replica, and so get the same checkout.
        asked = json.dumps([wanted, pack.id, over])
        key = f"link {hashlib.sha256(asked.encode()).hexdigest()}"
        with self._turn_of(key):
            return self.checkout(tenant_id, wanted, key)

    def _turn_of(self, key: str) -> threading.Lock:
        """Held while a checkout is made, so that Stripe is not asked for the same one by many at once."""
        return self._turns[zlib.crc32(key.encode()) % _STRIPES]

    def set_auto_topup(self, tenant_id: int, terms: AutoTerms, author: str, reason: str) -> None:
        """Top a wallet up on these terms from now on. Raises NoStripe, BadAutoTopup."""
        self._of(tenant_id)
        self.database.transact(
            lambda connection: auto_topups.set_auto_topup(connection, tenant_id, terms, author, reason, self.clock())
        )

    def receive(self, body: bytes, signature: str | None) -> str:
        """Book an event as it came from the webhook; returns what came of it.

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
            raise NoStripe("there is no Stripe account: set FAREBOX_STRIPE_API_KEY and FAREBOX_STRIPE_WEBHOOK_SECRET")
        if tenant_id != DEFAULT_TENANT_ID:
            raise NoStripe("the Stripe account is that of the tenant `default`; this one pays in by deposits")
        return self._account


def new_key() -> str:
    """A new top-up's name at Stripe: unguessable."""
    return f"topup_{secrets.token_hex(12)}"


def charge_of(topup: Row[Any]) -> Charge:
    """What a top-up costs, as Stripe is told."""
    credits = format_nano(topup.amount_nano).rstrip("0").removesuffix(".")
    return Charge(topup.key, topup.wallet, f"{credits} credits", topup.currency, topup.amount_minor)
