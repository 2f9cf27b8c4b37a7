"""What charged calls used at the same prices, filled from the existing records and corrections."""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"

INT64 = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
KEY = ("tenant_id", "provider", "model", "price_version_ids", "reversed")
NAMES = ("provider", "model", "price_version_ids")
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
TOKENS = tuple(f"{kind}_tokens" for kind in KINDS)


def upgrade() -> None:
    op.create_table(
        "card_totals",
        sa.Column("id", INT64, autoincrement=True, nullable=False),
        sa.Column("tenant_id", INT64, nullable=False),
        *(sa.Column(name, sa.Text(), nullable=False) for name in NAMES),
        sa.Column("reversed", INT64, nullable=False),
        sa.Column("requests", INT64, nullable=False),
        *(sa.Column(name, INT64, nullable=False) for name in TOKENS),
        sa.Column("cost_nanousd", INT64, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_card_totals")),
        sa.UniqueConstraint(*KEY, name="uq_card_totals"),
        sqlite_strict=True,
    )
    sums = ", ".join(f"sum(coalesce({name}, 0))" for name in (*TOKENS, "cost_nanousd"))
    op.execute(
        f"INSERT INTO card_totals ({', '.join(KEY)}, requests, {', '.join(TOKENS)}, cost_nanousd)"
        f" SELECT tenant_id, {', '.join(NAMES)}, 0, count(*), {sums}"
        f" FROM usage_records WHERE verdict = 'charged' GROUP BY tenant_id, {', '.join(NAMES)}"
    )
    _add_corrections()


def _add_corrections() -> None:
    """Add corrected amounts to both sides: they were booked once, and taken back."""
    tokens = ", ".join(f"sum(coalesce(r.{name}, 0))" for name in TOKENS)
    add = ", ".join(f"{name} = card_totals.{name} + excluded.{name}" for name in ("requests", *TOKENS, "cost_nanousd"))
    for side in (0, 1):
        op.execute(
            f"INSERT INTO card_totals ({', '.join(KEY)}, requests, {', '.join(TOKENS)}, cost_nanousd)"
            f" SELECT c.tenant_id, c.provider_before, c.model_before, c.price_version_ids_before, {side}, count(*),"
            f" {tokens}, sum(coalesce(c.cost_nanousd_before, 0))"
            " FROM corrections c JOIN usage_records r ON r.id = c.usage_record_id"
            " WHERE c.verdict_before = 'charged'"
            " GROUP BY c.tenant_id, c.provider_before, c.model_before, c.price_version_ids_before"
            f" ON CONFLICT ({', '.join(KEY)}) DO UPDATE SET {add}"
        )


def downgrade() -> None:
    op.drop_table("card_totals")
