"""Tables of payments: packs of credits, top-ups and events of the payment provider."""

from sqlalchemy import Column, Index, LargeBinary, UniqueConstraint, and_

from farebox_collector.ledger.tables.columns import (
    identity,
    number,
    table,
    words,
)

# Append-only; the newest row of a name is in force. A pack without credits is no longer on offer.
packs = table(
    "packs",
    identity(),
    number("tenant_id"),
    words("name"),
    number("credits_nano"),
    words("currency"),
    number("amount_minor"),
    # Days after which its credits expire; 0 for never.
    number("expires_days"),
    words("author"),
    words("reason"),
    number("recorded_at_ns"),
)
Index("ix_packs_name", packs.c.tenant_id, packs.c.name, packs.c.id)

# Packs that a customer ordered, or that are paid automatically (`automatic`).
topups = table(
    "topups",
    identity(),
    number("tenant_id"),
    # Its id at the payment provider: unguessable and unique.
    words("key"),
    words("idempotency_key"),
    words("request"),
    words("wallet"),
    number("automatic"),
    number("pack_id"),
    number("amount_nano"),
    words("currency"),
    number("amount_minor"),
    number("price_nanousd"),
    number("expires_days"),
    number("livemode"),
    words("state"),
    words("reason"),
    words("checkout_id"),
    words("checkout_url"),
    number("checkout_until_ns", nullable=True),
    words("payment_intent"),
    number("transaction_id", nullable=True),
    number("lot_id", nullable=True),
    number("created_at_ns"),
    # The time of payment that the payment provider states.
    number("paid_at_ns", nullable=True),
    number("ended_at_ns", nullable=True),
    # The part of the payment that standing refunds and disputes take: in the smallest unit of its currency, and of its
    # price. -1 for rows migrated from an older version, which wait to be recomputed.
    number("returned_minor", default=0),
    number("back_nanousd", default=0),
    # 1 for a top-up with the payment of another one, from before that was refused: it has no returns of its own.
    number("second_of_payment", default=0),
    # Whether the fee of its own payment is booked, or waits for a rate.
    number("fee_known", default=0),
    # When the payment provider was last asked about an automatic one.
    number("asked_at_ns", default=0),
    UniqueConstraint("tenant_id", "key", name="uq_topups_key"),
    UniqueConstraint("tenant_id", "idempotency_key", name="uq_topups_idempotency_key"),
)
Index("ix_topups_wallet", topups.c.tenant_id, topups.c.wallet, topups.c.id)
_OWN_PAYMENT = and_(topups.c.payment_intent != "", topups.c.second_of_payment == 0)
# A payment pays one top-up.
Index(
    "uq_topups_payment_intent",
    topups.c.tenant_id,
    topups.c.payment_intent,
    unique=True,
    sqlite_where=_OWN_PAYMENT,
    postgresql_where=_OWN_PAYMENT,
)
_FEE_UNKNOWN = and_(topups.c.state == "paid", topups.c.fee_known == 0)
Index(
    "ix_topups_fee_unknown",
    topups.c.tenant_id,
    topups.c.id,
    sqlite_where=_FEE_UNKNOWN,
    postgresql_where=_FEE_UNKNOWN,
)
Index("ix_topups_paid_at_ns", topups.c.tenant_id, topups.c.paid_at_ns)
_IN_FLIGHT = and_(topups.c.automatic == 1, topups.c.state == "open")
# One automatic top-up of a wallet at a time, on any number of replicas.
Index(
    "uq_topups_in_flight",
    topups.c.tenant_id,
    topups.c.wallet,
    unique=True,
    sqlite_where=_IN_FLIGHT,
    postgresql_where=_IN_FLIGHT,
)

# Every event that was booked or skipped, permanently: a repeated event does nothing.
payment_events = table(
    "payment_events",
    identity(),
    number("tenant_id"),
    words("event_id"),
    words("type"),
    Column("digest", LargeBinary, nullable=False),
    number("created_at_ns"),
    number("received_at_ns"),
    words("outcome"),
    UniqueConstraint("tenant_id", "event_id"),
)

# Refunds and disputes, including those that arrived before their payment.
payment_returns = table(
    "payment_returns",
    identity(),
    number("tenant_id"),
    words("return_id"),
    words("kind"),
    words("payment_intent"),
    words("currency"),
    number("amount_minor"),
    # The state that the payment provider states, and when; see `payment_facts.Returned`.
    number("progress"),
    number("told_at_ns", default=0),
    # Whether it stands: the customer has the money, or will.
    number("wanted"),
    # Why it, or a part of it, moves no credits; empty if it was booked in full.
    words("unmatched", default=""),
    number("created_at_ns"),
    number("recorded_at_ns"),
    UniqueConstraint("tenant_id", "return_id"),
)
Index("ix_payment_returns_payment_intent", payment_returns.c.tenant_id, payment_returns.c.payment_intent)
Index(
    "ix_payment_returns_unmatched",
    payment_returns.c.tenant_id,
    payment_returns.c.id,
    sqlite_where=payment_returns.c.unmatched != "",
    postgresql_where=payment_returns.c.unmatched != "",
)

# Payments that match no top-up: kept for review.
unmatched_payments = table(
    "unmatched_payments",
    identity(),
    number("tenant_id"),
    words("topup_key"),
    words("payment_intent"),
    words("currency"),
    number("amount_minor"),
    words("reason"),
    number("paid_at_ns"),
    number("recorded_at_ns"),
    UniqueConstraint("tenant_id", "payment_intent", "topup_key", name="uq_unmatched_payments"),
)

payment_fees = table(
    "payment_fees",
    identity(),
    number("tenant_id"),
    # The provider's balance transaction.
    words("fee_id"),
    number("topup_id"),
    words("currency"),
    number("fee_minor"),
    number("fee_nanousd"),
    number("transaction_id"),
    number("recorded_at_ns"),
    # The kind of fee: `payment`, `dispute`; empty for rows from before it was stored.
    words("source", default=""),
    UniqueConstraint("tenant_id", "fee_id"),
)
Index("ix_payment_fees_topup_id", payment_fees.c.tenant_id, payment_fees.c.topup_id)

# Fees that cannot be booked yet: of an unknown payment, or in a currency without an exchange rate.
waiting_fees = table(
    "waiting_fees",
    identity(),
    number("tenant_id"),
    words("fee_id"),
    words("payment_intent"),
    words("source"),
    words("currency"),
    number("fee_minor"),
    words("reason"),
    number("recorded_at_ns"),
    UniqueConstraint("tenant_id", "fee_id"),
)
Index("ix_waiting_fees_payment_intent", waiting_fees.c.tenant_id, waiting_fees.c.payment_intent)
Index("ix_waiting_fees_currency", waiting_fees.c.tenant_id, waiting_fees.c.reason, waiting_fees.c.currency)

# Append-only; the newest row of a wallet is in force. Contains the provider's names of cards, never card numbers.
payment_methods = table(
    "payment_methods",
    identity(),
    number("tenant_id"),
    words("wallet"),
    words("customer"),
    words("payment_method"),
    number("recorded_at_ns"),
)
Index("ix_payment_methods_wallet", payment_methods.c.tenant_id, payment_methods.c.wallet, payment_methods.c.id)

# Append-only; the newest row of a wallet is in force.
auto_topups = table(
    "auto_topups",
    identity(),
    number("tenant_id"),
    words("wallet"),
    number("enabled"),
    words("pack"),
    number("below_nano"),
    words("currency"),
    number("month_cap_minor"),
    words("author"),
    words("reason"),
    number("recorded_at_ns"),
    # Whether it is off because a payment of the wallet was refunded or disputed.
    number("paused", default=0),
)
Index("ix_auto_topups_wallet", auto_topups.c.tenant_id, auto_topups.c.wallet, auto_topups.c.id)

# Wallets that are below their threshold and were checked: the least recently checked is next.
auto_topup_turns = table(
    "auto_topup_turns",
    identity(),
    number("tenant_id"),
    words("wallet"),
    number("looked_at_ns"),
    # Why nothing was ordered, and until when that cannot change by itself.
    words("reason"),
    number("until_ns"),
    UniqueConstraint("tenant_id", "wallet"),
)
