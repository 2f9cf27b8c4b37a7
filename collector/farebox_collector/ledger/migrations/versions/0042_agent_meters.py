"""What the metrics of coding agents tell of their usage, to compare it with the calls in the books."""

import sqlalchemy as sa
from alembic import op

revision = "0042"
down_revision = "0040"

INT64 = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "agent_series",
        sa.Column("tenant_id", INT64, autoincrement=False, nullable=False),
        sa.Column("series", sa.LargeBinary(), nullable=False),
        sa.Column("start_ns", INT64, nullable=False),
        sa.Column("time_ns", INT64, nullable=False),
        sa.Column("tokens", INT64, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "series", name=op.f("pk_agent_series")),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_index("ix_agent_series_time_ns", "agent_series", ["tenant_id", "time_ns"])
    op.create_table(
        "agent_meters",
        sa.Column("tenant_id", INT64, autoincrement=False, nullable=False),
        sa.Column("day", INT64, autoincrement=False, nullable=False),
        sa.Column("tool", sa.Text(), nullable=False),
        sa.Column("person", sa.Text(), nullable=False),
        sa.Column("input_tokens", INT64, nullable=False),
        sa.Column("output_tokens", INT64, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "day", "tool", "person", name=op.f("pk_agent_meters")),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )


def downgrade() -> None:
    op.drop_table("agent_meters")
    op.drop_table("agent_series")
