"""How long overviews and reports take over large books, over HTTP from a real collector.

    make bench-reports
    make bench-reports ARGS="--records 1000000"
    make bench-reports ARGS="--database both --write"

The books are filled by SQL: thirty days of records, and the roll-ups, wallets and lots that belong to them. What is
asked reads roll-ups only, so that records count by what they make of the cache and of the file.
"""

import argparse
import statistics
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import httpx2
from blank import blank_postgresql, blank_sqlite
from farebox_collector.ledger.audit.block_checks import _OF_DAYS as OF_DAYS
from farebox_collector.ledger.audit.day_checks import _OF_RECORD as OF_RECORD
from farebox_collector.ledger.storage import bulk_insert
from farebox_collector.ledger.storage.connect import open_database
from farebox_collector.ledger.tables.books import usage_records
from farebox_collector.ledger.tables.rollups import (
    BLOCK_DAYS,
    COST_NAMES,
    DAY_SUMS,
    LOT_NAMES,
    LOT_SUMS,
    OVERDRAFT_SUMS,
    lot_days,
    overdraft_days,
)
from farebox_collector.ledger.tables.usage_columns import TOKEN_COLUMNS
from farebox_collector.ledger.usage.span_index import complete
from farebox_collector.model.moments import DAY_NS, month_of
from figures import HEADINGS, Figure, machine, machine_words, markdown, number, quantile, show, write_section
from harness import Collector
from postgres import PostgresServer, find_binaries
from rich.console import Console
from sqlalchemy import Connection, Table, Text, text

DAYS = 30
STRETCH = 250_000
EVENTS, MODELS = 4, 5
OVERVIEWS, REPORTS = 200, 9
"""How often each is asked, every overview of another wallet."""
PACKS = 6
IN_DEBT = 10
"""One wallet in so many owes all that it used."""
BY_ALL = {"days": 365, "group_by": ["month", "pack", "sold"], "limit": 10_000}
QUESTIONS: tuple[tuple[str, str, dict[str, Any], float | None], ...] = (
    ("30 days of usage by event", "/v1/reports/usage", {"group_by": "event"}, 100),
    ("the same by day, event and model", "/v1/reports/usage", {"group_by": ["day", "event", "model"]}, None),
    ("90 days of usage by event, compared", "/v1/reports/usage", {"days": 90, "compare": True}, None),
    ("what 1,000 tokens cost by model, 30 days", "/v1/costs", {}, 100),
    ("what 1,000 tokens cost by department, 30 days", "/v1/costs", {"group_by": "dept"}, None),
    ("bridge of 30 days", "/v1/reports/bridge", {}, 200),
    ("bridge of a year by month", "/v1/reports/bridge", {"days": 365, "group_by": "month"}, 200),
    ("deferred revenue of 30 days", "/v1/reports/deferred", {}, 200),
    ("the same of a year by month, pack and month of sale", "/v1/reports/deferred", BY_ALL, None),
    ("receivables by wallet and age", "/v1/reports/receivables", {"limit": 100}, 200),
    ("summary of 30 days", "/v1/reports/summary", {}, None),
    ("summary by day", "/v1/reports/summary", {"group_by": "day"}, None),
    ("credits of 30 days by source", "/v1/reports/credits", {}, None),
    ("distribution of balances", "/v1/reports/balances", {}, 200),
    ("top wallets of a day", "/v1/reports/wallets", {"days": 1, "limit": 100}, None),
    ("top wallets of 30 days", "/v1/reports/wallets", {"limit": 100}, None),
    ("new wallets of 30 days", "/v1/reports/wallets", {"wallets": "new", "limit": 100}, None),
)


def main() -> int:
    """The command; its exit status is 1 where a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=10_000_000)
    parser.add_argument("--wallets", type=int, default=20_000)
    parser.add_argument("--database", choices=("sqlite", "postgresql", "both"), default="sqlite")
    parser.add_argument("--write", action="store_true", help="put the result into docs/explanation/performance.md")
    parser.add_argument("--directory", help="where to keep the SQLite file while it runs")
    options = parser.parse_args()
    here, figures = machine(), list[Figure]()
    if options.database != "postgresql":
        with tempfile.TemporaryDirectory(prefix="farebox-reports-", dir=options.directory) as directory:
            figures += measure(blank_sqlite(Path(directory)), Path(directory), options.records, options.wallets)
    if options.database != "sqlite":
        binaries = find_binaries()
        if binaries is None:
            parser.error("PostgreSQL's server is not installed here")
        with (
            tempfile.TemporaryDirectory(prefix="farebox-reports-") as directory,
            closing(PostgresServer(binaries)) as server,
        ):
            figures += measure(blank_postgresql(server), Path(directory), options.records, options.wallets)
    show(Console(highlight=False), "overviews and reports", figures)
    if options.write:
        table = markdown(HEADINGS, [figure.row() for figure in figures])
        write_section("reports", f"{table}\n{machine_words(here)}\n")
    return 1 if any(figure.reached is False for figure in figures) else 0


def measure(url: str, directory: Path, records: int, wallets: int) -> list[Figure]:
    """Fill the books, and ask."""
    started = time.perf_counter()
    today = time.time_ns() // DAY_NS
    with closing(open_database(url)) as database:
        for first in range(0, records, STRETCH):
            with database.transaction() as connection:
                fill(connection, first, min(STRETCH, records - first), records, wallets, today)
            print(f"{min(first + STRETCH, records):,} records, {time.perf_counter() - started:.0f} s", flush=True)
        with database.transaction() as connection:
            derive(connection, today)
        with database.transaction() as connection:
            connection.execute(text("ANALYZE"))
    print(f"filled in {time.perf_counter() - started:.0f} s", flush=True)
    where = f"{url.partition(':')[0].partition('+')[0]}, {number(records)} records of {number(wallets)} wallets"
    collector = Collector(url, directory / "collector.log", full_audit_hours=10_000, audit_seconds=10_000)
    try:
        return ask(collector.api, where, wallets)
    finally:
        collector.close()


def ask(api: httpx2.Client, where: str, wallets: int) -> list[Figure]:
    """Every question, as often as it takes."""
    names = [f"/v1/wallets/wallet-{place * 7919 % wallets}/overview" for place in range(OVERVIEWS)]
    figures = [_figure("overview of a wallet", where, [_taken_ms(api, path, {}) for path in names], 50)]
    for what, path, query, goal in QUESTIONS:
        figures.append(_figure(what, where, [_taken_ms(api, path, query) for _ in range(REPORTS)], goal))
    return figures


def _figure(what: str, where: str, taken: list[float], goal: float | None) -> Figure:
    note = f"median of {len(taken)}; p99 {quantile(taken, 0.99):.1f} ms, first {taken[0]:.0f} ms"
    return Figure(what, where, statistics.median(taken), "ms", goal, False, note, taken)


def _taken_ms(api: httpx2.Client, path: str, query: dict[str, Any]) -> float:
    started = time.perf_counter()
    api.get(path, params=query, timeout=600).raise_for_status()
    return (time.perf_counter() - started) * 1000


def fill(connection: Connection, first: int, size: int, records: int, wallets: int, today: int) -> None:
    """Records by the arithmetic of their numbers, spread over the days."""
    postgresql = connection.dialect.name == "postgresql"
    begin_ns, step_ns = (today - DAYS + 1) * DAY_NS, DAYS * DAY_NS // records
    at_ns = f"({begin_ns} + i * {step_ns})"
    wallet = f"(i * 7919) % {wallets}"
    known = {
        "tenant_id": "1",
        "trace_id": _bytes(16, postgresql),
        "span_id": _bytes(8, postgresql),
        "parent_span_id": _bytes(8, postgresql),
        "transaction_id": "1",
        **dict.fromkeys(("received_at_ns", "started_at_ns", "priced_at_ns"), at_ns),
        "latency_ns": "1000000000 + i % 1000",
        "wallet": f"'wallet-' || CAST({wallet} AS text)",
        # A wallet has one event and two models: what a customer does is much the same every day.
        "event": f"'event-' || CAST({wallet} % {EVENTS} AS text)",
        "provider": "'openai'",
        "model": f"'model-' || CAST(({wallet} + i / {wallets} % 2) % {MODELS} AS text)",
        "dept": f"'dept-' || CAST({wallet} % 7 AS text)",
        "input_tokens": "100 + i % 900",
        "output_tokens": "10 + i % 90",
        "dialect": "'genai'",
        "verdict": "'charged'",
        "cost_nanousd": "1000 + i % 9973",
        "charge_nanocredits": "1500 + i % 9973",
        "price_version_ids": "'[1]'",
        "rule_version_id": "1",
    }
    columns = {name: known.get(name, nothing) for name, nothing in _nothings(usage_records).items()}
    connection.execute(
        text(
            f"INSERT INTO usage_records ({', '.join(columns)}) {_numbers(postgresql)}"
            f" SELECT {', '.join(columns.values())} FROM numbers"
        ),
        {"start": first, "end": first + size - 1},
    )
    complete(connection)


def derive(connection: Connection, today: int) -> None:
    """Roll-ups, wallets and lots as the records would have made them."""
    day = f"priced_at_ns / {DAY_NS}"
    for table, names, figures in (
        ("usage_days", ("event", "provider", "model", "verdict"), OF_RECORD),
        ("wallet_days", ("wallet", "event", "provider", "model"), OF_RECORD),
        (
            "cost_days",
            COST_NAMES,
            {"requests": "1"}
            | {name: f"coalesce({name}, 0)" for name in (*TOKEN_COLUMNS, "cost_nanousd", "charge_nanocredits")},
        ),
    ):
        sums = ", ".join(f"sum({figure})" for figure in figures.values())
        connection.execute(
            text(
                f"INSERT INTO {table} (tenant_id, day, {', '.join(names)}, {', '.join(figures)})"
                f" SELECT tenant_id, {day}, {', '.join(names)}, {sums} FROM usage_records"
                f" GROUP BY tenant_id, {day}, {', '.join(names)}"
            )
        )
    sums = ", ".join(f"sum({figure})" for figure in OF_DAYS.values())
    connection.execute(
        text(
            f"INSERT INTO wallet_blocks (tenant_id, block, wallet, {', '.join(OF_DAYS)})"
            f" SELECT tenant_id, day / {BLOCK_DAYS}, wallet, {sums}"
            f" FROM wallet_days GROUP BY tenant_id, day / {BLOCK_DAYS}, wallet"
        )
    )
    first_ns = (today - DAYS + 1) * DAY_NS
    spent = DAY_SUMS[-1]
    bought = f"CASE WHEN CAST(substr(wallet, 8) AS bigint) % {IN_DEBT} = 0 THEN 0 ELSE 10000000000 END"
    # They came over a year, so that one in twelve is new.
    age_days = "CAST(substr(wallet, 8) AS bigint) * 7919 % 365"
    connection.execute(
        text(
            "INSERT INTO accounts (tenant_id, kind, name, commodity, created_at_ns, balance_nano, spent_nano,"
            " charged_calls, last_activity_ns)"
            f" SELECT 1, 'wallet', wallet, 'CREDIT', {today * DAY_NS} - {DAY_NS} * ({age_days}),"
            f" {bought} - sum({spent}), sum({spent}), sum(requests), {first_ns} FROM wallet_days GROUP BY wallet"
        )
    )
    connection.execute(
        text(
            "INSERT INTO lots (tenant_id, wallet, origin, amount_nano, remaining_nano, taken_nano, price_nanousd,"
            " recognised_nanousd, returned_nanousd, priority, promotional, created_at_ns)"
            " SELECT 1, name, 'deposit', 10000000000, balance_nano, 0, 8000000000, 0, 0, 100, 0, created_at_ns"
            " FROM accounts WHERE kind = 'wallet' AND balance_nano > 0"
        )
    )
    owed = "CASE WHEN balance_nano < 0 THEN -balance_nano ELSE 0 END"
    connection.execute(
        text(f"UPDATE accounts SET drawn_balance_nano = balance_nano, overdraft_nano = {owed} WHERE kind = 'wallet'")
    )
    _drawn(connection, today)
    for source, account, come, gone in (
        ("deposit", "wallet", "amount_nano", "0"),
        ("deposit", "receipts", "price_nanousd", "0"),
        ("recognition", "revenue", "0", "price_nanousd / 2"),
    ):
        connection.execute(
            text(
                "INSERT INTO money_days (tenant_id, day, source, account, postings, in_nano, out_nano)"
                f" SELECT 1, created_at_ns / {DAY_NS}, '{source}', '{account}', count(*), sum({come}), sum({gone})"
                f" FROM lots GROUP BY created_at_ns / {DAY_NS}"
            )
        )


def _drawn(connection: Connection, today: int) -> None:
    """A year of draws on lots of the last twelve months: a row for each day, pack, month of sale, and price or none."""
    rows = [
        (1, day, "topup", f"pack-{pack}", month_of(day * DAY_NS) - age, paid, *(10**9 + pack,) * len(LOT_SUMS))
        for day in range(today - 364, today + 1)
        for pack in range(PACKS)
        for age in range(12)
        for paid in (0, 1)
    ]
    bulk_insert.insert(connection, lot_days.name, ("tenant_id", "day", *LOT_NAMES, *LOT_SUMS), rows)
    owed = [(1, day, 10**9, 10**9) for day in range(today - 364, today + 1)]
    bulk_insert.insert(connection, overdraft_days.name, ("tenant_id", "day", *OVERDRAFT_SUMS), owed)


def _nothings(table: Table) -> dict[str, str]:
    """Every column that must be given, with what stands for nothing in it."""
    return {
        column.name: "NULL" if column.nullable else "''" if isinstance(column.type, Text) else "0"
        for column in table.c
        if column.name != "id" and column.server_default is None
    }


def _numbers(postgresql: bool) -> str:
    if postgresql:
        return "WITH numbers AS (SELECT generate_series(CAST(:start AS bigint), CAST(:end AS bigint)) AS i)"
    return "WITH RECURSIVE numbers(i) AS (SELECT :start UNION ALL SELECT i + 1 FROM numbers WHERE i < :end)"


def _bytes(width: int, postgresql: bool) -> str:
    if postgresql:
        return f"convert_to(lpad(CAST(i AS text), {width}, '0'), 'UTF8')"
    return f"CAST(printf('%0{width}d', i) AS BLOB)"


if __name__ == "__main__":
    sys.exit(main())
