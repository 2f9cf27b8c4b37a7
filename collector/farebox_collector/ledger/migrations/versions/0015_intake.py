"""Counts of spans by outcome, starting from the existing records."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"

INT64 = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "intake_totals",
        sa.Column("id", INT64, autoincrement=True, nullable=False),
        sa.Column("tenant_id", INT64, nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("spans", INT64, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_intake_totals")),
        sa.UniqueConstraint("tenant_id", "outcome", name=op.f("uq_intake_totals_tenant_id_outcome")),
        sqlite_strict=True,
    )
    # Duplicates and conflicts were not counted until now; each of these was a received span.
    op.execute(
        "INSERT INTO intake_totals (tenant_id, outcome, spans)"
        " SELECT tenant_id, verdict, count(*) FROM usage_records GROUP BY tenant_id, verdict"
        " UNION ALL SELECT tenant_id, 'rejected', count(*) FROM dead_letters GROUP BY tenant_id"
        " UNION ALL SELECT tenant_id, 'noted', count(*) FROM quality_reports GROUP BY tenant_id"
    )
    op.execute(
        "INSERT INTO intake_totals (tenant_id, outcome, spans)"
        " SELECT tenant_id, 'accepted', sum(spans) FROM intake_totals GROUP BY tenant_id"
    )


def downgrade() -> None:
    op.drop_table("intake_totals")
