"""Roll-ups of movements by day, filled from the existing postings; creation times of lots."""

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"

INT64 = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
DAY_NS = 86_400 * 10**9


def upgrade() -> None:
    op.create_table(
        "money_days",
        sa.Column("id", INT64, autoincrement=True, nullable=False),
        sa.Column("tenant_id", INT64, nullable=False),
        sa.Column("day", INT64, nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("postings", INT64, nullable=False),
        sa.Column("in_nano", INT64, nullable=False),
        sa.Column("out_nano", INT64, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_money_days")),
        sa.UniqueConstraint(
            "tenant_id", "day", "source", "account", name=op.f("uq_money_days_tenant_id_day_source_account")
        ),
        sqlite_strict=True,
    )
    op.execute(
        "INSERT INTO money_days (tenant_id, day, source, account, postings, in_nano, out_nano)"
        f" SELECT t.tenant_id, t.recorded_at_ns / {DAY_NS}, t.kind, a.kind, count(*),"
        " sum(CASE WHEN p.amount_nano > 0 THEN p.amount_nano ELSE 0 END),"
        " sum(CASE WHEN p.amount_nano < 0 THEN -p.amount_nano ELSE 0 END)"
        " FROM transactions t JOIN postings p ON p.transaction_id = t.id JOIN accounts a ON a.id = p.account_id"
        " WHERE t.kind NOT IN ('usage', 'correction')"
        f" GROUP BY t.tenant_id, t.recorded_at_ns / {DAY_NS}, t.kind, a.kind"
    )
    op.create_index("ix_lots_created_at_ns", "lots", ["tenant_id", "created_at_ns"], unique=False)


def downgrade() -> None:
    op.drop_index("ix_lots_created_at_ns", table_name="lots")
    op.drop_table("money_days")
