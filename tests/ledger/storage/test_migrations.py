"""Books of an older version are carried over: their content stays, and repeated spans are still recognised."""

import sqlite3
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from alembic import command
from alembic.script import ScriptDirectory
from blank import blank_postgresql, blank_sqlite
from calls import START_NS, call
from farebox_collector.ledger.audit.books_audit import audit
from farebox_collector.ledger.journal.posting_index import POSTING_INDEX
from farebox_collector.ledger.reports.statements import UsageFilter, usage
from farebox_collector.ledger.storage.connect import open_database
from farebox_collector.ledger.storage.database import Database
from farebox_collector.ledger.storage.migrate import (
    OldCollectors,
    alembic_config,
    has_table,
    migrate,
    newest_revision,
)
from farebox_collector.ledger.tables.books import usage_records
from farebox_collector.ledger.usage.booking import record_usage
from farebox_collector.ledger.usage.correction_totals import SUMS
from farebox_collector.ledger.usage.corrections import (
    Cause,
    Correction,
    correct,
    cover,
)
from farebox_collector.ledger.usage.entries import Entry
from farebox_collector.ledger.usage.running_totals import TotalLabels
from farebox_collector.ledger.usage.stored_usage import stored_calls, usage_query
from farebox_collector.model.records import Buckets
from farebox_collector.model.verdicts import Verdict
from postgres import PostgresServer
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError


def test_the_newest_revision_is_where_the_migrations_lead(database: Database) -> None:
    with database.reading() as connection:
        script = ScriptDirectory.from_config(alembic_config(connection))
        assert script.get_heads() == [newest_revision()]


def test_image_tokens_and_units_of_records_from_before_compare_equal(database: Database) -> None:
    metered, unmetered = call(1), call(2, verdict=Verdict.UNMETERED, buckets=None)
    with database.appending() as connection:
        record_usage(connection, 1, [metered, unmetered], START_NS, TotalLabels())
        columns = "input_image_tokens, output_image_tokens"
        command.downgrade(alembic_config(connection), "0002")
    with database.appending() as connection:
        command.upgrade(alembic_config(connection), "head")
        rows = connection.execute(text(f"SELECT {columns}, units FROM usage_records ORDER BY id")).all()
        assert rows == [(0, 0, ""), (None, None, "")]
        again = record_usage(connection, 1, [metered, unmetered], START_NS, TotalLabels())
    assert again == [Verdict.DUPLICATE, Verdict.DUPLICATE]


def test_the_unique_key_of_spans_leaves_a_file_and_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "farebox.db"
    with closing(open_database(blank_sqlite(tmp_path))) as database:
        calls = [call(n, trace=n // 3, response_id=f"r{n}") for n in range(1, 2_000)]
        database.transact(lambda connection: record_usage(connection, 1, calls, START_NS, TotalLabels()))
        for revision, sources in (("0039", {"sqlite_autoindex_usage_records_1"}), ("head", set())):
            change = command.upgrade if revision == "head" else command.downgrade
            with database.appending() as connection:
                change(alembic_config(connection), revision)
            with closing(sqlite3.connect(path)) as file:
                assert file.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
                indexes = file.execute("SELECT name FROM pragma_index_list('usage_records') WHERE origin = 'u'")
                assert {name for (name,) in indexes} == sources
        again = database.transact(lambda connection: record_usage(connection, 1, calls, START_NS, TotalLabels()))
        assert set(again) == {Verdict.DUPLICATE}
        with database.reading() as connection:
            assert list(audit(connection)) == []


def test_the_same_span_with_other_units_is_a_conflict(database: Database) -> None:
    first = call(1, buckets=Buckets(input=1))
    searched = first._replace(usage=first.usage._replace(units=(("web_searches", 1),)))
    with database.appending() as connection:
        assert record_usage(connection, 1, [first], START_NS, TotalLabels()) == [Verdict.CHARGED]
        assert record_usage(connection, 1, [searched, first], START_NS, TotalLabels()) == [
            Verdict.CONFLICT,
            Verdict.DUPLICATE,
        ]


def test_prices_from_before_there_were_conditions_are_standard_list_prices_in_dollars(database: Database) -> None:
    with database.appending() as connection:
        before = connection.execute(text("SELECT count(*) FROM price_versions")).scalar_one()
        command.downgrade(alembic_config(connection), "0007")
    with database.appending() as connection:
        command.upgrade(alembic_config(connection), "head")
        columns = "condition, tenant_id, currency, original_per_1k, usd_per_currency"
        rows = connection.execute(text(f"SELECT {columns}, count(*) FROM price_versions GROUP BY {columns}")).all()
        assert rows == [("standard", None, "USD", "", "1", before)]
        # What guards them is there again.
        with pytest.raises(DBAPIError, match="never"), connection.begin_nested():
            connection.execute(text("UPDATE price_versions SET usd_per_1k = '0'"))


def test_what_was_used_under_each_price_is_made_from_records_and_corrections(database: Database) -> None:
    totals = text(
        "SELECT provider, model, price_version_ids, reversed, requests, input_tokens, output_tokens, cost_nanousd"
        " FROM card_totals ORDER BY model, price_version_ids, reversed"
    )
    made = [call(n, trace=n, model="mn"[n % 2], cost_nanousd=n) for n in range(1, 20)]
    made.append(call(20, trace=20, verdict=Verdict.UNPRICED))
    with database.appending() as connection:
        record_usage(connection, 1, made, START_NS, TotalLabels())
        stored = list(stored_calls(connection, usage_query(1).where(usage_records.c.model == "m")))
        charged = [one for one in stored if one.call.verdict is Verdict.CHARGED]
        correct(connection, 1, Cause.TWIN, [cover(one) for one in charged[:4]], START_NS, TotalLabels())
        dearer = Entry(charged[5].call._replace(cost_nanousd=777, price_version_ids="[2]"))
        correct(connection, 1, Cause.REPLAY, [Correction(charged[5], dearer)], START_NS, TotalLabels())
        kept = connection.execute(totals).all()
        assert [row.reversed for row in kept] == [0, 1, 0, 0], "model m at two prices, one of them taken back; n"
        corrected = connection.execute(text(f"SELECT cause, {', '.join(SUMS)} FROM correction_totals ORDER BY 1")).all()
        given_back = sum(one.call.cost_nanousd or 0 for one in charged[:4])
        dearer_by = 777 - (charged[5].call.cost_nanousd or 0)
        assert corrected == [("replay", 1, dearer_by, 0, 0, 0), ("twin", 4, 0, given_back, 0, 3 * given_back)]
        command.downgrade(alembic_config(connection), "0016")
    with database.appending() as connection:
        command.upgrade(alembic_config(connection), "head")
        assert connection.execute(totals).all() == kept
        again = connection.execute(text(f"SELECT cause, {', '.join(SUMS)} FROM correction_totals ORDER BY 1")).all()
        assert again == corrected
        assert list(audit(connection)) == []


def test_postings_from_before_are_found_by_account(database: Database) -> None:
    with database.appending() as connection:
        record_usage(
            connection, 1, [call(n, trace=n, wallet="ab"[n % 2]) for n in range(1, 9)], START_NS, TotalLabels()
        )
        command.downgrade(alembic_config(connection), "0025")
    with database.appending() as connection:
        command.upgrade(alembic_config(connection), "head")
        waiting = POSTING_INDEX.behind(connection)
        record_usage(connection, 1, [call(9, trace=9, wallet="a")], START_NS, TotalLabels())
        assert [row.trace_id[-1] for row in usage(connection, 1, UsageFilter(wallet="a"))] == [9, 8, 6, 4, 2]
        assert list(audit(connection)) == []
    assert not waiting, "none is left to be read through"


def test_no_sum_is_begun_while_a_collector_that_does_not_know_it_runs(postgres: PostgresServer) -> None:
    url = blank_postgresql(postgres)
    with closing(open_database(url)) as database:
        with database.appending() as connection:
            command.downgrade(alembic_config(connection), "0014")
        plain = url.replace("+psycopg", "")
        with psycopg.connect(plain, application_name="farebox"), pytest.raises(OldCollectors, match="stop them first"):
            migrate(database)
        with database.reading() as connection:
            assert not has_table(connection, "intake_totals"), "nothing was done"
        # One of this version is no reason to wait, nor is what is no collector.
        with closing(open_database(url)) as beside, beside.reading(), psycopg.connect(plain, application_name="psql"):
            migrate(database)
        with psycopg.connect(plain, application_name="farebox"):
            migrate(database)  # there is nothing to begin any more
        with database.reading() as connection:
            assert list(audit(connection)) == []
