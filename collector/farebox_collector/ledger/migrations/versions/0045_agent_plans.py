"""Which accounts of coding agents a subscription pays, and what a seat costs."""

import sqlalchemy as sa
from alembic import op

revision = "0045"
down_revision = "0044"

INT64 = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "agent_plans",
        sa.Column("id", INT64, autoincrement=True, nullable=False),
        sa.Column("tenant_id", INT64, nullable=False),
        sa.Column("tool", sa.Text(), nullable=False),
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("plan", sa.Text(), nullable=False),
        sa.Column("seat_nanousd_per_month", INT64, nullable=False),
        sa.Column("valid_from_ns", INT64, nullable=False),
        sa.Column("author", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("recorded_at_ns", INT64, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_agent_plans")),
        sqlite_strict=True,
    )
    op.create_index("ix_agent_plans_tool_account", "agent_plans", ["tenant_id", "tool", "account"])


def downgrade() -> None:
    op.drop_table("agent_plans")
