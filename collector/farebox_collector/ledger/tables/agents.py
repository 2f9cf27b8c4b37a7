"""The tables of what the metrics of coding agents tell: compared with the calls in the books, and never charged."""

from sqlalchemy import Column, Index, LargeBinary, Table, Text

from farebox_collector.ledger.tables.columns import Int64, metadata, number

# The last point of each series, so that a repeated point or a cumulative one is not added again.
agent_series = Table(
    "agent_series",
    metadata,
    Column("tenant_id", Int64, primary_key=True, autoincrement=False),
    Column("series", LargeBinary, primary_key=True),
    number("start_ns"),
    number("time_ns"),
    number("tokens"),
    sqlite_strict=True,
    sqlite_with_rowid=False,
)
Index("ix_agent_series_time_ns", agent_series.c.tenant_id, agent_series.c.time_ns)

# The sums of the series by day, tool and person.
agent_meters = Table(
    "agent_meters",
    metadata,
    Column("tenant_id", Int64, primary_key=True, autoincrement=False),
    Column("day", Int64, primary_key=True, autoincrement=False),
    Column("tool", Text, primary_key=True),
    Column("person", Text, primary_key=True),
    number("input_tokens"),
    number("output_tokens"),
    sqlite_strict=True,
    sqlite_with_rowid=False,
)
