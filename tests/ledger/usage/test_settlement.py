"""What was left open is settled by later evidence, by postings of its own, once; and reversed by better evidence."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import pytest
from calls import SECOND_NS, START_NS, call
from farebox_collector.background.settling import Settling
from farebox_collector.cache.tariffs import Tariffs
from farebox_collector.ledger.audit.books_audit import audit
from farebox_collector.ledger.reports import statements
from farebox_collector.ledger.storage.database import Database
from farebox_collector.ledger.tables.books import accounts, transactions, usage_records
from farebox_collector.ledger.tables.corrections import audits, corrections
from farebox_collector.ledger.tariffs.prices import set_price
from farebox_collector.ledger.usage.booking import record_usage
from farebox_collector.ledger.usage.running_totals import TotalLabels
from farebox_collector.model.money import MAX_SUM_NANO
from farebox_collector.model.records import (
    DEFAULT_TENANT_ID,
    UNATTRIBUTED,
    Buckets,
    CatalogueRow,
    PricedUsage,
)
from farebox_collector.model.verdicts import Verdict
from farebox_collector.settings import Settings
from sqlalchemy import func, insert, select, update

HOUR_NS = 3600 * SECOND_NS


class Books:
    """Books, and a clock that stands still until it is set."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.now_ns = START_NS
        settings = Settings(database_url="sqlite:///unused.db", agent_quiet_seconds=300)
        self._settling = Settling(settings, database, Tariffs(database, lambda: self.now_ns), lambda: self.now_ns)

    def record(self, *calls: PricedUsage) -> list[Verdict]:
        """Record calls now."""
        return self.database.transact(
            lambda connection: record_usage(connection, DEFAULT_TENANT_ID, calls, self.now_ns, TotalLabels())
        )

    def settle(self, after_ns: int = HOUR_NS) -> int:
        """Settle some time later; how many records were."""
        self.now_ns += after_ns
        return self._settling.round()

    def price(self, model: str, unit: str, usd_per_1k: str) -> None:
        """Set a price that always held."""
        row = CatalogueRow("p", model, unit, 0, 0, 0, Decimal(usd_per_1k), 0, None)
        self.database.transact(lambda connection: set_price(connection, row, "a test", self.now_ns))

    def verdicts(self) -> list[tuple[Verdict, str, int | None, int | None]]:
        """(verdict, wallet, cost, charge) of every record by its span id."""
        table = usage_records.c
        columns = (table.verdict, table.wallet, table.cost_nanousd, table.charge_nanocredits)
        with self.database.reading() as connection:
            rows = connection.execute(select(*columns).order_by(table.span_id))
            return [(Verdict(verdict), *rest) for verdict, *rest in rows]

    def spent(self, wallet: str) -> int:
        """What usage took from a wallet, for as many calls as its account says."""
        with self.database.reading() as connection:
            row = statements.wallet(connection, DEFAULT_TENANT_ID, wallet)
        return 0 if row is None else row.spent_nano

    def count(self, kind: str) -> int:
        """How many ledger transactions of a kind there are."""
        with self.database.reading() as connection:
            query = select(func.count()).select_from(transactions).where(transactions.c.kind == kind)
            return int(connection.execute(query).scalar_one())

    def require_clean(self) -> None:
        with self.database.reading() as connection:
            assert list(audit(connection)) == []


@pytest.fixture
def books(database: Database) -> Books:
    return Books(database)


UNNAMED: dict[str, Any] = {"wallet": UNATTRIBUTED}


@pytest.mark.parametrize("resends", [(), (0, 1), (1, 0, 1)])
@pytest.mark.parametrize(
    ("first", "second", "payer"),
    [
        (call(1, response_id="r", **UNNAMED), call(2, response_id="r"), 1),
        (call(1, response_id="r"), call(2, response_id="r", **UNNAMED), 0),
        (call(1, response_id="r"), call(2, response_id="r", buckets=Buckets(input=10, output=7), cost_nanousd=120), 1),
        (call(1, response_id="r", assumptions=("cache_write_lifetime_unknown",)), call(2, response_id="r"), 1),
        (call(1, **UNNAMED), call(2, parent=1), 1),
        (call(2, parent=1, **UNNAMED), call(1), 0),
        (call(2, parent=1), call(1), 1),
    ],
)
def test_the_better_witness_pays_whichever_comes_first(
    books: Books, first: PricedUsage, second: PricedUsage, payer: int, resends: Sequence[int]
) -> None:
    assert books.record(first) == [Verdict.CHARGED]
    books.record(second)
    for number in resends:
        assert books.record((first, second)[number]) == [Verdict.DUPLICATE]
    expected = sorted((first, second), key=lambda one: one.usage.span_id)[payer]
    found = books.verdicts()
    assert found[payer] == (Verdict.CHARGED, "ada", expected.cost_nanousd, expected.charge_nanocredits)
    assert found[1 - payer][0] is Verdict.COVERED
    assert found[1 - payer][2:] == (None, None)
    assert books.spent("ada") == expected.charge_nanocredits
    assert books.spent(UNATTRIBUTED) == 0
    books.require_clean()


def test_what_was_given_back_is_linked_to_what_it_corrects(books: Books) -> None:
    books.record(call(1, response_id="r", **UNNAMED))
    books.record(call(2, response_id="r"))
    with books.database.reading() as connection:
        (row,) = connection.execute(select(corrections)).all()
        record = connection.execute(select(usage_records).where(usage_records.c.id == row.usage_record_id)).one()
    assert (row.number, row.cause, row.verdict_before, row.verdict_after) == (1, "twin", "charged", "covered")
    assert (row.cost_nanousd_before, row.cost_nanousd_after) == (100, None)
    assert record.transaction_id != row.transaction_id
    assert books.count("correction") == 1


def test_a_late_price_settles_what_waited_for_it_once(books: Books) -> None:
    waiting = call(1, verdict=Verdict.UNPRICED, model="late", buckets=Buckets(input=1000, output=500))
    books.record(waiting)
    assert books.settle() == 0
    books.price("late", "input", "0.002")
    assert books.settle() == 0, "half a price is none"
    books.price("late", "output", "0.004")
    assert books.settle() == 1
    assert books.verdicts() == [(Verdict.CHARGED, "ada", 4_000_000, 4_000_000)]
    assert books.settle() == 0
    assert books.record(waiting) == [Verdict.DUPLICATE]
    assert books.spent("ada") == 4_000_000
    books.require_clean()


def test_a_record_that_fits_no_sum_keeps_no_other_waiting(books: Books, caplog: pytest.LogCaptureFixture) -> None:
    """As if other calls had cost so much that half a call of 1,000 dollars still has room in the tenant's sums."""
    tokens = (1, 1_000_000, 1, 1)
    waiting = [
        call(number, verdict=Verdict.UNPRICED, model="late", trace=number, buckets=Buckets(input=amount))
        for number, amount in enumerate(tokens, start=1)
    ]
    books.record(*waiting, call(9, trace=9))
    room = MAX_SUM_NANO - 500 * 10**9
    with books.database.transaction() as connection:
        connection.execute(update(accounts).where(accounts.c.kind == "cogs").values(balance_nano=room))
    books.price("late", "input", "1")
    assert books.settle() == 3
    expected = [Verdict.CHARGED, Verdict.UNPRICED, Verdict.CHARGED, Verdict.CHARGED, Verdict.CHARGED]
    assert [row[0] for row in books.verdicts()] == expected
    assert [record.levelname for record in caplog.records if "cannot be settled" in record.message] == ["ERROR"]
    assert books.settle() == 0
    assert len(caplog.records) == 1, "looked at again with other prices only"


def test_of_two_spans_that_waited_for_one_price_one_pays(books: Books) -> None:
    books.record(call(1, verdict=Verdict.UNPRICED, model="late", response_id="r", **UNNAMED))
    books.record(call(2, verdict=Verdict.UNPRICED, model="late", response_id="r"))
    books.price("late", "input", "1")
    books.price("late", "output", "1")
    assert books.settle() == 2
    assert [row[:2] for row in books.verdicts()] == [(Verdict.COVERED, UNATTRIBUTED), (Verdict.CHARGED, "ada")]
    books.require_clean()


def test_a_span_without_usage_is_covered_by_its_twin_that_comes_later(books: Books) -> None:
    books.record(call(1, verdict=Verdict.UNMETERED, buckets=None, response_id="r"))
    books.record(call(2, verdict=Verdict.UNMETERED, buckets=None, response_id="alone", trace=2))
    books.record(call(3, response_id="r"))
    assert books.settle() == 1
    assert [row[0] for row in books.verdicts()] == [Verdict.COVERED, Verdict.UNMETERED, Verdict.CHARGED]
    books.require_clean()


def agent(number: int, *, parent: int = 0, seconds: int = 60, model: str = "priced", output: int = 0) -> PricedUsage:
    """An agent span with usage of its own; its model costs a nano-dollar a token."""
    one = call(
        number,
        parent=parent,
        latency_ns=seconds * SECOND_NS,
        verdict=Verdict.DEFERRED,
        buckets=Buckets(input=100, output=output),
        model=model,
    )
    return one._replace(usage=one.usage._replace(summary=True))


def leaf(number: int, *, parent: int, start_s: int = 5) -> PricedUsage:
    return call(number, parent=parent, start_ns=START_NS + start_s * SECOND_NS, response_id=f"r{number}")


def test_an_agent_pays_when_none_of_its_calls_did(books: Books) -> None:
    books.price("priced", "input", "0.000001")
    books.record(agent(1))
    assert books.settle(299 * SECOND_NS) == 0, "its calls may still come"
    assert books.settle(2 * SECOND_NS) == 1
    assert books.verdicts() == [(Verdict.CHARGED, "ada", 100, 100)]
    assert books.settle() == 0
    assert books.record(agent(1)) == [Verdict.DUPLICATE]
    books.require_clean()


@pytest.mark.parametrize("parent", [1, 77], ids=["by its parent", "by time, the span in between being unknown"])
@pytest.mark.parametrize("order", ["agent first", "call first", "call after the agent has paid"])
def test_an_agent_does_not_pay_beside_its_call(books: Books, parent: int, order: str) -> None:
    books.price("priced", "input", "0.000001")
    own = leaf(2, parent=parent)
    if order == "call first":
        books.record(own)
    books.record(agent(1))
    if order == "call after the agent has paid":
        assert books.settle() == 1
        assert books.spent("ada") == 100
        books.record(own)
        assert books.settle() == 1
    else:
        if order == "agent first":
            books.record(own)
        assert books.settle() == 1
    assert [row[0] for row in books.verdicts()] == [Verdict.COVERED, Verdict.CHARGED]
    assert books.spent("ada") == own.charge_nanocredits
    assert books.settle() == 0
    books.require_clean()


def test_an_agent_pays_beside_calls_that_are_not_its_own(books: Books) -> None:
    books.price("priced", "input", "0.000001")
    later = call(4, start_ns=START_NS + 600 * SECOND_NS, response_id="r4")
    books.record(agent(1), agent(2), leaf(3, parent=2), later)
    books.settle()
    assert [row[0] for row in books.verdicts()] == [
        Verdict.CHARGED,
        Verdict.COVERED,
        Verdict.CHARGED,
        Verdict.CHARGED,
    ]
    books.require_clean()


def test_of_nested_agents_the_innermost_pays(books: Books) -> None:
    books.price("priced", "input", "0.000001")
    books.price("priced", "output", "0.000001")
    books.record(
        agent(1, seconds=90, output=3), agent(2, parent=1, seconds=60, output=2), agent(3, parent=2, seconds=30)
    )
    assert books.settle() == 3
    assert [row[0] for row in books.verdicts()] == [Verdict.COVERED, Verdict.COVERED, Verdict.CHARGED]
    books.require_clean()


def test_an_agent_without_a_price_waits_for_it_in_sight(books: Books) -> None:
    books.record(agent(1, model="late"))
    books.settle()
    assert books.verdicts()[0][0] is Verdict.UNPRICED
    books.price("late", "input", "0.000001")
    assert books.settle() == 1
    assert books.verdicts() == [(Verdict.CHARGED, "ada", 100, 100)]
    books.record(leaf(2, parent=1))
    assert books.settle() == 1
    assert [row[0] for row in books.verdicts()] == [Verdict.COVERED, Verdict.CHARGED]
    books.require_clean()


def test_nothing_is_corrected_while_an_audit_mismatch_stands(books: Books) -> None:
    books.price("priced", "input", "0.000001")
    books.record(agent(1))
    books.record(call(2, trace=2, response_id="r", **UNNAMED))

    def note(mismatches: int) -> None:
        row = {"scope": "full", "ended_at_ns": books.now_ns, "upto_transaction": 0, "mismatches": mismatches}
        books.database.transact(lambda connection: connection.execute(insert(audits).values(row)))

    note(1)
    assert books.settle() == 0
    books.record(call(3, trace=2, response_id="r"))
    assert [row[0] for row in books.verdicts()] == [Verdict.DEFERRED, Verdict.CHARGED, Verdict.COVERED]
    note(0)
    assert books.settle() == 1
    assert books.verdicts()[0][0] is Verdict.CHARGED
    books.require_clean()


def by(scope: str, one: PricedUsage) -> PricedUsage:
    """The same span, made by an instrumentation of this name."""
    return one._replace(usage=one.usage._replace(scope=scope))


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_framework_and_the_client_below_it_are_one_call(books: Books, order: tuple[int, int]) -> None:
    framework, client = by("framework", call(1, parent=9)), by("client", call(2, parent=9, response_id="r"))
    for number in order:
        books.record((framework, client)[number])
    books.settle()
    assert [row[0] for row in books.verdicts()] == [Verdict.COVERED, Verdict.CHARGED]
    assert books.spent("ada") == client.charge_nanocredits
    assert books.settle() == 0
    books.require_clean()


@pytest.mark.parametrize(
    "other",
    [
        by("client", call(2, parent=9)),
        by("other", call(2, parent=9, buckets=Buckets(input=10, output=6))),
        by("other", call(2, parent=9, start_ns=START_NS + 60 * SECOND_NS)),
        by("other", call(2, parent=9, trace=2)),
        by("other", call(2, parent=9, model="n")),
    ],
    ids=["one instrumentation's own two calls", "other tokens", "another time", "another trace", "another model"],
)
def test_calls_beside_each_other_that_differ_are_two(books: Books, other: PricedUsage) -> None:
    books.record(by("client", call(1, parent=9)))
    books.record(other)
    books.settle()
    assert [row[0] for row in books.verdicts()] == [Verdict.CHARGED, Verdict.CHARGED]
    books.require_clean()


def test_a_span_without_usage_around_one_with_it_is_covered(books: Books) -> None:
    books.record(call(1, verdict=Verdict.UNMETERED, buckets=None))
    books.record(call(2, parent=1))
    assert [row[0] for row in books.verdicts()] == [Verdict.COVERED, Verdict.CHARGED]
    books.require_clean()
