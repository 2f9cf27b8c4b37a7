"""Facts that a payment provider reports, in Farebox's terms. Pure; `provider_events` books them."""

from typing import NamedTuple

from farebox_collector.ledger.payments.topups import PaymentMethod


class Fee(NamedTuple):
    """A fee of the provider, by its balance transaction; a negative amount was given back."""

    fee_id: str
    currency: str
    fee_minor: int


class Paid(NamedTuple):
    """A payment of a top-up succeeded."""

    topup_key: str
    payment_intent: str
    currency: str
    amount_minor: int
    paid_at_ns: int
    method: PaymentMethod = PaymentMethod("", "")
    """The payment method that the customer let Farebox save."""


class NotPaid(NamedTuple):
    """An automatic payment of a top-up failed."""

    topup_key: str
    reason: str


class CheckoutOver(NamedTuple):
    """A checkout can no longer be paid; a `reason` means that the payment failed."""

    topup_key: str
    reason: str = ""


class Returned(NamedTuple):
    """The progress of a refund or dispute."""

    return_id: str
    kind: str
    """`refund` or `dispute`."""
    payment_intent: str
    currency: str
    amount_minor: int
    progress: int
    """Never decreases: 0 it may still be dropped, 1 the money is on its way back, 2 it has ended."""
    taken: bool
    """Whether, as known now, the customer has the money or will get it."""
    created_at_ns: int
    """When the provider reported it."""
    fees: tuple[Fee, ...] = ()
    made_at_ns: int = 0
    """When the refund or dispute was made; 0 if the provider does not state it."""


class NotOurs(NamedTuple):
    """An event that does not concern the books."""

    reason: str


Fact = Paid | NotPaid | CheckoutOver | Returned | NotOurs


class Event(NamedTuple):
    """One notification and the fact that it reports."""

    event_id: str
    type: str
    livemode: bool
    created_at_ns: int
    digest: bytes
    """Digest of the content that a redelivery must repeat."""
    fact: Fact
