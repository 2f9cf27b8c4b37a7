"""Sums of calls that are recorded but not yet in the accounts and roll-ups."""

import sqlalchemy as sa
from alembic import op

revision = "0039"
down_revision = "0038"

INT64 = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.add_column("transactions", sa.Column("is_open", INT64, server_default=sa.text("0"), nullable=False))
    op.create_table(
        "unfolded_batches",
        sa.Column("tenant_id", INT64, autoincrement=False, nullable=False),
        sa.Column("transaction_id", INT64, autoincrement=False, nullable=False),
        sa.Column("number", INT64, autoincrement=False, nullable=False),
        sa.Column("received_at_ns", INT64, nullable=False),
        sa.Column("calls_from_ns", INT64, nullable=False),
        sa.Column("calls_to_ns", INT64, nullable=False),
        sa.Column("sums", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "transaction_id", "number", name=op.f("pk_unfolded_batches")),
        sqlite_strict=True,
    )


def downgrade() -> None:
    op.drop_table("unfolded_batches")
    op.drop_column("transactions", "is_open")
