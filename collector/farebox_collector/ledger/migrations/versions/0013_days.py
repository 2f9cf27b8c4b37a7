"""Roll-ups of usage by day, filled from the existing records."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"

INT64 = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
DAY_NS = 86_400 * 10**9
INPUT = " + ".join(
    f"coalesce({kind}_tokens, 0)"
    for kind in ("input", "cache_read", "cache_write", "cache_write_1h", "input_audio", "input_image")
)
OUTPUT = "coalesce(output_tokens, 0) + coalesce(output_audio_tokens, 0) + coalesce(output_image_tokens, 0)"
SUMS = {
    "requests": "1",
    "errors": "CASE WHEN error_type <> '' THEN 1 ELSE 0 END",
    "input_tokens": INPUT,
    "output_tokens": OUTPUT,
    "cost_nanousd": "coalesce(cost_nanousd, 0)",
    "charge_nanocredits": "coalesce(charge_nanocredits, 0)",
}
TABLES = {
    "usage_days": (("event", "provider", "model", "verdict"), ""),
    "wallet_days": (("wallet", "event", "provider", "model"), "WHERE verdict = 'charged'"),
}


def upgrade() -> None:
    for table, (names, chosen) in TABLES.items():
        key = ("tenant_id", "day", *names)
        op.create_table(
            table,
            sa.Column("id", INT64, autoincrement=True, nullable=False),
            sa.Column("tenant_id", INT64, nullable=False),
            sa.Column("day", INT64, nullable=False),
            *(sa.Column(name, sa.Text(), nullable=False) for name in names),
            *(sa.Column(name, INT64, nullable=False) for name in SUMS),
            sa.PrimaryKeyConstraint("id", name=op.f(f"pk_{table}")),
            sa.UniqueConstraint(*key, name=op.f(f"uq_{table}_{'_'.join(key)}")),
            sqlite_strict=True,
        )
        op.execute(
            f"INSERT INTO {table} ({', '.join(key)}, {', '.join(SUMS)})"
            f" SELECT tenant_id, priced_at_ns / {DAY_NS}, {', '.join(names)},"
            f" {', '.join(f'sum({figure})' for figure in SUMS.values())} FROM usage_records {chosen}"
            f" GROUP BY tenant_id, priced_at_ns / {DAY_NS}, {', '.join(names)}"
        )


def downgrade() -> None:
    for table in TABLES:
        op.drop_table(table)
