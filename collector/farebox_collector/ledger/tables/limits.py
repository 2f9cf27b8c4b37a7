"""Tables of limits: what may be spent, and what each limited spender has spent and holds."""

from sqlalchemy import Index, UniqueConstraint

from farebox_collector.ledger.tables.columns import (
    identity,
    number,
    table,
    words,
)

# Append-only versions; see `policies`.
spending_policies = table(
    "spending_policies",
    identity(),
    number("tenant_id"),
    words("scope"),
    words("name"),
    words("user_id"),
    number("hard_stop"),
    # NULL is no limit.
    number("day_limit_nano", nullable=True),
    number("month_limit_nano", nullable=True),
    number("soft_day_limit_nano", nullable=True),
    number("soft_month_limit_nano", nullable=True),
    number("valid_from_ns"),
    number("valid_to_ns", nullable=True),
    words("author"),
    words("reason"),
    number("recorded_at_ns"),
)
_POLICY = spending_policies.c
Index("ix_spending_policies_name", _POLICY.tenant_id, _POLICY.scope, _POLICY.name, _POLICY.user_id, _POLICY.id)

# Charges of a day by department, project, and user of a wallet; wallets have `wallet_days`.
spending_days = table(
    "spending_days",
    identity(),
    number("tenant_id"),
    number("day"),
    words("scope"),
    words("name"),
    words("user_id"),
    number("charge_nanocredits"),
    UniqueConstraint("tenant_id", "day", "scope", "name", "user_id"),
)

# Open holds by department, project, or user of a wallet. The row's lock serialises new holds.
spenders = table(
    "spenders",
    identity(),
    number("tenant_id"),
    words("scope"),
    words("name"),
    words("user_id"),
    number("held_nano"),
    UniqueConstraint("tenant_id", "scope", "name", "user_id"),
)
