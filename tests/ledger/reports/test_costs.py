"""Effective costs of 1,000 tokens: hand-worked, and against sums over the records one by one."""

from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from random import Random

from booked import book_calls, used
from calls import START_NS
from farebox_collector import assembly
from farebox_collector.cache.tariffs import Tariffs
from farebox_collector.ledger.audit.books_audit import audit
from farebox_collector.ledger.reports.costs import Grouping, Period, costs
from farebox_collector.ledger.reports.token_costs import Cards
from farebox_collector.ledger.storage.database import Database
from farebox_collector.ledger.tables.books import usage_records
from farebox_collector.ledger.tariffs.prices import set_price
from farebox_collector.ledger.usage.corrections import Cause, correct, cover
from farebox_collector.ledger.usage.running_totals import TotalLabels
from farebox_collector.ledger.usage.stored_usage import stored_calls, usage_query
from farebox_collector.model.records import DEFAULT_TENANT_ID, Buckets, CatalogueRow
from farebox_collector.pricing.costs import EffectiveCost
from farebox_collector.pricing.price import bill
from farebox_collector.settings import Settings
from farebox_collector.surfaces.api.costs import show_costs

DAY_NS = 86_400 * 10**9
PERIOD = Period(START_NS - DAY_NS, START_NS + DAY_NS)


def found(database: Database, grouping: Grouping = Grouping.MODEL, period: Period = PERIOD) -> list[EffectiveCost]:
    with database.reading() as connection:
        return costs(connection, DEFAULT_TENANT_ID, period, grouping, START_NS)


def test_figures_by_hand(database: Database) -> None:
    """gpt-4o-mini: $0.15 a million in, $0.075 cached, $0.60 out. gpt-4.1: $2, $8, and $10 a thousand searches."""
    own = CatalogueRow("openai", "gpt-4o-mini", "output", 0, 0, 0, Decimal("0.0003"), START_NS, None)
    with database.transaction() as connection:
        set_price(connection, own, "ada", START_NS, DEFAULT_TENANT_ID)
    book_calls(
        database,
        [
            # 600 × 150 + 400 × 75 + 200 × 600 = 240,000 before the price was negotiated
            used(1, event="chat", started_at_ns=START_NS - 1, buckets=Buckets(input=600, cache_read=400, output=200)),
            # 1000 × 150 + 200 × 300 = 210,000
            used(2, event="chat", buckets=Buckets(input=1000, output=200, reasoning=100)),
            # 100 × 2,000 + 10 × 8,000 + 2 × 10,000,000
            used(3, "gpt-4.1", event="search", buckets=Buckets(input=100, output=10), units=(("web_searches", 2),)),
            used(4, "no-such-model", event="chat", buckets=Buckets(input=5)),
        ],
    )
    dear, cheap = found(database)
    assert (cheap.key, cheap.calls, cheap.input_tokens, cheap.output_tokens) == ("openai/gpt-4o-mini", 2, 2000, 400)
    assert cheap.cost_nanousd == 450_000
    assert (cheap.input_cost_nanousd, cheap.output_cost_nanousd, cheap.other_cost_nanousd) == (270_000, 180_000, 0)
    assert cheap.cost_per_1k_nanousd == 187_500  # 450,000 ÷ 2.4
    assert (cheap.input_cost_per_1k_nanousd, cheap.output_cost_per_1k_nanousd) == (135_000, 450_000)
    assert cheap.list_cost_nanousd == 2000 * 150 + 400 * 600
    assert cheap.drift == Fraction(-90_000, 540_000)
    assert (dear.key, dear.input_cost_nanousd, dear.output_cost_nanousd) == ("openai/gpt-4.1", 200_000, 80_000)
    assert dear.other_cost_nanousd == 20_000_000
    assert dear.drift == 0, "fees do not drift"

    by_event = {cost.key: cost.cost_nanousd for cost in found(database, Grouping.EVENT)}
    assert by_event == {"chat": 450_000, "search": 20_280_000}
    shown = show_costs(found(database), PERIOD, Grouping.MODEL, START_NS, limit=1)
    assert [item.key for item in shown.items] == ["openai/gpt-4.1"]
    assert (shown.total.calls, shown.total.cost_usd) == (3, "0.020730000")
    assert (shown.items[0].cost_per_1k_usd, shown.items[0].drift_percent) == ("0.184363636", "0.00")
    assert [cost.key for cost in found(database, period=Period(START_NS, START_NS + 1))] == [
        "openai/gpt-4.1",
        "openai/gpt-4o-mini",
    ], "half-open"
    assert found(database, period=Period(START_NS + 1, START_NS + 2)) == []
    assert found(database, period=Period(START_NS - DAY_NS, START_NS))[0].calls == 1


def test_what_each_kind_of_token_cost_by_hand(database: Database) -> None:
    """gpt-4o-mini as above. gemini-2.5-pro: $1.25 in and $10 out a million, $2.50 and $15 over 200,000 tokens."""
    own = CatalogueRow("openai", "gpt-4o-mini", "output", 0, 0, 0, Decimal("0.0003"), START_NS, None)
    thinking = [
        CatalogueRow("house", "thinker", unit, 0, 0, 0, Decimal(price), 0, None)
        for unit, price in (("input", "0.001"), ("output", "0.002"), ("output_reasoning", "0.0015"))
    ]
    with database.transaction() as connection:
        for row in thinking:
            set_price(connection, row, "ada", START_NS)
        set_price(connection, own, "ada", START_NS, DEFAULT_TENANT_ID)
    book_calls(
        database,
        [
            used(1, started_at_ns=START_NS - 1, buckets=Buckets(input=600, cache_read=400, output=200, reasoning=9)),
            used(2, buckets=Buckets(input=1000, output=200)),
            used(3, "gemini-2.5-pro", "google", buckets=Buckets(input=100, output=10)),
            used(4, "gemini-2.5-pro", "google", buckets=Buckets(input=200_001, output=10)),
            used(5, "thinker", "house", buckets=Buckets(output=100, reasoning=60)),
        ],
    )
    cards = Cards()
    with database.reading() as connection:
        found = cards.token_costs(connection)
        assert cards.token_costs(connection) == found
    mini, gemini = ("openai", "gpt-4o-mini"), ("google", "gemini-2.5-pro")
    assert {label: usd * 10**9 for label, usd in found.usd.items()} == {
        (*mini, "standard", "input"): 600 * 150,
        (*mini, "standard", "cache_read"): 400 * 75,
        (*mini, "standard", "output"): 200 * 600,
        (*mini, "negotiated", "input"): 1000 * 150,
        (*mini, "negotiated", "output"): 200 * 300,
        (*gemini, "standard", "input"): 100 * 1250,
        (*gemini, "standard", "output"): 10 * 10_000,
        (*gemini, "long_context", "input"): 200_001 * 2500,
        (*gemini, "long_context", "output"): 10 * 15_000,
        ("house", "thinker", "standard", "input"): 0,
        ("house", "thinker", "standard", "output"): 40 * 2000,
        ("house", "thinker", "standard", "reasoning"): 60 * 1500,
    }
    assert found.tokens["house", "thinker", "standard", "output"] == 40
    assert found.tokens[*mini, "standard", "output"] == 200, "reasoning without a price of its own is output"


def test_a_model_without_a_list_price_has_no_drift(database: Database) -> None:
    own = CatalogueRow("house", "llama", "input", 0, 0, 0, Decimal("0.001"), 0, None)
    with database.transaction() as connection:
        set_price(connection, own, "ada", START_NS, DEFAULT_TENANT_ID)
    book_calls(database, [used(1, "llama", "house", buckets=Buckets(input=1))])
    (cost,) = found(database)
    assert (cost.cost_per_1k_nanousd, cost.output_cost_per_1k_nanousd) == (1_000_000, None)
    assert (cost.list_cost_per_1k_nanousd, cost.drift) == (None, None)


def test_sums_are_those_of_the_records_one_by_one(new_books: Callable[[str, Path], str], tmp_path: Path) -> None:
    database = assembly.open_books(Settings(database_url=new_books("sqlite", tmp_path)))
    random = Random(7)
    models = [("openai", "gpt-4.1"), ("anthropic", "claude-sonnet-4-5"), ("google", "gemini-2.5-pro")]
    usages = []
    for number in range(1, 301):
        provider, model = random.choice(models)
        sizes = Buckets(*(random.choice((0, 3, 700, 120_000)) for _ in Buckets._fields))
        buckets = sizes._replace(reasoning=min(sizes.reasoning, sizes.output), input_audio=0, output_audio=0)
        facts = {"service_tier": random.choice(("", "priority")), "dept": random.choice("ab")}
        usages.append(used(number, model, provider, buckets=buckets, **facts))
    priced, _ = book_calls(database, usages)
    charged = [call for call in priced if call.cost_nanousd is not None]
    assert len(charged) > 200
    book = Tariffs(database, lambda: START_NS).of(DEFAULT_TENANT_ID).book
    for grouping, key_of in (
        (Grouping.MODEL, lambda call: f"{call.provider}/{call.model}"),
        (Grouping.DEPT, lambda call: call.usage.dept),
        (Grouping.SERVICE_TIER, lambda call: call.usage.service_tier),
    ):
        for cost in found(database, grouping):
            own = [call for call in charged if key_of(call) == cost.key]
            assert cost.calls == len(own)
            assert cost.cost_nanousd == sum(call.cost_nanousd or 0 for call in own)
            buckets_of = [call.usage.buckets for call in own]
            assert cost.input_tokens == sum(buckets.inclusive_input for buckets in buckets_of if buckets)
            went_in = Decimal(0)
            for call in own:
                usage = call.usage
                assert usage.buckets is not None
                tokens, tier = usage.buckets.inclusive_input, usage.service_tier
                card = book.rate_for(usage.provider, usage.request_model, call.priced_at_ns, tokens, tier)
                assert card is not None
                for line in bill(card, usage.buckets):
                    if line.unit.startswith(("input", "cache")):
                        went_in += Decimal(line.quantity * line.rate) / card.denominator
            assert abs(cost.input_cost_nanousd - went_in) <= 1
            assert abs(cost.other_cost_nanousd) <= len(own), "only what rounding each call added"
    database.close()


def test_whole_days_out_of_their_roll_up_are_what_the_records_say(database: Database) -> None:
    random, usages = Random(7), []
    for number in range(1, 60):
        buckets = Buckets(input=random.randrange(900), cache_read=random.randrange(90), output=random.randrange(99))
        usage = used(
            number,
            random.choice(["gpt-4o-mini", "gpt-4.1"]),
            trace_id=number.to_bytes(16, "big"),
            started_at_ns=START_NS - random.randrange(2 * DAY_NS),
            event=random.choice(["chat", "search"]),
            dept=random.choice(["", "sales"]),
            route=random.choice(["", "eu"]),
            service_tier=random.choice(["", "default", "batch", "unknown-model"]),
            buckets=buckets,
        )
        usages.append(usage)
    book_calls(database, usages)
    with database.transaction() as connection:
        stored = list(stored_calls(connection, usage_query(1).where(usage_records.c.id < 10)))
        correct(connection, 1, Cause.TWIN, [cover(one) for one in stored], START_NS, TotalLabels())
        assert list(audit(connection)) == []
    last = START_NS // DAY_NS + 1
    # Half a day at a time no day is whole, so that each is read record by record.
    halves = [Period(half * DAY_NS // 2, (half + 1) * DAY_NS // 2) for half in range(2 * last - 6, 2 * last)]
    for grouping in (Grouping.MODEL, Grouping.EVENT, Grouping.DEPT, Grouping.ROUTE, Grouping.SERVICE_TIER):
        whole = found(database, grouping, Period((last - 3) * DAY_NS, last * DAY_NS))
        assert sum(cost.calls for cost in whole) == len(usages) - len(stored)
        parts = [part for half in halves for part in found(database, grouping, half)]
        for name in ("calls", "input_tokens", "output_tokens", "cost_nanousd"):
            by_halves: Counter[str] = Counter()
            for part in parts:
                by_halves[part.key] += getattr(part, name)
            assert by_halves == {cost.key: getattr(cost, name) for cost in whole}, (grouping, name)
    assert {cost.key for cost in whole} == {"", "default", "batch", "other"}
