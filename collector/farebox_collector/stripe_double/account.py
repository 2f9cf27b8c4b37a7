"""One Stripe account in memory. Every change creates events, as at Stripe.

Objects are dictionaries in the form of Stripe's API, with the fields that Farebox reads.
"""

import copy
import secrets
from collections.abc import Callable
from typing import Any

Thing = dict[str, Any]

DECLINED_CARD = "4000000000000002"
"""Declined in every payment."""
DECLINED_LATER_CARD = "4000000000000341"
"""Accepted in a checkout, declined when charged without the customer."""
ASKING_CARD = "4000002500003155"
"""Requires authentication when charged without the customer."""
GOOD_CARD = "4242424242424242"
_SESSION_S = 86_400
_DISPUTE_FEE_MINOR = 1_500
_API_VERSION = "2026-10-28.endive"


class Refusal(Exception):
    """The account answers a request with an error in Stripe's words."""

    def __init__(self, status: int, kind: str, message: str, code: str = "", **facts: Any) -> None:
        super().__init__(message)
        self.status = status
        self.error: Thing = {"type": kind, "message": message, **({"code": code} if code else {}), **facts}


class Account:
    """Sessions, payments, refunds and disputes, with their `events` in order."""

    def __init__(self, url: str, clock: Callable[[], int], livemode: bool = False) -> None:
        """`url` is the base of the checkout pages; `clock` returns Unix seconds."""
        self.url = url
        self.livemode = livemode
        self.events: list[Thing] = []
        self.things: dict[str, dict[str, Thing]] = {
            kind: {} for kind in ("sessions", "intents", "charges", "transactions", "refunds", "disputes", "customers")
        }
        self._clock = clock
        self._cards: dict[str, str] = {}

    def get(self, kind: str, thing_id: str) -> Thing:
        """Return one object. Raises Refusal."""
        found = self.things[kind].get(thing_id)
        if found is None:
            raise Refusal(404, "invalid_request_error", f"No such {kind[:-1]}: '{thing_id}'", "resource_missing")
        return found

    def create_session(self, form: Thing) -> Thing:
        """Create a checkout of one line with an inline price. Raises Refusal."""
        try:
            (line,) = form["line_items"]
            price = line["price_data"]
            amount = int(price["unit_amount"]) * int(line.get("quantity", 1))
            success_url, currency = form["success_url"], price["currency"]
        except (KeyError, ValueError, TypeError) as error:
            raise Refusal(400, "invalid_request_error", f"Missing or invalid: {error}", "parameter_missing") from None
        if form.get("mode") != "payment":
            raise Refusal(400, "invalid_request_error", "This double supports mode=payment only")
        if amount < 50:
            message = "The Checkout Session's total amount must convert to at least 50 cents."
            raise Refusal(400, "invalid_request_error", message, "amount_too_small")
        if form.get("customer"):
            self.get("customers", form["customer"])
        session = self._new(
            "sessions",
            "cs_live" if self.livemode else "cs_test",
            "checkout.session",
            amount_subtotal=amount,
            amount_total=amount,
            currency=currency.lower(),
            mode="payment",
            status="open",
            payment_status="unpaid",
            payment_intent=None,
            customer=form.get("customer"),
            customer_creation=form.get("customer_creation", "if_required"),
            client_reference_id=form.get("client_reference_id"),
            metadata=form.get("metadata", {}),
            success_url=success_url,
            cancel_url=form.get("cancel_url"),
            expires_at=self._clock() + _SESSION_S,
        )
        session["url"] = f"{self.url}/pay/{session['id']}"
        session["payment_intent_data"] = form.get("payment_intent_data", {})
        session["line_title"] = price.get("product_data", {}).get("name", "")
        return session

    def expire_session(self, session_id: str) -> Thing:
        """Expire an unpaid checkout. Raises Refusal."""
        session = self._open_session(session_id)
        session.update(status="expired", url=None)
        self._emit("checkout.session.expired", session)
        return session

    def pay_session(self, session_id: str, card: str) -> Thing:
        """Pay a checkout with a card. Raises Refusal for a declined card; the checkout then stays open."""
        session = self._open_session(session_id)
        asked = session["payment_intent_data"]
        intent = self._new_intent(
            session["amount_total"],
            session["currency"],
            asked.get("metadata", {}),
            asked.get("description", ""),
            setup_future_usage=asked.get("setup_future_usage"),
        )
        if session["customer"] is None and session["customer_creation"] == "always":
            session["customer"] = self._new("customers", "cus", "customer")["id"]
        intent["customer"] = session["customer"]
        intent["payment_method"] = f"pm_{secrets.token_hex(12)}"
        self._cards[intent["payment_method"]] = card
        session["payment_intent"] = intent["id"]
        self._confirm(intent, declined=card == DECLINED_CARD)
        session.update(status="complete", payment_status="paid", url=None)
        self._emit("checkout.session.completed", session)
        return session

    def create_intent(self, form: Thing) -> Thing:
        """Create and confirm a payment without the customer. Raises Refusal."""
        method, customer = form.get("payment_method", ""), form.get("customer", "")
        if form.get("confirm") != "true" or form.get("off_session") != "true" or method not in self._cards:
            raise Refusal(400, "invalid_request_error", f"No such PaymentMethod: '{method}'", "resource_missing")
        self.get("customers", customer)
        intent = self._new_intent(
            int(form["amount"]), form["currency"].lower(), form.get("metadata", {}), form.get("description", "")
        )
        intent.update(customer=customer, payment_method=method)
        card = self._cards[method]
        if card == ASKING_CARD:
            self._decline(intent, "authentication_required", "Your card was declined. It requires authentication.")
        self._confirm(intent, declined=card in (DECLINED_CARD, DECLINED_LATER_CARD))
        return intent

    def create_refund(self, form: Thing) -> Thing:
        """Refund an amount, or all that is left. Raises Refusal."""
        charge = self._charge_of(form)
        left = charge["amount"] - charge["amount_refunded"]
        amount = int(form.get("amount") or left)
        if not 0 < amount <= left:
            message = f"Refund amount ({amount}) is greater than unrefunded amount on charge ({left})"
            raise Refusal(400, "invalid_request_error", message, "charge_already_refunded")
        charge["amount_refunded"] += amount
        charge["refunded"] = charge["amount_refunded"] == charge["amount"]
        refund = self._new(
            "refunds",
            "re",
            "refund",
            amount=amount,
            currency=charge["currency"],
            charge=charge["id"],
            payment_intent=charge["payment_intent"],
            metadata=form.get("metadata", {}),
            reason=form.get("reason"),
            status="succeeded",
        )
        self._emit("refund.created", refund)
        self._emit("charge.refunded", charge)
        return refund

    def fail_refund(self, refund_id: str) -> Thing:
        """Fail a refund: the customer's bank rejects it. Raises Refusal."""
        refund = self.get("refunds", refund_id)
        refund["status"] = "failed"
        self.things["charges"][refund["charge"]]["amount_refunded"] -= refund["amount"]
        self._emit("refund.failed", refund)
        return refund

    def open_dispute(self, form: Thing) -> Thing:
        """Open a dispute: the customer's bank withdraws the money, with a fee. Raises Refusal."""
        charge = self._charge_of(form)
        amount = int(form.get("amount") or charge["amount"])
        status = form.get("status", "needs_response")
        inquiry = status.startswith("warning")
        taken = [] if inquiry else [self._transaction(-amount, charge["currency"], _DISPUTE_FEE_MINOR, "adjustment")]
        dispute = self._new(
            "disputes",
            "du",
            "dispute",
            amount=amount,
            currency=charge["currency"],
            charge=charge["id"],
            payment_intent=charge["payment_intent"],
            metadata={},
            reason=form.get("reason", "fraudulent"),
            status=status,
            balance_transactions=taken,
        )
        charge["disputed"] = True
        self._emit("charge.dispute.created", dispute)
        if not inquiry:
            self._emit("charge.dispute.funds_withdrawn", dispute)
        return dispute

    def close_dispute(self, dispute_id: str, status: str) -> Thing:
        """Close a dispute as `won` or `lost`. Raises Refusal."""
        dispute = self.get("disputes", dispute_id)
        dispute["status"] = status
        if status == "won":
            self._emit("charge.dispute.funds_reinstated", dispute)
        self._emit("charge.dispute.closed", dispute)
        return dispute

    def shown(self, thing: Thing, expand: list[str]) -> Thing:
        """Return an object as an answer, with the requested references expanded."""
        answer = copy.deepcopy(thing)
        if isinstance(answer.get("data"), list):
            inside = [path.removeprefix("data.") for path in expand if path.startswith("data.")]
            answer["data"] = [self.shown(one, inside) for one in answer["data"]]
        if answer.get("latest_charge") and any(path.startswith("latest_charge") for path in expand):
            charge = copy.deepcopy(self.things["charges"][answer["latest_charge"]])
            if "latest_charge.balance_transaction" in expand:
                charge["balance_transaction"] = self.things["transactions"][charge["balance_transaction"]]
            answer["latest_charge"] = charge
        return answer

    def _open_session(self, session_id: str) -> Thing:
        session = self.get("sessions", session_id)
        if session["status"] != "open":
            raise Refusal(400, "invalid_request_error", f"This Checkout Session is {session['status']}.")
        return session

    def _new_intent(self, amount: int, currency: str, metadata: Thing, description: str, **facts: Any) -> Thing:
        return self._new(
            "intents",
            "pi",
            "payment_intent",
            amount=amount,
            amount_received=0,
            currency=currency,
            metadata=metadata,
            description=description,
            status="requires_payment_method",
            latest_charge=None,
            last_payment_error=None,
            setup_future_usage=facts.get("setup_future_usage"),
        )

    def _confirm(self, intent: Thing, *, declined: bool) -> None:
        if declined:
            self._decline(intent, "card_declined", "Your card was declined.", decline_code="generic_decline")
        fee = round(intent["amount"] * 29 / 1000) + 30
        charge = self._new(
            "charges",
            "ch",
            "charge",
            amount=intent["amount"],
            amount_refunded=0,
            refunded=False,
            disputed=False,
            currency=intent["currency"],
            payment_intent=intent["id"],
            metadata=intent["metadata"],
            status="succeeded",
            receipt_url=f"{self.url}/receipts/{intent['id']}",
            balance_transaction=self._transaction(intent["amount"], intent["currency"], fee, "charge")["id"],
        )
        intent.update(status="succeeded", amount_received=intent["amount"], latest_charge=charge["id"])
        self._emit("payment_intent.succeeded", intent)
        self._emit("charge.succeeded", charge)

    def _decline(self, intent: Thing, code: str, message: str, **facts: str) -> None:
        intent["last_payment_error"] = {"type": "card_error", "code": code, "message": message, **facts}
        self._emit("payment_intent.payment_failed", intent)
        raise Refusal(402, "card_error", message, code, payment_intent=copy.deepcopy(intent), **facts)

    def _transaction(self, amount: int, currency: str, fee: int, kind: str) -> Thing:
        facts: Thing = {"amount": amount, "currency": currency, "fee": fee, "net": amount - fee, "type": kind}
        return self._new("transactions", "txn", "balance_transaction", **facts)

    def _charge_of(self, form: Thing) -> Thing:
        charge_id = form.get("charge") or self.get("intents", form.get("payment_intent", ""))["latest_charge"]
        return self.get("charges", charge_id)

    def _new(self, kind: str, prefix: str, name: str, **facts: Any) -> Thing:
        thing: Thing = {
            "id": f"{prefix}_{secrets.token_hex(12)}",
            "object": name,
            "created": self._clock(),
            "livemode": self.livemode,
            **facts,
        }
        self.things[kind][thing["id"]] = thing
        return thing

    def _emit(self, kind: str, thing: Thing) -> None:
        self.events.append(
            {
                "id": f"evt_{secrets.token_hex(12)}",
                "object": "event",
                "api_version": _API_VERSION,
                "created": self._clock(),
                "data": {"object": copy.deepcopy(thing)},
                "livemode": self.livemode,
                "pending_webhooks": 1,
                "request": {"id": None, "idempotency_key": None},
                "type": kind,
            }
        )
