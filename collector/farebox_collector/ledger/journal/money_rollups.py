"""Roll up movements other than usage by day: credits by source and destination, revenue, receipts, fees.

The journal adds every transaction that it posts, so the roll-up equals the postings, regardless of who posts them.
Usage and its corrections have roll-ups of their own (`usage_rollups`), by the day of their price.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator

from sqlalchemy import Connection, func, select, text

from farebox_collector.ledger.storage import bulk_insert
from farebox_collector.ledger.tables.books import transactions
from farebox_collector.ledger.tables.rollups import money_days
from farebox_collector.model.mismatches import Mismatch
from farebox_collector.model.moments import DAY_NS, day_of

MONEY_CHECKS = (("money days", "the daily movements are the sums of the postings"),)

_KEY = ("tenant_id", "day", "source", "account")
_SUMS = ("postings", "in_nano", "out_nano")


def add_money_days(
    connection: Connection, tenant_id: int, source: str, at_ns: int, legs: Iterable[tuple[str, int]]
) -> None:
    """Add the legs of a transaction other than usage, each as (kind of the account, signed amount).

    `source` is the kind of the transaction.
    """
    sums: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    for account, amount in legs:
        row = sums[account]
        row[0] += 1
        row[1] += max(amount, 0)
        row[2] += max(-amount, 0)
    # All writers use one order, so that they cannot deadlock.
    rows = [(tenant_id, day_of(at_ns), source, account, *row) for account, row in sorted(sums.items())]
    bulk_insert.insert_adding(connection, money_days.name, _KEY, _SUMS, rows)


_STRETCH = 50_000
_POSTED = text(f"""
    SELECT t.tenant_id, t.recorded_at_ns / {DAY_NS}, t.kind, a.kind, count(*),
           sum(CASE WHEN p.amount_nano > 0 THEN p.amount_nano ELSE 0 END),
           sum(CASE WHEN p.amount_nano < 0 THEN -p.amount_nano ELSE 0 END)
    FROM transactions t JOIN postings p ON p.transaction_id = t.id JOIN accounts a ON a.id = p.account_id
    WHERE t.id > :after AND t.id <= :upto AND t.kind NOT IN ('usage', 'correction')
    GROUP BY t.tenant_id, t.recorded_at_ns / {DAY_NS}, t.kind, a.kind
""")


def compare_money_days(connection: Connection) -> Iterator[Mismatch]:
    """Yield mismatches between a day's movements and the postings; reads a range of transactions at a time.

    So no statement sorts all postings.
    """
    off: defaultdict[tuple[int, int, str, str], list[int]] = defaultdict(lambda: [0, 0, 0])
    expected: Counter[tuple[int, int, str, str]] = Counter()
    first, last = connection.execute(select(func.min(transactions.c.id), func.max(transactions.c.id))).one()
    for after in range((first or 0) - 1, last or 0, _STRETCH):
        for *key, postings, added, taken in connection.execute(_POSTED, {"after": after, "upto": after + _STRETCH}):
            tenant_id, day, source, account = key
            place = (int(tenant_id), int(day), source, account)
            expected[place] += postings
            off[place] = [a - int(b) for a, b in zip(off[place], (postings, added, taken), strict=True)]
    columns = (money_days.c[name] for name in (*_KEY, *_SUMS))
    for tenant_id, day, source, account, *sums in connection.execute(select(*columns)):
        place = (tenant_id, day, source, account)
        off[place] = [a + b for a, b in zip(off[place], sums, strict=True)]
    for place in sorted(off):
        if any(off[place]):
            tenant_id, day, source, account = place
            by = ", ".join(f"{name} {figure:+}" for name, figure in zip(_SUMS, off[place], strict=True) if figure)
            what = f"tenant {tenant_id}, day {day}, {source}, {account}"
            yield Mismatch("money days", what, f"{expected[place]} postings", f"off by {by}")
