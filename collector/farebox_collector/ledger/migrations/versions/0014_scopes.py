"""The instrumentation scope of a span; and an index of the charged records without a response id."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"

WITHOUT_ID = "response_id = '' AND verdict = 'charged'"


def upgrade() -> None:
    with op.batch_alter_table("usage_records", schema=None) as batch_op:
        batch_op.add_column(sa.Column("scope", sa.Text(), server_default=sa.text("''"), nullable=False))
        batch_op.create_index(
            "ix_usage_records_without_id",
            ["tenant_id", "id"],
            unique=False,
            sqlite_where=sa.text(WITHOUT_ID),
            postgresql_where=sa.text(WITHOUT_ID),
        )


def downgrade() -> None:
    with op.batch_alter_table("usage_records", schema=None) as batch_op:
        batch_op.drop_index("ix_usage_records_without_id")
        batch_op.drop_column("scope")
