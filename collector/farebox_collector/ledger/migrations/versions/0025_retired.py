"""Tombstones of retired usage records, and the times of their claims on calls.

Replicas of the version before must be stopped: they would book a repeated retired span as a new one.
"""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0025"
down_revision = "0024"

INT64 = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
KINDS = (
    "input",
    "cache_read",
    "cache_write",
    "cache_write_1h",
    "input_audio",
    "input_image",
    "output",
    "output_audio",
    "output_image",
    "reasoning",
)
TOTALS = ("requests", "cost_nanousd", "charge_nanocredits", *(f"{kind}_tokens" for kind in KINDS))
DAYS = ("requests", "errors", "input_tokens", "output_tokens", "cost_nanousd", "charge_nanocredits")


def number(column: str) -> "sa.Column[Any]":
    return sa.Column(column, INT64, autoincrement=False, nullable=False)


def name(column: str) -> "sa.Column[Any]":
    return sa.Column(column, sa.Text(), nullable=False)


def digest(column: str) -> "sa.Column[Any]":
    return sa.Column(column, sa.LargeBinary(), nullable=False)


def create(table: str, key: "Sequence[sa.Column[Any]]", *columns: "sa.Column[Any]") -> None:
    primary = sa.PrimaryKeyConstraint(*(column.name for column in key), name=op.f(f"pk_{table}"))
    op.create_table(table, *key, *columns, primary, sqlite_strict=True, sqlite_with_rowid=False)


def upgrade() -> None:
    spans = [number("tenant_id"), digest("trace_id"), digest("span_id")]
    times = [number("started_at_ns"), number("latency_ns")]
    create("retired_spans", spans, digest("facts"), digest("likeness"), number("charged"), *times)
    legs = [number("transaction_id"), number("account_id"), name("event"), number("rule_version_id")]
    create("retired_legs", legs, number("records"), number("amount_nano"))
    create("retired_totals", [number("tenant_id"), name("verdict")], *map(number, TOTALS))
    days = [number("tenant_id"), number("day"), name("kind"), name("name"), name("user_id")]
    create("retired_days", days, *map(number, DAYS))
    op.add_column("call_claims", sa.Column("started_at_ns", INT64, nullable=True))
    op.add_column("call_claims", sa.Column("latency_ns", INT64, nullable=True))
    # Without this index every deletion of a record would scan all corrections.
    op.create_index("ix_corrections_usage_record_id", "corrections", ["usage_record_id"], unique=False)


def downgrade() -> None:
    op.drop_index("ix_corrections_usage_record_id", "corrections")
    op.drop_column("call_claims", "latency_ns")
    op.drop_column("call_claims", "started_at_ns")
    for name in ("retired_days", "retired_totals", "retired_legs", "retired_spans"):
        op.drop_table(name)
