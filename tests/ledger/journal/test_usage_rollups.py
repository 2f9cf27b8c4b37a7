"""The roll-ups by day equal the records: recorded, reversed, or carried over from older books."""

from collections import Counter

import pytest
from alembic import command
from calls import START_NS, call
from farebox_collector.ledger.audit.books_audit import audit
from farebox_collector.ledger.credits.movements import Kind, Movement, move
from farebox_collector.ledger.storage.database import Database
from farebox_collector.ledger.storage.migrate import alembic_config
from farebox_collector.ledger.usage.booking import record_usage
from farebox_collector.ledger.usage.running_totals import TotalLabels, add_to_totals
from farebox_collector.model.moments import DAY_NS
from farebox_collector.model.records import Buckets, PricedUsage
from farebox_collector.model.verdicts import Verdict
from sqlalchemy import text

TODAY = START_NS // DAY_NS


def some_calls() -> list[PricedUsage]:
    """Three days, three wallets, two events, two models; a failure, an unpriced and an unmetered call among them."""
    made = [
        call(
            number,
            trace=number,
            wallet=f"wallet-{number % 3}",
            event=f"event-{number % 2}",
            model=f"model-{number % 5 % 2}",
            start_ns=START_NS - number % 3 * DAY_NS,
            cost_nanousd=number,
            buckets=Buckets(input=number, cache_read=1, output=2, input_image=3, output_audio=4, reasoning=1),
            error_type="timeout" if number == 7 else "",
        )
        for number in range(1, 40)
    ]
    made.append(call(90, trace=90, verdict=Verdict.UNPRICED))
    made.append(call(91, trace=91, verdict=Verdict.UNMETERED, buckets=None))
    return made


def test_calls_are_on_the_day_of_their_price_under_their_wallet(database: Database) -> None:
    made = some_calls()
    with database.transaction() as connection:
        for part in (made[:20], made[10:30], made[30:]):
            record_usage(connection, 1, part, START_NS, TotalLabels())
        rows = connection.execute(text("SELECT * FROM wallet_days ORDER BY id")).all()
        assert list(audit(connection)) == []
    expected: Counter[tuple[int, str, str, str]] = Counter()
    spent: Counter[tuple[int, str]] = Counter()
    for made_call in made[:39]:
        usage, day = made_call.usage, made_call.priced_at_ns // DAY_NS
        expected[day, usage.wallet, usage.event, made_call.model] += 1
        spent[day, usage.wallet] += made_call.charge_nanocredits or 0
    assert {(row.day, row.wallet, row.event, row.model): row.requests for row in rows} == expected
    assert Counter({(TODAY - n, f"wallet-{n}"): spent[TODAY - n, f"wallet-{n}"] for n in range(3)}) == spent
    (failed,) = [row for row in rows if row.errors]
    assert (failed.day, failed.wallet, failed.errors) == (TODAY - 1, "wallet-1", 1)
    one = next(row for row in rows if row.requests == 1 or row.requests)
    assert (one.input_tokens - 4 * one.requests, one.output_tokens) == (
        sum(c.usage.buckets.input for c in made[:39] if c.usage.buckets and same_row(c, one)),
        6 * one.requests,
    )


def same_row(made: PricedUsage, row: object) -> bool:
    key = (made.priced_at_ns // DAY_NS, made.usage.wallet, made.usage.event, made.model)
    return key == (row.day, row.wallet, row.event, row.model)  # type: ignore[attr-defined]


def test_what_is_taken_back_leaves_no_trace_in_the_sums(database: Database) -> None:
    made = some_calls()
    with database.transaction() as connection:
        record_usage(connection, 1, made, START_NS, TotalLabels())
        before = sums(connection)
        wrong = [call(99, trace=99, wallet="wallet-1", cost_nanousd=10**6)]
        add_to_totals(connection, 1, wrong, TotalLabels(), reversed=False)
        assert sums(connection) != before
        assert {mismatch.check for mismatch in audit(connection)} == {"days", "wallet days", "totals", "bridge credits"}
        add_to_totals(connection, 1, wrong, TotalLabels(), reversed=True)
        assert sums(connection) == before
        assert list(audit(connection)) == []


def sums(connection: object) -> list[tuple[int, ...]]:
    columns = "sum(requests), sum(errors), sum(input_tokens), sum(output_tokens), sum(cost_nanousd)"
    return [
        tuple(connection.execute(text(f"SELECT {columns}, sum(charge_nanocredits) FROM {table}")).one())  # type: ignore[attr-defined]
        for table in ("usage_days", "wallet_days")
    ]


@pytest.mark.parametrize("table", ["usage_days", "wallet_days"])
def test_the_audit_finds_a_day_that_is_off(database: Database, table: str) -> None:
    with database.transaction() as connection:
        record_usage(connection, 1, some_calls(), START_NS, TotalLabels())
        connection.execute(text(f"UPDATE {table} SET output_tokens = output_tokens + 1 WHERE id = 2"))
        found = [mismatch.check for mismatch in audit(connection)]
    # The days of costs are compared with those of usage, so that they no longer agree either.
    assert found == {"usage_days": ["days", "cost days"], "wallet_days": ["wallet days", "wallet blocks"]}[table]


def test_books_from_before_get_their_days(database: Database) -> None:
    with database.transaction() as connection:
        record_usage(connection, 1, some_calls(), START_NS, TotalLabels())
        for number, kind in enumerate((Kind.DEPOSIT, Kind.GRANT, Kind.ADJUSTMENT)):
            amount = 1000 - 600 * number
            moved = Movement(kind, "wallet-1", amount, 5 if kind is Kind.DEPOSIT else 0)
            move(connection, 1, moved, f"key-{number}", START_NS + number % 2 * DAY_NS)
        expected = [sorted(tuple(row)[1:] for row in connection.execute(text(f"SELECT * FROM {t}"))) for t in TABLES]
        blocks = sorted(map(tuple, connection.execute(text("SELECT * FROM wallet_blocks"))))
    with database.transaction() as connection:
        command.downgrade(alembic_config(connection), "0012")
    with database.appending() as connection:
        command.upgrade(alembic_config(connection), "head")
        found = [sorted(tuple(row)[1:] for row in connection.execute(text(f"SELECT * FROM {t}"))) for t in TABLES]
        assert found == expected
        assert sorted(map(tuple, connection.execute(text("SELECT * FROM wallet_blocks")))) == blocks
        assert list(audit(connection)) == []


TABLES = ("usage_days", "wallet_days", "money_days", "cost_days")
