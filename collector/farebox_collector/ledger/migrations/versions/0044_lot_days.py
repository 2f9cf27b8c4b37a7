"""Roll-ups of lots and of overdraft by day, filled from the existing lots; the pack of each lot.

How overdraft changed is not known for earlier days. What a wallet owes counts on the day of its last activity, because
overdraft is the newest usage. The audit compares whole days from the upgrade on: older versions wrote some moves of
returned payments in another way. Tenants with returns that still have to be carried over are not compared.
"""

import sqlalchemy as sa
from alembic import op

revision = "0044"
down_revision = "0042"

BRIDGE_SINCE = "bridge: the first whole day"
DRAWN_BEFORE = "bridge: drawn otherwise before, tenant "
CARRIED = "bridge: returns to carry over, tenant "
INT64 = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
DAY_NS = 86_400 * 10**9
SUMS = [
    f"{way}_{unit}" for way in ("sold", "transferred", "used", "expired", "returned") for unit in ("nano", "nanousd")
]


def upgrade() -> None:
    op.add_column("lots", sa.Column("pack", sa.Text(), server_default=sa.text("''"), nullable=False))
    op.execute(
        "UPDATE lots SET pack = (SELECT p.name FROM topups t JOIN packs p ON p.tenant_id = t.tenant_id"
        " AND p.id = t.pack_id WHERE t.tenant_id = lots.tenant_id AND t.lot_id = lots.id)"
        " WHERE EXISTS (SELECT 1 FROM topups t JOIN packs p ON p.tenant_id = t.tenant_id AND p.id = t.pack_id"
        " WHERE t.tenant_id = lots.tenant_id AND t.lot_id = lots.id)"
    )
    op.create_table(
        "lot_days",
        sa.Column("id", INT64, autoincrement=True, nullable=False),
        sa.Column("tenant_id", INT64, nullable=False),
        sa.Column("day", INT64, nullable=False),
        sa.Column("origin", sa.Text(), nullable=False),
        sa.Column("pack", sa.Text(), nullable=False),
        sa.Column("sold_month", INT64, nullable=False),
        sa.Column("paid", INT64, nullable=False),
        *(sa.Column(name, INT64, nullable=False) for name in SUMS),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_lot_days")),
        sa.UniqueConstraint("tenant_id", "day", "origin", "pack", "sold_month", "paid", name="uq_lot_days"),
        sqlite_strict=True,
    )
    op.create_table(
        "overdraft_days",
        sa.Column("id", INT64, autoincrement=True, nullable=False),
        sa.Column("tenant_id", INT64, nullable=False),
        sa.Column("day", INT64, nullable=False),
        sa.Column("overdraft_nano", INT64, nullable=False),
        sa.Column("unpaid_nano", INT64, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_overdraft_days")),
        sa.UniqueConstraint("tenant_id", "day", name=op.f("uq_overdraft_days_tenant_id_day")),
        sqlite_strict=True,
    )
    _fill()
    _note_what_differs()


def _fill() -> None:
    month = _month()
    paid = "CASE WHEN l.price_nanousd > 0 THEN 1 ELSE 0 END"
    key = f"l.origin, l.pack, {month} AS sold_month, {paid} AS paid"

    def when(condition: str, figure: str) -> str:
        return f"CASE WHEN {condition} THEN {figure} ELSE 0 END"

    bought, received = "l.origin <> 'transfer'", "l.origin = 'transfer'"
    made = [
        when(condition, f"l.{figure}")
        for condition in (bought, received)
        for figure in ("amount_nano", "price_nanousd")
    ] + ["0"] * 6
    used, expired, moved = "m.kind IN ('draw', 'return', 'debt')", "m.kind = 'expire'", "m.kind = 'transfer'"
    returned = "m.kind NOT IN ('draw', 'return', 'debt', 'expire', 'transfer')"
    changed = ["0", "0", when(moved, "m.amount_nano"), when(moved, "-m.returned_nanousd")]
    changed += [when(kind, figure) for kind in (used, expired) for figure in ("-m.amount_nano", "m.recognised_nanousd")]
    changed += [when(returned, "-m.amount_nano"), when("m.kind <> 'transfer'", "m.returned_nanousd")]

    def named(figures: list[str]) -> str:
        return ", ".join(f"{figure} AS {name}" for figure, name in zip(figures, SUMS, strict=True))

    op.execute(
        f"INSERT INTO lot_days (tenant_id, day, origin, pack, sold_month, paid, {', '.join(SUMS)})"
        f" SELECT tenant_id, day, origin, pack, sold_month, paid, {', '.join(f'sum({name})' for name in SUMS)} FROM ("
        f"SELECT l.tenant_id, l.created_at_ns / {DAY_NS} AS day, {key}, {named(made)} FROM lots l UNION ALL"
        f" SELECT l.tenant_id, m.recorded_at_ns / {DAY_NS} AS day, {key}, {named(changed)}"
        " FROM lot_moves m JOIN lots l ON l.id = m.lot_id) both_sides"
        " GROUP BY tenant_id, day, origin, pack, sold_month, paid"
    )
    owed = "a.overdraft_nano - coalesce(l.displaced, 0)"
    op.execute(
        "INSERT INTO overdraft_days (tenant_id, day, overdraft_nano, unpaid_nano)"
        f" SELECT a.tenant_id, coalesce(a.last_activity_ns, a.created_at_ns) / {DAY_NS}, sum(a.overdraft_nano),"
        f" sum({owed}) FROM accounts a LEFT JOIN (SELECT tenant_id, wallet, sum(displaced_nano - lent_nano)"
        " AS displaced FROM lots WHERE displaced_nano <> 0 OR lent_nano <> 0 GROUP BY tenant_id, wallet) l"
        " ON l.tenant_id = a.tenant_id AND l.wallet = a.name WHERE a.kind = 'wallet' AND a.commodity = 'CREDIT'"
        f" AND (a.overdraft_nano <> 0 OR {owed} <> 0)"
        f" GROUP BY a.tenant_id, coalesce(a.last_activity_ns, a.created_at_ns) / {DAY_NS}"
    )


def _note_what_differs() -> None:
    """Note the first whole day of this version, and by how much each tenant's drawn credits differ from charges."""
    connection = op.get_bind()
    connection.execute(
        sa.text(
            "INSERT INTO watermarks (name, value)"
            f" SELECT '{BRIDGE_SINCE}', max(day) + 1 FROM money_days HAVING max(day) IS NOT NULL"
        )
    )
    connection.execute(
        sa.text(
            f"INSERT INTO watermarks (name, value) SELECT '{DRAWN_BEFORE}' || tenant_id, sum(credits) FROM ("
            " SELECT tenant_id, charge_nanocredits AS credits FROM usage_days WHERE verdict = 'charged' UNION ALL"
            " SELECT tenant_id, out_nano FROM money_days WHERE source = 'adjustment' AND account = 'wallet' UNION ALL"
            " SELECT tenant_id, CASE WHEN origin = 'returned' THEN sold_nano ELSE 0 END - used_nano FROM lot_days"
            " UNION ALL SELECT tenant_id, -unpaid_nano FROM overdraft_days UNION ALL"
            " SELECT tenant_id, balance_nano - drawn_balance_nano FROM accounts"
            " WHERE kind = 'wallet' AND commodity = 'CREDIT'"
            ") all_sides GROUP BY tenant_id HAVING sum(credits) <> 0"
        )
    )
    connection.execute(
        sa.text(
            f"INSERT INTO watermarks (name, value) SELECT '{CARRIED}' || tenant_id, count(*) FROM topups"
            " WHERE returned_minor < 0 GROUP BY tenant_id"
        )
    )


def _month() -> str:
    """Return the UTC month of a lot's creation as months since year 0."""
    seconds = "l.created_at_ns / 1000000000"
    if op.get_bind().dialect.name == "postgresql":
        moment = f"(to_timestamp({seconds}) AT TIME ZONE 'UTC')"
        return f"CAST(extract(year FROM {moment}) * 12 + extract(month FROM {moment}) - 1 AS bigint)"
    year, month = (f"CAST(strftime('{part}', {seconds}, 'unixepoch') AS INTEGER)" for part in ("%Y", "%m"))
    return f"({year} * 12 + {month} - 1)"


def downgrade() -> None:
    op.execute("DELETE FROM watermarks WHERE name LIKE 'bridge: %'")
    op.drop_table("overdraft_days")
    op.drop_table("lot_days")
    op.drop_column("lots", "pack")
