"""Erased names as keyed hashes, and the secret for hashing a tenant's names."""

import sqlalchemy as sa
from alembic import op

revision = "0036"
down_revision = "0035"

INT64 = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
STRICT = {"sqlite_strict": True}


def upgrade() -> None:
    op.create_table(
        "name_secrets",
        sa.Column("id", INT64, autoincrement=True, nullable=False),
        sa.Column("tenant_id", INT64, nullable=False),
        sa.Column("secret", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_name_secrets")),
        sa.UniqueConstraint("tenant_id", name=op.f("uq_name_secrets_tenant_id")),
        **STRICT,
    )
    op.create_table(
        "erased_names",
        sa.Column("tenant_id", INT64, nullable=False),
        sa.Column("name_hmac", sa.LargeBinary(), nullable=False),
        sa.Column("pseudonym", sa.Text(), nullable=False),
        sa.Column("begun_at_ns", INT64, nullable=False),
        sa.Column("renamed_at_ns", INT64, nullable=True),
        sa.Column("ended_at_ns", INT64, nullable=True),
        sa.PrimaryKeyConstraint("tenant_id", "name_hmac", name=op.f("pk_erased_names")),
        **STRICT,
    )


def downgrade() -> None:
    op.drop_table("erased_names")
    op.drop_table("name_secrets")
