"""Call Stripe through its library and translate its answers. Blocking: call it from threads.

Every request that moves money carries an idempotency key, so that a retry is safe.
"""

import logging
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeVar

from farebox_collector.ledger.payments.payment_facts import Fee, Paid
from farebox_collector.ledger.payments.topups import PaymentMethod
from farebox_collector.payments.events import TOPUP_METADATA, WALLET_METADATA, method_of

FEE = "fee"
"""The kind of a `Listed` that is a fee of Stripe, or its return."""
STRIPE_API = "https://api.stripe.com"
# Short, because shutdown waits for it. A request that times out is retried under its key.
_TIMEOUT_S = 15.0
_RETRIES = 1
_CONFLICT = 409
_NANO = 10**9

Answer = TypeVar("Answer")


class GatewayRefused(Exception):
    """Stripe or the customer's bank refused; the message says why, for people."""


class GatewayUnavailable(Exception):
    """The result of a request is unknown: Stripe is unavailable or failing, or the API key is invalid."""


class Charge(NamedTuple):
    """The price of a top-up, and its name at Stripe."""

    key: str
    wallet: str
    title: str
    currency: str
    amount_minor: int


class Checkout(NamedTuple):
    """Stripe's page where a customer pays."""

    checkout_id: str
    url: str
    until_ns: int


class Payment(NamedTuple):
    """A payment without the customer."""

    payment_intent: str
    status: str
    fact: Paid
    """The fact to book if the status is `succeeded`."""


class PaymentFee(NamedTuple):
    """Stripe's fee of a payment, and its receipt for the customer."""

    fee: Fee
    receipt_url: str


class Listed(NamedTuple):
    """A payment, refund, dispute or fee as Stripe lists it."""

    kind: str
    """`payment`, `refund`, `dispute` or `fee`; a fee's amount is negative if Stripe returned it."""
    id: str
    """For a fee, the id of its balance transaction; empty if not reported."""
    payment_intent: str
    topup_key: str
    currency: str
    amount_minor: int
    created_s: int


class StripeGateway:
    """One Stripe account."""

    def __init__(self, api_key: str, api_base: str = STRIPE_API) -> None:
        # Imported here: only processes that take payments need it, and it takes a fifth of a second.
        import stripe

        # At `info` the library logs every request, at `debug` with its content.
        logging.getLogger("stripe").setLevel(logging.WARNING)
        self._stripe = stripe
        self._client = stripe.StripeClient(
            api_key,
            base_addresses={"api": api_base},
            max_network_retries=_RETRIES,
            http_client=stripe.RequestsClient(timeout=_TIMEOUT_S),
        )
        self.livemode = "_live_" in api_key[:9]
        """Whether the key is for real money."""

    def open_checkout(
        self, charge: Charge, success_url: str, cancel_url: str, customer: str, keep_method: bool
    ) -> Checkout:
        """Create a page where the customer pays, once for each key. Raises GatewayRefused, GatewayUnavailable."""
        metadata = _metadata(charge)
        intent: dict[str, Any] = {"metadata": metadata, "description": charge.title}
        if keep_method:
            intent["setup_future_usage"] = "off_session"
        price = {
            "currency": charge.currency.lower(),
            "unit_amount": charge.amount_minor,
            "product_data": {"name": charge.title},
        }
        wanted: dict[str, Any] = {
            "mode": "payment",
            "line_items": [{"quantity": 1, "price_data": price}],
            "success_url": success_url,
            "cancel_url": cancel_url,
            "client_reference_id": charge.key,
            "metadata": metadata,
            "payment_intent_data": intent,
        }
        if customer:
            wanted["customer"] = customer
        elif keep_method:
            wanted["customer_creation"] = "always"
        session: Any = self._asking(
            lambda: self._client.v1.checkout.sessions.create(
                wanted,  # type: ignore[arg-type]
                {"idempotency_key": f"{charge.key}-checkout"},
            )
        )
        return Checkout(str(session.id), str(session.url), int(session.expires_at) * _NANO)

    def charge_kept_method(self, charge: Charge, method: PaymentMethod) -> Payment:
        """Charge the stored payment method, once for each key. Raises GatewayRefused, GatewayUnavailable."""
        wanted: dict[str, Any] = {
            "amount": charge.amount_minor,
            "currency": charge.currency.lower(),
            "customer": method.customer,
            "payment_method": method.payment_method,
            "off_session": True,
            "confirm": True,
            "description": charge.title,
            "metadata": _metadata(charge),
        }
        intent: Any = self._asking(
            lambda: self._client.v1.payment_intents.create(
                wanted,  # type: ignore[arg-type]
                {"idempotency_key": f"{charge.key}-charge"},
            )
        )
        return _payment(intent)

    def payment(self, payment_intent: str) -> Payment:
        """Return the state of a payment. Raises GatewayRefused, GatewayUnavailable."""
        return _payment(self._asking(lambda: self._client.v1.payment_intents.retrieve(payment_intent)))

    def kept(self, payment_intent: str) -> PaymentFee | None:
        """Return the fee of a payment; None while Stripe does not report it. Raises as `payment` does."""
        intent: Any = self._asking(
            lambda: self._client.v1.payment_intents.retrieve(
                payment_intent, {"expand": ["latest_charge.balance_transaction"]}
            )
        )
        transaction = getattr(intent.latest_charge, "balance_transaction", None)
        if transaction is None or isinstance(transaction, str):
            return None
        fee = Fee(str(transaction.id), str(transaction.currency).upper(), int(transaction.fee))
        return PaymentFee(fee, str(getattr(intent.latest_charge, "receipt_url", None) or ""))

    def listed(self, start_s: int, end_s: int) -> Iterator[Listed]:
        """Yield successful payments, standing refunds and disputes, and all fees, made in [start, end) in Unix seconds.

        Raises GatewayRefused, GatewayUnavailable.
        """
        made: dict[str, Any] = {"created": {"gte": start_s, "lt": end_s}, "limit": 100}
        services: Any = self._client.v1
        with_fees = made | {"expand": ["data.latest_charge.balance_transaction"]}
        for service, wanted, read in (
            (services.payment_intents, with_fees, _listed_payment),
            (services.refunds, made, _listed_refund),
            (services.disputes, made, _listed_dispute),
        ):
            page: Any = self._asking(lambda service=service, wanted=wanted: service.list(wanted))  # type: ignore[misc]
            items = page.auto_paging_iter()
            while (item := self._asking(lambda items=items: next(items, None))) is not None:  # type: ignore[misc]
                yield from read(item)

    def _asking(self, ask: Callable[[], Answer]) -> Answer:
        stripe = self._stripe
        try:
            return ask()
        except (stripe.AuthenticationError, stripe.PermissionError):
            # A wrong setting, not the customer's fault. The error's message shows a part of the key, so it is dropped.
            raise GatewayUnavailable(
                "Stripe refused the API key or its permissions; check FAREBOX_STRIPE_API_KEY"
            ) from None
        except (stripe.APIConnectionError, stripe.RateLimitError, stripe.APIError) as error:
            raise GatewayUnavailable(f"Stripe is unavailable; try again: {error.user_message}") from error
        except stripe.StripeError as error:
            if error.http_status == _CONFLICT:
                # Another replica sent the same request.
                raise GatewayUnavailable("Stripe is processing the same request; try again") from error
            code = f" ({error.code})" if error.code else ""
            raise GatewayRefused(f"{error.user_message or type(error).__name__}{code}") from error


def _metadata(charge: Charge) -> dict[str, str]:
    return {TOPUP_METADATA: charge.key, WALLET_METADATA: charge.wallet}


def _payment(intent: Any) -> Payment:
    fact = Paid(
        str(_metadata_of(intent)[TOPUP_METADATA]),
        str(intent.id),
        str(intent.currency).upper(),
        int(intent.amount_received or 0),
        int(intent.created) * _NANO,
        method_of(intent.to_dict()),
    )
    return Payment(fact.payment_intent, str(intent.status), fact)


def _listed_payment(intent: Any) -> Iterator[Listed]:
    if intent.status != "succeeded":
        return
    key = str(_metadata_of(intent).get(TOPUP_METADATA, ""))
    yield _listed("payment", intent, str(intent.id), int(intent.amount_received), key)
    transaction = getattr(getattr(intent, "latest_charge", None), "balance_transaction", None)
    if key and transaction is not None and not isinstance(transaction, str):
        yield _listed_fee(transaction, intent, str(intent.id), key)


def _listed_refund(refund: Any) -> Iterator[Listed]:
    if refund.status not in ("failed", "canceled"):
        yield _listed("refund", refund, str(refund.payment_intent or ""), int(refund.amount))


def _listed_dispute(dispute: Any) -> Iterator[Listed]:
    intent = str(dispute.payment_intent or "")
    if dispute.status in ("needs_response", "under_review", "lost"):
        yield _listed("dispute", dispute, intent, int(dispute.amount))
    for transaction in getattr(dispute, "balance_transactions", None) or ():
        if transaction.fee:
            yield _listed_fee(transaction, dispute, intent)


def _listed_fee(transaction: Any, thing: Any, payment_intent: str, key: str = "") -> Listed:
    currency = str(transaction.currency).upper()
    return Listed(FEE, str(transaction.id), payment_intent, key, currency, int(transaction.fee), int(thing.created))


def _listed(kind: str, thing: Any, payment_intent: str, amount_minor: int, key: str = "") -> Listed:
    currency = str(thing.currency).upper()
    return Listed(kind, str(thing.id), payment_intent, key, currency, amount_minor, int(thing.created))


def _metadata_of(thing: Any) -> dict[str, Any]:
    return dict(thing.metadata.to_dict()) if thing.metadata else {}
