"""Price lists as people and others publish them: what they become, and what makes one unfit."""

import json
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from functools import partial
from typing import Any

import pytest
from farebox_collector.model.records import PriceVersion
from farebox_collector.pricing.book import PriceBook
from farebox_collector.pricing.currencies import ExchangeRate, ExchangeRates, NoExchangeRate
from farebox_collector.pricing.litellm import litellm_catalogue
from farebox_collector.pricing.price_csv import csv_catalogue
from farebox_collector.pricing.price_lists import Catalogue, UnfitList
from hypothesis import given
from hypothesis import strategies as st

DAY_NS = 86_400 * 10**9
NOW_NS = 20_500 * DAY_NS
RATES = ExchangeRates(
    [
        ExchangeRate("EUR", Decimal("1.08"), 0),
        ExchangeRate("EUR", Decimal("1.10"), NOW_NS),
        ExchangeRate("CNY", Decimal("0.14"), NOW_NS),
    ]
)


def entry(**prices: Any) -> str:
    return json.dumps({"sample_spec": {"input_cost_per_token": 0}, "m": {"litellm_provider": "openai", **prices}})


def prices_of(catalogue: Catalogue) -> dict[tuple[str, int, str], Decimal]:
    return {(row.unit, row.over_input_tokens, row.condition): row.usd_per_1k for row in catalogue.prices.rows}


# ---- LiteLLM


def test_keys_of_litellm_become_units_steps_and_tiers() -> None:
    listed = litellm_catalogue(
        entry(
            input_cost_per_token=2.5e-06,
            output_cost_per_token=1e-05,
            cache_read_input_token_cost=1.25e-06,
            cache_creation_input_token_cost=3e-06,
            cache_creation_input_token_cost_above_1hr=5e-06,
            input_cost_per_token_above_200k_tokens=5e-06,
            cache_creation_input_token_cost_above_1hr_above_200k_tokens=9e-06,
            input_cost_per_token_batches=1.25e-06,
            input_cost_per_token_above_272k_tokens_priority=7e-06,
            output_cost_per_token_flex=5e-06,
            input_cost_per_audio_token=4e-05,
            output_cost_per_image=0.04,
            search_context_cost_per_query={
                "search_context_size_low": 0.03,
                "search_context_size_medium": 0.035,
                "search_context_size_high": 0.05,
            },
            file_search_cost_per_1k_calls=2.5,
            max_input_tokens=128000,
            a_new_cost_per_thing=1,
        ),
        "1",
    )
    assert prices_of(listed) == {
        ("input", 0, "standard"): Decimal("0.0025"),
        ("output", 0, "standard"): Decimal("0.01"),
        ("cache_read", 0, "standard"): Decimal("0.00125"),
        ("cache_write", 0, "standard"): Decimal("0.003"),
        ("cache_write_1h", 0, "standard"): Decimal("0.005"),
        ("input", 200_000, "standard"): Decimal("0.005"),
        ("cache_write_1h", 200_000, "standard"): Decimal("0.009"),
        ("input", 0, "batch"): Decimal("0.00125"),
        ("input", 272_000, "priority"): Decimal("0.007"),
        ("output", 0, "flex"): Decimal("0.005"),
        ("input_audio", 0, "standard"): Decimal("0.04"),
        ("images", 0, "standard"): Decimal("40"),
        ("web_searches", 0, "standard"): Decimal("35"),
        ("storage_searches", 0, "standard"): Decimal("2.5"),
    }
    assert listed.left_out == {"no such unit here: a_new_cost_per_thing": 1}


@pytest.mark.parametrize(
    ("provider", "name", "expected"),
    [
        ("openai", "gpt-x", ("openai", "gpt-x")),
        ("azure", "azure/gpt-x", ("azure", "gpt-x")),
        ("vertex_ai-anthropic_models", "vertex_ai/claude-x", ("google", "claude-x")),
        ("gemini", "gemini/gemini-x", ("google", "gemini-x")),
        ("bedrock_converse", "us.anthropic.claude-x-v1:0", ("aws", "us.anthropic.claude-x-v1:0")),
        ("openrouter", "openrouter/openai/gpt-x", ("openrouter", "openai/gpt-x")),
        ("xai", "xai/grok-x", ("x-ai", "grok-x")),
    ],
)
def test_models_of_litellm_get_the_book_s_names(provider: str, name: str, expected: tuple[str, str]) -> None:
    listed = litellm_catalogue(json.dumps({name: {"litellm_provider": provider, "input_cost_per_token": 1e-6}}), "1")
    assert [(row.provider, row.model) for row in listed.prices.rows] == [expected]
    versions = [PriceVersion(1, *listed.prices.rows[0][:9], "s", "1")]
    card = PriceBook(versions, listed.models).rate_for(provider, name, 1)
    assert card is not None
    assert (card.provider, card.model) == expected


def test_free_models_are_left_out_unless_asked_for() -> None:
    text = entry(input_cost_per_token=0, output_cost_per_token=0.0)
    assert litellm_catalogue(text, "1").left_out == {"a free model": 1}
    assert prices_of(litellm_catalogue(text, "1", allow_free=True))["input", 0, "standard"] == 0
    half = litellm_catalogue(entry(input_cost_per_token=1e-6, output_cost_per_token=0), "1")
    assert prices_of(half)["output", 0, "standard"] == 0


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "not JSON"),
        ("[1]", "not a JSON object"),
        ('{"m": 1}', "not a JSON object"),
        ('{\n"m": {"litellm_provider": "openai", "input_cost_per_token": -1e-6}\n}', "line 2, m, input_cost_per_token"),
        (entry(input_cost_per_token="a lot"), "'a lot' is not a price"),
        ('{"m": {"litellm_provider": "openai", "input_cost_per_token": NaN}}', "not a price"),
        (entry(input_cost_per_token=1e300), "out of range"),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_an_unfit_litellm_list_is_refused_whole_with_the_place(text: str, reason: str) -> None:
    with pytest.raises(UnfitList, match=reason):
        litellm_catalogue(text, "1")


# ---- CSV

HEADING = "provider,model,unit,price_per_1k,currency,valid_from,valid_to,condition,over_input_tokens,hours\n"


def test_a_csv_row_says_all_that_a_price_can_depend_on() -> None:
    text = HEADING + "Azure.AI.OpenAI,gpt-x,input,0.5,eur,2026-02-01,2026-03-01T12:00,Batch,200000,22:00-06:00\n"
    (row,) = csv_catalogue(text, "list.csv", RATES, NOW_NS).prices.rows
    assert (row.provider, row.model, row.unit, row.condition) == ("azure", "gpt-x", "input", "batch")
    assert (row.over_input_tokens, row.daily_from_s, row.daily_to_s) == (200_000, 22 * 3600, 6 * 3600)
    assert row.valid_from_ns == int(datetime(2026, 2, 1, tzinfo=UTC).timestamp()) * 10**9
    assert row.valid_to_ns == int(datetime(2026, 3, 1, 12, tzinfo=UTC).timestamp()) * 10**9
    # Recorded at the rate of the day from which it holds.
    assert (row.usd_per_1k, row.currency) == (Decimal("0.540"), "EUR")
    assert (row.original_per_1k, row.usd_per_currency) == (Decimal("0.5"), Decimal("1.08"))


def test_a_price_per_million_and_without_a_date_holds_from_the_import_on() -> None:
    (row,) = csv_catalogue("model,provider,unit,price_per_1m\nm,p,output,7\n", "x", RATES, NOW_NS).prices.rows
    assert (row.usd_per_1k, row.valid_from_ns, row.valid_to_ns, row.currency) == (Decimal("0.007"), NOW_NS, None, "USD")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("p,m,input,0,,,,,,", "the price is zero"),
        ("p,m,input,-1,,,,,,", "below zero"),
        ("p,m,input,abc,,,,,,", "number"),
        ("p,m,input,NaN,,,,,,", "number"),
        ("p,m,input,1e99,,,,,,", "out of range"),
        ("p,m,tokens,1,,,,,,", "'tokens' is not a unit"),
        ("p,m,reasoning,1,,,,,,", "'reasoning' is not a unit"),
        ("p,m,x_parrots!,1,,,,,,", "is not a unit"),
        ("p,m,input,1,EURO,,,,,", "not a currency"),
        ("p,m,input,1,GBP,,,,,", "no exchange rate for GBP"),
        ("p,m,input,1,CNY,2026-01-01,,,,", "before the first known one"),
        ("p,m,input,1,,yesterday,,,,", "not a date"),
        ("p,m,input,1,,2026-02-01,2026-02-01,,,", "must be after valid_from"),
        ("p,m,input,1,,1960-01-01,,,,", "not a date"),
        ("p,m,input,1,,,,,1.5,", "whole number"),
        ("p,m,input,1,,,,,,25:00-01:00", "not hours"),
        ("p,m,input,1,,,,,,06:00-06:00", "another time"),
        (",m,input,1,,,,,,", "printable"),
        ("p,m\x00,input,1,,,,,,", "printable"),
        ("p,m,input,1", "fewer columns"),
        ("p,m,input,1,,,,,,,,", "more or fewer columns"),
        ("p,good,input,3,,,,,,", "overlaps line 2"),
    ],
)
def test_one_bad_row_refuses_a_csv_with_its_line(row: str, reason: str) -> None:
    text = HEADING + "p,good,input,1,,2026-01-01,,,,\n" + row + "\n"
    with pytest.raises(UnfitList, match=reason) as caught:
        csv_catalogue(text, "x", RATES, NOW_NS)
    assert "line 3" in str(caught.value)
    assert "nothing was imported" in str(caught.value)


@pytest.mark.parametrize(
    "heading",
    ["", "provider,model,unit", "provider,model,unit,price", "provider,model,unit,price_per_1k,price_per_1m", "a,b,c"],
)
def test_a_csv_without_our_columns_is_refused(heading: str) -> None:
    with pytest.raises(UnfitList):
        csv_catalogue(heading + "\np,m,input,1\n", "x", RATES, NOW_NS)


def test_a_free_unit_can_be_asked_for() -> None:
    listed = csv_catalogue(HEADING + "p,m,input,0,,,,,,\n", "x", RATES, NOW_NS, allow_free=True)
    assert prices_of(listed) == {("input", 0, "standard"): 0}


@given(st.text(max_size=300))
def test_any_text_is_a_list_or_unfit(text: str) -> None:
    for read in (partial(csv_catalogue, HEADING + text, "x", RATES, NOW_NS), partial(litellm_catalogue, text, "1")):
        try:
            catalogue = read()
        except UnfitList:
            continue
        assert all(row.usd_per_1k > 0 for row in catalogue.prices.rows)


# ---- exchange rates


def test_the_rate_of_the_moment_applies_and_a_later_record_of_the_same_moment_wins() -> None:
    assert RATES.usd_per("EUR", NOW_NS - 1) == Decimal("1.08")
    assert RATES.usd_per("EUR", NOW_NS) == Decimal("1.10")
    assert RATES.usd_per("USD", 0) == 1
    corrected = ExchangeRates([ExchangeRate("EUR", Decimal(1), 5), ExchangeRate("EUR", Decimal(2), 5)])
    assert corrected.usd_per("EUR", 5) == 2
    with pytest.raises(NoExchangeRate, match="GBP"):
        RATES.usd_per("GBP", NOW_NS)


@given(st.decimals("0.000001", "1000", places=9), st.decimals("0.0001", "2000", places=6))
def test_a_price_from_another_currency_is_exact(price: Decimal, rate: Decimal) -> None:
    rates = ExchangeRates([ExchangeRate("EUR", rate, 0)])
    text = f"provider,model,unit,price_per_1k,currency\np,m,input,{price:f},EUR\n"
    (row,) = csv_catalogue(text, "x", rates, NOW_NS).prices.rows
    assert Fraction(row.usd_per_1k) == Fraction(price) * Fraction(rate)
