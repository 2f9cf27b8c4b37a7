"""Books of an older version are carried over: what is in them stays, and what comes again is still known."""

import pytest
from alembic import command
from calls import START_NS, call
from farebox_collector.ledger.database import Database
from farebox_collector.ledger.schema import alembic_config
from farebox_collector.ledger.totals import TotalLabels
from farebox_collector.ledger.usage import record_usage
from farebox_collector.records import Buckets
from farebox_collector.verdicts import Verdict
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError


def test_image_tokens_and_units_of_records_from_before_compare_equal(database: Database) -> None:
    metered, unmetered = call(1), call(2, verdict=Verdict.UNMETERED, buckets=None)
    with database.transaction() as connection:
        record_usage(connection, 1, [metered, unmetered], START_NS, TotalLabels())
        columns = "input_image_tokens, output_image_tokens"
        command.downgrade(alembic_config(connection), "0002")
    with database.transaction() as connection:
        command.upgrade(alembic_config(connection), "head")
        rows = connection.execute(text(f"SELECT {columns}, units FROM usage_records ORDER BY id")).all()
        assert rows == [(0, 0, ""), (None, None, "")]
        again = record_usage(connection, 1, [metered, unmetered], START_NS, TotalLabels())
    assert again == [Verdict.DUPLICATE, Verdict.DUPLICATE]


def test_the_same_span_with_other_units_is_a_conflict(database: Database) -> None:
    first = call(1, buckets=Buckets(input=1))
    searched = first._replace(usage=first.usage._replace(units=(("web_searches", 1),)))
    with database.transaction() as connection:
        assert record_usage(connection, 1, [first], START_NS, TotalLabels()) == [Verdict.CHARGED]
        assert record_usage(connection, 1, [searched, first], START_NS, TotalLabels()) == [
            Verdict.CONFLICT,
            Verdict.DUPLICATE,
        ]


def test_prices_from_before_there_were_conditions_are_standard_list_prices_in_dollars(database: Database) -> None:
    with database.transaction() as connection:
        before = connection.execute(text("SELECT count(*) FROM price_versions")).scalar_one()
        command.downgrade(alembic_config(connection), "0007")
    with database.transaction() as connection:
        command.upgrade(alembic_config(connection), "head")
        columns = "condition, tenant_id, currency, original_per_1k, usd_per_currency"
        rows = connection.execute(text(f"SELECT {columns}, count(*) FROM price_versions GROUP BY {columns}")).all()
        assert rows == [("standard", None, "USD", "", "1", before)]
        # What guards them is there again.
        with pytest.raises(DBAPIError, match="never"), connection.begin_nested():
            connection.execute(text("UPDATE price_versions SET usd_per_1k = '0'"))
