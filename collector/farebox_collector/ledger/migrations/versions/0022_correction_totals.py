"""Totals of corrections by cause, filled from the existing corrections."""

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0021"

INT64 = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
COST = "(coalesce(cost_nanousd_after, 0) - coalesce(cost_nanousd_before, 0))"
CHARGE = "(coalesce(charge_nanocredits_after, 0) - coalesce(charge_nanocredits_before, 0))"
SUMS = {
    "corrections": "1",
    "cost_up_nanousd": f"CASE WHEN {COST} > 0 THEN {COST} ELSE 0 END",
    "cost_down_nanousd": f"CASE WHEN {COST} < 0 THEN -{COST} ELSE 0 END",
    "charge_up_nanocredits": f"CASE WHEN {CHARGE} > 0 THEN {CHARGE} ELSE 0 END",
    "charge_down_nanocredits": f"CASE WHEN {CHARGE} < 0 THEN -{CHARGE} ELSE 0 END",
}


def upgrade() -> None:
    op.create_table(
        "correction_totals",
        sa.Column("id", INT64, autoincrement=True, nullable=False),
        sa.Column("tenant_id", INT64, nullable=False),
        sa.Column("cause", sa.Text(), nullable=False),
        *(sa.Column(name, INT64, nullable=False) for name in SUMS),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_correction_totals")),
        sa.UniqueConstraint("tenant_id", "cause", name=op.f("uq_correction_totals_tenant_id_cause")),
        sqlite_strict=True,
    )
    op.execute(
        f"INSERT INTO correction_totals (tenant_id, cause, {', '.join(SUMS)})"
        f" SELECT tenant_id, cause, {', '.join(f'sum({figure})' for figure in SUMS.values())}"
        " FROM corrections GROUP BY tenant_id, cause"
    )


def downgrade() -> None:
    op.drop_table("correction_totals")
