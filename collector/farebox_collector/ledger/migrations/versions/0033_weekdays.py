"""Prices for some days of the week."""

import sqlalchemy as sa
from alembic import op

revision = "0033"
down_revision = "0032"

INT64 = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
BOOK_LOCK = 0x7072696365  # as in revision 0008


def _within(second: str, start: str, end: str) -> str:
    """SQL: whether a second of the day lies in half-open hours that may cross midnight; equal ends are all day."""
    after, before = f"{second} >= {start}", f"{second} < {end}"
    return f"CASE WHEN {start} < {end} THEN {after} AND {before} ELSE {after} OR {before} END"


def _partial(row: str) -> str:
    """SQL: whether a price holds only at certain times of the week."""
    return f"({row}.daily_from_s <> {row}.daily_to_s OR {row}.weekdays <> 0)"


# A price for weekly times takes precedence over one for the whole week, so those two may overlap.
def _same_moment(n: str, *, weekdays: bool) -> str:
    """SQL: whether a row and the row `o` are two prices of one slot at the same time."""
    hours = f"""({_within(f"{n}.daily_from_s", "o.daily_from_s", "o.daily_to_s")}
             OR {_within("o.daily_from_s", f"{n}.daily_from_s", f"{n}.daily_to_s")})"""
    days = f"(o.weekdays = 0 OR {n}.weekdays = 0 OR (o.weekdays & {n}.weekdays) <> 0)"
    if weekdays:
        times = f"""CASE WHEN {_partial("o")} AND {_partial(n)} THEN {hours} AND {days}
            ELSE NOT {_partial("o")} AND NOT {_partial(n)} END"""
    else:
        times = f"""CASE WHEN o.daily_from_s = o.daily_to_s OR {n}.daily_from_s = {n}.daily_to_s
            THEN o.daily_from_s = o.daily_to_s AND {n}.daily_from_s = {n}.daily_to_s ELSE {hours} END"""
    return f"""
    o.provider = {n}.provider AND o.model = {n}.model AND o.unit = {n}.unit AND o.condition = {n}.condition
    AND o.over_input_tokens = {n}.over_input_tokens AND coalesce(o.tenant_id, 0) = coalesce({n}.tenant_id, 0)
    AND (o.valid_to_ns IS NULL OR (o.valid_to_ns > o.valid_from_ns AND o.valid_to_ns > {n}.valid_from_ns))
    AND ({n}.valid_to_ns IS NULL OR ({n}.valid_to_ns > {n}.valid_from_ns AND {n}.valid_to_ns > o.valid_from_ns))
    AND {times}
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


def _guard(*, weekdays: bool) -> None:
    """Reject two prices of one slot at the same time, and changes of a price, in the database."""
    bind = op.get_bind()
    if bind.dialect.name == "sqlite":
        altered = " OR ".join(f"NEW.{name} IS NOT OLD.{name}" for name in (*FIXED, *(["weekdays"] * weekdays)))
        for statement in (
            f"""CREATE TRIGGER price_versions_overlap BEFORE INSERT ON price_versions BEGIN
            SELECT RAISE(ABORT, 'price versions overlap')
            WHERE EXISTS (SELECT 1 FROM price_versions o WHERE {_same_moment("NEW", weekdays=weekdays)});
            END""",
            f"""CREATE TRIGGER price_versions_altered BEFORE UPDATE ON price_versions
            WHEN {altered} OR NOT ({BROUGHT_FORWARD})
            BEGIN SELECT RAISE(ABORT, 'price versions are never altered, only ended'); END""",
        ):
            bind.exec_driver_sql(statement)
        return
    bind.exec_driver_sql(
        f"""CREATE OR REPLACE FUNCTION price_versions_overlap() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            PERFORM pg_advisory_xact_lock({BOOK_LOCK});
            IF EXISTS (
                SELECT 1 FROM new_versions n
                JOIN price_versions o ON o.id <> n.id AND {_same_moment("n", weekdays=weekdays)}
            ) THEN
                RAISE EXCEPTION 'price versions overlap' USING ERRCODE = 'exclusion_violation';
            END IF;
            RETURN NULL;
        END $$"""
    )


def _unguard() -> None:
    """Drop the triggers: on SQLite a column cannot be dropped while a trigger names it. They are created again."""
    bind = op.get_bind()
    if bind.dialect.name == "sqlite":
        for name in ("overlap", "altered"):
            bind.exec_driver_sql(f"DROP TRIGGER price_versions_{name}")


def upgrade() -> None:
    _unguard()
    op.add_column("price_versions", sa.Column("weekdays", INT64, nullable=False, server_default=sa.text("0")))
    _guard(weekdays=True)


def downgrade() -> None:
    _unguard()
    if op.get_bind().dialect.name == "postgresql":
        _guard(weekdays=False)
    op.drop_column("price_versions", "weekdays")
    if op.get_bind().dialect.name == "sqlite":
        _guard(weekdays=False)
