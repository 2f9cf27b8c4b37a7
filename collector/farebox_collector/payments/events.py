"""Verify and read Stripe's events. Only this module knows their JSON.

Stripe's library checks the signature over the received bytes. Its tolerance covers the past only and uses the system
clock, so this module checks the time, in both directions.
"""

import json
from collections.abc import Callable
from hashlib import blake2b
from typing import Any

from farebox_collector.ledger.payments.payment_facts import (
    CheckoutOver,
    Event,
    Fact,
    Fee,
    NotOurs,
    NotPaid,
    Paid,
    Returned,
)
from farebox_collector.ledger.payments.refunds import DISPUTE, REFUND
from farebox_collector.ledger.payments.topups import PaymentMethod

TOLERANCE_S = 300
TOPUP_METADATA, WALLET_METADATA = "farebox_topup", "farebox_wallet"
_NANO = 10**9
_MAX_TEXT = 255
_NOT_A_TOPUP = NotOurs("not a top-up of Farebox")


class NotStripe(Exception):
    """A request is not from Stripe, or its time is off; the message says why."""


class Unreadable(ValueError):
    """An event does not have the form that Stripe documents; the message says where."""


def verify(body: bytes, signature: str | None, secret: str, now_ns: int) -> None:
    """Raise NotStripe unless this body was signed with the secret within 300 seconds of now."""
    import stripe

    if not signature:
        raise NotStripe("the Stripe-Signature header is missing")
    if not signature.isascii():
        raise NotStripe("the Stripe-Signature header is not ASCII")
    try:
        # Tolerance 0 turns the library's check of the time off.
        stripe.WebhookSignature.verify_header(body, signature, secret, 0)
        signed_s = _signed_at_s(signature)
    except (stripe.SignatureVerificationError, UnicodeDecodeError, ValueError):
        raise NotStripe("the signature does not match the body and FAREBOX_STRIPE_WEBHOOK_SECRET") from None
    ahead_s = signed_s - now_ns // _NANO
    if ahead_s < -TOLERANCE_S:
        raise NotStripe(f"the request was signed {-ahead_s} seconds ago; at most {TOLERANCE_S} are allowed")
    if ahead_s > TOLERANCE_S:
        raise NotStripe(
            f"the request was signed {ahead_s} seconds ahead of this machine's clock; at most {TOLERANCE_S} are allowed"
        )


def read_event(body: bytes) -> Event:
    """Parse an event. Raises Unreadable."""
    try:
        sent = json.loads(body)
        thing, created_ns = sent["data"]["object"], _seconds(sent["created"]) * _NANO
        read = _READERS.get(sent["type"])
        fact = read(thing, created_ns) if read else NotOurs("an event of a type without effect on money")
        content = json.dumps([sent["type"], sent["data"]], sort_keys=True)
        return Event(
            _text(sent["id"]),
            _text(sent["type"]),
            _flag(sent["livemode"]),
            created_ns,
            blake2b(content.encode(), digest_size=16).digest(),
            fact,
        )
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise Unreadable(f"not an event in Stripe's form: {type(error).__name__} {str(error)[:100]}") from None


def method_of(intent: dict[str, Any]) -> PaymentMethod:
    """The payment method that the customer agreed to store; both fields empty if none."""
    if intent.get("setup_future_usage") != "off_session" or not intent.get("customer"):
        return PaymentMethod("", "")
    customer, method = _id_of(intent["customer"]), _id_of(intent.get("payment_method"))
    return PaymentMethod(customer, method) if method else PaymentMethod("", "")


def _signed_at_s(signature: str) -> int:
    """The time of the signature: the first `t`, as in Stripe's library."""
    return next(int(value) for name, _, value in (part.partition("=") for part in signature.split(",")) if name == "t")


def _session_completed(session: dict[str, Any], created_ns: int) -> Fact:
    if session["payment_status"] == "unpaid":
        return NotOurs("paid later: waiting for the payment itself")
    return _session_paid(session, created_ns)


def _session_paid(session: dict[str, Any], created_ns: int) -> Fact:
    key = _topup_key(session)
    if not key:
        return _NOT_A_TOPUP
    intent = _id_of(session.get("payment_intent"))
    if not intent:
        return NotOurs("nothing was paid")
    return Paid(key, intent, _currency(session), _amount(session["amount_total"]), created_ns)


def _session_failed(session: dict[str, Any], _created_ns: int) -> Fact:
    key = _topup_key(session)
    return CheckoutOver(key, "the payment failed after the checkout") if key else _NOT_A_TOPUP


def _session_expired(session: dict[str, Any], _created_ns: int) -> Fact:
    key = _topup_key(session)
    return CheckoutOver(key) if key else _NOT_A_TOPUP


def _intent_succeeded(intent: dict[str, Any], created_ns: int) -> Fact:
    key = _topup_key(intent)
    if not key:
        return _NOT_A_TOPUP
    amount = _amount(intent["amount_received"])
    return Paid(key, _text(intent["id"]), _currency(intent), amount, created_ns, method_of(intent))


def _intent_failed(intent: dict[str, Any], _created_ns: int) -> Fact:
    key = _topup_key(intent)
    if not key:
        return _NOT_A_TOPUP
    error = intent.get("last_payment_error") or {}
    code = error.get("decline_code") or error.get("code")
    reason = str(error.get("message") or "the payment failed")
    return NotPaid(key, f"{reason} ({code})"[:_MAX_TEXT] if code else reason[:_MAX_TEXT])


def _refund(refund: dict[str, Any], created_ns: int) -> Fact:
    intent = _id_of(refund.get("payment_intent"))
    if not intent:
        return NotOurs("a refund without a payment")
    over = refund["status"] in ("failed", "canceled")
    return Returned(
        _text(refund["id"]),
        REFUND,
        intent,
        _currency(refund),
        _amount(refund["amount"]),
        progress=2 if over else 1,
        taken=not over,
        created_at_ns=created_ns,
        made_at_ns=_made_ns(refund),
    )


_DISPUTES = {
    "needs_response": (1, True),
    "under_review": (1, True),
    "lost": (2, True),
    "won": (2, False),
    "prevented": (2, False),
}
"""Progress of a dispute, and whether the money is withdrawn. Other states are inquiries, which withdraw no money."""


def _dispute(dispute: dict[str, Any], created_ns: int) -> Fact:
    intent = _id_of(dispute.get("payment_intent"))
    if not intent:
        return NotOurs("a dispute without a payment")
    progress, taken = _DISPUTES.get(dispute["status"], (0, False))
    fees = tuple(
        Fee(_text(row["id"]), _currency(row), _signed(row["fee"]))
        for row in dispute.get("balance_transactions") or ()
        if row.get("fee", 0)
    )
    amount, currency = _amount(dispute["amount"]), _currency(dispute)
    state = (progress, taken, created_ns, fees, _made_ns(dispute))
    return Returned(_text(dispute["id"]), DISPUTE, intent, currency, amount, *state)


_READERS: dict[str, Callable[[dict[str, Any], int], Fact]] = {
    "checkout.session.completed": _session_completed,
    "checkout.session.async_payment_succeeded": _session_paid,
    "checkout.session.async_payment_failed": _session_failed,
    "checkout.session.expired": _session_expired,
    "payment_intent.succeeded": _intent_succeeded,
    "payment_intent.payment_failed": _intent_failed,
    "refund.created": _refund,
    "refund.updated": _refund,
    "refund.failed": _refund,
    # The name in older API versions.
    "charge.refund.updated": _refund,
    "charge.dispute.created": _dispute,
    "charge.dispute.updated": _dispute,
    "charge.dispute.funds_withdrawn": _dispute,
    "charge.dispute.funds_reinstated": _dispute,
    "charge.dispute.closed": _dispute,
}

EVENT_TYPES = tuple(_READERS)
"""The event types to select for the webhook in Stripe."""


def _topup_key(thing: dict[str, Any]) -> str:
    key = (thing.get("metadata") or {}).get(TOPUP_METADATA)
    return _text(key) if key else ""


def _id_of(reference: Any) -> str:
    """Return an id, given as text or within an expanded object."""
    if not reference:
        return ""
    return _text(reference["id"] if isinstance(reference, dict) else reference)


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value or len(value) > _MAX_TEXT or not value.isprintable():
        raise ValueError(f"a text must have 1 to {_MAX_TEXT} printable characters")
    return value


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("livemode must be true or false")
    return value


def _seconds(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 2**33:
        raise ValueError("a time must be in Unix seconds")
    return value


def _made_ns(thing: dict[str, Any]) -> int:
    """The time of a refund or dispute; 0 if not reported."""
    return _seconds(thing["created"]) * _NANO if thing.get("created") is not None else 0


def _amount(value: Any) -> int:
    if _signed(value) < 0:
        raise ValueError("an amount must not be negative")
    return int(value)


def _signed(value: Any) -> int:
    if type(value) is not int or not -(2**53) < value < 2**53:
        raise ValueError("an amount must be an integer below 2⁵³")
    return value


def _currency(thing: dict[str, Any]) -> str:
    return _text(thing["currency"]).upper()
