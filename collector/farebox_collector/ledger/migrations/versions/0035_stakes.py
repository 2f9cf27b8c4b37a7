"""Amounts at stake, by record and in sums; calls whose end was not seen are found like other open records.

Replicas of the version before must be stopped: they would not write amounts at stake.
"""

import sqlalchemy as sa
from alembic import op

revision = "0035"
down_revision = "0034"

INT64 = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
STRICT = {"sqlite_strict": True, "sqlite_with_rowid": False}
BEFORE, AFTER = (f"verdict IN ('unpriced', 'unmetered', 'deferred'{more})" for more in ("", ", 'exposed'"))


def number(name: str) -> "sa.Column[int]":
    return sa.Column(name, INT64, autoincrement=False, nullable=False)


def words(name: str) -> "sa.Column[str]":
    return sa.Column(name, sa.Text(), nullable=False)


def index_open(condition: str) -> None:
    name = "ix_usage_records_unsettled"
    op.drop_index(name, "usage_records")
    op.create_index(
        name,
        "usage_records",
        ["tenant_id", "verdict", "id"],
        unique=False,
        sqlite_where=sa.text(condition),
        postgresql_where=sa.text(condition),
    )


def upgrade() -> None:
    op.create_table(
        "stakes",
        number("tenant_id"),
        words("flag"),
        sa.Column("trace_id", sa.LargeBinary(), nullable=False),
        sa.Column("span_id", sa.LargeBinary(), nullable=False),
        number("priced_at_ns"),
        words("wallet"),
        words("provider"),
        words("model"),
        number("amount_nanousd"),
        sa.PrimaryKeyConstraint("tenant_id", "flag", "trace_id", "span_id", name=op.f("pk_stakes")),
        **STRICT,
    )
    op.create_index("ix_stakes_priced_at_ns", "stakes", ["tenant_id", "priced_at_ns"], unique=False)
    op.create_table(
        "stake_totals",
        number("tenant_id"),
        words("flag"),
        number("records"),
        number("amount_nanousd"),
        sa.PrimaryKeyConstraint("tenant_id", "flag", name=op.f("pk_stake_totals")),
        **STRICT,
    )
    index_open(AFTER)


def downgrade() -> None:
    index_open(BEFORE)
    op.drop_table("stake_totals")
    op.drop_table("stakes")
