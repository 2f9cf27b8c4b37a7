"""Roll-ups by UTC day: reports and overviews read these, regardless of the number of usage records."""

from sqlalchemy import Column, ColumnElement, Table, Text, UniqueConstraint, and_

from farebox_collector.ledger.tables.columns import (
    Int64,
    identity,
    metadata,
    number,
    table,
    words,
)
from farebox_collector.model.moments import Days
from farebox_collector.model.records import Buckets


def within(day: ColumnElement[int], days: Days) -> ColumnElement[bool]:
    """Return whether a column lies in a range of days."""
    return and_(day >= days.first, day < days.end)


DAY_SUMS = ("requests", "errors", "input_tokens", "output_tokens", "cost_nanousd", "charge_nanocredits")


# By the day of the price, so that a call stays on one day. Labels are bounded like those of `usage_totals`.
usage_days = table(
    "usage_days",
    identity(),
    number("tenant_id"),
    number("day"),
    words("event"),
    words("provider"),
    words("model"),
    words("verdict"),
    number("requests"),
    number("errors"),
    number("input_tokens"),
    number("output_tokens"),
    number("cost_nanousd"),
    number("charge_nanocredits"),
    UniqueConstraint("tenant_id", "day", "event", "provider", "model", "verdict"),
)

# Charged calls only. The key has the day before the wallet: all writers of a day touch neighbouring rows, all wallets
# of a period are one range, and one wallet's rows are one look-up per day.
wallet_days = table(
    "wallet_days",
    identity(),
    number("tenant_id"),
    number("day"),
    words("wallet"),
    words("event"),
    words("provider"),
    words("model"),
    number("requests"),
    number("errors"),
    number("input_tokens"),
    number("output_tokens"),
    number("cost_nanousd"),
    number("charge_nanocredits"),
    UniqueConstraint("tenant_id", "day", "wallet", "event", "provider", "model"),
)

BLOCK_DAYS = 8
"""Days of a block: blocks begin at multiples of it since 1970."""
BLOCK_REQUESTS = tuple(f"requests_{place}" for place in range(BLOCK_DAYS))
BLOCK_COSTS = tuple(f"cost_nanousd_{place}" for place in range(BLOCK_DAYS))
"""What a block says of each of its days."""
BLOCK_SUMS = (*DAY_SUMS, *BLOCK_REQUESTS, *BLOCK_COSTS)
# `wallet_days` by wallet and block, for reports that count or rank all wallets: a row for eight days of a wallet.
# Without row ids, so that SQLite reads the wallets of a block in sequence.
wallet_blocks = Table(
    "wallet_blocks",
    metadata,
    Column("tenant_id", Int64, primary_key=True, autoincrement=False),
    Column("block", Int64, primary_key=True, autoincrement=False),
    Column("wallet", Text, primary_key=True),
    *(number(name) for name in DAY_SUMS),
    *(number(name, default=0) for name in (*BLOCK_REQUESTS, *BLOCK_COSTS)),
    sqlite_strict=True,
    sqlite_with_rowid=False,
)

# Movements by the day of posting, except usage and its corrections: those are in the two tables above. `source` is the
# kind of the transactions, `account` the kind of the accounts.
money_days = table(
    "money_days",
    identity(),
    number("tenant_id"),
    number("day"),
    words("source"),
    words("account"),
    number("postings"),
    # What was added to these accounts and what was taken from them, neither negative.
    number("in_nano"),
    number("out_nano"),
    UniqueConstraint("tenant_id", "day", "source", "account"),
)

# Revenue posted on another UTC day than the start of its calls.
late_revenue = table(
    "late_revenue",
    identity(),
    number("tenant_id"),
    number("day"),
    number("calls_day"),
    # Negative if a correction took revenue back.
    number("revenue_nanousd"),
    UniqueConstraint("tenant_id", "day", "calls_day"),
)

LOT_NAMES = ("origin", "pack", "sold_month", "paid")
"""What lots are summed by: the kind of movement that made them, their pack (empty without one), the UTC month in which
they were made (months since year 0), and whether they have a price (1 or 0)."""
LOT_WAYS = ("sold", "transferred", "used", "expired", "returned")
"""What can happen to the credits of a lot. `transferred` counts what came in, less what went out."""
LOT_SUMS = tuple(f"{way}_{unit}" for way in LOT_WAYS for unit in ("nano", "nanousd"))
# What happened to lots by the UTC day of posting: credits, and their part of the price.
lot_days = table(
    "lot_days",
    identity(),
    number("tenant_id"),
    number("day"),
    words("origin"),
    words("pack"),
    number("sold_month"),
    number("paid"),
    *(number(name) for name in LOT_SUMS),
    UniqueConstraint("tenant_id", "day", *LOT_NAMES, name="uq_lot_days"),
)

OVERDRAFT_SUMS = ("overdraft_nano", "unpaid_nano")
# Changes of overdraft by the UTC day of posting. `unpaid` is the part that no payment was ever made for: without the
# usage whose payment was returned.
overdraft_days = table(
    "overdraft_days",
    identity(),
    number("tenant_id"),
    number("day"),
    *(number(name) for name in OVERDRAFT_SUMS),
    UniqueConstraint("tenant_id", "day"),
)

COST_NAMES = (
    "provider",
    "model",
    "price_version_ids",
    "event",
    "dept",
    "project",
    "task",
    "route",
    "region",
    "service_tier",
)
COST_SUMS = (
    "requests",
    *(f"{kind}_tokens" for kind in Buckets._fields),
    "cost_nanousd",
    "charge_nanocredits",
)
# Charged calls by what determines their cost and by the labels of reports. Costs are linear in tokens at the same
# prices, so that sums of tokens give the exact cost of each kind.
cost_days = table(
    "cost_days",
    identity(),
    number("tenant_id"),
    number("day"),
    *(words(name) for name in COST_NAMES),
    *(number(name) for name in COST_SUMS),
    UniqueConstraint("tenant_id", "day", *COST_NAMES, name="uq_cost_days"),
)
