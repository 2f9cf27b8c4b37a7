"""Postings by account, filled in bulk, replacing SQLite's index; PostgreSQL keeps its index."""

import sqlalchemy as sa
from alembic import op

revision = "0026"
down_revision = "0025"

INT64 = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
KEY = ("account_id", "transaction_id", "posting_id")
UPTO = "postings by account"


def upgrade() -> None:
    op.create_table(
        "account_postings",
        *(sa.Column(name, INT64, autoincrement=False, nullable=False) for name in KEY),
        sa.PrimaryKeyConstraint(*KEY, name=op.f("pk_account_postings")),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    if op.get_bind().dialect.name != "sqlite":
        return
    op.execute(
        f"INSERT INTO account_postings ({', '.join(KEY)})"
        " SELECT account_id, transaction_id, id FROM postings ORDER BY account_id, transaction_id, id"
    )
    op.execute(f"INSERT INTO watermarks (name, value) SELECT '{UPTO}', coalesce(max(id), 0) FROM postings")
    op.drop_index("ix_postings_account_id", "postings")


def downgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        op.create_index("ix_postings_account_id", "postings", ["account_id", "transaction_id"], unique=False)
        op.execute(f"DELETE FROM watermarks WHERE name = '{UPTO}'")
    op.drop_table("account_postings")
