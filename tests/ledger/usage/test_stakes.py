"""What is at stake: kept with the record, summed up by flag, settled by corrections, and gone with the detail."""

import time
from decimal import Decimal

import pytest
from booked import book_calls, used
from calls import START_NS
from farebox_collector.background.replay import Replay
from farebox_collector.background.settling import Settling
from farebox_collector.cache.tariffs import Tariffs
from farebox_collector.ledger.audit.books_audit import audit
from farebox_collector.ledger.reports.missing_prices import missing_prices
from farebox_collector.ledger.reports.money_reports import summaries
from farebox_collector.ledger.reports.statements import corrections_of, usage_record
from farebox_collector.ledger.storage.database import Database
from farebox_collector.ledger.tariffs.prices import set_price
from farebox_collector.ledger.usage.booking import record_usage
from farebox_collector.ledger.usage.replay_candidates import ReplayScope
from farebox_collector.ledger.usage.running_totals import TotalLabels
from farebox_collector.ledger.usage.stakes import StakeFilter, stake_rows, stake_sums
from farebox_collector.model.moments import DAY_NS, Days
from farebox_collector.model.records import (
    DEFAULT_TENANT_ID,
    Buckets,
    CatalogueRow,
    ModelLine,
    UsageRecord,
)
from farebox_collector.model.verdicts import Verdict
from farebox_collector.pricing.price import price_at
from farebox_collector.settings import Settings
from farebox_collector.surfaces.api.receipt_check import mismatches
from farebox_collector.surfaces.api.receipt_models import Receipt
from farebox_collector.surfaces.api.receipts import receipt

PLAIN = Buckets(input=1000, output=100)
LATER_NS = START_NS + 3600 * 10**9


def sums(database: Database) -> dict[str, tuple[int, int]]:
    """The flags that have something at stake."""
    with database.reading() as connection:
        assert list(audit(connection)) == []
        return {flag: found for flag, found in stake_sums(connection).items() if found != (0, 0)}


def receipt_of(database: Database, usage: UsageRecord) -> Receipt:
    with database.reading() as connection:
        found = receipt(connection, DEFAULT_TENANT_ID, usage.trace_id, usage.span_id)
    assert found is not None
    assert mismatches(found) == []
    return found


def settle(database: Database, at_ns: int = LATER_NS) -> int:
    clock = iter(range(at_ns, at_ns + 10**12, 2 * 10**9))
    return Settling(Settings(), database, Tariffs(database, lambda: next(clock)), lambda: at_ns).round()


def price_of(database: Database, model: str, unit: str, usd_per_1k: str, provider: str = "openai") -> None:
    row = CatalogueRow(provider, model, unit, 0, 0, 0, Decimal(usd_per_1k), 0, None)
    with database.transaction() as connection:
        set_price(connection, row, "ada", time.time_ns())


def test_a_unit_without_a_price_leaves_the_rest_charged_and_settles_when_it_gets_one(database: Database) -> None:
    """gpt-4o-mini: $0.15 and $0.60 a million; x_pictures at $2 each from then on."""
    usage = used(1, buckets=PLAIN, units=(("x_pictures", 3),))
    (priced,), verdicts = book_calls(database, [usage])
    assert (verdicts, priced.cost_nanousd) == ([Verdict.CHARGED], 150_000 + 60_000)
    before = receipt_of(database, usage)
    assert [(one.part, one.unit, one.count) for one in before.unpriced] == [(0, "x_pictures", 3)]
    assert sums(database) == {"parts_without_price": (1, 0)}
    assert settle(database) == 0
    price_of(database, "gpt-4o-mini", "x_pictures", "2000")
    assert settle(database) == 1
    after = receipt_of(database, usage)
    assert (after.cost_usd, after.unpriced) == ("6.000210000", [])
    assert [made.cause for made in after.corrections] == ["late_price"]
    assert sums(database) == {}
    assert settle(database) == 0


def test_a_line_of_a_model_without_a_price_settles_too(database: Database) -> None:
    line = ModelLine("image_generation", "", "painter", buckets=Buckets(input=50, output_image=4160))
    usage = used(1, buckets=PLAIN, other_lines=(line,))
    (priced,), _ = book_calls(database, [usage])
    assert priced.cost_nanousd == 210_000
    assert len(receipt_of(database, usage).unpriced) == 2
    price_of(database, "painter", "input", "0.005")
    assert settle(database) == 1
    price_of(database, "painter", "output", "0.04")
    assert settle(database) == 1
    found = receipt_of(database, usage)
    # 210,000 + 50 × 5,000 + 4,160 × 40,000 nano-USD; images at the price of output
    assert (found.cost_usd, found.unpriced) == ("0.166860000", [])
    assert {(entry.part, entry.unit, entry.price.model) for entry in found.lines} == {
        (0, "input", "gpt-4o-mini"),
        (0, "output", "gpt-4o-mini"),
        (1, "input", "painter"),
        (1, "output_image", "painter"),
    }


def test_contradictory_counts_are_listed_with_what_they_may_cost(database: Database) -> None:
    other = Buckets(input=1000, output=1100)
    usage = used(1, buckets=PLAIN, other_reading=other, assumptions=("counts_ambiguous",), wallet="eve")
    again = used(2, buckets=PLAIN, other_reading=other)
    book_calls(database, [usage, again, used(3, buckets=PLAIN)])
    assert sums(database) == {"counts_ambiguous": (1, 600_000), "counts_disagree": (1, 600_000)}
    with database.reading() as connection:
        rows = stake_rows(connection, DEFAULT_TENANT_ID, StakeFilter(), None, 10)
        assert [row.amount_nanousd for row in rows] == [600_000, 600_000]
        (mine,) = stake_rows(connection, DEFAULT_TENANT_ID, StakeFilter(wallet="eve"), None, 10)
        assert (mine.flag, mine.model, bytes(mine.span_id)) == ("counts_ambiguous", "gpt-4o-mini", usage.span_id)
        place = rows[0].priced_at_ns, rows[0].flag, rows[0].trace_id, rows[0].span_id
        assert stake_rows(connection, DEFAULT_TENANT_ID, StakeFilter(), place, 10) == rows[1:]
    assert receipt_of(database, usage).at_stake_usd == "0.000600000"


def test_a_stated_cost_is_booked_with_the_list_price_beside_it(database: Database) -> None:
    usage = used(1, buckets=PLAIN, stated_cost_nanousd=20_210_000)
    absurd = used(2, buckets=PLAIN, stated_cost_nanousd=10**13)
    unknown = used(3, "unheard-of", buckets=PLAIN, stated_cost_nanousd=5)
    _, verdicts = book_calls(database, [usage, absurd, unknown])
    assert verdicts == [Verdict.CHARGED] * 3
    found = receipt_of(database, usage)
    assert (found.cost_usd, found.list_cost_usd) == ("0.020210000", "0.000210000")
    assert found.stated_difference_usd == "0.020000000"
    assert receipt_of(database, absurd).cost_usd == "0.000210000"
    assert receipt_of(database, unknown).cost_usd == "0.000000005"
    assert sums(database) == {"stated_cost_implausible": (1, 210_000)}


def test_a_call_whose_end_was_not_seen_is_no_cost_and_gives_way_to_a_span_that_saw_it(database: Database) -> None:
    """By its response id, and by its place in the trace; before and after it."""
    by_id = used(1, buckets=PLAIN, exposure="timeout", response_id="r1")
    by_place = used(2, buckets=Buckets(input=5), exposure="client_closed", latency_ns=10**9)
    priced, verdicts = book_calls(database, [by_id, by_place])
    assert verdicts == [Verdict.EXPOSED] * 2
    assert [call.cost_nanousd for call in priced] == [None, None]
    assert sums(database) == {"exposed": (2, 210_000 + 750)}
    assert receipt_of(database, by_id).estimated_cost_usd == "0.000210000"
    seen = used(3, buckets=Buckets(input=7, output=9), response_id="r1", trace_id=by_id.trace_id)
    around = used(
        4, buckets=Buckets(input=7, output=9), response_id="", trace_id=by_place.trace_id,
        parent_span_id=by_place.span_id, started_at_ns=by_place.started_at_ns, latency_ns=1,
    )  # fmt: skip
    _, verdicts = book_calls(database, [seen, around])
    assert verdicts == [Verdict.CHARGED] * 2
    settle(database, time.time_ns() + 10**12)
    assert sums(database) == {}
    with database.reading() as connection:
        for usage in (by_id, by_place):
            row = usage_record(connection, DEFAULT_TENANT_ID, usage.trace_id, usage.span_id)
            assert row is not None
            assert row.verdict == Verdict.COVERED
            assert len(corrections_of(connection, DEFAULT_TENANT_ID, row.id)) == 1
    late = used(5, buckets=PLAIN, exposure="timeout", response_id="r1")
    _, verdicts = book_calls(database, [late])
    assert verdicts == [Verdict.COVERED]


@pytest.mark.parametrize("count", [1, 70])
def test_what_comes_again_is_not_at_stake_twice(database: Database, count: int) -> None:
    other = Buckets(input=1000, output=1100)
    usages = [
        used(number, buckets=PLAIN, other_reading=other, response_id=str(number)) for number in range(1, count + 1)
    ]
    book_calls(database, usages)
    _, verdicts = book_calls(database, usages)
    assert verdicts == [Verdict.DUPLICATE] * count
    assert sums(database) == {"counts_disagree": (count, count * 600_000)}


def test_what_the_book_lacks_for_models_in_use_is_named_with_the_remedy(database: Database) -> None:
    """Audio, tiers, speed, region and tools; nothing of models without calls."""
    line = ModelLine("image_generation", "", "painter", buckets=Buckets(output_image=9))
    usages = [
        used(1, buckets=Buckets(input=5, input_audio=7)),
        used(2, buckets=PLAIN, service_tier="reserved"),
        used(3, "claude-opus-5", "anthropic", buckets=PLAIN, inference_region="eu"),
        used(4, "claude-haiku-4-5", "anthropic", buckets=PLAIN, speed="fast"),
        used(5, buckets=PLAIN, units=(("x_pictures", 1),), other_lines=(line,)),
        used(6, "gpt-4o", buckets=PLAIN),
    ]
    _, verdicts = book_calls(database, usages)
    assert verdicts == [Verdict.CHARGED] * 6
    with database.reading() as connection:
        found = {(lack.provider, lack.model, lack.unit, lack.condition): lack for lack in missing_prices(connection)}
    assert set(found) == {
        ("openai", "gpt-4o-mini", "input_audio", "standard"),
        ("openai", "gpt-4o-mini", "input", "reserved"),
        ("anthropic", "claude-opus-5", "input", "standard@eu"),
        ("anthropic", "claude-haiku-4-5", "input", "fast"),
        ("openai", "gpt-4o-mini", "x_pictures", "standard"),
        ("openai", "painter", "output_image", "standard"),
    }
    fast = found["anthropic", "claude-haiku-4-5", "input", "fast"]
    assert fast.remedy == "farebox prices set anthropic claude-haiku-4-5 input USD_PER_1000 --condition fast"
    assert all(lack.calls == 1 for lack in found.values())


def test_a_tenant_may_have_its_wallets_charged_the_estimate(database: Database) -> None:
    usage = used(1, buckets=PLAIN, exposure="timeout")
    for names, verdict in (((), Verdict.EXPOSED), (("acme",), Verdict.EXPOSED), (("default", "x"), Verdict.CHARGED)):
        tariff = Tariffs(database, lambda: START_NS, names).of(DEFAULT_TENANT_ID)
        priced = price_at(usage, usage.started_at_ns, tariff.book, tariff.rules)
        assert priced.verdict is verdict
    with database.transaction() as connection:
        record_usage(connection, DEFAULT_TENANT_ID, [priced], START_NS, TotalLabels())
    assert receipt_of(database, usage).cost_usd == "0.000210000"
    assert sums(database) == {"charged_by_estimate": (1, 210_000)}


def test_a_summary_has_the_exposure_apart_from_cost_and_profit(database: Database) -> None:
    day = START_NS // DAY_NS
    used_up = used(1, buckets=PLAIN)
    exposed = used(2, buckets=PLAIN, exposure="timeout")
    later = used(3, buckets=PLAIN, exposure="client_closed", started_at_ns=START_NS + DAY_NS)
    book_calls(database, [used_up, exposed, later])
    with database.reading() as connection:
        first, second = summaries(connection, DEFAULT_TENANT_ID, Days(day, day + 2), by_day=True)
        (both,) = summaries(connection, DEFAULT_TENANT_ID, Days(day, day + 2), by_day=False)
        (before,) = summaries(connection, DEFAULT_TENANT_ID, Days(day - 2, day), by_day=False)
    assert (first.cost_nanousd, first.exposure_nanousd, first.profit_nanousd) == (210_000, 210_000, -210_000)
    assert (second.cost_nanousd, second.exposure_nanousd) == (0, 210_000)
    assert (both.cost_nanousd, both.exposure_nanousd, both.profit_nanousd) == (210_000, 420_000, -210_000)
    assert before.exposure_nanousd == 0


def test_a_replay_prices_what_was_charged_by_estimate_for_tenants_that_want_it(database: Database) -> None:
    usage = used(1, buckets=PLAIN, exposure="timeout")
    tariff = Tariffs(database, lambda: START_NS, ("default",)).of(DEFAULT_TENANT_ID)
    with database.transaction() as connection:
        priced = price_at(usage, usage.started_at_ns, tariff.book, tariff.rules)
        record_usage(connection, DEFAULT_TENANT_ID, [priced], START_NS, TotalLabels())
    scope = ReplayScope(0, LATER_NS)
    for names, without_price in ((("default",), 0), ((), 1)):
        report = Replay(database, DEFAULT_TENANT_ID, scope, lambda: LATER_NS, charge_exposed=names).compare()
        assert (report.looked_at, report.total.records, report.without_price) == (1, 0, without_price)
