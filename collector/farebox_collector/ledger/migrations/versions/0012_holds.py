"""Holds: credits set aside for an action."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"

INT64 = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.add_column("accounts", sa.Column("held_nano", INT64, nullable=False, server_default=sa.text("0")))
    op.create_table(
        "holds",
        sa.Column("id", INT64, autoincrement=True, nullable=False),
        sa.Column("tenant_id", INT64, nullable=False),
        sa.Column("wallet", sa.Text(), nullable=False),
        sa.Column("idempotency_key", sa.Text(), nullable=False),
        sa.Column("request", sa.Text(), nullable=False),
        sa.Column("event", sa.Text(), nullable=False),
        sa.Column("action_id", sa.Text(), nullable=True),
        sa.Column("amount_nano", INT64, nullable=False),
        sa.Column("open_nano", INT64, nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("created_at_ns", INT64, nullable=False),
        sa.Column("expires_at_ns", INT64, nullable=False),
        sa.Column("ended_at_ns", INT64, nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_holds")),
        sa.UniqueConstraint("tenant_id", "idempotency_key", name=op.f("uq_holds_tenant_id_idempotency_key")),
        sa.UniqueConstraint("tenant_id", "wallet", "action_id", name=op.f("uq_holds_tenant_id_wallet_action_id")),
        sqlite_strict=True,
    )
    op.create_index(
        "ix_holds_open",
        "holds",
        ["tenant_id", "wallet", "expires_at_ns"],
        unique=False,
        sqlite_where=sa.text("state = 'open'"),
        postgresql_where=sa.text("state = 'open'"),
    )


def downgrade() -> None:
    op.drop_index("ix_holds_open", "holds")
    op.drop_table("holds")
    op.drop_column("accounts", "held_nano")
