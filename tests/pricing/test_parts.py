"""Calls of several parts, with stated costs, contradictory counts or an unseen end: by hand, with fractions."""

from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from calls import call
from farebox_collector.model.records import (
    Buckets,
    ChargeRule,
    ModelLine,
    PricedModel,
    PricedUsage,
    PriceVersion,
    UsageRecord,
)
from farebox_collector.model.verdicts import Verdict
from farebox_collector.pricing.book import PriceBook
from farebox_collector.pricing.price import price_at
from farebox_collector.pricing.rules import RuleBook
from hypothesis import given
from hypothesis import strategies as st

NOW_NS = 20_000 * 86_400 * 10**9
USD: dict[tuple[str, str, str], int | Fraction] = {
    # Dollars for a million, by model, unit and condition.
    ("main", "input", "standard"): 3,
    ("main", "output", "standard"): 15,
    ("main", "input", "standard@us"): Fraction(33, 10),
    ("main", "output", "standard@us"): Fraction(33, 2),
    ("main", "input", "fast"): 6,
    ("main", "output", "fast"): 30,
    ("main", "web_searches", "standard"): 10_000,
    ("adviser", "input", "standard"): 7,
    ("adviser", "output", "standard"): 11,
    ("adviser", "output", "fast"): 22,
    ("free", "input", "standard"): 0,
    ("free", "output", "standard"): 0,
}
VERSIONS = [
    PriceVersion(
        number, "p", model, unit, 0, 0, 0, Decimal(Fraction(usd).numerator) / Fraction(usd).denominator / 1000, 0, None,
        "s", "1", condition,
    )
    for number, ((model, unit, condition), usd) in enumerate(USD.items(), start=1)
]  # fmt: skip
MODELS = [
    PricedModel("p", name, place, f'{{"equals":"{name}"}}') for place, name in enumerate(("main", "adviser", "free"))
]
BOOK = PriceBook(VERSIONS, MODELS)
RULE = ChargeRule(1, "*", "cost_plus", Decimal(2), Decimal(1), 0, None)
RULES = RuleBook([RULE])
RECORD = call(start_ns=NOW_NS, buckets=Buckets(input=1000, output=100), model="main").usage


def priced(rules: RuleBook = RULES, **changes: Any) -> PricedUsage:
    return price_at(RECORD._replace(**changes), NOW_NS, BOOK, rules)


def nano(*terms: tuple[int, int | Fraction]) -> int:
    """Nano-USD of (count, dollars for a million)s, rounded once, half to even."""
    return round(sum((count * Fraction(usd) * 1000 for count, usd in terms), Fraction(0)))


def test_each_line_has_its_own_model_s_price_and_the_sum_is_rounded_once() -> None:
    lines = (
        ModelLine("advisor", "", "adviser", buckets=Buckets(input=10, output=20)),
        ModelLine("compaction", "p", "main", buckets=Buckets(input=7), units=(("web_searches", 2),)),
        ModelLine("advisor", "", "adviser", speed="fast", buckets=Buckets(output=3)),
    )
    call = priced(other_lines=lines)
    by_hand = nano((1000, 3), (100, 15), (10, 7), (20, 11), (7, 3), (2, 10_000), (3, 22))
    assert (call.cost_nanousd, call.charge_nanocredits) == (by_hand, 2 * by_hand)
    assert call.particulars is not None
    assert [(line.model, line.price_version_ids) for line in call.particulars.lines] == [
        ("adviser", "[8,9]"),
        ("main", "[1,2,7]"),
        ("adviser", "[8,10]"),
    ]


def test_a_line_without_a_price_leaves_the_rest_charged() -> None:
    unheard_of = ModelLine("image_generation", "", "unheard-of", buckets=Buckets(input=5, output_image=6))
    call = priced(other_lines=(unheard_of,), units=(("parrots", 2),))
    assert (call.verdict, call.cost_nanousd) == (Verdict.CHARGED, nano((1000, 3), (100, 15)))
    assert call.particulars is not None
    assert call.particulars.unpriced == ((0, "parrots", 2), (1, "input", 5), (1, "output_image", 6))
    assert "parts_without_price" in call.assumptions


def test_a_model_without_a_price_leaves_the_whole_call_unpriced() -> None:
    line = ModelLine("advisor", "", "adviser", buckets=Buckets(output=1))
    call = priced(request_model="unheard-of", response_model="", other_lines=(line,))
    assert (call.verdict, call.cost_nanousd, call.particulars) == (Verdict.UNPRICED, None, None)


counts = st.integers(0, 10**6)
tokens = st.builds(lambda went_in, came_out: Buckets(input=went_in, output=came_out), counts, counts)
lines = st.builds(
    lambda provider, model, speed, buckets: ModelLine("x", provider, model, speed=speed, buckets=buckets),
    st.sampled_from(("", "p")),
    st.sampled_from(("main", "adviser", "unheard-of")),
    st.sampled_from(("", "fast")),
    tokens,
)
REGIONS, SPEEDS = st.sampled_from(("", "us", "eu")), st.sampled_from(("", "fast"))


def oracle(model: str, speed: str, region: str, buckets: Buckets) -> Fraction:
    """Exact nano-USD of tokens, by the sentences of docs/explanation/prices.md: how a call was processed counts
    before where."""
    total = Fraction(0)
    for unit, count in (("input", buckets.input), ("output", buckets.output)):
        conditions = [
            f"{head}{where}"
            for head in ([speed] if speed else []) + ["standard"]
            for where in ([f"@{region}"] if region else []) + [""]
        ]
        usd = next((USD[model, unit, one] for one in conditions if (model, unit, one) in USD), None)
        total += 0 if usd is None else count * Fraction(usd) * 1000
    return total


@given(st.lists(lines, max_size=4), tokens, SPEEDS, REGIONS)
def test_generated_calls_cost_what_was_worked_out_by_hand(
    others: list[ModelLine], buckets: Buckets, speed: str, region: str
) -> None:
    call = priced(buckets=buckets, speed=speed, inference_region=region, other_lines=tuple(others))
    exact = oracle("main", speed, region, buckets)
    exact += sum((oracle(one.model, one.speed, "", one.buckets) for one in others), Fraction(0))
    lacking = any(one.model == "unheard-of" and (one.buckets.input or one.buckets.output) for one in others)
    if call.verdict is Verdict.UNPRICED:
        assert lacking
        assert exact == 0
        return
    assert call.cost_nanousd == round(exact)
    assert ("parts_without_price" in call.assumptions) == lacking


STATED = [
    # stated, model, what is booked, what is said
    (5_000_000, "main", 5_000_000, {"cost_as_stated"}),
    (4_500_000, "main", 4_500_000, {"cost_as_stated"}),  # what the price book says too
    (-1, "main", 4_500_000, {"stated_cost_implausible"}),
    (4_500_000 * 1000 + 1, "main", 4_500_000, {"stated_cost_implausible"}),
    (4_500_000 * 1000, "main", 4_500_000_000, {"cost_as_stated"}),
    (10**13 + 1, "main", 4_500_000, {"stated_cost_implausible"}),
    (0, "main", 4_500_000, {"stated_cost_zero"}),
    (7, "unheard-of", 7, {"cost_as_stated"}),
    (0, "unheard-of", 0, {"cost_as_stated", "stated_cost_zero"}),
    (0, "free", 0, {"cost_as_stated", "free_on_purpose"}),
    (9, "free", 9, {"cost_as_stated"}),
    (10**9 + 1, "free", 0, {"stated_cost_implausible", "free_on_purpose"}),
]


@pytest.mark.parametrize(("stated", "model", "booked", "said"), STATED)
def test_the_provider_s_own_statement_is_booked_if_it_can_be_believed(
    stated: int, model: str, booked: int, said: set[str]
) -> None:
    call = priced(request_model=model, response_model="", stated_cost_nanousd=stated)
    assert (call.verdict, call.cost_nanousd, set(call.assumptions)) == (Verdict.CHARGED, booked, said)
    listed = {"main": 4_500_000, "free": 0, "unheard-of": None}[model]
    assert (call.particulars and call.particulars.list_cost_nanousd) == listed


def test_a_statement_of_zero_is_believed_where_the_model_made_nothing() -> None:
    call = priced(buckets=Buckets(input=1000), stated_cost_nanousd=0)
    assert (call.cost_nanousd, set(call.assumptions)) == (0, {"cost_as_stated"})
    embedding = priced(buckets=Buckets(input=1000), stated_cost_nanousd=0, operation="embeddings")
    assert "stated_cost_zero" in embedding.assumptions


@pytest.mark.parametrize(("model", "listed"), [("main", 4_500_000), ("free", 0), ("unheard-of", None)])
def test_a_call_under_a_subscription_costs_nothing_and_keeps_its_list_price(model: str, listed: int | None) -> None:
    told = ("under_subscription",)
    call = priced(request_model=model, response_model="", stated_cost_nanousd=0, assumptions=told)
    assert (call.verdict, call.cost_nanousd, call.charge_nanocredits) == (Verdict.CHARGED, 0, 0)
    assert (call.particulars and call.particulars.list_cost_nanousd) == listed
    assert set(call.assumptions) <= {"under_subscription", "free_on_purpose"}


def test_an_unknown_model_without_a_believable_statement_stays_unpriced() -> None:
    call = priced(request_model="unheard-of", response_model="", stated_cost_nanousd=-5)
    assert (call.verdict, call.cost_nanousd) == (Verdict.UNPRICED, None)


@pytest.mark.parametrize(
    ("other", "at_stake"),
    [
        (Buckets(input=1000, output=300), nano((200, 15))),
        (Buckets(input=400, output=100), nano((600, 3))),
        (Buckets(input=1000, output=100), 0),
    ],
)
def test_what_the_other_reading_of_contradictory_counts_would_cost_is_at_stake(other: Buckets, at_stake: int) -> None:
    call = priced(other_reading=other)
    assert call.cost_nanousd == nano((1000, 3), (100, 15))
    assert call.particulars is not None
    assert call.particulars.at_stake_nanousd == at_stake


def test_a_call_whose_end_was_not_seen_is_an_estimate_and_charged_only_where_the_tenant_wants_that() -> None:
    call = priced(exposure="timeout")
    assert (call.verdict, call.cost_nanousd, call.charge_nanocredits) == (Verdict.EXPOSED, None, None)
    assert call.reason == "its end was not seen: timeout"
    assert call.particulars is not None
    assert call.particulars.estimate_nanousd == nano((1000, 3), (100, 15))
    charging = priced(RuleBook([RULE], charges_exposed=True), exposure="timeout")
    assert (charging.verdict, charging.cost_nanousd) == (Verdict.CHARGED, nano((1000, 3), (100, 15)))
    assert "charged_by_estimate" in charging.assumptions


@pytest.mark.parametrize("changes", [{"buckets": None}, {"request_model": "unheard-of", "response_model": ""}])
def test_a_call_whose_end_was_not_seen_may_have_no_estimate(changes: dict[str, Any]) -> None:
    call = priced(exposure="client_closed", error_type="cancelled", **changes)
    assert (call.verdict, call.cost_nanousd) == (Verdict.EXPOSED, None)
    assert call.particulars is not None
    assert call.particulars.estimate_nanousd is None


def test_free_is_a_price() -> None:
    call = priced(request_model="free", response_model="")
    assert (call.verdict, call.cost_nanousd, call.charge_nanocredits) == (Verdict.CHARGED, 0, 0)
    assert call.assumptions == ("free_on_purpose",)


def test_a_rule_by_tokens_charges_those_of_all_parts() -> None:
    per_token = ChargeRule(
        1, "*", "per_1k_tokens", Decimal(0), Decimal(1), 0, None, input_credits_per_1k=Decimal(1),
        output_credits_per_1k=Decimal(2),
    )  # fmt: skip
    line = ModelLine("advisor", "", "adviser", buckets=Buckets(input=500, output=50))
    assert priced(RuleBook([per_token]), other_lines=(line,)).charge_nanocredits == (1500 * 1 + 150 * 2) * 10**6


def test_ordinary_calls_have_no_particulars() -> None:
    assert priced().particulars is None
    assert priced(speed="fast").particulars is None
    assert UsageRecord._field_defaults["exposure"] == ""
