"""Tables of credits: idempotent requests, actions that are charged as one, holds."""

from sqlalchemy import Column, ForeignKey, Index, Text, UniqueConstraint

from farebox_collector.ledger.tables.columns import (
    Int64,
    identity,
    number,
    table,
    words,
)

idempotency_keys = table(
    "idempotency_keys",
    identity(),
    Column("tenant_id", Int64, ForeignKey("tenants.id"), nullable=False),
    words("key"),
    words("request"),
    Column("transaction_id", Int64, ForeignKey("transactions.id"), nullable=False),
    UniqueConstraint("tenant_id", "key"),
)

# Sums over the charged calls of actions whose rule has a floor; the action's charge follows from them.
charged_actions = table(
    "charged_actions",
    identity(),
    number("tenant_id"),
    words("wallet"),
    words("event"),
    words("action_id"),
    number("calls"),
    number("share_nanocredits"),
    # The minimum charge of the action, by the rule of the call that started first.
    number("floor_nanocredits"),
    # Start of the first and the last call; trace and span of the first in hexadecimal. 0 sorts first.
    number("first_started_ns", default=0),
    number("last_started_ns", default=0),
    words("first_span", default=""),
    UniqueConstraint("tenant_id", "wallet", "event", "action_id", name="uq_charged_actions"),
)

# Credits of a wallet that are set aside; `accounts.held_nano` is the sum of the open holds.
holds = table(
    "holds",
    identity(),
    number("tenant_id"),
    words("wallet"),
    # The spenders it counts for besides its wallet, if stated.
    words("user_id", default=""),
    words("dept", default=""),
    words("project", default=""),
    words("idempotency_key"),
    words("request"),
    words("event"),
    # NULL for a hold without an action: NULLs do not violate the unique key.
    Column("action_id", Text, nullable=True),
    number("amount_nano"),
    # The amount less the net charge, never negative, while the hold is open.
    number("open_nano"),
    words("state"),
    number("created_at_ns"),
    number("expires_at_ns"),
    number("ended_at_ns", nullable=True),
    # The action's charge since the hold was taken, less what corrections gave back.
    number("settled_nano", default=0),
    UniqueConstraint("tenant_id", "idempotency_key"),
    UniqueConstraint("tenant_id", "wallet", "action_id"),
)
Index(
    "ix_holds_open",
    holds.c.tenant_id,
    holds.c.wallet,
    holds.c.expires_at_ns,
    sqlite_where=holds.c.state == "open",
    postgresql_where=holds.c.state == "open",
)

Index(
    "ix_holds_due",
    holds.c.tenant_id,
    holds.c.expires_at_ns,
    sqlite_where=holds.c.state == "open",
    postgresql_where=holds.c.state == "open",
)

# The source of a wallet's credits, and how much of each is left; see `lots`.
lots = table(
    "lots",
    identity(),
    number("tenant_id"),
    words("wallet"),
    number("transaction_id", nullable=True),
    words("origin"),
    number("amount_nano"),
    number("remaining_nano"),
    # Credits that were returned or withdrawn unused; the rest of the missing credits was used or expired.
    number("taken_nano"),
    # The price of the whole lot; the part that became revenue, and the part that was returned.
    number("price_nanousd"),
    number("recognised_nanousd"),
    number("returned_nanousd"),
    number("priority"),
    number("promotional"),
    number("expires_at_ns", nullable=True),
    number("created_at_ns"),
    # Credits that refunds and disputes of the lot's payment take: unused ones, with their part of the price, and
    # expired ones; the rest is displaced usage. Then credits that pay for displaced usage of other lots. See
    # `returned_credits`.
    number("out_nano", default=0),
    number("out_taken_nano", default=0),
    number("out_expired_nano", default=0),
    number("out_nanousd", default=0),
    number("displaced_nano", default=0),
    number("lent_nano", default=0),
    # The pack that was bought; empty for other lots.
    words("pack", default=""),
)
Index("ix_lots_wallet", lots.c.tenant_id, lots.c.wallet, lots.c.id)
Index("ix_lots_created_at_ns", lots.c.tenant_id, lots.c.created_at_ns)
Index("ix_lots_transaction_id", lots.c.transaction_id)
Index(
    "ix_lots_expires_at_ns",
    lots.c.expires_at_ns,
    sqlite_where=lots.c.remaining_nano > 0,
    postgresql_where=lots.c.remaining_nano > 0,
)

# Every change of a lot: append-only.
lot_moves = table(
    "lot_moves",
    identity(),
    number("tenant_id"),
    number("lot_id"),
    number("transaction_id", nullable=True),
    words("kind"),
    number("amount_nano"),
    number("recognised_nanousd"),
    number("returned_nanousd"),
    number("recorded_at_ns"),
)
Index("ix_lot_moves_lot_id", lot_moves.c.lot_id, lot_moves.c.id)
