"""Charge rules: what each kind asks for, worked out again with fractions, and what no rule may be."""

from decimal import Decimal
from fractions import Fraction

import pytest
from farebox_collector.ledger.storage.database import Database
from farebox_collector.ledger.tariffs.rules import (
    RuleAuthorship,
    RuleOverlap,
    load_rules,
    set_rule,
)
from farebox_collector.model.records import DEFAULT_TENANT_ID, Buckets, ChargeRule
from farebox_collector.pricing.rules import (
    COST_PLUS,
    FLAT,
    PER_1K_TOKENS,
    BadRule,
    RuleBook,
    RuleTerms,
)
from hypothesis import given
from hypothesis import strategies as st

COUNTS = st.integers(0, 10**9)
RATES = st.decimals(0, 1000, places=6)
BUCKETS = st.builds(Buckets, *([COUNTS] * len(Buckets._fields)))
HOUR_NS = 3600 * 10**9
START_NS = 1_767_300_000 * 10**9
WHO = RuleAuthorship("ada", "a test")


@given(BUCKETS, RATES, RATES, RATES)
def test_tokens_are_charged_by_what_went_in_was_cached_and_came_out(
    buckets: Buckets, fresh: Decimal, cached: Decimal, output: Decimal
) -> None:
    rates = {"input_credits_per_1k": fresh, "cached_credits_per_1k": cached, "output_credits_per_1k": output}
    rule = ChargeRule(1, "*", PER_1K_TOKENS, Decimal(0), Decimal(1), 0, None, **rates)
    went_in = buckets.input + buckets.cache_write + buckets.cache_write_1h + buckets.input_audio + buckets.input_image
    came_out = buckets.output + buckets.output_audio + buckets.output_image
    credits = Fraction(fresh) * went_in + Fraction(cached) * buckets.cache_read + Fraction(output) * came_out
    charged = RuleBook([rule]).share_nanocredits(rule, 123, buckets)
    assert charged == round(credits * 10**6)  # Python rounds half to even, too


@given(st.integers(0, 10**13), st.decimals("0.001", 1000, places=3), st.decimals("0.001", 10, places=3))
def test_cost_plus_is_cost_times_multiplier_at_what_a_credit_sells_for(
    cost: int, multiplier: Decimal, usd_per_credit: Decimal
) -> None:
    rule = ChargeRule(1, "*", COST_PLUS, multiplier, usd_per_credit, 0, None, minimum_credits=Decimal("0.5"))
    book = RuleBook([rule])
    assert book.share_nanocredits(rule, cost, Buckets()) == round(
        cost * Fraction(multiplier) / Fraction(usd_per_credit)
    )
    assert book.floor_nanocredits(rule) == 500_000_000


def test_a_flat_rule_has_a_floor_and_no_share() -> None:
    rule = ChargeRule(1, "*", FLAT, Decimal(0), Decimal(1), 0, None, flat_credits=Decimal("2.5"))
    book = RuleBook([rule])
    assert book.share_nanocredits(rule, 10**9, Buckets(input=10**6)) == 0
    assert book.floor_nanocredits(rule) == 2_500_000_000


BAD = {
    "negative": RuleTerms(FLAT, flat_credits=Decimal(-1)),
    "not a number": RuleTerms(FLAT, flat_credits=Decimal("NaN")),
    "infinite": RuleTerms(COST_PLUS, multiplier=Decimal("Infinity")),
    "a multiplier of nothing": RuleTerms(COST_PLUS),
    "too much": RuleTerms(FLAT, flat_credits=Decimal(10**7)),
    "too fine": RuleTerms(FLAT, flat_credits=Decimal("0.0000000001")),
    "of another kind": RuleTerms(FLAT, flat_credits=Decimal(1), multiplier=Decimal(1)),
    "of no kind": RuleTerms("free"),
}


@pytest.mark.parametrize("why", BAD)
def test_terms_that_nobody_can_be_charged_by_are_refused(database: Database, why: str) -> None:
    with pytest.raises(BadRule), database.transaction() as connection:
        set_rule(connection, DEFAULT_TENANT_ID, "e", BAD[why], WHO, START_NS)
    with database.reading() as connection:
        assert [rule.event for rule in load_rules(connection, DEFAULT_TENANT_ID)] == ["*"]


def test_a_rule_is_followed_by_the_next_and_never_overlaps_another(database: Database) -> None:
    flat = RuleTerms(FLAT, flat_credits=Decimal(1))

    def put(from_hour: int, to_hour: int | None) -> None:
        with database.transaction() as connection:
            end_ns = None if to_hour is None else START_NS + to_hour * HOUR_NS
            set_rule(connection, DEFAULT_TENANT_ID, "e", flat, WHO, START_NS, START_NS + from_hour * HOUR_NS, end_ns)

    put(1, None)
    put(5, 7)  # the first ends where this begins
    for refused in ((0, None), (2, 6), (6, 8), (5, 6), (-1, 1), (8, 8)):
        with pytest.raises((RuleOverlap, BadRule)):
            put(*refused)
    put(7, None)
    put(0, 1)
    with database.reading() as connection:
        book = RuleBook(load_rules(connection, DEFAULT_TENANT_ID))
    holding = [book.rule_for("e", START_NS + hour * HOUR_NS) for hour in range(9)]
    assert all(rule is not None and rule.event == "e" for rule in holding)
    assert len({rule.id for rule in holding if rule}) == 4
