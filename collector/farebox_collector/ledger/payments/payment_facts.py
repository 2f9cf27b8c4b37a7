"""What a payment provider tells, in our words. Pure; `payments` books it."""

from typing import NamedTuple

from farebox_collector.ledger.payments.topups import PaymentMethod


class Fee(NamedTuple):
    """What the provider kept for itself, or as a negative amount gave back, by its own balance transaction."""

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
    """What the customer let us keep."""


class NotPaid(NamedTuple):
    """An attempt to pay a top-up without asking failed."""

    topup_key: str
    reason: str


class CheckoutOver(NamedTuple):
    """A checkout can be paid no more; with a `reason` the payment was tried and failed."""

    topup_key: str
    reason: str = ""


class Returned(NamedTuple):
    """How far a refund or a dispute has come."""

    return_id: str
    kind: str
    """`refund` or `dispute`."""
    payment_intent: str
    currency: str
    amount_minor: int
    progress: int
    """Only ever grows: 0 it may come to nothing, 1 the money is on its way back, 2 it has ended."""
    taken: bool
    """Whether the customer has the money, or will, for all that is known at this point."""
    created_at_ns: int
    """When this was told."""
    fees: tuple[Fee, ...] = ()
    made_at_ns: int = 0
    """When the refund or dispute was made; 0 where that is not told."""


class NotOurs(NamedTuple):
    """Nothing that concerns the books; says why."""

    why: str


Fact = Paid | NotPaid | CheckoutOver | Returned | NotOurs


class Event(NamedTuple):
    """One notification, and what it says."""

    event_id: str
    type: str
    livemode: bool
    created_at_ns: int
    digest: bytes
    """Of everything that must be the same when the event comes again."""
    fact: Fact
