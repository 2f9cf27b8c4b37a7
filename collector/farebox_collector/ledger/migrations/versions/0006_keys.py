"""API keys, and the secrets that sign links."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

INT64 = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "api_keys",
        sa.Column("id", INT64, autoincrement=True, nullable=False),
        sa.Column("tenant_id", INT64, nullable=False),
        sa.Column("key_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("scopes", sa.Text(), nullable=False),
        sa.Column("wallet", sa.Text(), nullable=False),
        sa.Column("secret_sha256", sa.LargeBinary(), nullable=False),
        sa.Column("created_at_ns", INT64, nullable=False),
        sa.Column("expires_at_ns", INT64, nullable=True),
        sa.Column("revoked_at_ns", INT64, nullable=True),
        sa.Column("last_used_at_ns", INT64, nullable=True),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f("fk_api_keys_tenant_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_keys")),
        sa.UniqueConstraint("key_id", name=op.f("uq_api_keys_key_id")),
        sqlite_strict=True,
    )
    op.create_table(
        "link_secrets",
        sa.Column("id", INT64, autoincrement=True, nullable=False),
        sa.Column("tenant_id", INT64, nullable=False),
        sa.Column("secret", sa.LargeBinary(), nullable=False),
        sa.Column("created_at_ns", INT64, nullable=False),
        sa.Column("retired_at_ns", INT64, nullable=True),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f("fk_link_secrets_tenant_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_link_secrets")),
        sqlite_strict=True,
    )


def downgrade() -> None:
    op.drop_table("link_secrets")
    op.drop_table("api_keys")
