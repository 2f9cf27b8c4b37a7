"""Limits: policies, users of shared wallets, and spending by department, project and user."""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"

INT64 = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
DAY_NS = 86_400 * 10**9
SUBJECT = ("scope", "name", "user_id")
OF_HOLDS = ("user_id", "dept", "project")
SPENDERS = {"dept": ("dept", "''"), "project": ("project", "''"), "user": ("wallet", "user_id")}


def _table(name: str, *columns: sa.Column[int] | sa.Column[str], key: tuple[str, ...] = ()) -> None:
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
    op.add_column("usage_records", sa.Column("user_id", sa.Text(), nullable=False, server_default=sa.text("''")))
    for name in OF_HOLDS:
        op.add_column("holds", sa.Column(name, sa.Text(), nullable=False, server_default=sa.text("''")))
    limits = ("day_limit_nano", "month_limit_nano", "soft_day_limit_nano", "soft_month_limit_nano")
    _table(
        "spending_policies",
        *_words(*SUBJECT),
        _number("hard_stop"),
        *(_number(name, nullable=True) for name in limits),
        _number("valid_from_ns"),
        _number("valid_to_ns", nullable=True),
        *_words("author", "reason"),
        _number("recorded_at_ns"),
    )
    op.create_index("ix_spending_policies_name", "spending_policies", ["tenant_id", *SUBJECT, "id"], unique=False)
    key = ("tenant_id", "day", *SUBJECT)
    _table("spending_days", _number("day"), *_words(*SUBJECT), _number("charge_nanocredits"), key=key)
    _table("spenders", *_words(*SUBJECT), _number("held_nano"), key=("tenant_id", *SUBJECT))
    for scope, (name, user_id) in SPENDERS.items():
        chosen = user_id if scope == "user" else name
        op.execute(
            "INSERT INTO spending_days (tenant_id, day, scope, name, user_id, charge_nanocredits)"
            f" SELECT tenant_id, priced_at_ns / {DAY_NS}, '{scope}', {name}, {user_id}, sum(charge_nanocredits)"
            f" FROM usage_records WHERE verdict = 'charged' AND {chosen} <> ''"
            f" GROUP BY tenant_id, priced_at_ns / {DAY_NS}, {name}{', user_id' if scope == 'user' else ''}"
        )


def downgrade() -> None:
    for name in ("spenders", "spending_days", "spending_policies"):
        op.drop_table(name)
    for name in OF_HOLDS:
        op.drop_column("holds", name)
    op.drop_column("usage_records", "user_id")
