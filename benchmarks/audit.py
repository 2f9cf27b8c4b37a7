"""What the audit costs on large books: seconds and peak memory, and what a full audit takes from ingestion beside it.

    make bench-audit N=10000000
    make bench-audit N=1000000 ARGS="--database postgresql"

The books are filled by SQL, with what the ledger would have written: records, legs, balances and totals agree.
"""

import argparse
import multiprocessing
import resource
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import grpc
from sqlalchemy import Connection, LargeBinary, Table, Text, text

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from blank import blank_postgresql, blank_sqlite
from farebox_collector.background.upkeep import Upkeep
from farebox_collector.ledger.audit.audit_runs import FULL, RECENT, last_audit
from farebox_collector.ledger.storage.connect import open_database
from farebox_collector.ledger.tables.books import (
    postings,
    usage_records,
    usage_totals,
)
from farebox_collector.ledger.tables.rollups import (
    BLOCK_COSTS,
    BLOCK_DAYS,
    BLOCK_REQUESTS,
    usage_days,
    wallet_blocks,
    wallet_days,
)
from farebox_collector.ledger.tables.service import card_totals
from farebox_collector.ledger.tables.usage_columns import TOKEN_COLUMNS
from farebox_collector.ledger.usage.span_counts import count_spans
from farebox_collector.ledger.usage.span_index import complete
from farebox_collector.model.moments import DAY_NS
from farebox_collector.model.verdicts import Verdict
from farebox_collector.settings import Settings
from harness import Collector, unary
from postgres import PostgresServer, find_binaries
from rich.console import Console
from rich.table import Table as Shown
from spans import llm_span, protobuf_body

RECORDS_A_TRANSACTION = 200
STRETCH = 200_000
START_NS = 1_790_000_000 * 10**9
MINUTE_NS = 60 * 10**9
SENDERS = 8
LOADS = 5
PER_REQUEST = 200
MOST = 1_000
"""Requests that are made for one run."""


class Shape(NamedTuple):
    """How the books look."""

    records: int
    wallets: int


class Measured(NamedTuple):
    """One line of the result."""

    what: str
    seconds: float
    peak_mib: float
    mismatches: int


def main() -> int:
    """The command; its exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--wallets", type=int, default=1_000)
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--load-seconds", type=float, default=10.0, help="for each of with and without; 0: neither")
    parser.add_argument("--directory", help="where to keep the SQLite file while it runs")
    arguments = parser.parse_args()
    shape = Shape(arguments.records, arguments.wallets)
    with tempfile.TemporaryDirectory(prefix="farebox-audit-", dir=arguments.directory) as directory:
        if arguments.database == "sqlite":
            return measure(blank_sqlite(Path(directory)), shape, arguments.load_seconds)
        binaries = find_binaries()
        if binaries is None:
            parser.error("PostgreSQL's server is not installed here")
        with closing(PostgresServer(binaries)) as server:
            return measure(blank_postgresql(server), shape, arguments.load_seconds)


def measure(url: str, shape: Shape, load_seconds: float) -> int:
    """Fill, audit, load; print what it took."""
    console = Console(highlight=False)
    started = time.perf_counter()
    fill(url, shape, 0, shape.records)
    console.print(f"filled with {shape.records:,} records in {time.perf_counter() - started:.0f} s", markup=False)
    results = [in_a_process(audit_once, url, FULL, START_NS + 10 * MINUTE_NS)]
    console.print(str(results[-1]), markup=False)
    more = min(STRETCH, shape.records)
    fill(url, shape, shape.records, more)
    results.append(in_a_process(audit_once, url, RECENT, START_NS + 20 * MINUTE_NS)._replace(what=f"recent, {more:,}"))
    table = Shown(title=f"the audit on {shape.records:,} records of {shape.wallets:,} wallets, {url.partition(':')[0]}")
    for heading in ("audit", "seconds", "peak MiB", "mismatches"):
        table.add_column(heading, justify="left" if heading == "audit" else "right")
    for row in results:
        table.add_row(row.what, f"{row.seconds:.1f}", f"{row.peak_mib:.0f}", str(row.mismatches))
    console.print(table)
    if load_seconds:
        load(console, url, load_seconds)
    return 1 if any(row.mismatches for row in results) else 0


def load(console: Console, url: str, seconds: float) -> None:
    """Ingestion without a full audit and beside one, in turns, so that what else the machine does hits both alike."""
    shares = []
    for _ in range(LOADS):
        without = throughput(url, seconds, full_audit_hours=10_000, audit_seconds=10_000)
        # One full audit after the other, as long as the load lasts.
        beside = throughput(url, seconds, full_audit_hours=1e-9, audit_seconds=0.1)
        shares.append(beside / without)
        console.print(f"{without:,.0f} spans/s without a full audit, {beside:,.0f} beside one: {shares[-1]:.0%}")
    console.print(f"beside a full audit: {statistics.median(shares):.0%} of what it is without")


def in_a_process(work: Callable[..., Measured], *arguments: Any) -> Measured:
    """Run something in a process of its own, whose peak memory is then its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(work, arguments)


def audit_once(url: str, scope: str, now_ns: int) -> Measured:
    """The audit that is due, as a collector's upkeep does it."""
    with closing(open_database(url)) as database:
        before = peak_mib()
        started = time.perf_counter()
        # Without pauses: this is how much work it is.
        Upkeep(Settings(full_audit_share=1), database, lambda: now_ns).audit()
        seconds = time.perf_counter() - started
        with database.reading() as connection:
            audited = last_audit(connection, scope)
    if audited is None or audited.ended_at_ns != now_ns:
        raise RuntimeError(f"no {scope} audit was due")
    return Measured(f"{scope} (before it {before:.0f} MiB)", seconds, peak_mib(), audited.mismatches)


def peak_mib() -> float:
    """The most memory that this process ever had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def fill(url: str, shape: Shape, first: int, records: int) -> None:
    """Write records as if they had come in transactions of so many, and everything that is derived from them."""
    with closing(open_database(url)) as database:
        for start in range(first, first + records, STRETCH):
            size = min(STRETCH, first + records - start)
            with database.transaction() as connection:
                _fill_stretch(connection, shape, start, size, START_NS + (MINUTE_NS if first else 0))
                complete(connection)


def _fill_stretch(connection: Connection, shape: Shape, start: int, size: int, at_ns: int) -> None:
    """`size` records from number `start` on, by the numbers' own arithmetic."""
    base = connection.execute(text("SELECT coalesce(max(id), 0) FROM transactions")).scalar_one()
    last_record = connection.execute(text("SELECT coalesce(max(id), 0) FROM usage_records")).scalar_one()
    per = RECORDS_A_TRANSACTION
    transactions = -(-size // per)
    bounds = {"start": start, "end": start + size - 1, "base": base + 1, "at": at_ns, "after": last_record}
    postgresql = connection.dialect.name == "postgresql"
    connection.execute(
        text(
            f"INSERT INTO transactions (id, tenant_id, kind, recorded_at_ns, memo) {_numbers(postgresql)}"
            " SELECT :base + i, 1, 'usage', :at, '' FROM numbers"
        ),
        {"start": 0, "end": transactions - 1, "base": base + 1, "at": at_ns},
    )
    known = {
        "tenant_id": "1",
        "trace_id": _bytes("i", 16, postgresql),
        "span_id": _bytes("i", 8, postgresql),
        "parent_span_id": _bytes("i", 8, postgresql),
        "transaction_id": f":base + (i - :start) / {per}",
        "received_at_ns": ":at",
        "started_at_ns": ":at",
        "priced_at_ns": ":at",
        "latency_ns": "1000000000 + i % 1000",
        "wallet": _words("wallet-", f"(i * 7919) % {shape.wallets}"),
        "event": _words("event-", "i % 3"),
        "provider": "'openai'",
        "model": _words("model-", "i % 5"),
        "input_tokens": "100 + i % 900",
        "output_tokens": "10 + i % 90",
        "dialect": "'genai'",
        "verdict": "'charged'",
        "cost_nanousd": "1000 + i % 9973",
        "charge_nanocredits": "1000 + i % 9973",
        "price_version_ids": "'[1]'",
        "rule_version_id": "1",
    }
    columns = {name: known.get(name, nothing) for name, nothing in _nothings(usage_records).items()}
    connection.execute(
        text(
            f"INSERT INTO usage_records ({', '.join(columns)}) {_numbers(postgresql)}"
            f" SELECT {', '.join(columns.values())} FROM numbers"
        ),
        bounds,
    )
    _derive(connection, bounds)
    if postgresql:
        connection.execute(
            text("SELECT setval(pg_get_serial_sequence('transactions', 'id'), :last)"), {"last": base + transactions}
        )


def _derive(connection: Connection, bounds: dict[str, int]) -> None:
    """Legs, balances and totals of the records after an id."""
    new = "usage_records WHERE id > :after"
    for kind, name, commodity in (
        ("wallet", "wallet", "CREDIT"),
        ("provider", "provider || '/' || model", "USD"),
        ("earned", "''", "CREDIT"),
        ("cogs", "''", "USD"),
    ):
        amount = "charge_nanocredits" if commodity == "CREDIT" else "cost_nanousd"
        sign, event, rule, count, grouped = {
            "wallet": ("-", "event", "rule_version_id", "count(*)", ", wallet, event, rule_version_id"),
            "provider": ("-", "''", "CAST(NULL AS bigint)", "count(*)", ", provider, model"),
        }.get(kind, ("", "''", "CAST(NULL AS bigint)", "0", ""))
        connection.execute(
            text(
                "INSERT INTO accounts (tenant_id, kind, name, commodity, created_at_ns)"
                f" SELECT DISTINCT 1, '{kind}', {name}, '{commodity}', {bounds['at']} FROM {new}"
                " ON CONFLICT DO NOTHING"
            ),
            {"after": bounds["after"]},
        )
        connection.execute(
            text(
                f"INSERT INTO {postings.name} (transaction_id, account_id, commodity, amount_nano, event,"
                " rule_version_id, records)"
                f" SELECT g.transaction_id, a.id, '{commodity}', g.amount, g.event, g.rule, g.records"
                f" FROM (SELECT transaction_id, {name} AS account, {event} AS event, {rule} AS rule,"
                f" {sign}sum({amount}) AS amount, {count} AS records FROM {new}"
                f" GROUP BY transaction_id{grouped}) g CROSS JOIN accounts a"
                f" WHERE a.tenant_id = 1 AND a.kind = '{kind}' AND a.name = g.account AND a.commodity = '{commodity}'"
            ),
            {"after": bounds["after"]},
        )
    connection.execute(
        text(
            "UPDATE accounts SET balance_nano = balance_nano + p.amount, charged_calls = charged_calls + p.records,"
            " spent_nano = spent_nano - CASE kind WHEN 'wallet' THEN p.amount ELSE 0 END"
            " FROM (SELECT account_id, sum(amount_nano) AS amount, sum(records) AS records FROM postings"
            " WHERE transaction_id >= :base GROUP BY account_id) p WHERE p.account_id = accounts.id"
        ),
        {"base": bounds["base"]},
    )
    _total(connection, bounds["after"])
    count_spans(
        connection, 1, bounds["end"] - bounds["start"] + 1, {Verdict.CHARGED: bounds["end"] - bounds["start"] + 1}
    )


def _total(connection: Connection, after: int) -> None:
    """Everything that sums up records, with those after an id added."""
    labels = {name: name for name in ("tenant_id", "event", "provider", "model")}
    day = {"day": f"priced_at_ns / {DAY_NS}"}
    plain = {name: f"coalesce({name}, 0)" for name in (*TOKEN_COLUMNS, "cost_nanousd", "charge_nanocredits")}
    count = {"requests": "1", "errors": "0"}
    of_day = count | {
        "input_tokens": "input_tokens",
        "output_tokens": "output_tokens",
        "cost_nanousd": "cost_nanousd",
        "charge_nanocredits": "charge_nanocredits",
    }
    block = {"tenant_id": "tenant_id", "block": f"priced_at_ns / {DAY_NS * BLOCK_DAYS}", "wallet": "wallet"}
    of_block = of_day | {
        name: f"CASE WHEN priced_at_ns / {DAY_NS} % {BLOCK_DAYS} = {place} THEN {figure} ELSE 0 END"
        for names, figure in ((BLOCK_REQUESTS, "1"), (BLOCK_COSTS, "cost_nanousd"))
        for place, name in enumerate(names)
    }
    tags = {name: name for name in ("dept", "project", "task", "verdict")}
    cards = {name: name for name in ("tenant_id", "provider", "model", "price_version_ids")} | {"reversed": "0"}
    of_card = {"requests": "1"} | {name: plain[name] for name in plain if name in card_totals.c}
    for table, key, sums in (
        (usage_totals, labels | tags | {"reversed": "0"}, count | plain),
        (usage_days, labels | day | {"verdict": "verdict"}, of_day),
        (wallet_days, labels | day | {"wallet": "wallet"}, of_day),
        (wallet_blocks, block, of_block),
        (card_totals, cards, of_card),
    ):
        added = ", ".join(f"{name} = {table.name}.{name} + excluded.{name}" for name in sums)
        connection.execute(
            text(
                f"INSERT INTO {table.name} ({', '.join((*key, *sums))})"
                f" SELECT {', '.join(key.values())}, {', '.join(f'sum({one})' for one in sums.values())}"
                f" FROM usage_records WHERE id > :after GROUP BY {', '.join(str(n + 1) for n in range(len(key)))}"
                f" ON CONFLICT ({', '.join(key)}) DO UPDATE SET {added}"
            ),
            {"after": after},
        )


def _nothings(table: Table) -> dict[str, str]:
    """Every column that must be given, with what stands for nothing in it."""
    found = {}
    for column in table.c:
        if column.name != "id" and column.server_default is None:
            empty = "''" if isinstance(column.type, Text) else "0"
            found[column.name] = "NULL" if column.nullable else empty
            assert not (isinstance(column.type, LargeBinary) and not column.nullable) or column.name.endswith("_id")
    return found


def _numbers(postgresql: bool) -> str:
    if postgresql:
        return "WITH numbers AS (SELECT generate_series(CAST(:start AS bigint), CAST(:end AS bigint)) AS i)"
    return "WITH RECURSIVE numbers(i) AS (SELECT :start UNION ALL SELECT i + 1 FROM numbers WHERE i < :end)"


def _bytes(number: str, width: int, postgresql: bool) -> str:
    if postgresql:
        return f"convert_to(lpad(CAST({number} AS text), {width}, '0'), 'UTF8')"
    return f"CAST(printf('%0{width}d', {number}) AS BLOB)"


def _words(prefix: str, number: str) -> str:
    return f"'{prefix}' || CAST({number} AS text)"


def throughput(url: str, seconds: float, **settings: Any) -> float:
    """Spans a second that a collector acknowledges over these books, from several connections at once."""
    with tempfile.TemporaryDirectory(prefix="farebox-audit-") as directory:
        collector = Collector(url, Path(directory) / "collector.log", **settings)
        try:
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                return pool.apply(send, (collector.grpc_target, seconds))
        finally:
            collector.close()


def send(target: str, seconds: float) -> float:
    """Spans a second that were acknowledged; the requests are made before the clock starts."""
    bodies = iter([protobuf_body(llm_span(wallet=f"wallet-{n}") for n in range(PER_REQUEST)) for _ in range(MOST)])
    taking = threading.Lock()
    acknowledged = 0
    started = time.perf_counter()

    def run() -> None:
        nonlocal acknowledged
        channel = grpc.insecure_channel(target, options=[("grpc.use_local_subchannel_pool", 1)])
        export = unary(channel)
        while time.perf_counter() - started < seconds:
            with taking:
                body = next(bodies, None)
            if body is None:
                break
            export(body, timeout=60)
            with taking:
                acknowledged += PER_REQUEST
        channel.close()

    threads = [threading.Thread(target=run) for _ in range(SENDERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return acknowledged / (time.perf_counter() - started)


if __name__ == "__main__":
    sys.exit(main())
