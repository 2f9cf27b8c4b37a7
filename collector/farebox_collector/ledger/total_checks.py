"""Running totals against the records they sum up: read once in the order they lie in, a stretch at a time.

One statement over all records would sort every one of them, for want of an index by tenant and verdict; a stretch is
sorted in memory, and what it comes to is a handful of sums.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator

from sqlalchemy import Connection, func, select, text

from farebox_collector.ledger.mismatches import Mismatch
from farebox_collector.ledger.tables import TOKEN_COLUMNS, usage_records

_STRETCH = 50_000
_FIGURES = ("requests", "cost_nanousd", "charge_nanocredits", *TOKEN_COLUMNS)
_RECORDS = text(
    "SELECT tenant_id, verdict, count(*), "
    + ", ".join(f"coalesce(sum({name}), 0)" for name in _FIGURES[1:])
    + " FROM usage_records WHERE id > :after AND id <= :upto GROUP BY tenant_id, verdict"
)
_TOTALS = text(
    "SELECT tenant_id, verdict, "
    + ", ".join(f"sum((1 - 2 * reversed) * {name})" for name in _FIGURES)
    + " FROM usage_totals GROUP BY tenant_id, verdict"
)


def compare_totals(connection: Connection, progress: Callable[[int], None]) -> Iterator[Mismatch]:
    """Yield where totals are not the sums of the records, a tenant and verdict. `progress` is told the records read."""
    records: defaultdict[tuple[int, str], list[int]] = defaultdict(lambda: [0] * len(_FIGURES))
    ids = usage_records.c.id
    first, last = connection.execute(select(func.min(ids), func.max(ids))).one()
    for after in range((first or 0) - 1, last or 0, _STRETCH):
        for tenant_id, verdict, *figures in connection.execute(_RECORDS, {"after": after, "upto": after + _STRETCH}):
            sums = records[tenant_id, verdict]
            records[tenant_id, verdict] = [a + int(b) for a, b in zip(sums, figures, strict=True)]
        progress(after - (first or 0) + 1)
    totals = {
        (tenant_id, verdict): [int(figure) for figure in figures]
        for tenant_id, verdict, *figures in connection.execute(_TOTALS)
    }
    for key in sorted({*records, *totals}):
        expected, found = records[key], totals.get(key, [0] * len(_FIGURES))
        off = [f"{name} {f - e:+}" for name, e, f in zip(_FIGURES, expected, found, strict=True) if e != f]
        if off:
            what = f"tenant {key[0]}, {key[1]}"
            yield Mismatch("totals", what, f"{expected[0]} records", f"{found[0]} requests, off by {', '.join(off)}")
