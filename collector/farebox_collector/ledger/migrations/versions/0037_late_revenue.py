"""Revenue that is posted on another day than that of its calls, stored from now on; start of the audit of lot times.

Older versions drew late usage on other lots.
"""

import sqlalchemy as sa
from alembic import op

revision = "0037"
down_revision = "0036"

LOTS_BEFORE = "lots before their times were kept right"
INT64 = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "late_revenue",
        sa.Column("id", INT64, autoincrement=True, nullable=False),
        sa.Column("tenant_id", INT64, nullable=False),
        sa.Column("day", INT64, nullable=False),
        sa.Column("calls_day", INT64, nullable=False),
        sa.Column("revenue_nanousd", INT64, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_late_revenue")),
        sa.UniqueConstraint("tenant_id", "day", "calls_day", name=op.f("uq_late_revenue_tenant_id_day_calls_day")),
        sqlite_strict=True,
    )
    op.execute(
        f"INSERT INTO watermarks (name, value) SELECT '{LOTS_BEFORE}', max(id) FROM lots HAVING max(id) IS NOT NULL"
    )


def downgrade() -> None:
    op.execute(f"DELETE FROM watermarks WHERE name = '{LOTS_BEFORE}'")
    op.drop_table("late_revenue")
