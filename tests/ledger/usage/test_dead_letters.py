"""Dead letters are kept for a limited time, once, without secrets, and are retried."""

import math

import pytest
from farebox_collector.background.dead_letter_retry import retry
from farebox_collector.cache.tariffs import Tariffs
from farebox_collector.intake.reader import SpanReader
from farebox_collector.ledger.audit.books_audit import audit
from farebox_collector.ledger.reports import statements
from farebox_collector.ledger.storage.database import Database
from farebox_collector.ledger.usage import dead_letters
from farebox_collector.model.records import (
    DEFAULT_TENANT_ID,
    AttributeValue,
    DeadLetter,
    Span,
)
from farebox_collector.model.verdicts import Verdict
from farebox_collector.settings import Settings

DAY_NS = 86_400 * 10**9
NOW_NS = 1_790_000_000 * 10**9


def span(number: int = 1, **attributes: AttributeValue) -> Span:
    """A chat of gpt-4o-mini by ada: 1,000 tokens in."""
    values: dict[str, AttributeValue] = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-4o-mini",
        "gen_ai.usage.input_tokens": 1000,
        "farebox.wallet": "ada",
    }
    values |= {key.replace("__", "."): value for key, value in attributes.items()}
    return Span(b"t" * 16, bytes([number]) * 8, b"", NOW_NS, NOW_NS + 1, False, values, {"a": "b"}, "scope", "1")


def keep(database: Database, *spans: Span, at_ns: int = NOW_NS) -> None:
    with database.transaction() as connection:
        letters = [DeadLetter(item, "a reason") for item in spans]
        dead_letters.keep(connection, DEFAULT_TENANT_ID, letters, at_ns, DAY_NS)


def kept(database: Database) -> list[Span]:
    with database.reading() as connection:
        return [dead_letters.span_of(row) for row in dead_letters.letters(connection, DEFAULT_TENANT_ID)]


def test_a_span_comes_back_as_it_was(database: Database) -> None:
    original = span(gen_ai__usage__output_tokens=-5, gen_ai__response__finish_reasons=("stop", "length"), x=True)
    keep(database, original)
    assert kept(database) == [original]


def test_the_same_span_again_is_kept_once(database: Database) -> None:
    keep(database, span(1), span(1), span(2))
    keep(database, span(1), at_ns=NOW_NS + 1)
    assert len(kept(database)) == 2


@pytest.mark.parametrize("value", [math.nan, math.inf, "\x00\ud800\u202e'; DROP TABLE dead_letters; --", "x" * 10_000])
def test_whatever_it_died_of_can_be_kept(database: Database, value: AttributeValue) -> None:
    keep(database, span(gen_ai__usage__input_tokens=value))
    (restored,) = kept(database)
    assert len(str(restored.attributes["gen_ai.usage.input_tokens"])) <= dead_letters.MAX_VALUE


def test_they_are_taken_out_when_their_time_is_up(database: Database) -> None:
    keep(database, span(1))
    keep(database, span(2), at_ns=NOW_NS + DAY_NS)
    with database.transaction() as connection:
        assert dead_letters.purge(connection, NOW_NS + DAY_NS - 1) == 0
        assert dead_letters.purge(connection, NOW_NS + DAY_NS) == 1
        assert dead_letters.count(connection) == 1
        assert dead_letters.purge(connection) == 1


def test_a_second_chance_books_what_can_be_booked_now_at_the_price_of_then(database: Database) -> None:
    keep(database, span(1), span(2, gen_ai__usage__input_tokens=-1), span(3, gen_ai__operation__name="execute_tool"))
    reader = SpanReader(Settings(database_url="sqlite:///unused.db"), Tariffs(database, lambda: NOW_NS + 400 * DAY_NS))
    for expected in ([Verdict.CHARGED, Verdict.REJECTED, Verdict.NOT_BILLABLE], [Verdict.REJECTED]):
        with database.reading() as connection:
            letters = dead_letters.letters(connection, DEFAULT_TENANT_ID)
        assert [retried.verdict for retried in retry(database, reader, letters)] == expected
    with database.reading() as connection:
        (record,) = statements.usage(connection, DEFAULT_TENANT_ID, statements.UsageFilter())
        assert (record.priced_at_ns, record.cost_nanousd) == (NOW_NS, 150_000)
        assert list(audit(connection)) == []
