"""Claims on calls by time slots, replacing a unique key over random ids; drop the index over the wallets of all
records.

Replicas of the version before must be stopped: they would charge calls without claiming them.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa
from alembic import op
from alembic.operations import BatchOperations

revision = "0023"
down_revision = "0022"

INT64 = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
STRICT = {"sqlite_strict": True}
FRACTION = 2**36 - 1
FIRST = "(started_at_ns >> 36)"
FURTHER = f"((latency_ns >> 36) + (((started_at_ns & {FRACTION}) + (latency_ns & {FRACTION})) >> 36))"
APART = "verdict != 'charged' OR corrections > 0"


def upgrade() -> None:
    op.create_table(
        "call_claims",
        sa.Column("tenant_id", INT64, autoincrement=False, nullable=False),
        sa.Column("slot", INT64, autoincrement=False, nullable=False),
        sa.Column("call_key", sa.LargeBinary(), nullable=False),
        sa.Column("usage_record_id", INT64, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "slot", "call_key", name=op.f("pk_call_claims")),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    # The column was unique until now, so there is one record per call.
    op.execute(
        f"""
        INSERT INTO call_claims (tenant_id, slot, call_key, usage_record_id)
        WITH RECURSIVE steps (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM steps WHERE n < 63)
        SELECT tenant_id, {FIRST} + n, call_key, id FROM usage_records JOIN steps ON n <= {FURTHER}
        WHERE call_key IS NOT NULL ORDER BY 1, 2, 3
        """
    )
    op.drop_index("ix_usage_records_wallet", "usage_records")
    op.create_index(
        "ix_usage_records_apart",
        "usage_records",
        ["tenant_id", "wallet", "id"],
        unique=False,
        sqlite_where=sa.text(APART),
        postgresql_where=sa.text(APART),
    )
    with rebuilt() as batch_op:
        batch_op.drop_constraint("uq_usage_records_tenant_id_call_key", type_="unique")


@contextmanager
def rebuilt() -> Iterator[BatchOperations]:
    """Alter usage records. SQLite copies the table for that, which it refuses while other tables refer to it."""
    sqlite = op.get_bind().dialect.name == "sqlite"
    if sqlite:
        op.execute("CREATE TEMPORARY TABLE referring AS SELECT * FROM corrections")
        op.execute("DELETE FROM corrections")
    with op.batch_alter_table("usage_records", schema=None, table_kwargs=STRICT) as batch_op:
        yield batch_op
    if sqlite:
        op.execute("INSERT INTO corrections SELECT * FROM referring")
        op.execute("DROP TABLE referring")


def downgrade() -> None:
    # Among calls with one id at different times one keeps the key.
    op.execute(
        "UPDATE usage_records SET call_key = NULL WHERE call_key IS NOT NULL AND id NOT IN"
        " (SELECT min(id) FROM usage_records WHERE call_key IS NOT NULL GROUP BY tenant_id, call_key)"
    )
    with rebuilt() as batch_op:
        batch_op.create_unique_constraint("uq_usage_records_tenant_id_call_key", ["tenant_id", "call_key"])
    op.drop_index("ix_usage_records_apart", "usage_records")
    op.create_index("ix_usage_records_wallet", "usage_records", ["tenant_id", "wallet", "id"], unique=False)
    op.drop_table("call_claims")
