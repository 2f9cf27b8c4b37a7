"""A row for each signed link: its creator, and whether it was revoked. Continue the sequence of tenant ids."""

import sqlalchemy as sa
from alembic import op

revision = "0029"
down_revision = "0028"

INT64 = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "wallet_links",
        sa.Column("id", INT64, autoincrement=True, nullable=False),
        sa.Column("tenant_id", INT64, nullable=False),
        sa.Column("secret_id", INT64, nullable=False),
        sa.Column("wallet", sa.Text(), nullable=False),
        sa.Column("minted_by", sa.Text(), nullable=False),
        sa.Column("created_at_ns", INT64, nullable=False),
        sa.Column("expires_at_ns", INT64, nullable=False),
        sa.Column("revoked_at_ns", INT64, nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_wallet_links")),
        sqlite_strict=True,
    )
    op.create_index("ix_wallet_links_minted_by", "wallet_links", ["tenant_id", "minted_by", "id"], unique=False)
    op.create_index("ix_wallet_links_expires_at", "wallet_links", ["tenant_id", "expires_at_ns"], unique=False)

    if op.get_bind().dialect.name == "postgresql":
        # The tenant `default` was inserted with an explicit id, which its sequence did not see.
        op.execute(
            "SELECT setval(pg_get_serial_sequence('tenants', 'id'),"
            " (SELECT max(id) FROM tenants)) WHERE EXISTS (SELECT 1 FROM tenants)"
        )


def downgrade() -> None:
    op.drop_table("wallet_links")
