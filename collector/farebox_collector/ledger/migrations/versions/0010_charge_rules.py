"""Rules by the action and by tokens: their figures, the actions charged as one, and each call's share."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"

INT64 = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
FIGURES = (
    "minimum_credits",
    "flat_credits",
    "input_credits_per_1k",
    "cached_credits_per_1k",
    "output_credits_per_1k",
)


def upgrade() -> None:
    for name in FIGURES:
        op.add_column("charge_rules", sa.Column(name, sa.Text(), nullable=False, server_default=sa.text("'0'")))
    op.add_column("usage_records", sa.Column("action_share_nanocredits", INT64, nullable=True))
    op.create_index(
        "ix_usage_records_action",
        "usage_records",
        ["tenant_id", "action_id", "id"],
        unique=False,
        sqlite_where=sa.text("action_share_nanocredits IS NOT NULL"),
        postgresql_where=sa.text("action_share_nanocredits IS NOT NULL"),
    )
    op.create_table(
        "charged_actions",
        sa.Column("id", INT64, autoincrement=True, nullable=False),
        sa.Column("tenant_id", INT64, nullable=False),
        sa.Column("wallet", sa.Text(), nullable=False),
        sa.Column("event", sa.Text(), nullable=False),
        sa.Column("action_id", sa.Text(), nullable=False),
        sa.Column("calls", INT64, nullable=False),
        sa.Column("share_nanocredits", INT64, nullable=False),
        sa.Column("floor_nanocredits", INT64, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_charged_actions")),
        sa.UniqueConstraint("tenant_id", "wallet", "event", "action_id", name="uq_charged_actions"),
        sqlite_strict=True,
    )


def downgrade() -> None:
    op.drop_table("charged_actions")
    op.drop_index("ix_usage_records_action", "usage_records")
    op.drop_column("usage_records", "action_share_nanocredits")
    for name in FIGURES:
        op.drop_column("charge_rules", name)
