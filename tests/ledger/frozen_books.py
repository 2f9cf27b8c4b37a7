"""Histories of books that are the same on every machine, and the sums that they must end with."""

import random
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from calls import SECOND_NS, START_NS, call
from farebox_collector.ledger.credits.deposits import deposit
from farebox_collector.ledger.credits.holds import HoldRequest, take_holds
from farebox_collector.ledger.storage.database import Database
from farebox_collector.ledger.tables.books import usage_records
from farebox_collector.ledger.usage.corrections import Cause, Correction, correct, cover
from farebox_collector.ledger.usage.entries import Entry
from farebox_collector.ledger.usage.running_totals import TotalLabels
from farebox_collector.ledger.usage.stored_usage import stored_calls, usage_query
from farebox_collector.model.records import Buckets, PricedUsage
from farebox_collector.model.verdicts import Verdict

SEEDS = range(1, 7)
STEPS = 25
Record = Callable[[list[PricedUsage], int], Any]
"""Records calls that were received at a moment."""

_SUMS = {
    "accounts": "kind, name, commodity, balance_nano, spent_nano, charged_calls, held_nano",
    "usage_records": "trace_id, span_id, wallet, verdict, cost_nanousd, charge_nanocredits, corrections, reason",
    "wallet_days": "day, wallet, event, provider, model, requests, errors, input_tokens, output_tokens, cost_nanousd,"
    " charge_nanocredits",
    "usage_days": "day, event, provider, model, verdict, requests, errors, input_tokens, output_tokens, cost_nanousd,"
    " charge_nanocredits",
    "usage_totals": "event, model, dept, project, verdict, reversed, requests, errors, input_tokens, output_tokens,"
    " cost_nanousd, charge_nanocredits",
    "card_totals": "model, price_version_ids, reversed, requests, input_tokens, output_tokens, cost_nanousd",
    "service_totals": "model, route, requests, errors, latency_us, latency_le_500ms, latency_le_1000ms, input_tokens,"
    " output_tokens",
    "cost_days": "day, model, event, dept, requests, input_tokens, output_tokens, cost_nanousd, charge_nanocredits",
    "spending_days": "day, scope, name, user_id, charge_nanocredits",
    "call_claims": "slot, call_key",
    "holds": "idempotency_key, state, open_nano, settled_nano",
    "usage_conflicts": "trace_id, span_id",
}


def play(database: Database, seed: int, record: Record) -> None:
    """Book one history: calls, some of them twice or by several spans, deposits, holds and corrections."""
    chosen = random.Random(seed)
    labels = TotalLabels()
    sent: list[list[PricedUsage]] = []
    for step in range(STEPS):
        at_ns = START_NS + step * SECOND_NS
        what = chosen.choice(("calls",) * 6 + ("again", "deposit", "hold", "correct"))
        if what == "calls":
            sent.append(_calls(chosen, step))
            record(sent[-1], at_ns)
        elif what == "again" and sent:
            record(chosen.choice(sent), at_ns)
        elif what == "deposit":
            with database.transaction() as connection:
                deposit(connection, 1, chosen.choice("abc"), chosen.randrange(1, 5_000), f"given {step}", at_ns)
        elif what == "hold":
            wallet, amount, action = chosen.choice("abc"), chosen.randrange(1, 900), chosen.choice("xy")
            request = HoldRequest(wallet, amount, f"k{step}", "chat", action, 60)
            with database.transaction() as connection:
                take_holds(connection, 1, [request], at_ns)
        elif what == "correct":
            _correct(database, chosen, at_ns, labels)


def _calls(chosen: random.Random, step: int) -> list[PricedUsage]:
    made = []
    for number in range(chosen.randrange(1, 9)):
        verdict = chosen.choice((Verdict.CHARGED,) * 6 + (Verdict.UNPRICED, Verdict.UNMETERED))
        tokens = Buckets(input=chosen.randrange(1, 6), output=chosen.randrange(0, 4))
        one = call(
            10 * step + number,
            trace=chosen.randrange(1, 9) + 10 * step,
            parent=chosen.choice((0, 0, 10 * step, 10 * step + 1)),
            wallet=chosen.choice("abc"),
            event=chosen.choice(("chat", "agent")),
            cost_nanousd=chosen.randrange(1, 100),
            response_id=chosen.choice(("", f"r{step}-{number}", f"r{step}-{number}", f"r{chosen.randrange(20)}")),
            start_ns=START_NS + chosen.randrange(3) * SECOND_NS,
            latency_ns=chosen.choice((SECOND_NS, SECOND_NS // 4, 100 * SECOND_NS)),
            verdict=verdict,
            buckets=None if verdict is Verdict.UNMETERED else tokens,
            error_type=chosen.choice(("", "", "timeout")),
            model=chosen.choice("mn"),
        )
        usage = one.usage._replace(
            dept=chosen.choice(("", "d")), project=chosen.choice(("", "p")), action_id=chosen.choice(("", "x", "y"))
        )
        if usage.parent_span_id == usage.span_id:
            usage = usage._replace(parent_span_id=b"")
        made.append(one._replace(usage=usage))
    return made


def _correct(database: Database, chosen: random.Random, at_ns: int, labels: TotalLabels) -> None:
    with database.transaction() as connection:
        query = usage_query(1).where(usage_records.c.verdict == "charged").order_by(usage_records.c.id)
        stored = list(stored_calls(connection, query))
        if not stored:
            return
        one = chosen.choice(stored)
        if chosen.random() < 0.5:
            wanted = cover(one)
        else:
            dearer = one.call._replace(cost_nanousd=chosen.randrange(1, 100), price_version_ids="[2]")
            wanted = Correction(one, Entry(dearer))
        correct(connection, 1, Cause.REPLAY, [wanted], at_ns, labels)


def sums(path: Path) -> dict[str, Sequence[Sequence[Any]]]:
    """Return the rows of each table of sums, in an order of their own; bytes as hex."""

    def plain(value: Any) -> Any:
        return value.hex() if isinstance(value, bytes) else value

    with closing(sqlite3.connect(path)) as connection:
        return {
            table: sorted(
                ([plain(value) for value in row] for row in connection.execute(f"SELECT {columns} FROM {table}")),
                key=str,
            )
            for table, columns in _SUMS.items()
        }
