"""What charged calls used at the same prices by day, filled from the existing records."""

import sqlalchemy as sa
from alembic import op

revision = "0024"
down_revision = "0023"

INT64 = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
DAY_NS = 86_400 * 10**9
NAMES = (
    "provider",
    "model",
    "price_version_ids",
    "event",
    "dept",
    "project",
    "task",
    "route",
    "region",
    "service_tier",
)
KINDS = (
    "input",
    "cache_read",
    "cache_write",
    "cache_write_1h",
    "input_audio",
    "input_image",
    "output",
    "output_audio",
    "output_image",
    "reasoning",
)
SUMS = (*(f"{kind}_tokens" for kind in KINDS), "cost_nanousd", "charge_nanocredits")
TIERS = (
    "'', 'auto', 'batch', 'default', 'fast', 'flex', 'on-demand', 'on_demand', 'performance', 'priority',"
    " 'provisioned', 'reserved', 'scale', 'standard', 'standard_only'"
)


def upgrade() -> None:
    op.create_table(
        "cost_days",
        sa.Column("id", INT64, autoincrement=True, nullable=False),
        sa.Column("tenant_id", INT64, nullable=False),
        sa.Column("day", INT64, nullable=False),
        *(sa.Column(name, sa.Text(), nullable=False) for name in NAMES),
        sa.Column("requests", INT64, nullable=False),
        *(sa.Column(name, INT64, nullable=False) for name in SUMS),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_cost_days")),
        sa.UniqueConstraint("tenant_id", "day", *NAMES, name="uq_cost_days"),
        sqlite_strict=True,
    )
    tier = f"CASE WHEN service_tier IN ({TIERS}) THEN service_tier ELSE 'other' END"
    key = ", ".join(("tenant_id", f"priced_at_ns / {DAY_NS}", *NAMES[:-1], tier))
    op.execute(
        f"INSERT INTO cost_days (tenant_id, day, {', '.join(NAMES)}, requests, {', '.join(SUMS)})"
        f" SELECT {key}, count(*), {', '.join(f'coalesce(sum({name}), 0)' for name in SUMS)}"
        f" FROM usage_records WHERE verdict = 'charged' GROUP BY {key}"
    )


def downgrade() -> None:
    op.drop_table("cost_days")
