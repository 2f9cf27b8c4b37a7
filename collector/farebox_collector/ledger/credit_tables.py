"""Tables of credits: what was asked for once, actions that are charged as one."""

from sqlalchemy import Column, ForeignKey, UniqueConstraint

from farebox_collector.ledger.columns import Int64, identity, number, table, words

idempotency_keys = table(
    "idempotency_keys",
    identity(),
    Column("tenant_id", Int64, ForeignKey("tenants.id"), nullable=False),
    words("key"),
    words("request"),
    Column("transaction_id", Int64, ForeignKey("transactions.id"), nullable=False),
    UniqueConstraint("tenant_id", "key"),
)

# Sums over the charged calls of actions whose rule has a floor; what an action is charged follows from them.
charged_actions = table(
    "charged_actions",
    identity(),
    number("tenant_id"),
    words("wallet"),
    words("event"),
    words("action_id"),
    number("calls"),
    number("share_nanocredits"),
    # What the action is charged at least, by the rule of its first call.
    number("floor_nanocredits"),
    UniqueConstraint("tenant_id", "wallet", "event", "action_id", name="uq_charged_actions"),
)
