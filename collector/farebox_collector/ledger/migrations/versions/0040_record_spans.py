"""In SQLite, an index of records by span that commits leave behind, in the place of the unique key.

The key's index becomes one of its own, which SQLite can drop: copying ten million records to be without it would take
minutes. The format of the file is the same for both, so only two lines of the schema change.
"""

import re

import sqlalchemy as sa
from alembic import op

revision = "0040"
down_revision = "0039"

INT64 = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
KEY = ("tenant_id", "trace_id", "span_id")
COLUMNS = ", ".join(KEY)
UNIQUE = re.compile(rf",\s*(CONSTRAINT \w+ )?UNIQUE \({COLUMNS}\)")
MARK = "records by span"


def upgrade() -> None:
    op.create_table(
        "record_spans",
        sa.Column("tenant_id", INT64, autoincrement=False, nullable=False),
        sa.Column("trace_id", sa.LargeBinary(), nullable=False),
        sa.Column("span_id", sa.LargeBinary(), nullable=False),
        sa.Column("record_id", INT64, nullable=False),
        sa.PrimaryKeyConstraint(*KEY, name=op.f("pk_record_spans")),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    bind = op.get_bind()
    if bind.dialect.name != "sqlite":
        return
    bind.exec_driver_sql(f"INSERT INTO record_spans SELECT {COLUMNS}, id FROM usage_records ORDER BY {COLUMNS}")
    bind.exec_driver_sql("DELETE FROM watermarks WHERE name = ?", (MARK,))
    bind.exec_driver_sql(
        "INSERT INTO watermarks (name, value) SELECT ?, coalesce(max(id), 0) FROM usage_records", (MARK,)
    )
    _drop_unique_key(bind)
    # A record that is deleted leaves the index. The newest id is given again then, and has to be indexed again.
    bind.exec_driver_sql(
        "CREATE TRIGGER usage_records_deleted AFTER DELETE ON usage_records BEGIN"
        " DELETE FROM record_spans WHERE tenant_id = OLD.tenant_id AND trace_id = OLD.trace_id"
        " AND span_id = OLD.span_id AND record_id = OLD.id;"
        " UPDATE watermarks SET value = (SELECT coalesce(max(id), 0) FROM usage_records)"
        f" WHERE name = '{MARK}' AND value > (SELECT coalesce(max(id), 0) FROM usage_records);"
        " END"
    )


def _drop_unique_key(bind: sa.Connection) -> None:
    (table,) = bind.exec_driver_sql("SELECT sql FROM sqlite_master WHERE name = 'usage_records'").one()
    without = UNIQUE.sub("", table)
    assert without != table
    (index,) = bind.exec_driver_sql(
        "SELECT name FROM sqlite_master WHERE type = 'index' AND tbl_name = 'usage_records' AND sql IS NULL"
    ).one()
    _rewrite(bind, without, index, "dropped_key", f"CREATE UNIQUE INDEX dropped_key ON usage_records ({COLUMNS})")
    bind.exec_driver_sql("DROP INDEX dropped_key")


def _rewrite(bind: sa.Connection, table: str, index: str, name: str, definition: str | None) -> None:
    """Give the table and one of its indexes another definition, and the index another name."""
    bind.exec_driver_sql("PRAGMA writable_schema=ON")
    try:
        bind.exec_driver_sql("UPDATE sqlite_master SET sql = ? WHERE name = 'usage_records'", (table,))
        bind.exec_driver_sql("UPDATE sqlite_master SET name = ?, sql = ? WHERE name = ?", (name, definition, index))
    finally:
        # Reads the schema again.
        bind.exec_driver_sql("PRAGMA writable_schema=RESET")


def downgrade() -> None:
    bind = op.get_bind()
    if bind.dialect.name == "sqlite":
        bind.exec_driver_sql("DROP TRIGGER usage_records_deleted")
        bind.exec_driver_sql(f"CREATE UNIQUE INDEX kept_key ON usage_records ({COLUMNS})")
        (table,) = bind.exec_driver_sql("SELECT sql FROM sqlite_master WHERE name = 'usage_records'").one()
        before, end, after = table.rpartition(")")
        key = f", CONSTRAINT uq_usage_records_tenant_id UNIQUE ({COLUMNS})"
        _rewrite(bind, before + key + end + after, "kept_key", "sqlite_autoindex_usage_records_1", None)
    op.drop_table("record_spans")
