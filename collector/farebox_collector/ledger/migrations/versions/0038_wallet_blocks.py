"""Usage of wallets by blocks of eight days, filled from their days.

Replicas of the version before must be stopped: they would not write blocks.
"""

import sqlalchemy as sa
from alembic import op

revision = "0038"
down_revision = "0037"

INT64 = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
DAYS = 8
SUMS = ("requests", "errors", "input_tokens", "output_tokens", "cost_nanousd", "charge_nanocredits")
OF_DAY = {
    f"{name}_{place}": f"sum(CASE WHEN day % {DAYS} = {place} THEN {name} ELSE 0 END)"
    for name in ("requests", "cost_nanousd")
    for place in range(DAYS)
}


def upgrade() -> None:
    op.create_table(
        "wallet_blocks",
        sa.Column("tenant_id", INT64, autoincrement=False, nullable=False),
        sa.Column("block", INT64, autoincrement=False, nullable=False),
        sa.Column("wallet", sa.Text(), nullable=False),
        *(sa.Column(name, INT64, nullable=False) for name in SUMS),
        *(sa.Column(name, INT64, nullable=False, server_default=sa.text("0")) for name in OF_DAY),
        sa.PrimaryKeyConstraint("tenant_id", "block", "wallet", name=op.f("pk_wallet_blocks")),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    figures = {name: f"sum({name})" for name in SUMS} | OF_DAY
    op.execute(
        f"INSERT INTO wallet_blocks (tenant_id, block, wallet, {', '.join(figures)})"
        f" SELECT tenant_id, day / {DAYS}, wallet, {', '.join(figures.values())} FROM wallet_days"
        f" GROUP BY tenant_id, day / {DAYS}, wallet"
    )


def downgrade() -> None:
    op.drop_table("wallet_blocks")
