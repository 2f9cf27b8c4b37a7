"""Verify the lines of the bridge against the ledger: the postings by day, the lots, and the wallets.

Each line of the bridge is a sum of one of these, so that it is right for any period if it is right for each day:
revenue, breakage, deferred revenue and cash by day; what draws on lots over all time. The upgrade of older books
noted by how much they differ, from which day on the days are compared, and which tenants are not compared.
"""

from collections.abc import Iterator

from sqlalchemy import Connection, text

from farebox_collector.model.mismatches import Mismatch

BRIDGE_CHECKS = (
    ("bridge", "revenue, breakage, cash and deferred revenue of each day are those of the lots"),
    ("bridge credits", "what wallets were charged was drawn from lots, is overdraft, or waits to be drawn"),
)

_SINCE, _BEFORE = "bridge: the first whole day", "bridge: drawn otherwise before, tenant "
_CARRIED = "bridge: returns to carry over, tenant "
_BY_DAY = text(f"""
    SELECT tenant_id, day, sum(revenue), sum(breakage), sum(deferred)
    FROM (
        SELECT tenant_id, day, CASE WHEN account = 'revenue' THEN out_nano - in_nano ELSE 0 END AS revenue,
               CASE WHEN account = 'breakage' THEN out_nano - in_nano ELSE 0 END AS breakage,
               CASE WHEN account = 'deferred' THEN out_nano - in_nano ELSE 0 END AS deferred
        FROM money_days WHERE account IN ('revenue', 'breakage', 'deferred')
        UNION ALL
        SELECT tenant_id, day, -used_nanousd, -expired_nanousd,
               used_nanousd + expired_nanousd + returned_nanousd - sold_nanousd - transferred_nanousd
        FROM lot_days
    ) both_sides
    WHERE day >= (SELECT coalesce(max(value), 0) FROM watermarks WHERE name = '{_SINCE}')
    GROUP BY tenant_id, day HAVING sum(revenue) <> 0 OR sum(breakage) <> 0 OR sum(deferred) <> 0
    ORDER BY tenant_id, day
""")
_CREDITS = text(f"""
    SELECT tenant_id, sum(charged), sum(drawn), sum(waits)
    FROM (
        SELECT tenant_id, charge_nanocredits AS charged, 0 AS drawn, 0 AS waits FROM usage_days
        WHERE verdict = 'charged'
        UNION ALL
        SELECT tenant_id, out_nano, 0, 0 FROM money_days WHERE source = 'adjustment' AND account = 'wallet'
        UNION ALL
        SELECT tenant_id, 0, used_nano - CASE WHEN origin = 'returned' THEN sold_nano ELSE 0 END, 0 FROM lot_days
        UNION ALL
        SELECT tenant_id, 0, unpaid_nano, 0 FROM overdraft_days
        UNION ALL
        SELECT tenant_id, 0, 0, drawn_balance_nano - balance_nano FROM accounts
        WHERE kind = 'wallet' AND commodity = 'CREDIT'
        UNION ALL
        SELECT t.id, 0, 0, w.value FROM tenants t JOIN watermarks w ON w.name = '{_BEFORE}' || t.id
    ) all_sides
    WHERE NOT EXISTS (SELECT 1 FROM watermarks w WHERE w.name = '{_CARRIED}' || all_sides.tenant_id)
    GROUP BY tenant_id HAVING sum(charged) <> sum(drawn) + sum(waits)
    ORDER BY tenant_id
""")


def compare_bridges(connection: Connection) -> Iterator[Mismatch]:
    """Yield days whose figures differ between the postings and the lots, and tenants whose credits do not add up."""
    for tenant_id, day, *off in connection.execute(_BY_DAY):
        names = ("revenue", "breakage", "deferred")
        by = ", ".join(f"{name} {int(figure):+}" for name, figure in zip(names, off, strict=True) if figure)
        yield Mismatch("bridge", f"tenant {tenant_id}, day {day}", "no difference", f"postings are off by {by}")
    for tenant_id, charged, drawn, waits in connection.execute(_CREDITS):
        yield Mismatch("bridge credits", f"tenant {tenant_id}", f"{charged} charged", f"{drawn} drawn, {waits} wait")
