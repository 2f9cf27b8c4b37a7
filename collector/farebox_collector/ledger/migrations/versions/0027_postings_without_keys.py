"""Drop foreign keys of postings in PostgreSQL: each costs a query per row, and the audit finds what they prevent."""

from alembic import op

revision = "0027"
down_revision = "0026"

KEYS = {"transaction_id": "transactions", "account_id": "accounts"}


def upgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        for column in KEYS:
            op.drop_constraint(f"fk_postings_{column}", "postings", type_="foreignkey")


def downgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        for column, table in KEYS.items():
            op.create_foreign_key(f"fk_postings_{column}", "postings", table, [column], ["id"])
