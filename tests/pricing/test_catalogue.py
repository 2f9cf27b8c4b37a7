"""The compiled price book against genai-prices itself, which it was read from."""

import itertools
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal

import pytest
from farebox_collector.pricing.book import PriceBook
from farebox_collector.pricing.catalogue import genai_prices_catalogue
from farebox_collector.pricing.price import UnknownPrice, cost
from farebox_collector.records import Buckets, PriceVersion
from genai_prices import types
from genai_prices.data import providers

NANO = Decimal("0.000000001")
MOMENTS = [
    datetime(2024, 6, 1, 3, 0, tzinfo=UTC),
    datetime(2025, 12, 1, 17, 0, tzinfo=UTC),
    datetime(2026, 10, 14, tzinfo=UTC) - timedelta(microseconds=1),
    datetime(2026, 11, 21, 2, 30, tzinfo=UTC),
]
# Around every threshold that the catalogue has, with and without cache, audio and reasoning.
USAGES = [
    Buckets(input=100, output=50),
    Buckets(input=1, cache_read=99_999, output=1, reasoning=1),
    Buckets(input=128_001, output=7),
    Buckets(input=50_000, cache_read=100_000, cache_write=50_000, output=1_000),
    Buckets(input=50_000, cache_read=100_000, cache_write=50_001, output=1_000, reasoning=500),
    Buckets(input=199_999, output=3),
    Buckets(input=272_001, cache_write_1h=2, output=5),
    Buckets(input=10, input_audio=20, output=30, output_audio=40),
    Buckets(input=10, input_image=20, output=30, output_image=40),
]


@pytest.fixture(scope="module")
def book() -> PriceBook:
    catalogue = genai_prices_catalogue()
    versions = [
        PriceVersion(number, *row[:9], "genai-prices", "", condition=row.condition)
        for number, row in enumerate(catalogue.prices.rows)
    ]
    return PriceBook(versions, catalogue.models)


def _oracle_usage(buckets: Buckets) -> types.Usage:
    """Our disjoint buckets as the inclusive counts that genai-prices takes."""
    writes = buckets.cache_write + buckets.cache_write_1h
    return types.Usage(
        input_tokens=buckets.inclusive_input,
        cache_read_tokens=buckets.cache_read,
        cache_write_tokens=writes,
        cache_write_1h_tokens=buckets.cache_write_1h,
        input_audio_tokens=buckets.input_audio,
        input_image_tokens=buckets.input_image,
        output_tokens=buckets.output + buckets.output_audio + buckets.output_image,
        output_audio_tokens=buckets.output_audio,
        output_image_tokens=buckets.output_image,
        output_reasoning_tokens=buckets.reasoning,
    )


def test_costs_are_those_of_genai_prices_for_every_model(book: PriceBook) -> None:
    compared = 0
    for provider in providers:
        for model in provider.models:
            for moment, buckets in itertools.product(MOMENTS, USAGES):
                compared += _compare(book, provider, model, moment, buckets)
    assert compared > 50_000


def _compare(
    book: PriceBook, provider: types.Provider, model: types.ModelInfo, moment: datetime, buckets: Buckets
) -> bool:
    """Compare one case; False where we rightly have no price and genai-prices would silently say $0."""
    at_ns = int(moment.timestamp() * 10**6) * 1000
    if provider.find_model(model.id) is not model:
        return False  # an earlier entry of the catalogue takes this name
    oracle = model.calc_price(_oracle_usage(buckets), provider, genai_request_timestamp=moment).total_price
    card = book.rate_for(provider.id, model.id, at_ns, buckets.inclusive_input)
    try:
        if card is None:
            raise UnknownPrice
        ours, _ = cost(card, buckets)
    except UnknownPrice:
        assert _prices_nothing_of(model, moment, buckets), (provider.id, model.id, buckets)
        return False
    assert Decimal(ours) * NANO == oracle.quantize(NANO, ROUND_HALF_EVEN), (provider.id, model.id, moment, buckets)
    return True


def _prices_nothing_of(model: types.ModelInfo, moment: datetime, buckets: Buckets) -> bool:
    """Whether the catalogue lacks a positive price for something that the buckets hold."""
    prices = model.get_prices(moment)
    inputs, outputs = prices.input_mtok, prices.output_mtok
    nothing_in = inputs is None and buckets.inclusive_input > 0
    nothing_out = outputs is None and buckets.output + buckets.output_audio + buckets.output_image > 0
    return nothing_in or nothing_out or not any(_positive(prices))


def _positive(prices: types.ModelPrice) -> list[bool]:
    return [
        (price.base if isinstance(price, types.TieredPrices) else price) > 0
        for key, price in prices.__dict__.items()
        if price is not None and key.endswith(("_mtok", "requests_kcount"))
    ]


@pytest.mark.parametrize(
    ("provider", "model", "found"),
    [
        ("openai", "gpt-4o-mini-2024-07-18", "gpt-4o-mini"),
        ("OpenAI", "GPT-4o-mini", "gpt-4o-mini"),
        ("azure.ai.openai", "gpt-4o-mini", "gpt-4o-mini"),
        ("anthropic", "claude-sonnet-4-5-20250929", "claude-sonnet-4-5"),
        ("gcp.vertex_ai", "claude-sonnet-4-5@20250929", "claude-sonnet-4-5"),
    ],
)
def test_models_are_found_under_the_names_that_spans_give(
    book: PriceBook, provider: str, model: str, found: str
) -> None:
    card = book.rate_for(provider, model, 1_790_000_000 * 10**9)
    assert card is not None
    assert card.model == found


@pytest.mark.parametrize(
    ("provider", "model"), [("openai", "gpt-unheard-of"), ("nobody", "gpt-4o"), ("", "gpt-4o"), ("openai", "")]
)
def test_an_unknown_model_has_no_price(book: PriceBook, provider: str, model: str) -> None:
    assert book.rate_for(provider, model, 1_790_000_000 * 10**9) is None
