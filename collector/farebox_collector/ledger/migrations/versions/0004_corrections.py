"""Corrections, audit runs, and the progress of incremental jobs."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

INT64 = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "audits",
        sa.Column("id", INT64, autoincrement=True, nullable=False),
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("ended_at_ns", INT64, nullable=False),
        sa.Column("upto_transaction", INT64, nullable=False),
        sa.Column("mismatches", INT64, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audits")),
        sqlite_strict=True,
    )
    op.create_table(
        "watermarks",
        sa.Column("id", INT64, autoincrement=True, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("value", INT64, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_watermarks")),
        sa.UniqueConstraint("name", name=op.f("uq_watermarks_name")),
        sqlite_strict=True,
    )
    op.create_table(
        "corrections",
        sa.Column("id", INT64, autoincrement=True, nullable=False),
        sa.Column("tenant_id", INT64, nullable=False),
        sa.Column("usage_record_id", INT64, nullable=False),
        sa.Column("number", INT64, nullable=False),
        sa.Column("transaction_id", INT64, nullable=True),
        sa.Column("recorded_at_ns", INT64, nullable=False),
        sa.Column("cause", sa.Text(), nullable=False),
        sa.Column("verdict_before", sa.Text(), nullable=False),
        sa.Column("verdict_after", sa.Text(), nullable=False),
        sa.Column("reason_before", sa.Text(), nullable=False),
        sa.Column("reason_after", sa.Text(), nullable=False),
        sa.Column("provider_before", sa.Text(), nullable=False),
        sa.Column("provider_after", sa.Text(), nullable=False),
        sa.Column("model_before", sa.Text(), nullable=False),
        sa.Column("model_after", sa.Text(), nullable=False),
        sa.Column("cost_nanousd_before", INT64, nullable=True),
        sa.Column("cost_nanousd_after", INT64, nullable=True),
        sa.Column("charge_nanocredits_before", INT64, nullable=True),
        sa.Column("charge_nanocredits_after", INT64, nullable=True),
        sa.Column("price_version_ids_before", sa.Text(), nullable=False),
        sa.Column("price_version_ids_after", sa.Text(), nullable=False),
        sa.Column("rule_version_id_before", INT64, nullable=True),
        sa.Column("rule_version_id_after", INT64, nullable=True),
        sa.ForeignKeyConstraint(["usage_record_id"], ["usage_records.id"], name=op.f("fk_corrections_usage_record_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_corrections")),
        sa.UniqueConstraint(
            "tenant_id", "usage_record_id", "number", name=op.f("uq_corrections_tenant_id_usage_record_id_number")
        ),
        sqlite_strict=True,
    )
    with op.batch_alter_table("corrections", schema=None) as batch_op:
        batch_op.create_index("ix_corrections_recorded_at_ns", ["tenant_id", "recorded_at_ns"], unique=False)
        batch_op.create_index("ix_corrections_transaction_id", ["transaction_id"], unique=False)

    op.create_table(
        "audited_balances",
        sa.Column("account_id", INT64, autoincrement=False, nullable=False),
        sa.Column("upto_transaction", INT64, nullable=False),
        sa.Column("balance_nano", INT64, nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_audited_balances_account_id")),
        sa.PrimaryKeyConstraint("account_id", name=op.f("pk_audited_balances")),
        sqlite_strict=True,
    )
    with op.batch_alter_table("usage_records", schema=None) as batch_op:
        batch_op.add_column(sa.Column("corrections", INT64, server_default=sa.text("0"), nullable=False))
        batch_op.create_index(
            "ix_usage_records_unsettled",
            ["tenant_id", "verdict", "id"],
            unique=False,
            sqlite_where=sa.text("verdict IN ('unpriced', 'unmetered', 'deferred')"),
            postgresql_where=sa.text("verdict IN ('unpriced', 'unmetered', 'deferred')"),
        )


def downgrade() -> None:
    with op.batch_alter_table("usage_records", schema=None) as batch_op:
        batch_op.drop_index(
            "ix_usage_records_unsettled",
            sqlite_where=sa.text("verdict IN ('unpriced', 'unmetered', 'deferred')"),
            postgresql_where=sa.text("verdict IN ('unpriced', 'unmetered', 'deferred')"),
        )
        batch_op.drop_column("corrections")

    op.drop_table("audited_balances")
    with op.batch_alter_table("corrections", schema=None) as batch_op:
        batch_op.drop_index("ix_corrections_transaction_id")
        batch_op.drop_index("ix_corrections_recorded_at_ns")

    op.drop_table("corrections")
    op.drop_table("watermarks")
    op.drop_table("audits")
