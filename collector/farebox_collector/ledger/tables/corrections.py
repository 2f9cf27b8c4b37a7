"""Tables of corrections and audits, and of the progress of each."""

from sqlalchemy import Column, ForeignKey, Index, Table, UniqueConstraint

from farebox_collector.ledger.tables.columns import (
    Int64,
    identity,
    metadata,
    number,
    table,
    words,
)

corrections = table(
    "corrections",
    identity(),
    number("tenant_id"),
    Column("usage_record_id", Int64, ForeignKey("usage_records.id"), nullable=False),
    # 1 for the first correction of a record, and so on: the unique key rejects the second of two concurrent
    # corrections.
    number("number"),
    number("transaction_id", nullable=True),
    number("recorded_at_ns"),
    words("cause"),
    words("verdict_before"),
    words("verdict_after"),
    words("reason_before"),
    words("reason_after"),
    words("provider_before"),
    words("provider_after"),
    words("model_before"),
    words("model_after"),
    number("cost_nanousd_before", nullable=True),
    number("cost_nanousd_after", nullable=True),
    number("charge_nanocredits_before", nullable=True),
    number("charge_nanocredits_after", nullable=True),
    words("price_version_ids_before"),
    words("price_version_ids_after"),
    number("rule_version_id_before", nullable=True),
    number("rule_version_id_after", nullable=True),
    UniqueConstraint("tenant_id", "usage_record_id", "number"),
)
# For the look-up of corrections when a record is deleted.
Index("ix_corrections_usage_record_id", corrections.c.usage_record_id)
Index("ix_corrections_transaction_id", corrections.c.transaction_id)
Index("ix_corrections_recorded_at_ns", corrections.c.tenant_id, corrections.c.recorded_at_ns)

correction_totals = table(
    "correction_totals",
    identity(),
    number("tenant_id"),
    words("cause"),
    number("corrections"),
    number("cost_up_nanousd"),
    number("cost_down_nanousd"),
    number("charge_up_nanocredits"),
    number("charge_down_nanocredits"),
    UniqueConstraint("tenant_id", "cause"),
)

# The progress of incremental jobs through the books.
watermarks = table("watermarks", identity(), words("name"), number("value"), UniqueConstraint("name"))

audits = table(
    "audits",
    identity(),
    words("scope"),
    number("ended_at_ns"),
    number("upto_transaction"),
    number("mismatches"),
)
# Accounts as the audit last verified them: the sums of their postings up to a transaction.
audited_balances = table(
    "audited_balances",
    Column("account_id", Int64, ForeignKey("accounts.id"), primary_key=True, autoincrement=False),
    number("upto_transaction"),
    number("balance_nano"),
    number("spent_nano", default=0),
    number("charged_calls", default=0),
)

# Postings in the order of accounts, up to a watermark; empty in PostgreSQL. See `posting_index`.
account_postings = Table(
    "account_postings",
    metadata,
    Column("account_id", Int64, primary_key=True, autoincrement=False),
    Column("transaction_id", Int64, primary_key=True, autoincrement=False),
    Column("posting_id", Int64, primary_key=True, autoincrement=False),
    sqlite_strict=True,
    sqlite_with_rowid=False,
)
