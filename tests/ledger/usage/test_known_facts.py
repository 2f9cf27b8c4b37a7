"""Stored facts of repeated spans, in each of the two databases."""

from calls import START_NS, call
from farebox_collector.ledger.storage.database import Database
from farebox_collector.ledger.usage.booking import record_usage
from farebox_collector.ledger.usage.columns import facts_of
from farebox_collector.ledger.usage.entries import SpanKey
from farebox_collector.ledger.usage.running_totals import TotalLabels
from farebox_collector.ledger.usage.stored_usage import known_facts
from farebox_collector.model.records import Buckets, PricedUsage
from farebox_collector.model.verdicts import Verdict

ODD = ("", 'a "quoted" \\ name', "\x01\t\n\x7f", "\u2028 \U0001f600 é", "{'[null]'}", "NULL", "0")
MANY = 600
"""More than one statement has room for."""


def odd_calls() -> list[PricedUsage]:
    """Calls of texts and figures that would not survive a careless way there and back."""
    calls = []
    for number, name in enumerate(ODD * 100, 1):
        made = call(
            number,
            trace=2**128 - 1 - number % 3,
            wallet=name or "w",
            event=name or "e",
            model=name,
            response_id=f"{name}{number}" if number % 2 else "",
            buckets=Buckets(*[number % 2 * (2**53 + 1)] * len(Buckets._fields)) if number % 5 else None,
            verdict=Verdict.CHARGED if number % 5 else Verdict.UNMETERED,
            latency_ns=0,
        )
        usage = made.usage._replace(
            action_id=name, provider=name, error_type=name, units=(("web_searches", 2**62),) if number % 2 else ()
        )
        calls.append(made._replace(usage=usage))
    return calls[:MANY]


def key_of(made: PricedUsage) -> SpanKey:
    return made.usage.trace_id, made.usage.span_id


def test_facts_come_back_as_they_were(database: Database) -> None:
    calls = odd_calls()
    with database.transaction() as connection:
        record_usage(connection, 1, calls, START_NS, TotalLabels())
    with database.reading() as connection:
        found = known_facts(connection, 1, [key_of(made) for made in calls])
        assert {key: facts for key, (_, facts) in found.items()} == {key_of(made): facts_of(made) for made in calls}
        assert len({transaction_id for transaction_id, _ in found.values()}) == 1


def test_only_what_is_asked_for_is_found(database: Database) -> None:
    recorded, other = call(1), call(2)
    with database.transaction() as connection:
        record_usage(connection, 1, [recorded], START_NS, TotalLabels())
    with database.reading() as connection:
        assert known_facts(connection, 1, []) == {}
        assert known_facts(connection, 2, [key_of(recorded)]) == {}
        assert known_facts(connection, 1, [key_of(other)]) == {}
        assert list(known_facts(connection, 1, [key_of(other), key_of(recorded)])) == [key_of(recorded)]


def test_a_request_that_comes_again_beside_new_ones_changes_nothing(database: Database) -> None:
    """Whole, in part, and with one span that says something else now."""
    calls = [call(number, response_id=str(number)) for number in range(1, 201)]
    changed = calls[7]._replace(usage=calls[7].usage._replace(event="other"))
    labels = TotalLabels()
    charged, again = Verdict.CHARGED, Verdict.DUPLICATE
    with database.transaction() as connection:
        assert record_usage(connection, 1, calls[:50], START_NS, labels) == [charged] * 50
        assert record_usage(connection, 1, calls[:50], START_NS, labels) == [again] * 50
        assert record_usage(connection, 1, calls[25:150], START_NS, labels) == [again] * 25 + [charged] * 100
        found = record_usage(connection, 1, [changed, *calls[100:]], START_NS, labels)
        assert found == [Verdict.CONFLICT] + [again] * 50 + [charged] * 50
    with database.reading() as connection:
        spent = connection.exec_driver_sql("SELECT spent_nano, charged_calls FROM accounts WHERE name = 'ada'").one()
        assert tuple(spent) == (200 * 300, 200)
        made = connection.exec_driver_sql("SELECT count(*) FROM transactions").scalar_one()
        assert made == 3  # none for those that brought nothing new
