"""Payments: packs of credits, top-ups, and events of the payment provider. Only new tables."""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"

INT64 = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
IN_FLIGHT = sa.text("automatic = 1 AND state = 'open'")
TABLES = ("packs", "topups", "payment_events", "payment_returns", "payment_fees", "payment_methods", "auto_topups")


def upgrade() -> None:
    op.create_table(
        "packs",
        sa.Column("id", INT64, autoincrement=True, nullable=False),
        sa.Column("tenant_id", INT64, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("credits_nano", INT64, nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("amount_minor", INT64, nullable=False),
        sa.Column("expires_days", INT64, nullable=False),
        sa.Column("author", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("recorded_at_ns", INT64, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_packs")),
        sqlite_strict=True,
    )
    op.create_index("ix_packs_name", "packs", ["tenant_id", "name", "id"], unique=False)
    op.create_table(
        "topups",
        sa.Column("id", INT64, autoincrement=True, nullable=False),
        sa.Column("tenant_id", INT64, nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("idempotency_key", sa.Text(), nullable=False),
        sa.Column("request", sa.Text(), nullable=False),
        sa.Column("wallet", sa.Text(), nullable=False),
        sa.Column("automatic", INT64, nullable=False),
        sa.Column("pack_id", INT64, nullable=False),
        sa.Column("amount_nano", INT64, nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("amount_minor", INT64, nullable=False),
        sa.Column("price_nanousd", INT64, nullable=False),
        sa.Column("expires_days", INT64, nullable=False),
        sa.Column("livemode", INT64, nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("checkout_id", sa.Text(), nullable=False),
        sa.Column("checkout_url", sa.Text(), nullable=False),
        sa.Column("checkout_until_ns", INT64, nullable=True),
        sa.Column("payment_intent", sa.Text(), nullable=False),
        sa.Column("transaction_id", INT64, nullable=True),
        sa.Column("lot_id", INT64, nullable=True),
        sa.Column("created_at_ns", INT64, nullable=False),
        sa.Column("paid_at_ns", INT64, nullable=True),
        sa.Column("ended_at_ns", INT64, nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_topups")),
        sa.UniqueConstraint("tenant_id", "idempotency_key", name=op.f("uq_topups_idempotency_key")),
        sa.UniqueConstraint("tenant_id", "key", name=op.f("uq_topups_key")),
        sqlite_strict=True,
    )
    op.create_index("ix_topups_paid_at_ns", "topups", ["tenant_id", "paid_at_ns"], unique=False)
    op.create_index("ix_topups_payment_intent", "topups", ["tenant_id", "payment_intent"], unique=False)
    op.create_index("ix_topups_wallet", "topups", ["tenant_id", "wallet", "id"], unique=False)
    op.create_index(
        "uq_topups_in_flight",
        "topups",
        ["tenant_id", "wallet"],
        unique=True,
        sqlite_where=IN_FLIGHT,
        postgresql_where=IN_FLIGHT,
    )
    op.create_table(
        "payment_events",
        sa.Column("id", INT64, autoincrement=True, nullable=False),
        sa.Column("tenant_id", INT64, nullable=False),
        sa.Column("event_id", sa.Text(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("created_at_ns", INT64, nullable=False),
        sa.Column("received_at_ns", INT64, nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_payment_events")),
        sa.UniqueConstraint("tenant_id", "event_id", name=op.f("uq_payment_events_tenant_id_event_id")),
        sqlite_strict=True,
    )
    op.create_table(
        "payment_returns",
        sa.Column("id", INT64, autoincrement=True, nullable=False),
        sa.Column("tenant_id", INT64, nullable=False),
        sa.Column("return_id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("payment_intent", sa.Text(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("amount_minor", INT64, nullable=False),
        sa.Column("progress", INT64, nullable=False),
        sa.Column("wanted", INT64, nullable=False),
        sa.Column("taken", INT64, nullable=False),
        sa.Column("topup_id", INT64, nullable=True),
        sa.Column("lot_nano", INT64, nullable=False),
        sa.Column("expired_nano", INT64, nullable=False),
        sa.Column("debt_nano", INT64, nullable=False),
        sa.Column("back_nanousd", INT64, nullable=False),
        sa.Column("deferred_nanousd", INT64, nullable=False),
        sa.Column("created_at_ns", INT64, nullable=False),
        sa.Column("recorded_at_ns", INT64, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_payment_returns")),
        sa.UniqueConstraint("tenant_id", "return_id", name=op.f("uq_payment_returns_tenant_id_return_id")),
        sqlite_strict=True,
    )
    op.create_index(
        "ix_payment_returns_payment_intent", "payment_returns", ["tenant_id", "payment_intent"], unique=False
    )
    op.create_table(
        "payment_fees",
        sa.Column("id", INT64, autoincrement=True, nullable=False),
        sa.Column("tenant_id", INT64, nullable=False),
        sa.Column("fee_id", sa.Text(), nullable=False),
        sa.Column("topup_id", INT64, nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("fee_minor", INT64, nullable=False),
        sa.Column("fee_nanousd", INT64, nullable=False),
        sa.Column("transaction_id", INT64, nullable=False),
        sa.Column("recorded_at_ns", INT64, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_payment_fees")),
        sa.UniqueConstraint("tenant_id", "fee_id", name=op.f("uq_payment_fees_tenant_id_fee_id")),
        sqlite_strict=True,
    )
    op.create_index("ix_payment_fees_topup_id", "payment_fees", ["tenant_id", "topup_id"], unique=False)
    op.create_table(
        "payment_methods",
        sa.Column("id", INT64, autoincrement=True, nullable=False),
        sa.Column("tenant_id", INT64, nullable=False),
        sa.Column("wallet", sa.Text(), nullable=False),
        sa.Column("customer", sa.Text(), nullable=False),
        sa.Column("payment_method", sa.Text(), nullable=False),
        sa.Column("recorded_at_ns", INT64, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_payment_methods")),
        sqlite_strict=True,
    )
    op.create_index("ix_payment_methods_wallet", "payment_methods", ["tenant_id", "wallet", "id"], unique=False)
    op.create_table(
        "auto_topups",
        sa.Column("id", INT64, autoincrement=True, nullable=False),
        sa.Column("tenant_id", INT64, nullable=False),
        sa.Column("wallet", sa.Text(), nullable=False),
        sa.Column("enabled", INT64, nullable=False),
        sa.Column("pack", sa.Text(), nullable=False),
        sa.Column("below_nano", INT64, nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("month_cap_minor", INT64, nullable=False),
        sa.Column("author", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("recorded_at_ns", INT64, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_auto_topups")),
        sqlite_strict=True,
    )
    op.create_index("ix_auto_topups_wallet", "auto_topups", ["tenant_id", "wallet", "id"], unique=False)


def downgrade() -> None:
    for name in reversed(TABLES):
        op.drop_table(name)
