"""Tables of credits: actions that are charged as one."""

from sqlalchemy import UniqueConstraint

from farebox_collector.ledger.columns import identity, number, table, words

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
