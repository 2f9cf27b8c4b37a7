"""The books: price book, rules, accounts, journal, usage."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

INT64 = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "price_imports",
        sa.Column("id", INT64, autoincrement=True, nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("source_version", sa.Text(), nullable=False),
        sa.Column("imported_at_ns", INT64, nullable=False),
        sa.Column("versions_added", INT64, nullable=False),
        sa.Column("versions_closed", INT64, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_price_imports")),
        sqlite_strict=True,
    )
    op.create_table(
        "priced_models",
        sa.Column("id", INT64, autoincrement=True, nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("position", INT64, nullable=False),
        sa.Column("match", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_priced_models")),
        sa.UniqueConstraint("provider", "model", name=op.f("uq_priced_models_provider_model")),
        sqlite_strict=True,
    )
    op.create_table(
        "tenants",
        sa.Column("id", INT64, autoincrement=True, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("usd_per_credit", sa.Text(), nullable=False),
        sa.Column("created_at_ns", INT64, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tenants")),
        sa.UniqueConstraint("name", name=op.f("uq_tenants_name")),
        sqlite_strict=True,
    )
    op.create_table(
        "usage_conflicts",
        sa.Column("id", INT64, autoincrement=True, nullable=False),
        sa.Column("tenant_id", INT64, nullable=False),
        sa.Column("trace_id", sa.LargeBinary(), nullable=False),
        sa.Column("span_id", sa.LargeBinary(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("received_at_ns", INT64, nullable=False),
        sa.Column("facts", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_usage_conflicts")),
        sa.UniqueConstraint(
            "tenant_id",
            "trace_id",
            "span_id",
            "digest",
            name=op.f("uq_usage_conflicts_tenant_id_trace_id_span_id_digest"),
        ),
        sqlite_strict=True,
    )
    op.create_table(
        "usage_records",
        sa.Column("id", INT64, autoincrement=True, nullable=False),
        sa.Column("tenant_id", INT64, nullable=False),
        sa.Column("trace_id", sa.LargeBinary(), nullable=False),
        sa.Column("span_id", sa.LargeBinary(), nullable=False),
        sa.Column("parent_span_id", sa.LargeBinary(), nullable=False),
        sa.Column("transaction_id", INT64, nullable=False),
        sa.Column("received_at_ns", INT64, nullable=False),
        sa.Column("started_at_ns", INT64, nullable=False),
        sa.Column("priced_at_ns", INT64, nullable=False),
        sa.Column("latency_ns", INT64, nullable=False),
        sa.Column("time_to_first_chunk_ns", INT64, nullable=True),
        sa.Column("wallet", sa.Text(), nullable=False),
        sa.Column("event", sa.Text(), nullable=False),
        sa.Column("action_id", sa.Text(), nullable=False),
        sa.Column("operation", sa.Text(), nullable=False),
        sa.Column("reported_provider", sa.Text(), nullable=False),
        sa.Column("request_model", sa.Text(), nullable=False),
        sa.Column("response_model", sa.Text(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("response_id", sa.Text(), nullable=False),
        sa.Column("call_key", sa.LargeBinary(), nullable=True),
        sa.Column("service_tier", sa.Text(), nullable=False),
        sa.Column("error_type", sa.Text(), nullable=False),
        sa.Column("input_tokens", INT64, nullable=True),
        sa.Column("cache_read_tokens", INT64, nullable=True),
        sa.Column("cache_write_tokens", INT64, nullable=True),
        sa.Column("cache_write_1h_tokens", INT64, nullable=True),
        sa.Column("input_audio_tokens", INT64, nullable=True),
        sa.Column("output_tokens", INT64, nullable=True),
        sa.Column("output_audio_tokens", INT64, nullable=True),
        sa.Column("reasoning_tokens", INT64, nullable=True),
        sa.Column("dept", sa.Text(), nullable=False),
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("task", sa.Text(), nullable=False),
        sa.Column("route", sa.Text(), nullable=False),
        sa.Column("region", sa.Text(), nullable=False),
        sa.Column("dialect", sa.Text(), nullable=False),
        sa.Column("assumptions", sa.Text(), nullable=False),
        sa.Column("verdict", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("cost_nanousd", INT64, nullable=True),
        sa.Column("charge_nanocredits", INT64, nullable=True),
        sa.Column("price_version_ids", sa.Text(), nullable=False),
        sa.Column("rule_version_id", INT64, nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_usage_records")),
        sa.UniqueConstraint("tenant_id", "call_key", name=op.f("uq_usage_records_tenant_id_call_key")),
        sa.UniqueConstraint(
            "tenant_id", "trace_id", "span_id", name=op.f("uq_usage_records_tenant_id_trace_id_span_id")
        ),
        sqlite_strict=True,
    )
    with op.batch_alter_table("usage_records", schema=None) as batch_op:
        batch_op.create_index("ix_usage_records_priced_at_ns", ["tenant_id", "priced_at_ns"], unique=False)
        batch_op.create_index("ix_usage_records_transaction_id", ["transaction_id"], unique=False)
        batch_op.create_index("ix_usage_records_wallet", ["tenant_id", "wallet", "id"], unique=False)

    op.create_table(
        "usage_totals",
        sa.Column("id", INT64, autoincrement=True, nullable=False),
        sa.Column("tenant_id", INT64, nullable=False),
        sa.Column("event", sa.Text(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("verdict", sa.Text(), nullable=False),
        sa.Column("requests", INT64, nullable=False),
        sa.Column("errors", INT64, nullable=False),
        sa.Column("input_tokens", INT64, nullable=False),
        sa.Column("cache_read_tokens", INT64, nullable=False),
        sa.Column("cache_write_tokens", INT64, nullable=False),
        sa.Column("cache_write_1h_tokens", INT64, nullable=False),
        sa.Column("input_audio_tokens", INT64, nullable=False),
        sa.Column("output_tokens", INT64, nullable=False),
        sa.Column("output_audio_tokens", INT64, nullable=False),
        sa.Column("reasoning_tokens", INT64, nullable=False),
        sa.Column("cost_nanousd", INT64, nullable=False),
        sa.Column("charge_nanocredits", INT64, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_usage_totals")),
        sa.UniqueConstraint(
            "tenant_id",
            "event",
            "provider",
            "model",
            "verdict",
            name=op.f("uq_usage_totals_tenant_id_event_provider_model_verdict"),
        ),
        sqlite_strict=True,
    )
    op.create_table(
        "accounts",
        sa.Column("id", INT64, autoincrement=True, nullable=False),
        sa.Column("tenant_id", INT64, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("commodity", sa.Text(), nullable=False),
        sa.Column("created_at_ns", INT64, nullable=False),
        sa.Column("balance_nano", INT64, server_default=sa.text("0"), nullable=False),
        sa.Column("spent_nano", INT64, server_default=sa.text("0"), nullable=False),
        sa.Column("charged_calls", INT64, server_default=sa.text("0"), nullable=False),
        sa.Column("last_activity_ns", INT64, nullable=True),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f("fk_accounts_tenant_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_accounts")),
        sa.UniqueConstraint(
            "tenant_id", "kind", "name", "commodity", name=op.f("uq_accounts_tenant_id_kind_name_commodity")
        ),
        sqlite_strict=True,
    )
    op.create_table(
        "charge_rules",
        sa.Column("id", INT64, autoincrement=True, nullable=False),
        sa.Column("tenant_id", INT64, nullable=False),
        sa.Column("event", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("multiplier", sa.Text(), nullable=False),
        sa.Column("usd_per_credit", sa.Text(), nullable=False),
        sa.Column("valid_from_ns", INT64, nullable=False),
        sa.Column("valid_to_ns", INT64, nullable=True),
        sa.Column("author", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("recorded_at_ns", INT64, nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f("fk_charge_rules_tenant_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_charge_rules")),
        sa.UniqueConstraint(
            "tenant_id", "event", "valid_from_ns", name=op.f("uq_charge_rules_tenant_id_event_valid_from_ns")
        ),
        sqlite_strict=True,
    )
    op.create_table(
        "price_versions",
        sa.Column("id", INT64, autoincrement=True, nullable=False),
        sa.Column("import_id", INT64, nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("unit", sa.Text(), nullable=False),
        sa.Column("over_input_tokens", INT64, nullable=False),
        sa.Column("daily_from_s", INT64, nullable=False),
        sa.Column("daily_to_s", INT64, nullable=False),
        sa.Column("usd_per_1k", sa.Text(), nullable=False),
        sa.Column("valid_from_ns", INT64, nullable=False),
        sa.Column("valid_to_ns", INT64, nullable=True),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("source_version", sa.Text(), nullable=False),
        sa.Column("recorded_at_ns", INT64, nullable=False),
        sa.CheckConstraint(
            "valid_to_ns IS NULL OR valid_to_ns >= valid_from_ns", name=op.f("ck_price_versions_validity")
        ),
        sa.ForeignKeyConstraint(["import_id"], ["price_imports.id"], name=op.f("fk_price_versions_import_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_price_versions")),
        sqlite_strict=True,
    )
    with op.batch_alter_table("price_versions", schema=None) as batch_op:
        batch_op.create_index("ix_price_versions_model", ["provider", "model", "unit", "valid_from_ns"], unique=False)

    op.create_table(
        "transactions",
        sa.Column("id", INT64, autoincrement=True, nullable=False),
        sa.Column("tenant_id", INT64, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("recorded_at_ns", INT64, nullable=False),
        sa.Column("memo", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f("fk_transactions_tenant_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_transactions")),
        sqlite_strict=True,
    )
    op.create_table(
        "idempotency_keys",
        sa.Column("id", INT64, autoincrement=True, nullable=False),
        sa.Column("tenant_id", INT64, nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("request", sa.Text(), nullable=False),
        sa.Column("transaction_id", INT64, nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f("fk_idempotency_keys_tenant_id")),
        sa.ForeignKeyConstraint(
            ["transaction_id"], ["transactions.id"], name=op.f("fk_idempotency_keys_transaction_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_idempotency_keys")),
        sa.UniqueConstraint("tenant_id", "key", name=op.f("uq_idempotency_keys_tenant_id_key")),
        sqlite_strict=True,
    )
    op.create_table(
        "postings",
        sa.Column("id", INT64, autoincrement=True, nullable=False),
        sa.Column("transaction_id", INT64, nullable=False),
        sa.Column("account_id", INT64, nullable=False),
        sa.Column("commodity", sa.Text(), nullable=False),
        sa.Column("amount_nano", INT64, nullable=False),
        sa.Column("event", sa.Text(), nullable=False),
        sa.Column("rule_version_id", INT64, nullable=True),
        sa.Column("records", INT64, nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_postings_account_id")),
        sa.ForeignKeyConstraint(["transaction_id"], ["transactions.id"], name=op.f("fk_postings_transaction_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_postings")),
        sqlite_strict=True,
    )
    with op.batch_alter_table("postings", schema=None) as batch_op:
        batch_op.create_index("ix_postings_account_id", ["account_id", "transaction_id"], unique=False)
        batch_op.create_index("ix_postings_transaction_id", ["transaction_id"], unique=False)


def downgrade() -> None:
    with op.batch_alter_table("postings", schema=None) as batch_op:
        batch_op.drop_index("ix_postings_transaction_id")
        batch_op.drop_index("ix_postings_account_id")

    op.drop_table("postings")
    op.drop_table("idempotency_keys")
    op.drop_table("transactions")
    with op.batch_alter_table("price_versions", schema=None) as batch_op:
        batch_op.drop_index("ix_price_versions_model")

    op.drop_table("price_versions")
    op.drop_table("charge_rules")
    op.drop_table("accounts")
    op.drop_table("usage_totals")
    with op.batch_alter_table("usage_records", schema=None) as batch_op:
        batch_op.drop_index("ix_usage_records_wallet")
        batch_op.drop_index("ix_usage_records_transaction_id")
        batch_op.drop_index("ix_usage_records_priced_at_ns")

    op.drop_table("usage_records")
    op.drop_table("usage_conflicts")
    op.drop_table("tenants")
    op.drop_table("priced_models")
    op.drop_table("price_imports")
