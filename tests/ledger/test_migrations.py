"""Books of an older version are carried over: what is in them stays, and what comes again is still known."""

from alembic import command
from calls import START_NS, call
from farebox_collector.ledger.database import Database
from farebox_collector.ledger.schema import alembic_config
from farebox_collector.ledger.totals import TotalLabels
from farebox_collector.ledger.usage import record_usage
from farebox_collector.records import Buckets
from farebox_collector.verdicts import Verdict
from sqlalchemy import text


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
