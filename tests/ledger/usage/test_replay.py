"""History is priced anew at the prices of its moments; differences are posted once, and nothing else is."""

import threading
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import pytest
from booked import book_calls, used
from calls import SECOND_NS, START_NS, call
from farebox_collector.background.replay import Replay, ReplayReport
from farebox_collector.ledger.audit.books_audit import audit
from farebox_collector.ledger.reports import statements
from farebox_collector.ledger.storage.database import Database
from farebox_collector.ledger.tables.books import usage_records
from farebox_collector.ledger.tables.corrections import audits, corrections, watermarks
from farebox_collector.ledger.tariffs.prices import book_edition, import_prices, set_price
from farebox_collector.ledger.tariffs.rules import RuleAuthorship, set_rule
from farebox_collector.ledger.usage.booking import record_usage
from farebox_collector.ledger.usage.corrections import CorrectionsFrozen
from farebox_collector.ledger.usage.replay_candidates import Position, ReplayScope
from farebox_collector.ledger.usage.running_totals import TotalLabels
from farebox_collector.model.records import (
    DEFAULT_TENANT_ID,
    CatalogueRow,
    PricedModel,
    PricedUsage,
    UsageRecord,
)
from farebox_collector.model.verdicts import Verdict
from farebox_collector.pricing.revision import PriceList
from farebox_collector.pricing.rules import COST_PLUS, FLAT, RuleTerms
from farebox_collector.surfaces.api.receipt_check import mismatches
from farebox_collector.surfaces.api.receipts import receipt
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sqlalchemy import func, insert, select, text

HOUR_NS = 3600 * SECOND_NS
NOW_NS = START_NS + 100 * HOUR_NS
ALL = ReplayScope(0, NOW_NS)
DEFAULT_PRICE = "0.000001"
"""USD per 1,000 tokens: one nano-dollar a token, so that ten tokens in and five out cost 15."""


@pytest.fixture
def books(database: Database) -> Database:
    """Books whose one model `p/m` costs a nano-dollar a token."""
    only_models(database)
    set_prices(database, "m", DEFAULT_PRICE)
    return database


def only_models(database: Database) -> None:
    """Take the bundled prices out: reading thousands at every turn would take most of the time."""
    with database.transaction() as connection:
        connection.execute(text("UPDATE price_versions SET valid_to_ns = valid_from_ns"))
        connection.execute(text("DELETE FROM priced_models"))


def set_prices(database: Database, model: str, usd_per_1k: str, from_ns: int = 0, units: str = "input output") -> None:
    """Set the prices of a model of provider p from a moment on, even if that has passed."""
    for unit in units.split():
        row = price_row(model, unit, usd_per_1k)._replace(valid_from_ns=from_ns)
        with database.transaction() as connection:
            set_price(connection, row, "a test", NOW_NS)


def uses(count: int, first: int = 1, **facts: Any) -> list[UsageRecord]:
    """Calls of model p/m an hour apart, each 15 tokens."""
    return [
        used(number, "m", "p", **{"started_at_ns": START_NS + number * HOUR_NS, **facts})
        for number in range(first, first + count)
    ]


def replay(database: Database, scope: ReplayScope = ALL, chunk: int = 3) -> Replay:
    return Replay(database, DEFAULT_TENANT_ID, scope, lambda: NOW_NS, chunk)


def record(database: Database, *calls: PricedUsage) -> list[Verdict]:
    with database.transaction() as connection:
        return record_usage(connection, DEFAULT_TENANT_ID, calls, START_NS, TotalLabels())


def spent(database: Database, wallet: str = "ada") -> int:
    with database.reading() as connection:
        row = statements.wallet(connection, DEFAULT_TENANT_ID, wallet)
    return 0 if row is None else row.spent_nano


def outcomes(database: Database) -> list[tuple[str, str, int | None]]:
    """(verdict, model, cost) of every record by its span id."""
    table = usage_records.c
    with database.reading() as connection:
        rows = connection.execute(select(table.verdict, table.model, table.cost_nanousd).order_by(table.span_id))
        return [tuple(row) for row in rows]


def causes(database: Database) -> list[str]:
    with database.reading() as connection:
        return list(connection.execute(select(corrections.c.cause).order_by(corrections.c.id)).scalars())


def require_clean(database: Database) -> None:
    with database.reading() as connection:
        assert list(audit(connection)) == []


def require_unmoved(database: Database, scope: ReplayScope = ALL) -> None:
    """Replaying again finds nothing and posts nothing."""
    before = causes(database)
    assert replay(database, scope).compare().total.records == 0
    assert replay(database, scope).post().total.records == 0
    assert causes(database) == before
    require_clean(database)
    with database.reading() as connection:
        left = connection.execute(select(watermarks.c.name).where(watermarks.c.name.startswith("replay"))).all()
    assert left == []


@pytest.mark.parametrize(("usd_per_1k", "cost"), [("0.000003", 45), ("0.0000004", 6)], ids=["dearer", "cheaper"])
def test_a_price_that_comes_late_is_posted_as_a_difference_once(books: Database, usd_per_1k: str, cost: int) -> None:
    book_calls(books, uses(7))
    assert spent(books) == 7 * 15
    set_prices(books, "m", usd_per_1k, START_NS + 4 * HOUR_NS)
    report = replay(books).compare()
    assert (report.looked_at, report.total.records) == (7, 4)
    assert report.total[2:] == (4 * 15, 4 * cost, 4 * 15, 4 * cost)
    assert (spent(books), causes(books)) == (7 * 15, []), "comparing posts nothing"
    assert replay(books).post().total == report.total
    assert spent(books) == 3 * 15 + 4 * cost
    assert [row[2] for row in outcomes(books)] == [15] * 3 + [cost] * 4
    assert causes(books) == ["replay"] * 4
    require_unmoved(books)


def test_a_receipt_tells_of_every_correction(books: Database) -> None:
    (usage,) = uses(1, request_model="late", response_model="late")
    book_calls(books, [usage])
    for price in (DEFAULT_PRICE, "0.000003"):
        set_prices(books, "late", price)
        replay(books).post()
    with books.reading() as connection:
        found = receipt(connection, DEFAULT_TENANT_ID, usage.trace_id, usage.span_id)
        assert found is not None
    late, dearer = found.corrections
    assert (late.cause, late.verdict_before, late.verdict_after) == ("replay", "unpriced", "charged")
    assert (late.cost_before_usd, late.cost_after_usd) == (None, "0.000000015")
    assert (dearer.charge_before_credits, dearer.charge_after_credits) == ("0.000000015", "0.000000045")
    assert len({late.transaction_id, dearer.transaction_id, None}) == 3
    assert found.cost_usd == "0.000000045"
    assert mismatches(found) == []


def test_a_model_that_was_taken_for_another_is_priced_as_itself(books: Database) -> None:
    prices = [price_row(model, unit, usd) for model, usd in PRICES.items() for unit in ("input", "output")]
    import_list(books, prices, {"family": '{"starts_with": "f-"}', "f-pro": '{"equals": "another"}'})
    book_calls(books, uses(2, request_model="f-pro", response_model="f-pro"))
    assert spent(books) == 30
    with books.reading() as connection:
        edition = book_edition(connection)
    import_list(books, prices, {"family": '{"equals": "family"}', "f-pro": '{"starts_with": "f-pro"}'})
    with books.reading() as connection:
        assert book_edition(connection) > edition, "collectors that run take it up"
    (model,) = replay(books, ALL._replace(model="f-pro")).post().models.shown
    assert model == ("p/family → p/f-pro", 2, 30, 60, 30, 60)
    assert outcomes(books) == [("charged", "f-pro", 30)] * 2
    require_unmoved(books)


PRICES = {"family": DEFAULT_PRICE, "f-pro": "0.000002"}


def price_row(model: str, unit: str, usd_per_1k: str) -> CatalogueRow:
    return CatalogueRow("p", model, unit, 0, 0, 0, Decimal(usd_per_1k), 0, None)


def import_list(database: Database, prices: Sequence[CatalogueRow], matches: dict[str, str]) -> None:
    """Import a list with the clauses by which it recognises its models."""
    models = [PricedModel("p", model, position, match) for position, (model, match) in enumerate(matches.items())]
    stated = PriceList(prices, "a list", "1", whole=True, dated=True)
    with database.transaction() as connection:
        import_prices(connection, stated, models, 0, NOW_NS)


def test_an_unpriced_model_that_got_its_price_is_charged_once_for_twins(books: Database) -> None:
    late: dict[str, Any] = {"request_model": "late", "response_model": "late"}
    book_calls(books, uses(3, **late))
    twins = uses(2, 7, response_id="r", started_at_ns=START_NS, **late)
    book_calls(books, twins)
    assert spent(books) == 0
    set_prices(books, "late", DEFAULT_PRICE)
    assert replay(books, chunk=10).compare().total.records == 5
    replay(books, chunk=10).post()
    verdicts = [row[0] for row in outcomes(books)]
    assert sorted(verdicts) == ["charged"] * 4 + ["covered"]
    assert spent(books) == 4 * 15
    require_unmoved(books)


def test_an_agent_gives_back_when_its_call_gets_a_price_however_late(books: Database) -> None:
    agent = call(1, model="m", latency_ns=60 * SECOND_NS, verdict=Verdict.CHARGED, cost_nanousd=5)
    record(books, agent._replace(usage=agent.usage._replace(summary=True)))
    leaf = call(2, parent=1, model="late", verdict=Verdict.UNPRICED, response_id="r")
    record(books, leaf)
    set_prices(books, "m", "0.000002")
    set_prices(books, "late", DEFAULT_PRICE)
    replay(books).post()
    assert [row[0] for row in outcomes(books)] == ["covered", "charged"]
    assert spent(books) == 15
    require_unmoved(books)


def test_what_has_no_price_any_more_stays_charged_and_is_counted(books: Database) -> None:
    book_calls(books, uses(4))
    with books.transaction() as connection:
        connection.execute(text("UPDATE price_versions SET valid_to_ns = valid_from_ns"))
    report = replay(books).post()
    assert (report.looked_at, report.without_price, report.still_unpriced, report.total.records) == (4, 4, 0, 0)
    assert spent(books) == 4 * 15
    require_unmoved(books)


@pytest.mark.parametrize("verdict", [Verdict.COVERED, Verdict.DEFERRED, Verdict.UNMETERED, Verdict.FAILED])
def test_what_waits_for_no_price_is_left_alone(books: Database, verdict: Verdict) -> None:
    record(books, call(1, verdict=verdict))
    assert replay(books).post().looked_at == 0
    assert outcomes(books) == [(verdict, "m", None)]


def test_a_replay_keeps_within_its_scope(books: Database) -> None:
    book_calls(books, uses(4) + uses(1, 5, wallet="bob") + uses(1, 6, event="other"))
    set_prices(books, "m", "0.000002")
    hours: dict[str, Any] = {"from_ns": START_NS + 2 * HOUR_NS, "to_ns": START_NS + 4 * HOUR_NS}
    for scope, count in (
        (ALL._replace(**hours), 2),
        (ALL._replace(wallet="bob"), 1),
        (ALL._replace(event="other"), 1),
        (ALL._replace(model="m", provider="p"), 6),
        (ALL._replace(model="n"), 0),
        (ALL._replace(provider="q"), 0),
    ):
        assert replay(books, scope).compare().looked_at == count, scope
    replay(books, ALL._replace(**hours)).post()
    assert [row[2] for row in outcomes(books)] == [15, 30, 30, 15, 15, 15]
    require_unmoved(books, ALL._replace(**hours))


def test_a_call_apart_from_another_of_its_response_id_stays_apart(books: Database) -> None:
    """A server hands out one id again and again: two calls, two charges, and no quarrel about the key."""
    book_calls(books, uses(2, response_id="same"))
    assert spent(books) == 30
    set_prices(books, "m", "0.000002")
    assert replay(books).post().total.records == 2
    assert spent(books) == 60
    require_unmoved(books)


NANO_CREDIT = Decimal(1) / 10**9
FLAT_RULE = RuleTerms(FLAT, flat_credits=500 * NANO_CREDIT)
AT_LEAST_100 = RuleTerms(COST_PLUS, multiplier=Decimal(1), minimum_credits=100 * NANO_CREDIT)


def rule(database: Database, terms: RuleTerms) -> None:
    """Let the event `run` always have been charged like this."""
    with database.transaction() as connection:
        set_rule(connection, DEFAULT_TENANT_ID, "run", terms, RuleAuthorship("a test", "none"), 0)


def of_action(action: str, count: int, first: int = 1, **facts: Any) -> list[UsageRecord]:
    return uses(count, first, event="run", action_id=action, **facts)


@pytest.mark.parametrize("chunk", [2, 100])
def test_a_flat_charge_is_not_posted_again_for_each_call(books: Database, chunk: int) -> None:
    rule(books, FLAT_RULE)
    book_calls(books, of_action("a", 5) + of_action("b", 1, 6) + of_action("", 2, 7))
    assert spent(books) == 4 * 500
    set_prices(books, "m", "0.000002")
    report = replay(books, chunk=chunk).compare()
    assert report.total[1:] == (8, 8 * 15, 8 * 30, 2000, 2000)
    assert replay(books, chunk=chunk).post().total == report.total
    assert spent(books) == 4 * 500
    require_unmoved(books)


@pytest.mark.parametrize("chunk", [2, 100])
def test_a_call_that_gets_its_price_joins_its_flat_action(books: Database, chunk: int) -> None:
    rule(books, FLAT_RULE)
    late: dict[str, Any] = {"request_model": "late", "response_model": "late"}
    book_calls(books, of_action("a", 3, **late) + of_action("b", 2, 4, **late))
    book_calls(books, of_action("a", 1, 9))
    assert spent(books) == 500
    set_prices(books, "late", DEFAULT_PRICE)
    if chunk == 100:
        # The call that was charged for action a is not its first any more.
        assert replay(books, chunk=chunk).compare().total[3:] == (6 * 15, 500, 1000)
    replay(books, chunk=chunk).post()
    assert spent(books) == 1000
    require_unmoved(books)


def test_an_action_is_charged_its_minimum_or_more_at_every_price(books: Database) -> None:
    rule(books, AT_LEAST_100)
    book_calls(books, of_action("a", 4))
    charge = 100
    for figure in (3, 1, 2, 1, 9):
        assert spent(books) == charge
        set_prices(books, "m", f"{figure}e-6")
        charge = max(100, 4 * 15 * figure)
        foreseen = replay(books, chunk=100).compare().total
        assert foreseen.charge_after_nanocredits - foreseen.charge_before_nanocredits == charge - spent(books)
        assert replay(books, chunk=100).post().total == foreseen
        assert spent(books) == charge
    require_unmoved(books)


class _Killed(BaseException):
    """Stands for the end of the process: nothing catches it."""


@pytest.mark.parametrize("done", [1, 2, 3])
def test_a_replay_that_was_broken_off_goes_on_from_there(books: Database, done: int) -> None:
    book_calls(books, uses(10))
    set_prices(books, "m", "0.000002")
    chunks = iter([False] * (done - 1) + [True])

    def kill(_done: int, _total: int) -> None:
        if next(chunks):
            raise _Killed

    with pytest.raises(_Killed):
        replay(books).post(kill)
    assert spent(books) == 15 * (10 + 3 * done)
    require_clean(books)
    # The moment of the last record is looked at again.
    assert replay(books).post().looked_at == 11 - 3 * done
    assert spent(books) == 300
    require_unmoved(books)


def test_records_of_one_moment_are_all_replayed(books: Database) -> None:
    book_calls(books, uses(8, started_at_ns=START_NS))
    set_prices(books, "m", "0.000002")
    assert replay(books).post().total.records == 8
    require_unmoved(books)


def test_two_replays_at_once_post_once(books: Database) -> None:
    book_calls(books, uses(30))
    set_prices(books, "m", "0.000002")
    start = threading.Barrier(2)
    reports: list[ReplayReport] = []

    def post() -> None:
        mine = replay(books)
        start.wait(30)
        reports.append(mine.post())

    threads = [threading.Thread(target=post) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sum(report.total.records for report in reports) == 30
    assert len(causes(books)) == 30
    assert spent(books) == 900
    require_unmoved(books)


def test_a_replay_goes_step_by_step_for_whoever_keeps_the_position(books: Database) -> None:
    book_calls(books, uses(10))
    set_prices(books, "m", "0.000002")
    position: Position | None = None
    steps: list[Any] = []
    while not steps or position is not None:
        report = replay(books).post_some(position, 4)
        position = report.next
        steps.append(report.total.records)
    assert steps == [4, 4, 2]
    assert spent(books) == 300
    require_unmoved(books)


def test_nothing_is_replayed_while_an_audit_mismatch_stands(books: Database) -> None:
    book_calls(books, uses(2))
    set_prices(books, "m", "0.000002")
    row = {"scope": "full", "ended_at_ns": NOW_NS, "upto_transaction": 0, "mismatches": 1}
    with books.transaction() as connection:
        connection.execute(insert(audits).values(row))
    assert replay(books).compare().total.records == 2
    with pytest.raises(CorrectionsFrozen):
        replay(books).post()
    assert (spent(books), causes(books)) == (30, [])


changes = st.tuples(st.integers(0, 12), st.integers(1, 9))


@given(st.lists(st.one_of(changes, st.tuples(st.just(-1), st.integers(0, 12))), min_size=1, max_size=8))
@hypothesis_settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)
def test_after_replays_wallets_paid_what_the_newest_book_says(
    books: Database, steps: Sequence[tuple[int, int]]
) -> None:
    """(hour, price) sets the price from then on, (-1, hour) replays what came before that hour."""
    with books.reading() as connection:
        known = connection.execute(select(func.count()).select_from(usage_records)).scalar_one()
    model, wallet = f"m{known}", f"wallet {known}"
    set_prices(books, model, DEFAULT_PRICE)
    calls = uses(12, known + 1, wallet=wallet)
    calls = [
        usage._replace(request_model=model, response_model=model, started_at_ns=START_NS + hour * HOUR_NS)
        for hour, usage in enumerate(calls)
    ]
    book_calls(books, calls)
    price_at, paid = [1] * 13, [1] * 12
    for hour, figure in steps:
        if hour >= 0:
            set_prices(books, model, f"{figure}e-6", START_NS + hour * HOUR_NS)
            price_at[hour:] = [figure] * (13 - hour)
        else:
            replay(books, ReplayScope(START_NS, START_NS + figure * HOUR_NS, wallet=wallet)).post()
            paid[:figure] = price_at[:figure]
        assert spent(books, wallet) == 15 * sum(paid)
    replay(books, ALL._replace(wallet=wallet)).post()
    assert spent(books, wallet) == 15 * sum(price_at[:12])
    require_clean(books)
