"""An index of the charged records of a trace without a response id: one of them may sum up the others."""

import sqlalchemy as sa
from alembic import op

revision = "0034"
down_revision = "0033"

_INDEX = "ix_usage_records_without_id_trace"
_WITHOUT_ID = "response_id = '' AND verdict = 'charged'"


def upgrade() -> None:
    op.create_index(
        _INDEX,
        "usage_records",
        ["tenant_id", "trace_id"],
        sqlite_where=sa.text(_WITHOUT_ID),
        postgresql_where=sa.text(_WITHOUT_ID),
    )


def downgrade() -> None:
    op.drop_index(_INDEX, "usage_records")
