"""Exactly once, one charge a call, in any order, number and batch."""

from collections.abc import Sequence

import pytest
from calls import SECOND_NS, START_NS, call
from farebox_collector.ledger.audit.books_audit import audit
from farebox_collector.ledger.reports import metric_readings, statements
from farebox_collector.ledger.storage.database import Database
from farebox_collector.ledger.usage.booking import record_usage
from farebox_collector.ledger.usage.running_totals import TotalLabels
from farebox_collector.model.records import DEFAULT_TENANT_ID, Buckets, PricedUsage
from farebox_collector.model.verdicts import Verdict
from sqlalchemy import text

CHARGED, COVERED, DUPLICATE, CONFLICT = Verdict.CHARGED, Verdict.COVERED, Verdict.DUPLICATE, Verdict.CONFLICT


def record(database: Database, *calls: PricedUsage, at_ns: int = START_NS) -> list[Verdict]:
    """Record one batch."""
    with database.transaction() as connection:
        return record_usage(connection, DEFAULT_TENANT_ID, calls, at_ns, TotalLabels())


def spent(database: Database) -> dict[str, int]:
    """Nanocredits that each wallet has spent, from books that the audit finds clean."""
    with database.reading() as connection:
        assert list(audit(connection)) == []
        return {row.name: row.spent_nano for row in statements.wallets(connection, DEFAULT_TENANT_ID)}


def test_a_call_is_charged_to_its_wallet(database: Database) -> None:
    """
    wallet ada        -300 CREDIT   earned +300 CREDIT
    provider p/m      -100 USD      cogs   +100 USD
    """
    assert record(database, call()) == [CHARGED]
    assert spent(database) == {"ada": 300}
    with database.reading() as connection:
        legs = connection.execute(
            text(
                "SELECT kind, name, p.commodity, amount_nano, records FROM postings p JOIN accounts a"
                " ON a.id = account_id ORDER BY kind"
            )
        ).all()
    assert [tuple(leg) for leg in legs] == [
        ("cogs", "", "USD", 100, 0),
        ("earned", "", "CREDIT", 300, 0),
        ("provider", "p/m", "USD", -100, 1),
        ("wallet", "ada", "CREDIT", -300, 1),
    ]


def test_a_batch_posts_one_leg_a_wallet_event_and_rule(database: Database) -> None:
    calls = [call(number, wallet=f"w{number % 2}", event="e") for number in range(1, 11)]
    assert record(database, *calls) == [CHARGED] * 10
    with database.reading() as connection:
        assert connection.execute(text("SELECT count(*) FROM postings")).scalar_one() == 2 + 1 + 1 + 1
    assert spent(database) == {"w0": 1500, "w1": 1500}


def test_resending_changes_nothing(database: Database) -> None:
    record(database, call(1), call(2))
    assert record(database, call(1), call(2), call(2)) == [DUPLICATE] * 3
    assert record(database, call(2), call(3)) == [DUPLICATE, CHARGED]
    assert spent(database) == {"ada": 900}
    with database.reading() as connection:
        assert connection.execute(text("SELECT count(*) FROM transactions")).scalar_one() == 2


def test_the_same_span_with_other_content_is_a_conflict_that_stays_visible(database: Database) -> None:
    record(database, call(1))
    assert record(database, call(1, wallet="eve")) == [CONFLICT]
    assert record(database, call(1, wallet="eve"), call(1, response_id="r")) == [CONFLICT, CONFLICT]
    assert spent(database) == {"ada": 300}
    with database.reading() as connection:
        facts = connection.execute(text("SELECT facts FROM usage_conflicts")).scalars().all()
    assert len(facts) == 2
    assert "eve" in facts[0]


def test_a_conflict_within_one_batch_is_one_too(database: Database) -> None:
    assert record(database, call(1), call(1), call(1, wallet="eve")) == [CHARGED, DUPLICATE, CONFLICT]
    assert spent(database) == {"ada": 300}


INNER = call(2, parent=1, response_id="r", start_ns=START_NS + 10, latency_ns=SECOND_NS - 20)
OUTER = call(1, response_id="r")


@pytest.mark.parametrize(
    "batches",
    [[[INNER, OUTER]], [[OUTER, INNER]], [[INNER], [OUTER]], [[OUTER], [INNER]], [[INNER], [OUTER, INNER], [OUTER]]],
)
def test_two_spans_of_one_response_are_one_charge(database: Database, batches: Sequence[list[PricedUsage]]) -> None:
    verdicts = [verdict for batch in batches for verdict in record(database, *batch)]
    assert sorted(verdicts)[:2] == [CHARGED, COVERED]
    assert set(verdicts[2:]) <= {CHARGED, COVERED, DUPLICATE}
    assert spent(database) == {"ada": 300}


def test_the_span_that_knows_most_of_a_call_pays(database: Database) -> None:
    unattributed = INNER._replace(usage=INNER.usage._replace(wallet="unattributed"))
    assert record(database, unattributed, OUTER) == [COVERED, CHARGED]
    vague = call(3, trace=2, response_id="r2", assumptions=("cache_write_lifetime_unknown",))
    exact = call(4, trace=2, parent=3, response_id="r2", cost_nanousd=130)
    assert record(database, vague, exact) == [COVERED, CHARGED]
    # A stream that broke off: the client's own span misses the output, the instrumentation's has what came so far.
    broken = call(5, trace=3, parent=6, response_id="r3", buckets=Buckets(input=10), cost_nanousd=70)
    whole = call(6, trace=3, response_id="r3", assumptions=("cache_write_lifetime_unknown",))
    assert record(database, broken, whole) == [COVERED, CHARGED]
    assert spent(database) == {"ada": 300 + 390 + 300, "unattributed": 0}


def test_a_response_id_that_comes_again_at_another_time_is_another_call(database: Database) -> None:
    """A server that numbers all its answers alike must not make calls free."""
    later = call(2, response_id="r", start_ns=START_NS + 60 * SECOND_NS)
    assert record(database, OUTER) == [CHARGED]
    assert record(database, later) == [CHARGED]
    assert record(database, call(3, response_id="x"), call(4, response_id="x", start_ns=START_NS + 9 * SECOND_NS)) == [
        CHARGED,
        CHARGED,
    ]
    assert spent(database) == {"ada": 1200}
    assert record(database, later) == [DUPLICATE]


@pytest.mark.parametrize("open_verdict", [Verdict.UNPRICED, Verdict.UNMETERED])
def test_a_twin_without_price_or_usage_never_keeps_the_call_from_being_charged(
    database: Database, open_verdict: Verdict
) -> None:
    blind = call(2, parent=1, response_id="r", verdict=open_verdict)
    assert record(database, blind) == [open_verdict]
    assert record(database, OUTER) == [CHARGED]
    late = call(3, parent=1, response_id="r", verdict=open_verdict)
    assert record(database, late) == [COVERED]
    assert spent(database) == {"ada": 300}


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("inner_first", [True, False])
@pytest.mark.parametrize("verdict", [CHARGED, Verdict.FAILED])
def test_nested_spans_without_response_id_are_one_call(
    database: Database, together: bool, inner_first: bool, verdict: Verdict
) -> None:
    """Embeddings and failures have no response id."""
    outer = call(1, verdict=verdict)
    inner = call(2, parent=1, start_ns=START_NS + 10, latency_ns=SECOND_NS - 20, verdict=verdict)
    order = [inner, outer] if inner_first else [outer, inner]
    verdicts = record(database, *order) if together else record(database, order[0]) + record(database, order[1])
    assert sorted(verdicts) == sorted([verdict, COVERED])
    assert spent(database) == {"ada": 300 if verdict is CHARGED else 0}


def test_nested_spans_of_different_calls_are_both_charged(database: Database) -> None:
    outer = call(1, buckets=None, verdict=Verdict.UNMETERED)
    assert record(database, outer, call(2, parent=1), call(3, parent=1, model="other")) == [
        Verdict.COVERED,  # the call of its model within it has its usage
        CHARGED,
        CHARGED,
    ]


def test_what_is_not_charged_moves_nothing_and_is_kept(database: Database) -> None:
    verdicts = [Verdict.UNPRICED, Verdict.UNMETERED, Verdict.FAILED, Verdict.DEFERRED]
    assert record(database, *(call(n, trace=n, verdict=v) for n, v in enumerate(verdicts, start=1))) == verdicts
    assert spent(database) == {"ada": 0}
    with database.reading() as connection:
        assert connection.execute(text("SELECT count(*) FROM usage_records")).scalar_one() == 4
        assert connection.execute(text("SELECT count(*) FROM postings")).scalar_one() == 0


def test_sums_that_would_not_fit_leave_the_call_open_and_the_others_charged(database: Database) -> None:
    huge = 2**61  # charged three times that: two of them are more than 2^63
    assert record(database, call(1, cost_nanousd=huge), call(2, trace=2, cost_nanousd=huge), call(3, trace=3)) == [
        CHARGED,
        Verdict.UNPRICED,
        CHARGED,
    ]
    assert record(database, call(4, trace=4, cost_nanousd=huge), call(5, trace=5)) == [Verdict.UNPRICED, CHARGED]
    assert spent(database) == {"ada": 3 * huge + 600}


def test_labels_from_outside_are_capped_and_nothing_is_lost(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("farebox_collector.ledger.usage.running_totals.MAX_LABELS", 10)
    labels = TotalLabels()
    with database.transaction() as connection:
        calls = [call(n, model=f"model-{n}") for n in range(1, 101)]
        record_usage(connection, DEFAULT_TENANT_ID, calls, START_NS, labels)
    with database.reading() as connection:
        rows = metric_readings.usage_rows(connection)
    assert len(rows) == 10 + 10 + 1  # with all names, with tags as `other`, all the rest
    assert sum(row.cost_nanousd for row in rows) == 100 * 100
    assert labels.folded == 90
    spent(database)
