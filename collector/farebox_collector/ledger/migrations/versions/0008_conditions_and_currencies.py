"""Prices by condition, by tenant, from other currencies; append-only and without overlaps by constraint."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"

INT64 = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
NEW_TEXTS = {"condition": "standard", "currency": "USD", "original_per_1k": "", "usd_per_currency": "1"}
BOOK_LOCK = 0x7072696365  # an arbitrary number: "price"


def _within(second: str, start: str, end: str) -> str:
    """SQL: whether a second of the day lies in half-open hours that may cross midnight."""
    after, before = f"{second} >= {start}", f"{second} < {end}"
    return f"CASE WHEN {start} < {end} THEN {after} AND {before} ELSE {after} OR {before} END"


# One slot has one price at a time. Hours of the day take precedence over all day, so those two may overlap.
def _same_moment(n: str) -> str:
    """SQL: whether a row and the row `o` are two prices of one slot at the same time."""
    return f"""
    o.provider = {n}.provider AND o.model = {n}.model AND o.unit = {n}.unit AND o.condition = {n}.condition
    AND o.over_input_tokens = {n}.over_input_tokens AND coalesce(o.tenant_id, 0) = coalesce({n}.tenant_id, 0)
    AND (o.valid_to_ns IS NULL OR (o.valid_to_ns > o.valid_from_ns AND o.valid_to_ns > {n}.valid_from_ns))
    AND ({n}.valid_to_ns IS NULL OR ({n}.valid_to_ns > {n}.valid_from_ns AND {n}.valid_to_ns > o.valid_from_ns))
    AND CASE WHEN o.daily_from_s = o.daily_to_s OR {n}.daily_from_s = {n}.daily_to_s
        THEN o.daily_from_s = o.daily_to_s AND {n}.daily_from_s = {n}.daily_to_s
        ELSE {_within(f"{n}.daily_from_s", "o.daily_from_s", "o.daily_to_s")}
             OR {_within("o.daily_from_s", f"{n}.daily_from_s", f"{n}.daily_to_s")} END
"""


BROUGHT_FORWARD = "NEW.valid_to_ns IS NOT NULL AND (OLD.valid_to_ns IS NULL OR NEW.valid_to_ns <= OLD.valid_to_ns)"
FIXED = (
    "id",
    "import_id",
    "provider",
    "model",
    "unit",
    "over_input_tokens",
    "daily_from_s",
    "daily_to_s",
    "usd_per_1k",
    "valid_from_ns",
    "source",
    "source_version",
    "recorded_at_ns",
    "condition",
    "tenant_id",
    "currency",
    "original_per_1k",
    "usd_per_currency",
)
ALTERED = " OR ".join(f"NEW.{name} IS NOT OLD.{name}" for name in FIXED)
SQLITE = (
    f"""CREATE TRIGGER price_versions_overlap BEFORE INSERT ON price_versions BEGIN
    SELECT RAISE(ABORT, 'price versions overlap')
    WHERE EXISTS (SELECT 1 FROM price_versions o WHERE {_same_moment("NEW")});
    END""",
    f"""CREATE TRIGGER price_versions_altered BEFORE UPDATE ON price_versions
    WHEN {ALTERED} OR NOT ({BROUGHT_FORWARD})
    BEGIN SELECT RAISE(ABORT, 'price versions are never altered, only ended'); END""",
    """CREATE TRIGGER price_versions_deleted BEFORE DELETE ON price_versions
    BEGIN SELECT RAISE(ABORT, 'price versions are never deleted'); END""",
)
# A whole list is one statement and is checked once. Two concurrent writers must see each other's rows: the lock is
# taken before the statement that looks for overlaps.
POSTGRESQL = (
    f"""CREATE FUNCTION price_versions_overlap() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM pg_advisory_xact_lock({BOOK_LOCK});
        IF EXISTS (SELECT 1 FROM new_versions n JOIN price_versions o ON o.id <> n.id AND {_same_moment("n")}) THEN
            RAISE EXCEPTION 'price versions overlap' USING ERRCODE = 'exclusion_violation';
        END IF;
        RETURN NULL;
    END $$""",
    """CREATE TRIGGER price_versions_overlap AFTER INSERT ON price_versions REFERENCING NEW TABLE AS new_versions
    FOR EACH STATEMENT EXECUTE FUNCTION price_versions_overlap()""",
    f"""CREATE FUNCTION price_versions_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF TG_OP = 'DELETE' THEN
            RAISE EXCEPTION 'price versions are never deleted' USING ERRCODE = 'check_violation';
        ELSIF to_jsonb(NEW) - 'valid_to_ns' IS DISTINCT FROM to_jsonb(OLD) - 'valid_to_ns' OR NOT ({BROUGHT_FORWARD})
        THEN
            RAISE EXCEPTION 'price versions are never altered, only ended' USING ERRCODE = 'check_violation';
        END IF;
        RETURN NEW;
    END $$""",
    """CREATE TRIGGER price_versions_append_only BEFORE UPDATE OR DELETE ON price_versions
    FOR EACH ROW EXECUTE FUNCTION price_versions_append_only()""",
)


def upgrade() -> None:
    for name, default in NEW_TEXTS.items():
        column = sa.Column(name, sa.Text(), nullable=False, server_default=sa.text(f"'{default}'"))
        op.add_column("price_versions", column)
    op.add_column("price_versions", sa.Column("tenant_id", INT64, nullable=True))
    op.create_table(
        "exchange_rates",
        sa.Column("id", INT64, autoincrement=True, nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("usd_per_currency", sa.Text(), nullable=False),
        sa.Column("valid_from_ns", INT64, nullable=False),
        sa.Column("author", sa.Text(), nullable=False),
        sa.Column("recorded_at_ns", INT64, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_exchange_rates")),
        sqlite_strict=True,
    )
    bind = op.get_bind()
    for statement in SQLITE if bind.dialect.name == "sqlite" else POSTGRESQL:
        bind.exec_driver_sql(statement)


def downgrade() -> None:
    bind = op.get_bind()
    if bind.dialect.name == "sqlite":
        for name in ("overlap", "altered", "deleted"):
            bind.exec_driver_sql(f"DROP TRIGGER price_versions_{name}")
    else:
        for name in ("overlap", "append_only"):
            bind.exec_driver_sql(f"DROP TRIGGER price_versions_{name} ON price_versions")
            bind.exec_driver_sql(f"DROP FUNCTION price_versions_{name}()")
    op.drop_table("exchange_rates")
    with op.batch_alter_table("price_versions", schema=None) as batch_op:
        for name in (*NEW_TEXTS, "tenant_id"):
            batch_op.drop_column(name)
