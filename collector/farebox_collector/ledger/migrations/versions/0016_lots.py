"""Lots: the sources of credits. Earlier deposits become lots without a price, drawn on like any others."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"

INT64 = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
OF_ACCOUNTS = ("overdraft_nano", "drawn_balance_nano", "drawn_posting_id")


def upgrade() -> None:
    for name in OF_ACCOUNTS:
        op.add_column("accounts", sa.Column(name, INT64, nullable=False, server_default=sa.text("0")))
    op.add_column("transactions", sa.Column("metadata", sa.Text(), nullable=False, server_default=sa.text("''")))
    op.create_table(
        "lots",
        sa.Column("id", INT64, autoincrement=True, nullable=False),
        sa.Column("tenant_id", INT64, nullable=False),
        sa.Column("wallet", sa.Text(), nullable=False),
        sa.Column("transaction_id", INT64, nullable=True),
        sa.Column("origin", sa.Text(), nullable=False),
        sa.Column("amount_nano", INT64, nullable=False),
        sa.Column("remaining_nano", INT64, nullable=False),
        sa.Column("taken_nano", INT64, nullable=False),
        sa.Column("price_nanousd", INT64, nullable=False),
        sa.Column("recognised_nanousd", INT64, nullable=False),
        sa.Column("returned_nanousd", INT64, nullable=False),
        sa.Column("priority", INT64, nullable=False),
        sa.Column("promotional", INT64, nullable=False),
        sa.Column("expires_at_ns", INT64, nullable=True),
        sa.Column("created_at_ns", INT64, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_lots")),
        sqlite_strict=True,
    )
    op.create_index("ix_lots_wallet", "lots", ["tenant_id", "wallet", "id"], unique=False)
    op.create_index("ix_lots_transaction_id", "lots", ["transaction_id"], unique=False)
    op.create_index(
        "ix_lots_expires_at_ns",
        "lots",
        ["expires_at_ns"],
        unique=False,
        sqlite_where=sa.text("remaining_nano > 0"),
        postgresql_where=sa.text("remaining_nano > 0"),
    )
    op.create_table(
        "lot_moves",
        sa.Column("id", INT64, autoincrement=True, nullable=False),
        sa.Column("tenant_id", INT64, nullable=False),
        sa.Column("lot_id", INT64, nullable=False),
        sa.Column("transaction_id", INT64, nullable=True),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("amount_nano", INT64, nullable=False),
        sa.Column("recognised_nanousd", INT64, nullable=False),
        sa.Column("returned_nanousd", INT64, nullable=False),
        sa.Column("recorded_at_ns", INT64, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_lot_moves")),
        sqlite_strict=True,
    )
    op.create_index("ix_lot_moves_lot_id", "lot_moves", ["lot_id", "id"], unique=False)
    op.execute(
        "INSERT INTO lots (tenant_id, wallet, transaction_id, origin, amount_nano, remaining_nano, taken_nano,"
        " price_nanousd, recognised_nanousd, returned_nanousd, priority, promotional, expires_at_ns, created_at_ns)"
        " SELECT a.tenant_id, a.name, t.id, t.kind, p.amount_nano, p.amount_nano, 0, 0, 0, 0, 100, 0, NULL,"
        " t.recorded_at_ns FROM postings p JOIN accounts a ON a.id = p.account_id"
        " JOIN transactions t ON t.id = p.transaction_id WHERE a.kind = 'wallet' AND t.kind = 'deposit' ORDER BY p.id"
    )
    # Drawn up to the deposits; usage since then is not drawn yet.
    op.execute(
        "UPDATE accounts SET drawn_balance_nano = (SELECT coalesce(sum(l.amount_nano), 0) FROM lots l"
        " WHERE l.tenant_id = accounts.tenant_id AND l.wallet = accounts.name) WHERE kind = 'wallet'"
    )


def downgrade() -> None:
    op.drop_table("lot_moves")
    op.drop_table("lots")
    op.drop_column("transactions", "metadata")
    for name in OF_ACCOUNTS:
        op.drop_column("accounts", name)
