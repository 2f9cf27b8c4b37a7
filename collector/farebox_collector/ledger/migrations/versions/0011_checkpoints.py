"""Spent credits and calls of accounts in their audit checkpoints."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"

INT64 = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    with op.batch_alter_table("audited_balances", schema=None) as batch_op:
        batch_op.add_column(sa.Column("spent_nano", INT64, server_default=sa.text("0"), nullable=False))
        batch_op.add_column(sa.Column("charged_calls", INT64, server_default=sa.text("0"), nullable=False))
    # Old checkpoints hold balances only. The next audit recomputes them from all postings.
    op.execute("DELETE FROM audited_balances")


def downgrade() -> None:
    with op.batch_alter_table("audited_balances", schema=None) as batch_op:
        batch_op.drop_column("charged_calls")
        batch_op.drop_column("spent_nano")
