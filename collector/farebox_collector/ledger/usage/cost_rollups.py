"""Roll up what charged calls used under the same prices by day, with the labels of cost reports; and verify it.

`costs` reads this instead of the records of a period. Names are bounded like those of the other totals.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from sqlalchemy import Connection, text

from farebox_collector.ledger.storage import bulk_insert
from farebox_collector.ledger.tables.rollups import COST_NAMES, COST_SUMS, cost_days
from farebox_collector.ledger.tables.usage_columns import TOKEN_COLUMNS, Tokens, token_columns
from farebox_collector.ledger.usage.labels import OTHER
from farebox_collector.model.mismatches import Mismatch
from farebox_collector.pricing.conditions import STANDARD_TIERS

COST_CHECKS = (("cost days", "the daily usage by price matches the daily roll-ups and the totals by price"),)

KNOWN_TIERS = STANDARD_TIERS | {
    "batch",
    "fast",
    "flex",
    "optimized",
    "performance",
    "priority",
    "provisioned",
    "reserved",
    "scale",
}
"""Service tiers with a label of their own. Spans may contain any text, so the list is closed."""

CostKey = tuple[int, ...] | tuple[int | str, ...]
"""The day, and `COST_NAMES`."""
_KEY = ("tenant_id", "day", *COST_NAMES)
_INPUT = " + ".join(token_columns(Tokens.INPUT))
_OUTPUT = " + ".join(token_columns(Tokens.OUTPUT))


def known_tier(service_tier: str) -> str:
    """Return the label of a service tier in cost reports."""
    return service_tier if service_tier in KNOWN_TIERS else OTHER


def add_cost_days(connection: Connection, tenant_id: int, rows: Iterable[tuple[CostKey, Sequence[int]]]) -> None:
    """Add sums (`COST_SUMS`) under their keys; negative ones take back."""
    sums: defaultdict[CostKey, Sequence[int]] = defaultdict(lambda: (0,) * len(COST_SUMS))
    for key, row in rows:
        sums[key] = [left + right for left, right in zip(sums[key], row, strict=True)]
    # All writers use one order, so that they cannot deadlock.
    table_rows = [(tenant_id, *key, *row) for key, row in sorted(sums.items())]
    bulk_insert.insert_adding(connection, cost_days.name, _KEY, COST_SUMS, table_rows)


def _against(names: str, own: dict[str, str], table: str, other: dict[str, str], condition: str) -> str:
    """Return a query that compares sums of this table with those of another that is checked against the records."""
    figures = list(own)
    return f"""
        SELECT tenant_id, {names}, {", ".join(f"sum({name})" for name in figures)}
        FROM (
            SELECT tenant_id, {names}, {", ".join(f"{own[name]} AS {name}" for name in figures)} FROM cost_days
            UNION ALL
            SELECT tenant_id, {names}, {", ".join(f"-({other[name]})" for name in figures)} FROM {table} {condition}
        ) both_sides
        GROUP BY tenant_id, {names} HAVING {" OR ".join(f"sum({name}) <> 0" for name in figures)}
        ORDER BY tenant_id, {names}
    """


_MONEY = {name: name for name in ("requests", "cost_nanousd", "charge_nanocredits")}
_TOKENS = {name: name for name in ("requests", "cost_nanousd", *TOKEN_COLUMNS)}
_COMPARISONS = (
    (
        ("requests", "cost_nanousd", "charge_nanocredits", "input_tokens", "output_tokens"),
        _against(
            "day",
            {**_MONEY, "tokens_in": _INPUT, "tokens_out": _OUTPUT},
            "usage_days",
            {**_MONEY, "tokens_in": "input_tokens", "tokens_out": "output_tokens"},
            "WHERE verdict = 'charged'",
        ),
    ),
    (
        tuple(_TOKENS),
        _against(
            "price_version_ids",
            _TOKENS,
            "card_totals",
            {name: f"(1 - 2 * reversed) * {name}" for name in _TOKENS},
            "",
        ),
    ),
)


def compare_cost_days(connection: Connection) -> Iterator[Mismatch]:
    """Yield mismatches between the cost roll-up and the roll-ups that are checked against the records."""
    for names, statement in _COMPARISONS:
        for tenant_id, what, *off in connection.execute(text(statement)):
            by = ", ".join(f"{name} {int(figure):+}" for name, figure in zip(names, off, strict=True) if figure)
            yield Mismatch("cost days", f"tenant {tenant_id}, {what}", "no difference", f"off by {by}")
