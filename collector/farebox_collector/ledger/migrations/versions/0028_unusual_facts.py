"""Facts that few calls have: speed, region, lines of other models, the provider's stated cost, other readings."""

import sqlalchemy as sa
from alembic import op

revision = "0028"
down_revision = "0027"


def upgrade() -> None:
    op.add_column("usage_records", sa.Column("unusual", sa.Text(), nullable=False, server_default=sa.text("''")))


def downgrade() -> None:
    op.drop_column("usage_records", "unusual")
