"""Facts that few calls have: they come back as they were, tell spans apart, and change nothing for ordinary calls."""

from typing import Any

from blank import JANUARY_NS
from calls import START_NS, call
from farebox_collector.ledger.storage.database import Database
from farebox_collector.ledger.usage.booking import record_usage
from farebox_collector.ledger.usage.columns import facts_digest, facts_of
from farebox_collector.ledger.usage.retention import retire
from farebox_collector.ledger.usage.running_totals import TotalLabels
from farebox_collector.ledger.usage.stored_usage import stored_calls, usage_query
from farebox_collector.model.records import Buckets, ModelLine, PricedUsage
from farebox_collector.model.unusual import (
    ORDINARY,
    UnusualFacts,
    read_unusual,
    stored_unusual,
)
from farebox_collector.model.verdicts import Verdict
from hypothesis import given
from hypothesis import strategies as st

LINE = ModelLine("advisor", "", "claude-opus-4-8", speed="fast", buckets=Buckets(10, 2), units=(("web_searches", 1),))
words = st.text(max_size=3)
counts = st.integers(0, 2**63)
buckets = st.builds(Buckets, *[counts] * len(Buckets._fields))
units = st.dictionaries(st.sampled_from(("images", "web_searches")), st.integers(1, 9)).map(
    lambda found: tuple(sorted(found.items()))
)
facts = st.builds(
    UnusualFacts,
    words,
    words,
    st.lists(st.builds(ModelLine, words, words, words, words, words, words, buckets, units), max_size=3).map(tuple),
    st.one_of(st.none(), counts),
    st.one_of(st.none(), buckets),
    words,
)


def told(number: int, **changes: Any) -> PricedUsage:
    made = call(number, response_id=str(number))
    return made._replace(usage=made.usage._replace(**changes))


@given(facts)
def test_facts_come_back_as_they_were(found: UnusualFacts) -> None:
    assert read_unusual(stored_unusual(found)) == found
    assert (stored_unusual(found) == "") == (found == ORDINARY)


def test_ordinary_calls_keep_the_digest_that_old_books_have() -> None:
    """Worked out with the version before there were unusual facts."""
    assert facts_digest(facts_of(call(1))).hex() == "cc4ae7bfd6d87be4fd619e3ae6b9fac8"
    assert facts_digest(facts_of(told(1))) != facts_digest(facts_of(told(1, speed="fast")))


def test_a_span_that_comes_again_is_known_by_its_unusual_facts(database: Database) -> None:
    """Also when its detail is retired; with other ones it is a conflict."""
    same = [told(1, speed="fast"), told(2, other_lines=(LINE,)), told(3, stated_cost_nanousd=7)]
    other = [told(1), told(2, other_lines=(LINE._replace(speed=""),)), told(3, stated_cost_nanousd=8)]
    labels, duplicate, conflict = TotalLabels(), Verdict.DUPLICATE, Verdict.CONFLICT
    with database.transaction() as connection:
        assert record_usage(connection, 1, same, START_NS, labels) == [Verdict.CHARGED] * 3
        assert record_usage(connection, 1, same, START_NS, labels) == [duplicate] * 3
        assert record_usage(connection, 1, other, START_NS, labels) == [conflict] * 3
        stored = [one.call.usage for one in stored_calls(connection, usage_query(1))]
        assert stored == [one.usage for one in same]
        record_usage(connection, 1, [told(4)], START_NS, labels)
        assert retire(connection, 0, JANUARY_NS + 10**18, 100).retired == 3
        assert record_usage(connection, 1, same, START_NS, labels) == [duplicate] * 3
        assert record_usage(connection, 1, other, START_NS, labels) == [conflict] * 3
