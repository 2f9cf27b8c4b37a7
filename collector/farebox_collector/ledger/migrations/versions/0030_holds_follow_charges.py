"""Net charges of holds, the end of a wallet's last hold, call times of transactions, first calls of actions."""

import sqlalchemy as sa
from alembic import op

revision = "0030"
down_revision = "0029"

INT64 = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _zero(name: str) -> "sa.Column[int]":
    return sa.Column(name, INT64, nullable=False, server_default=sa.text("0"))


def upgrade() -> None:
    op.add_column("holds", _zero("settled_nano"))
    op.execute("UPDATE holds SET settled_nano = amount_nano - open_nano WHERE state IN ('open', 'settled')")
    op.create_index(
        "ix_holds_due",
        "holds",
        ["tenant_id", "expires_at_ns"],
        sqlite_where=sa.text("state = 'open'"),
        postgresql_where=sa.text("state = 'open'"),
    )
    op.add_column("accounts", _zero("holds_until_ns"))
    op.execute(
        "UPDATE accounts SET holds_until_ns = coalesce((SELECT max(h.expires_at_ns) FROM holds h"
        " WHERE h.tenant_id = accounts.tenant_id AND h.wallet = accounts.name AND h.state IN ('open', 'settled')), 0)"
        " WHERE kind = 'wallet'"
    )
    op.add_column("transactions", sa.Column("calls_from_ns", INT64, nullable=True))
    op.add_column("transactions", sa.Column("calls_to_ns", INT64, nullable=True))
    # 0 sorts before every call: the decision of the first recorded call stays.
    op.add_column("charged_actions", _zero("first_started_ns"))
    op.add_column("charged_actions", _zero("last_started_ns"))
    op.add_column("charged_actions", sa.Column("first_span", sa.Text(), nullable=False, server_default=sa.text("''")))


def downgrade() -> None:
    for table, names in (
        ("charged_actions", ("first_span", "last_started_ns", "first_started_ns")),
        ("transactions", ("calls_to_ns", "calls_from_ns")),
        ("accounts", ("holds_until_ns",)),
    ):
        for name in names:
            op.drop_column(table, name)
    op.drop_index("ix_holds_due", "holds")
    op.drop_column("holds", "settled_nano")
