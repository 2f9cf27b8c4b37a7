"""The tables of amounts at stake: charged records that may be wrong, and calls whose end was not seen."""

from sqlalchemy import Column, Index, LargeBinary, Table, Text

from farebox_collector.ledger.tables.columns import (
    Int64,
    metadata,
    number,
    words,
)

# One row for each flag of a record with money at stake, as long as the record may change.
stakes = Table(
    "stakes",
    metadata,
    Column("tenant_id", Int64, primary_key=True, autoincrement=False),
    Column("flag", Text, primary_key=True),
    Column("trace_id", LargeBinary, primary_key=True),
    Column("span_id", LargeBinary, primary_key=True),
    number("priced_at_ns"),
    words("wallet"),
    words("provider"),
    words("model"),
    number("amount_nanousd"),
    sqlite_strict=True,
    sqlite_with_rowid=False,
)
Index("ix_stakes_priced_at_ns", stakes.c.tenant_id, stakes.c.priced_at_ns)

# The sums of the rows above, by flag.
stake_totals = Table(
    "stake_totals",
    metadata,
    Column("tenant_id", Int64, primary_key=True, autoincrement=False),
    Column("flag", Text, primary_key=True),
    number("records"),
    number("amount_nanousd"),
    sqlite_strict=True,
    sqlite_with_rowid=False,
)
