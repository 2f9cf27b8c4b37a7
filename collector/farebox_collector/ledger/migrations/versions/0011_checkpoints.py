"""What accounts had spent, and for how many calls, where the audit last found them right."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"

INT64 = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    with op.batch_alter_table("audited_balances", schema=None) as batch_op:
        batch_op.add_column(sa.Column("spent_nano", INT64, server_default=sa.text("0"), nullable=False))
        batch_op.add_column(sa.Column("charged_calls", INT64, server_default=sa.text("0"), nullable=False))
    # They knew balances only. The next audit works them out again, from all postings.
    op.execute("DELETE FROM audited_balances")


def downgrade() -> None:
    with op.batch_alter_table("audited_balances", schema=None) as batch_op:
        batch_op.drop_column("charged_calls")
        batch_op.drop_column("spent_nano")
