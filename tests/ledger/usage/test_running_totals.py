"""Running totals against the calls they sum up: by every label, through corrections, capped, and carried over."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from alembic import command
from calls import SECOND_NS, START_NS, call
from farebox_collector import assembly
from farebox_collector.ledger.audit.books_audit import audit
from farebox_collector.ledger.credits.deposits import deposit
from farebox_collector.ledger.storage.database import Database
from farebox_collector.ledger.storage.migrate import alembic_config
from farebox_collector.ledger.tables.books import usage_totals
from farebox_collector.ledger.tables.service import FIRST_CHUNK_BOUNDS_MS, LATENCY_BOUNDS_MS, service_totals
from farebox_collector.ledger.tables.usage_columns import TOKEN_COLUMNS
from farebox_collector.ledger.usage.booking import record_usage
from farebox_collector.ledger.usage.quality import keep_reports
from farebox_collector.ledger.usage.running_totals import TotalLabels, add_to_totals
from farebox_collector.model.records import (
    DEFAULT_TENANT_ID,
    Buckets,
    PricedUsage,
    Quality,
    QualityReport,
)
from farebox_collector.model.verdicts import ONE_CALL, Verdict
from farebox_collector.settings import Settings
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sqlalchemy import Connection, select, text

TAGS = st.sampled_from(("", "support", "research"))


def tagged(priced: PricedUsage, **tags: Any) -> PricedUsage:
    """The call with other facts of its usage record."""
    return priced._replace(usage=priced.usage._replace(**tags))


@st.composite
def calls(draw: st.DrawFn) -> list[PricedUsage]:
    """Calls of few models, tags and verdicts, each of its own trace."""
    made = []
    for number in range(1, draw(st.integers(1, 30)) + 1):
        verdict = draw(st.sampled_from((Verdict.CHARGED, Verdict.UNPRICED, Verdict.FAILED, Verdict.DEFERRED)))
        priced = call(
            number,
            trace=number,
            verdict=verdict,
            event=draw(st.sampled_from(("chat", "agent"))),
            model=draw(st.sampled_from(("m", "n"))),
            cost_nanousd=draw(st.integers(0, 10**12)),
            latency_ns=draw(st.integers(0, 300 * SECOND_NS)),
            error_type=draw(st.sampled_from(("", "timeout"))),
            buckets=draw(st.builds(Buckets, *(st.integers(0, 1000) for _ in Buckets._fields))),
        )
        first_chunk = draw(st.none() | st.integers(0, 20 * SECOND_NS))
        quality = Quality(*(draw(st.sampled_from((None, 0, 1))) for _ in Quality._fields))
        made.append(
            tagged(
                priced,
                dept=draw(TAGS),
                task=draw(TAGS),
                route=draw(TAGS),
                region=draw(TAGS),
                time_to_first_chunk_ns=first_chunk,
                quality=quality,
            )
        )
    return made


def rows_of(connection: Connection, table: Any) -> list[Any]:
    return list(connection.execute(select(table)).all())


@pytest.fixture(scope="module")
def books(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """Books in SQLite for many examples."""
    settings = Settings(database_url=f"sqlite:///{tmp_path_factory.mktemp('totals')}/farebox.db")
    database = assembly.open_books(settings, lambda: START_NS)
    yield database
    database.close()


@hypothesis_settings(max_examples=40, deadline=None)
@given(made=calls())
def test_totals_are_the_sums_of_the_calls(made: list[PricedUsage], books: Database) -> None:
    with books.transaction() as connection:
        totals = (
            "usage_totals",
            "card_totals",
            "service_totals",
            "intake_totals",
            "usage_days",
            "wallet_days",
            "wallet_blocks",
            "spending_days",
            "cost_days",
        )
        for table in (*totals, "usage_records", "postings", "transactions", "accounts"):
            connection.execute(text(f"DELETE FROM {table}"))
        record_usage(connection, DEFAULT_TENANT_ID, made, START_NS, TotalLabels())
        spending, service = rows_of(connection, usage_totals), rows_of(connection, service_totals)
        assert list(audit(connection)) == []
    cost: Counter[tuple[str, ...]] = Counter()
    requests: Counter[tuple[str, ...]] = Counter()
    latency: Counter[tuple[str, str, str, int]] = Counter()
    for priced in made:
        usage = priced.usage
        if priced.verdict is Verdict.CHARGED:
            cost[usage.event, priced.model, usage.dept, usage.task] += priced.cost_nanousd or 0
        if priced.verdict in ONE_CALL:
            requests[priced.model, usage.route, usage.region] += 1
            for bound in LATENCY_BOUNDS_MS:
                latency[priced.model, usage.route, usage.region, bound] += usage.latency_ns <= bound * 10**6
    found: Counter[tuple[str, ...]] = Counter()
    for row in spending:
        found[row.event, row.model, row.dept, row.task] += row.cost_nanousd
    assert +found == +cost
    assert {(row.model, row.route, row.region): row.requests for row in service} == requests
    one_calls = [priced.usage for priced in made if priced.verdict in ONE_CALL]
    for row in service:
        for bound in LATENCY_BOUNDS_MS:
            assert getattr(row, f"latency_le_{bound}ms") == latency[row.model, row.route, row.region, bound]
    for bound in FIRST_CHUNK_BOUNDS_MS:
        expected = sum((usage.time_to_first_chunk_ns or 10**12) <= bound * 10**6 for usage in one_calls)
        expected += sum(usage.time_to_first_chunk_ns == 0 for usage in one_calls)
        assert sum(getattr(row, f"first_chunk_le_{bound}ms") for row in service) == expected
    assert sum(row.citation_rates for row in service) == sum(u.quality.citation_rate_ppm is not None for u in one_calls)
    assert sum(row.human_reviews for row in service) == sum(u.quality.human_reviewed or 0 for u in one_calls)
    assert sum(row.input_tokens for row in service) == sum(u.buckets.inclusive_input for u in one_calls if u.buckets)


def test_a_correction_only_adds_and_what_holds_is_the_difference(database: Database) -> None:
    before, after = call(1, cost_nanousd=500), call(1, cost_nanousd=300)
    labels = TotalLabels()
    with database.transaction() as connection:
        record_usage(connection, DEFAULT_TENANT_ID, [before], START_NS, labels)
        add_to_totals(connection, DEFAULT_TENANT_ID, [before], labels, reversed=True)
        add_to_totals(connection, DEFAULT_TENANT_ID, [after], labels, reversed=False)
        rows = {row.reversed: row for row in rows_of(connection, usage_totals)}
        service = rows_of(connection, service_totals)
    assert (rows[0].cost_nanousd, rows[1].cost_nanousd) == (800, 500)
    assert (rows[0].requests, rows[1].requests) == (2, 1)
    assert [row.requests for row in service] == [1], "how a call went is counted once"


def test_reversed_totals_without_their_correction_are_a_mismatch(database: Database) -> None:
    with database.transaction() as connection:
        record_usage(connection, DEFAULT_TENANT_ID, [call(1)], START_NS, TotalLabels())
        add_to_totals(connection, DEFAULT_TENANT_ID, [call(1)], TotalLabels(), reversed=True)
    with database.reading() as connection:
        mismatches = {mismatch.check: mismatch for mismatch in audit(connection)}
    assert set(mismatches) == {"totals", "days", "wallet days", "bridge credits"}
    mismatch = mismatches["totals"]
    assert mismatch.expected == "1 records"
    assert mismatch.found.startswith("0 requests, off by requests -1, cost_nanousd -100")


def test_past_the_bound_tags_are_given_up_first_then_names(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("farebox_collector.ledger.usage.running_totals.MAX_LABELS", 5)
    labels = TotalLabels()
    flood = [tagged(call(n, trace=n, model="m" if n <= 50 else f"m{n}"), dept=f"d{n}") for n in range(1, 101)]
    with database.transaction() as connection:
        record_usage(connection, DEFAULT_TENANT_ID, flood[:50], START_NS, labels)
        record_usage(connection, DEFAULT_TENANT_ID, flood[50:], START_NS, labels)
        rows = rows_of(connection, usage_totals)
    kept = {(row.model, row.dept) for row in rows}
    assert len([dept for model, dept in kept if dept != "other"]) == 5
    assert ("m", "other") in kept, "the model is known even where the department is not"
    assert ("other", "other") in kept
    assert len(rows) == 5 + 5 + 1
    assert labels.folded == 95
    assert sum(row.cost_nanousd for row in rows) == 100 * 100


def test_reports_are_counted_once_with_the_call_they_are_about(database: Database) -> None:
    labels = TotalLabels()
    answer = tagged(call(7, trace=7, model="gpt"), route="cheap")
    known = QualityReport(b"r" * 16, b"1" * 8, answer.usage.trace_id, Quality(None, 750_000, 1, 1))
    stray = QualityReport(b"r" * 16, b"2" * 8, b"?" * 16, Quality(1, None, 1, 0))
    with database.transaction() as connection:
        record_usage(connection, DEFAULT_TENANT_ID, [answer], START_NS, labels)
        for _ in range(2):
            keep_reports(connection, DEFAULT_TENANT_ID, [stray, known, known], START_NS, labels)
        rows = {row.model: row for row in rows_of(connection, service_totals)}
    assert (rows["gpt"].requests, rows["gpt"].route) == (1, "cheap")
    assert (rows["gpt"].citation_rates, rows["gpt"].citation_rate_ppm) == (1, 750_000)
    assert (rows["gpt"].human_reviews, rows["gpt"].human_approvals) == (1, 1)
    assert (rows["unknown"].requests, rows["unknown"].cache_hits, rows["unknown"].human_reviews) == (0, 1, 1)


def test_books_from_before_keep_their_totals(database: Database) -> None:
    made = [tagged(call(n, trace=n, latency_ns=n * SECOND_NS // 10), region="eu") for n in range(1, 30)]
    with database.transaction() as connection:
        record_usage(connection, DEFAULT_TENANT_ID, made, START_NS, TotalLabels())
        deposit(connection, DEFAULT_TENANT_ID, "ada", 5_000, "k", START_NS)
        expected = [tuple(row)[1:] for row in rows_of(connection, service_totals)]
    with database.transaction() as connection:
        command.downgrade(alembic_config(connection), "0004")
    with database.appending() as connection:
        command.upgrade(alembic_config(connection), "head")
        assert [tuple(row)[1:] for row in rows_of(connection, service_totals)] == expected
        assert list(audit(connection)) == []
        credits_in = connection.execute(text("SELECT source, movements, amount_nanocredits FROM credit_totals")).all()
        assert credits_in == [("deposit", 1, 5_000)]
        (totals,) = rows_of(connection, usage_totals)
    assert {name: getattr(totals, name) for name in TOKEN_COLUMNS if name.startswith(("input_t", "output_t"))} == {
        "input_tokens": 290,
        "output_tokens": 145,
    }
