"""Image tokens, and units other than tokens that calls are billed by."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

INT64 = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
NEW_TOKENS = ("input_image_tokens", "output_image_tokens")


def upgrade() -> None:
    for name in NEW_TOKENS:
        op.add_column("usage_records", sa.Column(name, INT64, nullable=True))
        op.add_column("usage_totals", sa.Column(name, INT64, nullable=False, server_default=sa.text("0")))
    op.add_column("usage_records", sa.Column("units", sa.Text(), nullable=False, server_default=sa.text("''")))
    # Metered records get zero image tokens rather than NULL: a repeated span must compare equal.
    op.execute(
        "UPDATE usage_records SET input_image_tokens = 0, output_image_tokens = 0 WHERE input_tokens IS NOT NULL"
    )


def downgrade() -> None:
    for table in ("usage_records", "usage_totals"):
        with op.batch_alter_table(table, schema=None) as batch_op:
            for name in NEW_TOKENS:
                batch_op.drop_column(name)
    with op.batch_alter_table("usage_records", schema=None) as batch_op:
        batch_op.drop_column("units")
