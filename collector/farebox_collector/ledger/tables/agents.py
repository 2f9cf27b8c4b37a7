"""The tables of coding agents: what their metrics tell, which is never charged, and the plans that pay their calls."""

from sqlalchemy import Column, Index, LargeBinary, Table, Text

from farebox_collector.ledger.tables.columns import Int64, identity, metadata, number, table, words

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

# Which accounts of a tool a subscription pays: append-only versions. Text `*`: each without its own.
agent_plans = table(
    "agent_plans",
    identity(),
    number("tenant_id"),
    words("tool"),
    words("account"),
    words("plan"),
    number("seat_nanousd_per_month"),
    number("valid_from_ns"),
    words("author"),
    words("reason"),
    number("recorded_at_ns"),
)
Index("ix_agent_plans_tool_account", agent_plans.c.tenant_id, agent_plans.c.tool, agent_plans.c.account)
