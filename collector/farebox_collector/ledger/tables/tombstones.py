"""Tombstones of retired usage records: the key that makes repeats duplicates, and the audit's sums.

Rows are added in the transaction that deletes the records (`retention`), and never deleted.
"""

from sqlalchemy import Column, LargeBinary, Table, Text

from farebox_collector.ledger.tables.columns import Int64, metadata, number
from farebox_collector.ledger.tables.rollups import DAY_SUMS
from farebox_collector.ledger.tables.usage_columns import TOKEN_COLUMNS

# The key of `usage_records`, and digests that recognise a later span as the same one, or as one of the same call.
retired_spans = Table(
    "retired_spans",
    metadata,
    Column("tenant_id", Int64, primary_key=True, autoincrement=False),
    Column("trace_id", LargeBinary, primary_key=True),
    Column("span_id", LargeBinary, primary_key=True),
    # Digests: of the facts that a bill depends on, and of what two spans of one call have in common.
    Column("facts", LargeBinary, nullable=False),
    Column("likeness", LargeBinary, nullable=False),
    number("charged"),
    number("started_at_ns"),
    number("latency_ns"),
    sqlite_strict=True,
    sqlite_with_rowid=False,
)

# Charge and cost of retired records, by the transaction and the leg that posted them.
retired_legs = Table(
    "retired_legs",
    metadata,
    Column("transaction_id", Int64, primary_key=True, autoincrement=False),
    Column("account_id", Int64, primary_key=True, autoincrement=False),
    Column("event", Text, primary_key=True),
    # 0 if the leg names no rule.
    Column("rule_version_id", Int64, primary_key=True, autoincrement=False),
    number("records"),
    number("amount_nano"),
    sqlite_strict=True,
    sqlite_with_rowid=False,
)

RETIRED_SUMS = ("requests", "cost_nanousd", "charge_nanocredits", *TOKEN_COLUMNS)
retired_totals = Table(
    "retired_totals",
    metadata,
    Column("tenant_id", Int64, primary_key=True, autoincrement=False),
    Column("verdict", Text, primary_key=True),
    *(number(name) for name in RETIRED_SUMS),
    sqlite_strict=True,
    sqlite_with_rowid=False,
)

# By the day of the price; `kind` says what the name is: a verdict; for charged calls a wallet, dept, project, user.
retired_days = Table(
    "retired_days",
    metadata,
    Column("tenant_id", Int64, primary_key=True, autoincrement=False),
    Column("day", Int64, primary_key=True, autoincrement=False),
    Column("kind", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("user_id", Text, primary_key=True),
    *(number(name) for name in DAY_SUMS),
    sqlite_strict=True,
    sqlite_with_rowid=False,
)
