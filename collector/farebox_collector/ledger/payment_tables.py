"""Tables of payments: packs of credits, top-ups and what a payment provider told about them."""

from sqlalchemy import Column, Index, LargeBinary, UniqueConstraint, and_

from farebox_collector.ledger.columns import identity, number, table, words

# Append-only; the last that is recorded of a name holds. Without credits the pack is no longer on offer.
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

# Packs that somebody wants to pay, or that are paid without asking (`automatic`).
topups = table(
    "topups",
    identity(),
    number("tenant_id"),
    # What the payment provider knows it by: unguessable, and the same nowhere else.
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
    # When the payment provider says that it was paid.
    number("paid_at_ns", nullable=True),
    number("ended_at_ns", nullable=True),
    UniqueConstraint("tenant_id", "key", name="uq_topups_key"),
    UniqueConstraint("tenant_id", "idempotency_key", name="uq_topups_idempotency_key"),
)
Index("ix_topups_wallet", topups.c.tenant_id, topups.c.wallet, topups.c.id)
Index("ix_topups_payment_intent", topups.c.tenant_id, topups.c.payment_intent)
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

# Every event that was booked or passed over, for ever: what makes one that comes again do nothing.
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

# Refunds and disputes, also those that came before the payment which they are of.
payment_returns = table(
    "payment_returns",
    identity(),
    number("tenant_id"),
    words("return_id"),
    words("kind"),
    words("payment_intent"),
    words("currency"),
    number("amount_minor"),
    # How far it has come, as the payment provider says; see `payment_facts.Returned`.
    number("progress"),
    # Whether its credits should be out of the wallet, and whether they are; a payment that is not known yet waits.
    number("wanted"),
    number("taken"),
    number("topup_id", nullable=True),
    # Credits out of the lot, those that had expired, and those that were used and became the wallet's debt.
    number("lot_nano"),
    number("expired_nano"),
    number("debt_nano"),
    # What went back of the price, and what of it was for credits out of the lot.
    number("back_nanousd"),
    number("deferred_nanousd"),
    number("created_at_ns"),
    number("recorded_at_ns"),
    UniqueConstraint("tenant_id", "return_id"),
)
Index("ix_payment_returns_payment_intent", payment_returns.c.tenant_id, payment_returns.c.payment_intent)

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
    UniqueConstraint("tenant_id", "fee_id"),
)
Index("ix_payment_fees_topup_id", payment_fees.c.tenant_id, payment_fees.c.topup_id)

# Append-only; the last of a wallet holds. Card numbers never come here, only the provider's names for them.
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

# Append-only; the last of a wallet holds.
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
)
Index("ix_auto_topups_wallet", auto_topups.c.tenant_id, auto_topups.c.wallet, auto_topups.c.id)
