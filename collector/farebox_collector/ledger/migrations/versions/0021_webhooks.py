"""Webhooks: low-balance thresholds, endpoints, and messages in delivery."""

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"

INT64 = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _table(name: str, *columns: sa.Column[int] | sa.Column[str] | sa.Column[bytes], key: tuple[str, ...] = ()) -> None:
    unique = [sa.UniqueConstraint(*key, name=op.f(f"uq_{name}_{'_'.join(key)}"))] if key else []
    op.create_table(
        name,
        sa.Column("id", INT64, autoincrement=True, nullable=False),
        sa.Column("tenant_id", INT64, nullable=False),
        *columns,
        sa.PrimaryKeyConstraint("id", name=op.f(f"pk_{name}")),
        *unique,
        sqlite_strict=True,
    )


def _number(name: str, nullable: bool = False) -> sa.Column[int]:
    return sa.Column(name, INT64, nullable=nullable)


def _words(*names: str) -> list[sa.Column[str]]:
    return [sa.Column(name, sa.Text(), nullable=False) for name in names]


def upgrade() -> None:
    _table("balance_thresholds", *_words("wallet", "bounds", "author", "reason"), _number("recorded_at_ns"))
    op.create_index("ix_balance_thresholds_wallet", "balance_thresholds", ["tenant_id", "wallet", "id"], unique=False)
    _table(
        "webhook_endpoints",
        *_words("url"),
        sa.Column("secret", sa.LargeBinary(), nullable=False),
        sa.Column("former_secret", sa.LargeBinary(), nullable=True),
        _number("former_until_ns", nullable=True),
        _number("created_at_ns"),
        _number("removed_at_ns", nullable=True),
    )
    op.create_index("ix_webhook_endpoints_tenant_id", "webhook_endpoints", ["tenant_id", "id"], unique=False)
    _table(
        "webhook_messages",
        _number("endpoint_id"),
        *_words("message_id", "type", "body"),
        _number("created_at_ns"),
        *_words("state"),
        _number("attempts"),
        _number("next_attempt_ns"),
        _number("last_status", nullable=True),
        *_words("last_error"),
        _number("ended_at_ns", nullable=True),
        key=("tenant_id", "message_id", "endpoint_id"),
    )
    op.create_index(
        "ix_webhook_messages_due",
        "webhook_messages",
        ["next_attempt_ns"],
        unique=False,
        sqlite_where=sa.text("state = 'pending'"),
        postgresql_where=sa.text("state = 'pending'"),
    )


def downgrade() -> None:
    for name in ("webhook_messages", "webhook_endpoints", "balance_thresholds"):
        op.drop_table(name)
