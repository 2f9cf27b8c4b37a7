"""Which usage records are summaries of the calls within them: agents and workflows."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"

INT64 = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    with op.batch_alter_table("usage_records", schema=None) as batch_op:
        batch_op.add_column(sa.Column("summary", INT64, server_default=sa.text("0"), nullable=False))
    op.execute("UPDATE usage_records SET summary = 1 WHERE verdict = 'deferred'")


def downgrade() -> None:
    with op.batch_alter_table("usage_records", schema=None) as batch_op:
        batch_op.drop_column("summary")
