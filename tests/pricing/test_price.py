"""Hand-worked prices: each kind of condition, each verdict, each assumption."""

import weakref
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from calls import call
from farebox_collector.model.records import (
    Buckets,
    ChargeRule,
    PricedModel,
    PricedUsage,
    PriceVersion,
    UsageRecord,
)
from farebox_collector.model.units import UNITS
from farebox_collector.model.verdicts import Verdict
from farebox_collector.pricing.book import Offer, PriceBook
from farebox_collector.pricing.cards import price_flags, rate_card
from farebox_collector.pricing.price import (
    UnknownPrice,
    bill,
    cost,
    price,
)
from farebox_collector.pricing.rules import RuleBook
from hypothesis import given
from hypothesis import strategies as st

HOUR_NS = 3600 * 10**9
DAY_NS = 24 * HOUR_NS
NOW_NS = 20_000 * DAY_NS
WEEK_NS = 7 * DAY_NS

VERSIONS = [
    # $1 and $2 a million until now, $3 a million in afterwards.
    PriceVersion(1, "p", "m", "input", 0, 0, 0, Decimal("0.001"), 0, NOW_NS, "s", "1"),
    PriceVersion(2, "p", "m", "input", 0, 0, 0, Decimal("0.003"), NOW_NS, None, "s", "1"),
    PriceVersion(3, "p", "m", "output", 0, 0, 0, Decimal("0.002"), 0, None, "s", "1"),
    # A cliff over 1,000 tokens, and a fraction of a nano-dollar a token.
    PriceVersion(4, "p", "cliff", "input", 0, 0, 0, Decimal("0.0000025"), 0, None, "s", "1"),
    PriceVersion(5, "p", "cliff", "input", 1000, 0, 0, Decimal("0.000005"), 0, None, "s", "1"),
    PriceVersion(6, "p", "cliff", "output", 0, 0, 0, Decimal("1"), 0, None, "s", "1"),
    # Half price from 22:00 to 06:00.
    PriceVersion(7, "p", "night", "input", 0, 0, 0, Decimal("0.002"), 0, None, "s", "1"),
    PriceVersion(8, "p", "night", "input", 0, 22 * 3600, 6 * 3600, Decimal("0.001"), 0, None, "s", "1"),
    # A fee a request, and reasoning dearer than output.
    PriceVersion(9, "p", "fee", "requests", 0, 0, 0, Decimal("5"), 0, None, "s", "1"),
    PriceVersion(10, "p", "fee", "output", 0, 0, 0, Decimal("0.001"), 0, None, "s", "1"),
    PriceVersion(11, "p", "fee", "output_reasoning", 0, 0, 0, Decimal("0.004"), 0, None, "s", "1"),
    # $10 a thousand searches; images in at a price of their own, out at that of text.
    PriceVersion(12, "p", "m", "web_searches", 0, 0, 0, Decimal("10"), 0, None, "s", "1"),
    PriceVersion(13, "p", "m", "input_image", 0, 0, 0, Decimal("0.007"), 0, None, "s", "1"),
]
TIERED = [
    # Twice the price over 1,000 tokens; half of it in a batch of any length, but for output until now.
    PriceVersion(20, "p", "tiered", "input", 0, 0, 0, Decimal("0.004"), 0, None, "s", "1"),
    PriceVersion(21, "p", "tiered", "input", 1000, 0, 0, Decimal("0.008"), 0, None, "s", "1"),
    PriceVersion(22, "p", "tiered", "output", 0, 0, 0, Decimal("0.010"), 0, None, "s", "1"),
    PriceVersion(23, "p", "tiered", "input", 0, 0, 0, Decimal("0.002"), 0, None, "s", "1", "batch"),
    PriceVersion(24, "p", "tiered", "output", 0, 0, 0, Decimal("0.005"), NOW_NS, None, "s", "1", "batch"),
    # At night a batch costs a quarter of that again, and the standard price falls too.
    PriceVersion(25, "p", "tiered", "input", 0, 22 * 3600, 6 * 3600, Decimal("0.001"), 0, None, "s", "1", "batch"),
    PriceVersion(26, "p", "tiered", "input", 0, 23 * 3600, 5 * 3600, Decimal("0.003"), 0, None, "s", "1"),
    # By the hour, not to the last digit in seconds.
    PriceVersion(27, "p", "spoken", "audio_hours", 0, 0, 0, Decimal("7"), 0, None, "s", "1"),
]
MODELS = [
    PricedModel("p", name, i, f'{{"equals":"{name}"}}')
    for i, name in enumerate(["m", "cliff", "night", "fee", "tiered", "spoken"])
]
BOOK = PriceBook([*VERSIONS, *TIERED], MODELS)
NEGOTIATED = [
    PriceVersion(
        30, "p", "m", "input", 0, 0, 0, Decimal("0.0005"), NOW_NS - DAY_NS, NOW_NS, "manual", "ada", tenant_id=7
    ),
    PriceVersion(31, "p", "cliff", "input", 0, 0, 0, Decimal("0.000001"), 0, None, "manual", "ada", tenant_id=7),
]
OWN = BOOK.with_own_prices(NEGOTIATED)
STATED_RULES = [
    ChargeRule(1, "*", "cost_plus", Decimal(1), Decimal(1), 0, None),
    ChargeRule(2, "dear", "cost_plus", Decimal("1.5"), Decimal("0.1"), 0, NOW_NS),
    ChargeRule(3, "dear", "cost_plus", Decimal("2"), Decimal("0.1"), NOW_NS, None),
]
RULES = RuleBook(STATED_RULES)
RECORD = call(start_ns=NOW_NS, buckets=Buckets(input=1000, output=1000)).usage


def priced(received_at_ns: int = NOW_NS + HOUR_NS, **changes: Any) -> PricedUsage:
    """Price the record above with these changes."""
    return price(RECORD._replace(**changes), received_at_ns, WEEK_NS, BOOK, RULES)


def call_of(model: str, **buckets: int) -> dict[str, Any]:
    return {"request_model": model, "response_model": model, "buckets": Buckets(**buckets)}


def test_the_price_is_that_of_the_start_half_open() -> None:
    before, at = priced(started_at_ns=NOW_NS - 1), priced(started_at_ns=NOW_NS)
    assert (before.cost_nanousd, before.price_version_ids) == (1_000_000 + 2_000_000, "[1,3,12,13]")
    assert (at.cost_nanousd, at.price_version_ids) == (3_000_000 + 2_000_000, "[2,3,12,13]")


@pytest.mark.parametrize(
    ("tokens", "nanousd"),
    [
        (1000, 2_500),  # at the threshold: 1,000 × 2.5 nano
        (1001, 5_005),  # over it: the whole call at 5 nano
        (1, 2),  # 2.5 rounds to the even neighbour
        (3, 8),  # 7.5 rounds to the even neighbour
    ],
)
def test_long_context_is_a_cliff_and_halves_round_to_even(tokens: int, nanousd: int) -> None:
    assert priced(**call_of("cliff", input=tokens)).cost_nanousd == nanousd


def test_cached_tokens_count_for_the_cliff_and_cost_as_input_without_a_price_of_their_own() -> None:
    call = priced(**call_of("cliff", input=1, cache_read=600, cache_write=400))
    assert call.cost_nanousd == 1001 * 5
    assert call.assumptions == ("cache_read_at_input_price", "cache_write_at_input_price")


@pytest.mark.parametrize(
    ("hour", "nanousd"), [(5.99, 1_000), (6, 2_000), (21.99, 2_000), (22, 1_000), (23.5, 1_000), (0, 1_000)]
)
def test_hours_of_the_day_are_half_open_and_wrap_at_midnight(hour: float, nanousd: int) -> None:
    at_ns = NOW_NS - DAY_NS + int(hour * HOUR_NS)
    assert priced(started_at_ns=at_ns, **call_of("night", input=1)).cost_nanousd == nanousd


def test_a_request_fee_and_reasoning_apart_from_output() -> None:
    # 5,000,000 for the request, 60 × 1,000 for output, 40 × 4,000 for reasoning, which the output of 100 includes
    assert priced(**call_of("fee", output=100, reasoning=40)).cost_nanousd == 5_000_000 + 60_000 + 160_000


def test_searches_and_images_have_their_lines() -> None:
    buckets = Buckets(input_image=10, output_image=20)
    call = priced(buckets=buckets, units=(("web_searches", 2),))
    assert call.cost_nanousd == 10 * 7_000 + 20 * 2_000 + 2 * 10_000_000
    assert call.assumptions == ("output_image_at_output_price",)


def test_a_unit_without_a_price_is_named_and_leaves_the_rest_charged() -> None:
    call = priced(units=(("parrots", 3), ("web_searches", 1)))
    assert (call.verdict, call.cost_nanousd) == (Verdict.CHARGED, 5_000_000 + 10_000_000)
    assert call.assumptions == ("parts_without_price",)
    assert call.particulars is not None
    assert call.particulars.unpriced == ((0, "parrots", 3),)
    alone = priced(buckets=Buckets(), units=(("parrots", 1),))
    assert (alone.verdict, alone.reason, alone.cost_nanousd) == (Verdict.UNPRICED, "no price for parrots", None)


def test_a_call_that_stands_for_several_requests_pays_the_fee_for_each() -> None:
    assert priced(**call_of("fee", output=1), units=(("requests", 3),)).cost_nanousd == 3 * 5_000_000 + 1_000
    # where requests have no fee their number is no unit to be priced
    assert priced(units=(("requests", 3),)).verdict is Verdict.CHARGED


def test_the_rule_of_the_event_and_the_moment_decides_the_charge() -> None:
    assert priced().charge_nanocredits == 5_000_000
    # $0.003 × 1.5 at $0.10 a credit
    early = priced(event="dear", started_at_ns=NOW_NS - 1)
    assert (early.charge_nanocredits, early.rule_version_id) == (45_000_000, 2)
    late = priced(event="dear")
    assert (late.charge_nanocredits, late.rule_version_id) == (100_000_000, 3)


@pytest.mark.parametrize("start_ns", [0, NOW_NS - WEEK_NS, NOW_NS + 2 * HOUR_NS, 2**64 - 1, -5])
def test_a_sender_cannot_pick_its_price_by_its_clock(start_ns: int) -> None:
    call = priced(started_at_ns=start_ns)
    assert call.priced_at_ns == NOW_NS + HOUR_NS
    assert "start_time_out_of_range" in call.assumptions
    assert call.cost_nanousd == 5_000_000


def test_a_clock_a_little_ahead_is_believed() -> None:
    call = priced(received_at_ns=NOW_NS - 5 * 60 * 10**9)
    assert call.priced_at_ns == NOW_NS
    assert not call.assumptions


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({"buckets": None}, Verdict.UNMETERED),
        ({"buckets": None, "error_type": "timeout"}, Verdict.FAILED),
        ({"buckets": None, "error_type": "timeout", "response_id": "r"}, Verdict.UNMETERED),
        ({"summary": True}, Verdict.DEFERRED),
        ({"provider": ""}, Verdict.UNPRICED),
        ({"provider": "q"}, Verdict.UNPRICED),
        (call_of("unheard-of", input=1), Verdict.UNPRICED),
        (call_of("cliff", input_audio=1, output_audio=1), Verdict.CHARGED),
        (call_of("fee", input=1), Verdict.UNPRICED),
        (call_of("spoken", input=1), Verdict.UNPRICED),
    ],
)
def test_what_cannot_be_priced_is_named_and_never_zero(changes: dict[str, Any], verdict: Verdict) -> None:
    call = priced(**changes)
    assert call.verdict is verdict
    if verdict is Verdict.CHARGED:
        assert call.cost_nanousd
    else:
        assert call.cost_nanousd is None
        assert call.charge_nanocredits is None
        assert call.reason


def test_usage_on_an_error_is_charged() -> None:
    assert priced(error_type="timeout").verdict is Verdict.CHARGED


def test_the_requested_model_stands_in_for_an_unknown_response_model_and_that_is_said() -> None:
    call = priced(response_model="m-2030")
    assert (call.model, call.assumptions) == ("m", ("priced_as_the_requested_model",))


@pytest.mark.parametrize(
    ("tier", "tokens", "hour", "nanousd", "versions"),
    [
        ("", 1000, 12, 4_000_000, "[20,22]"),
        ("default", 1001, 12, 8_008_000, "[21,22]"),
        ("batch", 1000, 12, 2_000_000, "[22,23]"),
        ("batch", 1001, 12, 2_002_000, "[22,23]"),  # a batch has no step
        ("BATCH", 1000, 12, 2_000_000, "[22,23]"),
        ("batches", 1000, 12, 2_000_000, "[22,23]"),
        ("batch", 1000, 22, 1_000_000, "[22,25]"),
        ("batch", 1000, 23.5, 1_000_000, "[22,25]"),  # the tier comes before the hours
        ("", 1000, 22, 4_000_000, "[20,22]"),
        ("", 1000, 23.5, 3_000_000, "[22,26]"),
        ("", 1001, 23.5, 3_003_000, "[22,26]"),
        ("", 1000, 5, 4_000_000, "[20,22]"),
        ("flex", 1000, 12, 4_000_000, "[20,22]"),  # no price of its own: the standard one, flagged
    ],
)
def test_tier_hours_and_length_decide_together(
    tier: str, tokens: int, hour: float, nanousd: int, versions: str
) -> None:
    at_ns = NOW_NS - 2 * DAY_NS + int(hour * HOUR_NS)
    call = priced(started_at_ns=at_ns, service_tier=tier, **call_of("tiered", input=tokens))
    assert (call.cost_nanousd, call.price_version_ids) == (nanousd, versions)
    assert call.assumptions == (("service_tier_at_standard_price",) if tier == "flex" else ())


def test_a_unit_without_a_price_in_the_tier_has_the_standard_one_and_that_is_said() -> None:
    before = priced(started_at_ns=NOW_NS - 1, service_tier="batch", **call_of("tiered", output=1))
    assert (before.cost_nanousd, before.assumptions) == (10_000, ("output_at_standard_price",))
    at = priced(service_tier="batch", **call_of("tiered", output=1))
    assert (at.cost_nanousd, at.assumptions) == (5_000, ())


def test_seconds_are_billed_by_the_hour_exactly() -> None:
    # 7 × 10⁹ ÷ 1,000 nano-USD an hour ÷ 3,600 = 1,944.44… a second
    for seconds, nanousd in ((1, 1_944), (9, 17_500), (3600, 7_000_000)):
        call = priced(**call_of("spoken"), units=(("audio_seconds", seconds),))
        assert call.cost_nanousd == nanousd


def test_a_negotiated_price_stands_in_for_the_list_price_of_the_same_thing() -> None:
    def own(**changes: Any) -> PricedUsage:
        return price(RECORD._replace(**changes), NOW_NS + HOUR_NS, WEEK_NS, OWN, RULES)

    assert own(started_at_ns=NOW_NS - 1).price_version_ids == "[3,12,13,30]"
    assert own(started_at_ns=NOW_NS - 1).cost_nanousd == 500_000 + 2_000_000
    assert own().price_version_ids == priced().price_version_ids, "its time is up: the list price again"
    assert own(started_at_ns=NOW_NS - DAY_NS - 1) == priced(started_at_ns=NOW_NS - DAY_NS - 1)
    assert own(**call_of("cliff", input=1000)).cost_nanousd == 1_000
    assert own(**call_of("cliff", input=1001)).cost_nanousd == 5_005, "the step was not negotiated"
    assert priced(started_at_ns=NOW_NS - 1).price_version_ids == "[1,3,12,13]", "others pay the list price"


def test_another_provider_s_list_price_is_flagged() -> None:
    reseller = PriceBook(
        [VERSIONS[0]._replace(provider="openai", valid_to_ns=None)],
        [PricedModel("openai", "m", 0, '{"equals":"m"}'), PricedModel("azure", "other", 0, '{"equals":"o"}')],
    )
    call = price(
        RECORD._replace(provider="azure.ai.openai", buckets=Buckets(input=1)), NOW_NS, WEEK_NS, reseller, RULES
    )
    assert (call.provider, call.assumptions) == ("openai", ("provider_at_another_provider_s_price",))
    plain = price(RECORD._replace(provider="OpenAI", buckets=Buckets(input=1)), NOW_NS, WEEK_NS, reseller, RULES)
    assert not plain.assumptions


def test_a_tier_that_has_no_price_of_its_own_is_flagged() -> None:
    assert priced(service_tier="flex").assumptions == ("service_tier_at_standard_price",)
    assert not priced(service_tier="default").assumptions


rates = st.decimals("0.000001", "1", places=7)
counts = st.builds(Buckets, *(st.just(0) | st.integers(0, 10**6) for _ in Buckets._fields))


@given(st.dictionaries(st.sampled_from(sorted(UNITS)), rates), st.booleans(), counts)
def test_the_cost_is_the_sum_of_the_bill(priced_units: dict[str, Decimal], batch: bool, buckets: Buckets) -> None:
    """For any card, the fast path of a call and the lines of its receipt agree."""
    buckets = buckets._replace(reasoning=min(buckets.reasoning, buckets.output))
    versions = [
        PriceVersion(
            number, "p", "m", unit, 0, 0, 0, usd, 0, None, "s", "1", "batch" if batch and number % 2 else "standard"
        )
        for number, (unit, usd) in enumerate(priced_units.items(), start=1)
    ]
    card = rate_card(versions, "batch" if batch else "standard")
    try:
        lines = bill(card, buckets)
    except UnknownPrice as error:
        with pytest.raises(UnknownPrice, match=str(error)):
            cost(card, buckets)
        return
    nanousd, flags = cost(card, buckets)
    exact = sum((Fraction(line.quantity * line.rate, card.denominator) for line in lines), Fraction(0))
    assert abs(nanousd - exact) <= Fraction(1, 2)
    assert sorted(flags) == sorted(
        flag for line in lines for flag in price_flags(line.unit, line.priced_as, card.standard_units)
    )
    by_hand = sum(line.quantity * priced_units[line.priced_as] for line in lines) * 10**6
    assert exact == by_hand


NAMES = st.sampled_from(("m", "cliff", "night", "fee", "tiered", "unheard-of", ""))
BORDERS = st.builds(
    int.__add__,
    st.sampled_from((NOW_NS - DAY_NS, NOW_NS, NOW_NS + 6 * HOUR_NS, NOW_NS + 22 * HOUR_NS, NOW_NS + 23 * HOUR_NS)),
    st.sampled_from((-1, 0, 1)),
)
CALLS = st.fixed_dictionaries(
    {
        "started_at_ns": BORDERS,
        "event": st.sampled_from(("dear", "other")),
        "provider": st.sampled_from(("p", "P", "q", "")),
        "request_model": NAMES,
        "response_model": NAMES,
        "service_tier": st.sampled_from(("", "default", "batch", "BATCH", "flex")),
        "buckets": st.builds(
            lambda fresh, cached: Buckets(input=fresh, cache_read=cached),
            st.sampled_from((0, 1, 999, 1000, 1001)),
            st.integers(0, 2),
        ),
    }
)


@given(st.lists(st.tuples(CALLS, st.booleans()), max_size=8))
def test_what_was_asked_of_a_book_before_makes_no_difference(sequence: list[tuple[dict[str, Any], bool]]) -> None:
    """Books remember what calls name: not the moment, nor the length of the context, nor another tenant's prices."""
    plain = price(RECORD, NOW_NS + DAY_NS, WEEK_NS, BOOK, RULES)
    assert (plain.verdict, plain.cost_nanousd) == (Verdict.CHARGED, priced().cost_nanousd)
    assert plain.cost_nanousd
    for changes, own in (*sequence, *reversed(sequence)):
        anew = PriceBook([*VERSIONS, *TIERED], MODELS)
        usage = RECORD._replace(**changes)
        known = price(usage, NOW_NS + DAY_NS, WEEK_NS, OWN if own else BOOK, RULES)
        fresh = anew.with_own_prices(NEGOTIATED) if own else anew
        assert known == price(usage, NOW_NS + DAY_NS, WEEK_NS, fresh, RuleBook(STATED_RULES))
        assert known.verdict is (Verdict.CHARGED if is_sold(usage) else Verdict.UNPRICED)


def is_sold(usage: UsageRecord) -> bool:
    """Whether the versions above have a price for a call; `fee` has none for what goes in."""
    names = [name for name in (usage.response_model, usage.request_model) if name not in ("", "unheard-of")]
    if usage.provider not in ("p", "P") or not names:
        return False
    assert usage.buckets is not None
    return names[0] != "fee" or not (usage.buckets.input or usage.buckets.cache_read)


def test_a_remembered_price_ends_with_its_validity() -> None:
    moments = [NOW_NS + step for step in (-1, 0, -1, 1, -1)]
    assert [priced(started_at_ns=moment).cost_nanousd for moment in moments] == [
        nanousd * 1000 + 2_000_000 for nanousd in (1000, 3000, 1000, 3000, 1000)
    ]


def test_names_that_never_repeat_are_forgotten_again() -> None:
    book = PriceBook([*VERSIONS, *TIERED], MODELS)
    offers = weakref.WeakSet[Offer]()
    for number in range(11_000):
        offers.add(book.offer("p", f"model-{number}", "", ""))
        assert 0 < book.cached_names <= 10_000
        assert book.offer("p", f"model-{number}", "", "") in offers, "what was just asked for is remembered"
    assert 0 < len(offers) <= 10_000


@pytest.mark.parametrize(
    ("used", "nanousd"),
    [
        # Output at 1,000 nano-dollars a token, reasoning at 4,000, a fee of 5,000,000.
        ({"output": 10, "reasoning": 4}, 5_000_000 + 6 * 1_000 + 4 * 4_000),
        ({"output": 10, "reasoning": 10}, 5_000_000 + 10 * 4_000),
        ({"output": 10, "reasoning": 4, "output_image": 1}, 5_000_000 + 6 * 1_000 + 4 * 4_000 + 1_000),
        ({"output": 10}, 5_000_000 + 10 * 1_000),
    ],
)
def test_reasoning_with_a_price_of_its_own_is_taken_out_of_the_output(used: dict[str, int], nanousd: int) -> None:
    buckets = Buckets(**used)
    card = BOOK.rate_for("p", "fee", NOW_NS)
    assert card is not None
    assert cost(card, buckets)[0] == nanousd
    lines = {line.unit: line.quantity for line in bill(card, buckets)}
    assert lines.get("output_reasoning", 0) == buckets.reasoning
    assert lines["output"] == buckets.output - buckets.reasoning
    assert sum(line.quantity * line.rate for line in bill(card, buckets)) == nanousd * card.denominator


@pytest.mark.parametrize(
    ("minimum", "action_id", "charge", "floor"),
    [
        ("0.002", "", 5_000_000, None),  # the cost is more than the minimum
        ("0.02", "", 20_000_000, None),
        ("0.02", "a", 5_000_000, 20_000_000),  # the ledger looks at the whole action
        ("0", "", 5_000_000, None),
    ],
)
def test_a_minimum_is_the_least_of_a_call_outside_any_action(
    minimum: str, action_id: str, charge: int, floor: int | None
) -> None:
    rule = ChargeRule(1, "*", "cost_plus", Decimal(1), Decimal(1), 0, None, minimum_credits=Decimal(minimum))
    call = price(RECORD._replace(action_id=action_id), NOW_NS + HOUR_NS, WEEK_NS, BOOK, RuleBook([rule]))
    assert (call.charge_nanocredits, call.action_floor_nanocredits) == (charge, floor)
