"""Budgets of departments, and incidents that alerts report."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

INT64 = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "budgets",
        sa.Column("id", INT64, autoincrement=True, nullable=False),
        sa.Column("tenant_id", INT64, nullable=False),
        sa.Column("dept", sa.Text(), nullable=False),
        sa.Column("nanousd_per_month", INT64, nullable=False),
        sa.Column("author", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("recorded_at_ns", INT64, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_budgets")),
        sqlite_strict=True,
    )
    op.create_index("ix_budgets_dept", "budgets", ["tenant_id", "dept", "id"])
    op.create_table(
        "incidents",
        sa.Column("id", INT64, autoincrement=True, nullable=False),
        sa.Column("tenant_id", INT64, nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("started_at_ns", INT64, nullable=False),
        sa.Column("recorded_at_ns", INT64, nullable=False),
        sa.Column("ended_at_ns", INT64, nullable=True),
        *(
            sa.Column(name, sa.Text(), nullable=False)
            for name in ("alert", "severity", "team", "labels", "annotations", "snapshot")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_incidents")),
        sa.UniqueConstraint(
            "tenant_id", "fingerprint", "started_at_ns", name=op.f("uq_incidents_tenant_id_fingerprint_started_at_ns")
        ),
        sqlite_strict=True,
    )


def downgrade() -> None:
    op.drop_table("incidents")
    op.drop_table("budgets")
