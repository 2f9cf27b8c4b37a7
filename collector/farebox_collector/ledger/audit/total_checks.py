"""Verify running totals against the records: read once in storage order, a range at a time.

One statement over all records would sort every one of them, because no index has tenant and verdict; a range is sorted
in memory, and yields a handful of sums.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence

from sqlalchemy import Connection, func, select, text

from farebox_collector.ledger.tables.books import usage_records
from farebox_collector.ledger.tables.usage_columns import TOKEN_COLUMNS
from farebox_collector.ledger.usage.correction_totals import SUMS
from farebox_collector.ledger.usage.span_counts import ACCEPTED
from farebox_collector.model.mismatches import Mismatch
from farebox_collector.model.verdicts import STORED, Verdict

_STRETCH = 20_000
_FIGURES = ("requests", "cost_nanousd", "charge_nanocredits", *TOKEN_COLUMNS)
_RECORDS = text(
    "SELECT tenant_id, verdict, count(*), "
    + ", ".join(f"coalesce(sum({name}), 0)" for name in _FIGURES[1:])
    + " FROM usage_records WHERE id > :after AND id <= :upto GROUP BY tenant_id, verdict"
)
_RETIRED = text(f"SELECT tenant_id, verdict, {', '.join(_FIGURES)} FROM retired_totals")
_TOTALS = text(
    "SELECT tenant_id, verdict, "
    + ", ".join(f"sum((1 - 2 * reversed) * {name})" for name in _FIGURES)
    + " FROM usage_totals GROUP BY tenant_id, verdict"
)
_CARD_FIGURES = tuple(name for name in _FIGURES if name != "charge_nanocredits")
_CARDS = text(
    "SELECT tenant_id, "
    + ", ".join(f"sum((1 - 2 * reversed) * {name})" for name in _CARD_FIGURES)
    + " FROM card_totals GROUP BY tenant_id"
)
_COST = "(coalesce(cost_nanousd_after, 0) - coalesce(cost_nanousd_before, 0))"
_CHARGE = "(coalesce(charge_nanocredits_after, 0) - coalesce(charge_nanocredits_before, 0))"
_CORRECTIONS = text(
    "SELECT tenant_id, cause, count(*), "
    + ", ".join(
        f"sum(CASE WHEN {sign}{change} > 0 THEN {sign}{change} ELSE 0 END)"
        for change in (_COST, _CHARGE)
        for sign in ("", "-")
    )
    + " FROM corrections GROUP BY tenant_id, cause"
)
_CORRECTION_TOTALS = text(f"SELECT tenant_id, cause, {', '.join(SUMS)} FROM correction_totals")
_INTAKE = text("SELECT tenant_id, outcome, spans FROM intake_totals")


def compare_totals(connection: Connection, progress: Callable[[int], None]) -> Iterator[Mismatch]:
    """Yield mismatches between totals and the sums of the records per tenant and verdict, and in the span counts.

    `progress` receives the number of records read.
    """
    records: defaultdict[tuple[int, str], list[int]] = defaultdict(lambda: [0] * len(_FIGURES))
    ids = usage_records.c.id
    first, last = connection.execute(select(func.min(ids), func.max(ids))).one()
    for after in range((first or 0) - 1, last or 0, _STRETCH):
        for tenant_id, verdict, *figures in connection.execute(_RECORDS, {"after": after, "upto": after + _STRETCH}):
            sums = records[tenant_id, verdict]
            records[tenant_id, verdict] = [a + int(b) for a, b in zip(sums, figures, strict=True)]
        progress(after - (first or 0) + 1)
    for tenant_id, verdict, *figures in connection.execute(_RETIRED):
        records[tenant_id, verdict] = [a + int(b) for a, b in zip(records[tenant_id, verdict], figures, strict=True)]
    totals = {
        (tenant_id, verdict): [int(figure) for figure in figures]
        for tenant_id, verdict, *figures in connection.execute(_TOTALS)
    }
    yield from _compare_intake(connection, records)
    for key in sorted({*records, *totals}):
        found = totals.get(key, [0] * len(_FIGURES))
        yield from _off(f"tenant {key[0]}, {key[1]}", _FIGURES, records[key], found)
    yield from _compare_cards(connection, records)
    yield from _compare_corrections(connection)


def _compare_cards(connection: Connection, records: Mapping[tuple[int, str], list[int]]) -> Iterator[Mismatch]:
    """Compare the usage under each price, in total, with the charged records."""
    cards = {tenant_id: [int(figure) for figure in figures] for tenant_id, *figures in connection.execute(_CARDS)}
    charged = {tenant_id: figures for (tenant_id, verdict), figures in records.items() if verdict == Verdict.CHARGED}
    nothing = [0] * len(_FIGURES)
    for tenant_id in sorted({*charged, *cards}):
        figures = dict(zip(_FIGURES, charged.get(tenant_id, nothing), strict=True))
        expected = [figures[name] for name in _CARD_FIGURES]
        found = cards.get(tenant_id, [0] * len(_CARD_FIGURES))
        yield from _off(f"tenant {tenant_id}, by price", _CARD_FIGURES, expected, found)


def _compare_corrections(connection: Connection) -> Iterator[Mismatch]:
    """Compare the totals of corrections by cause with the corrections."""
    expected, found = (
        {(row[0], row[1]): [int(figure) for figure in row[2:]] for row in connection.execute(statement)}
        for statement in (_CORRECTIONS, _CORRECTION_TOTALS)
    )
    nothing = [0] * len(SUMS)
    for key in sorted({*expected, *found}):
        own = f"tenant {key[0]}, corrected for {key[1]}"
        yield from _off(own, SUMS, expected.get(key, nothing), found.get(key, nothing))


def _off(what: str, names: Sequence[str], expected: Sequence[int], found: Sequence[int]) -> Iterator[Mismatch]:
    off = [f"{name} {f - e:+}" for name, e, f in zip(names, expected, found, strict=True) if e != f]
    if off:
        yield Mismatch("totals", what, f"{expected[0]} records", f"{found[0]} requests, off by {', '.join(off)}")


def _compare_intake(connection: Connection, records: Mapping[tuple[int, str], list[int]]) -> Iterator[Mismatch]:
    """Compare accepted spans with their verdicts, and stored verdicts with the records."""
    kept: Counter[int] = Counter()
    for (tenant_id, _), figures in records.items():
        kept[tenant_id] += figures[0]
    counted: defaultdict[int, dict[str, int]] = defaultdict(dict)
    for tenant_id, outcome, spans in connection.execute(_INTAKE):
        counted[tenant_id][outcome] = spans
    for tenant_id in sorted({*kept, *counted}):
        spans = counted[tenant_id]
        accepted = spans.pop(ACCEPTED, 0)
        # A correction changes the verdict of a record, but neither adds nor removes one.
        stored = sum(spans.get(verdict, 0) for verdict in STORED)
        if accepted != sum(spans.values()):
            yield Mismatch("intake", f"tenant {tenant_id}", f"{accepted} spans", f"{sum(spans.values())} verdicts")
        if stored != kept[tenant_id]:
            yield Mismatch("intake", f"tenant {tenant_id}", f"{kept[tenant_id]} records", f"{stored} that were kept")
