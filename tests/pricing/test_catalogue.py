"""The compiled price book against genai-prices itself, which it was read from."""

import json
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal
from random import Random
from typing import Any, NamedTuple

import pytest
from farebox_collector.model.records import Buckets, PriceVersion
from farebox_collector.model.units import Units, billable_units
from farebox_collector.pricing.book import PriceBook
from farebox_collector.pricing.catalogue import genai_prices_catalogue
from farebox_collector.pricing.price import cost
from genai_prices import types
from genai_prices.data import providers

NANO = Decimal("0.000000001")
MOMENTS = [
    datetime(2024, 6, 1, 3, 0, tzinfo=UTC),
    datetime(2025, 12, 1, 17, 0, tzinfo=UTC),
    datetime(2026, 10, 14, tzinfo=UTC) - timedelta(microseconds=1),
    datetime(2026, 10, 14, tzinfo=UTC),
    datetime(2026, 11, 21, 2, 30, tzinfo=UTC),
    datetime(2027, 1, 2, 6, 30, tzinfo=UTC),
]
# Around every threshold that the catalogue has.
INPUTS = [1, 100, 32_000, 32_001, 128_000, 128_001, 199_999, 200_000, 200_001, 256_001, 272_000, 272_001, 1_000_000]
UNITS_OF_KEYS = {
    "web_searches_kcount": "web_searches",
    "storage_searches_kcount": "storage_searches",
    "input_document_kpages": "input_document_pages",
    "input_text_messages_kcount": "input_text_messages",
    "input_mchars": "input_characters",
    "audio_hours": "audio_seconds",
    "input_audio_hours": "input_audio_seconds",
    "cache_audio_read_mtok": "cache_audio_read_tokens",
    "cache_image_read_mtok": "cache_image_read_tokens",
    "input_video_mtok": "input_video_tokens",
    "output_video_mtok": "output_video_tokens",
    "output_citation_mtok": "output_citation_tokens",
}
SONNET = "anthropic.claude-sonnet-4-5-20250929-v1:0"
TIERS = {"service_tier", "processing", "speed"}
TOKEN_UNITS = {"cache_audio_read_tokens", "cache_image_read_tokens", "input_video_tokens"}
BILLED_FOR_TEN_SECONDS = {"whisper-large-v3", "whisper-large-v3-turbo"}


class Case(NamedTuple):
    """One call as both sides take it."""

    moment: datetime
    buckets: Buckets
    units: Units
    tier: str
    context: dict[str, str]
    """What genai-prices calls the tier."""


@pytest.fixture(scope="module")
def book() -> PriceBook:
    catalogue = genai_prices_catalogue()
    versions = [
        PriceVersion(number, *row[:9], "genai-prices", "", condition=row.condition)
        for number, row in enumerate(catalogue.prices.rows)
    ]
    return PriceBook(versions, catalogue.models)


def test_costs_are_those_of_genai_prices(book: PriceBook) -> None:
    """Every model four times, those with steps, hours, dates or tiers forty times, in every tier there is."""
    compared: Counter[str] = Counter()
    for provider in providers:
        for model in provider.models:
            if provider.find_model(model.id) is not model or model.id in BILLED_FOR_TEN_SECONDS:
                continue  # an earlier entry of the catalogue takes this name
            for case in cases(provider, model):
                if not has_begun(model, case):
                    continue
                compare(book, provider, model, case)
                compared["all"] += 1
                compared[case.tier] += 1
                compared.update(name for name, _ in case.units)
    assert compared["all"] > 15_000
    assert set(compared) >= {"batch", "flex", "priority", "fast", "web_searches", "audio_seconds", "input_characters"}


def cases(provider: types.Provider, model: types.ModelInfo) -> Iterator[Case]:
    """Calls of one model, the same at every run."""
    random = Random(f"{provider.id}/{model.id}")
    contexts = [variant.when for variant in model.price_variants or () if set(variant.when) & TIERS]
    plain = isinstance(model.prices, types.ModelPrice) and not any(
        isinstance(price, types.TieredPrices) for price in model.prices.__dict__.values()
    )
    for number in range(4 if plain and not contexts else 40):
        context = contexts[number % len(contexts)] if contexts and number % 3 else {}
        moment = random.choice(MOMENTS)
        priced = model.get_prices(moment, context).__dict__
        keys = {key for key, price in priced.items() if price is not None}
        if not any(_positive(price) for price in priced.values()):
            continue  # the book leaves these out
        buckets = Buckets()
        if "input_mtok" in keys:
            total = random.choice(INPUTS)
            shares = [random.randint(0, total // 8) for _ in range(5)]
            buckets = Buckets(total - sum(shares), *shares)
        if "output_mtok" in keys:
            buckets = buckets._replace(
                output=random.randint(0, 5000), output_audio=random.randint(0, 9), output_image=random.randint(0, 9)
            )
            buckets = buckets._replace(reasoning=random.randint(0, buckets.output))
        counted = {unit: random.randint(1, 50) for key, unit in UNITS_OF_KEYS.items() if key in keys}
        (tier,) = context.values() or [""]
        yield Case(moment, buckets, billable_units(counted), tier, context)


def has_begun(model: types.ModelInfo, case: Case) -> bool:
    """Whether the hours of a model hold yet: there they hold since ever, here from the date before them on."""
    if isinstance(model.prices, types.ModelPrice):
        return True
    constraints = [block.constraint for block in model.prices]
    if not any(isinstance(constraint, types.TimeOfDateConstraint) for constraint in constraints):
        return True
    starts = [one.start_date for one in constraints if isinstance(one, types.StartDateConstraint)]
    return not starts or case.moment.date() >= max(starts)


def compare(book: PriceBook, provider: types.Provider, model: types.ModelInfo, case: Case) -> None:
    oracle = model.calc_price(
        oracle_usage(case), provider, genai_request_timestamp=case.moment, price_context=case.context
    ).total_price
    at_ns = int(case.moment.timestamp() * 10**6) * 1000
    units = dict(case.units)
    tokens_in = case.buckets.inclusive_input + sum(count for name, count in units.items() if name in TOKEN_UNITS)
    card = book.rate_for(provider.id, model.id, at_ns, tokens_in, case.tier)
    assert card is not None, (provider.id, model.id, case)
    ours, _ = cost(card, case.buckets, case.units)
    assert Decimal(ours) * NANO == oracle.quantize(NANO, ROUND_HALF_EVEN), (provider.id, model.id, case)


def oracle_usage(case: Case) -> types.Usage:
    """Our disjoint counts as the inclusive ones that genai-prices takes."""
    buckets, units = case.buckets, dict(case.units)
    cached_audio, cached_image = units.get("cache_audio_read_tokens", 0), units.get("cache_image_read_tokens", 0)
    video_in, video_out = units.get("input_video_tokens", 0), units.get("output_video_tokens", 0)
    tokens = {
        "input_tokens": buckets.inclusive_input + cached_audio + cached_image + video_in,
        "cache_read_tokens": buckets.cache_read + cached_audio + cached_image,
        "cache_write_tokens": buckets.cache_write + buckets.cache_write_1h,
        "cache_write_1h_tokens": buckets.cache_write_1h,
        "input_audio_tokens": buckets.input_audio + cached_audio,
        "input_image_tokens": buckets.input_image + cached_image,
        "output_tokens": buckets.output
        + buckets.output_audio
        + buckets.output_image
        + video_out
        + units.get("output_citation_tokens", 0),
        "output_audio_tokens": buckets.output_audio,
        "output_image_tokens": buckets.output_image,
        "output_reasoning_tokens": buckets.reasoning,
    }
    if "input_audio_seconds" in units:
        units["audio_seconds"] = units.get("audio_seconds", 0) + units["input_audio_seconds"]
    return types.Usage(**tokens, **units)


def _positive(price: Any) -> bool:
    return price is not None and bool((price.base if isinstance(price, types.TieredPrices) else price) > 0)


def test_models_without_a_price_are_left_out() -> None:
    catalogue = genai_prices_catalogue()
    assert catalogue.left_out["a model without a price"] > 100
    priced = {(row.provider, row.model) for row in catalogue.prices.rows if row.usd_per_1k > 0}
    assert priced == {(model.provider, model.model) for model in catalogue.models}
    assert all(json.loads(model.match) for model in catalogue.models)


@pytest.mark.parametrize(
    ("provider", "model", "found"),
    [
        ("openai", "gpt-4o-mini-2024-07-18", "gpt-4o-mini"),
        ("OpenAI", "GPT-4o-mini", "gpt-4o-mini"),
        ("azure.ai.openai", "gpt-4o-mini", "gpt-4o-mini"),
        ("anthropic", "claude-sonnet-4-5-20250929", "claude-sonnet-4-5"),
        ("gcp.vertex_ai", "claude-sonnet-4-5@20250929", "claude-sonnet-4-5"),
        # Azure, as the conventions, the Azure SDK, Vercel and LiteLLM name it
        ("az.ai.openai", "gpt-4o-mini", "gpt-4o-mini"),
        ("azure.ai.inference", "gpt-4o-mini", "gpt-4o-mini"),
        ("azure-openai.chat", "gpt-4o-mini-2024-07-18", "gpt-4o-mini"),
        ("azure", "azure/gpt-4o-mini", "gpt-4o-mini"),
        # Google and Vertex, with resource names
        ("gcp.gemini", "models/gemini-2.5-pro", "gemini-2.5-pro"),
        ("gcp.gen_ai", "gemini-2.5-pro", "gemini-2.5-pro"),
        ("google.generative-ai", "gemini-2.5-pro", "gemini-2.5-pro"),
        ("vertex_ai", "publishers/google/models/gemini-2.5-pro", "gemini-2.5-pro"),
        (
            "vertex_ai",
            "projects/p/locations/us-east5/publishers/anthropic/models/claude-sonnet-4-5@20250929",
            "claude-sonnet-4-5",
        ),
        ("google.vertex.chat", "vertex_ai/gemini-2.5-pro", "gemini-2.5-pro"),
        # Bedrock, with regions, profiles and ARNs
        (
            "aws.bedrock",
            f"us.{SONNET}",
            f"regional.{SONNET}",
        ),
        (
            "aws.bedrock",
            f"eu.{SONNET}",
            f"regional.{SONNET}",
        ),
        (
            "aws.bedrock",
            f"global.{SONNET}",
            f"global.{SONNET}",
        ),
        (
            "bedrock",
            f"bedrock/us-east-1/{SONNET}",
            f"regional.{SONNET}",
        ),
        ("amazon-bedrock", "bedrock/converse/us.amazon.nova-pro-v1:0", "amazon.nova-pro-v1:0"),
        (
            "aws.bedrock",
            "arn:aws:bedrock:us-east-1:1:inference-profile/us.amazon.nova-pro-v1:0",
            "amazon.nova-pro-v1:0",
        ),
        (
            "aws.bedrock",
            f"arn:aws:bedrock:us-east-1::foundation-model/{SONNET}",
            f"regional.{SONNET}",
        ),
        (
            "aws.bedrock",
            f"arn:aws:bedrock:ap-south-1:1:inference-profile/in.{SONNET}",
            f"regional.{SONNET}",
        ),
        ("aws.bedrock", f"in.{SONNET}", f"regional.{SONNET}"),
        ("aws.bedrock", f"us-gov.{SONNET}", f"regional.{SONNET}"),
        ("aws.bedrock", f"mx.{SONNET}", f"regional.{SONNET}"),
        ("aws.bedrock", "global.amazon.nova-pro-v1:0", "amazon.nova-pro-v1:0"),
        # OpenRouter, with a wish for a route
        ("openrouter", "openai/gpt-4o-mini", "openai/gpt-4o-mini"),
        ("openrouter", "openrouter/openai/gpt-4o-mini", "openai/gpt-4o-mini"),
        ("openrouter", "openai/gpt-4o-mini:nitro", "openai/gpt-4o-mini"),
        # LiteLLM and other gateways, which put the provider before the model
        ("litellm", "anthropic/claude-sonnet-4-5", "claude-sonnet-4-5"),
        ("litellm_proxy", "azure/gpt-4o-mini", "gpt-4o-mini"),
        (
            "gateway",
            f"bedrock/{SONNET}",
            f"regional.{SONNET}",
        ),
        ("", "openai/gpt-4o-mini", "gpt-4o-mini"),
        # Vercel's AI SDK names the interface too
        ("openai.chat", "gpt-4o-mini", "gpt-4o-mini"),
        ("openai", "ft:gpt-4o-mini-2024-07-18:org::id", "ft:gpt-4o-mini"),
        ("openai.responses", "gpt-4o-mini", "gpt-4o-mini"),
        ("anthropic.messages", "claude-sonnet-4-5", "claude-sonnet-4-5"),
        ("xai.chat", "grok-4", "grok-4-0709"),
        ("x_ai", "grok-4", "grok-4-0709"),
        ("mistral_ai", "mistral-large-4", "mistral-large-4"),
        ("moonshot_ai", "kimi-k2-0905-preview", "kimi-k2-0905-preview"),
        ("deepseek", "deepseek-chat", "deepseek-chat"),
        ("cohere", "command-r-plus", "command-r-plus"),
        ("groq", "openai/gpt-oss-120b", "openai/gpt-oss-120b"),
        ("perplexity", "sonar", "sonar"),
        ("fireworks_ai", "accounts/fireworks/models/deepseek-v3p2", "deepseek-v3p2"),
        ("together_ai", "meta-llama/Llama-3.3-70B-Instruct-Turbo", "meta-llama/Llama-3.3-70B-Instruct-Turbo"),
    ],
)
def test_models_are_found_under_the_names_that_spans_give(
    book: PriceBook, provider: str, model: str, found: str
) -> None:
    card = book.rate_for(provider, model, 1_790_000_000 * 10**9)
    assert card is not None
    assert card.model == found


@pytest.mark.parametrize(
    ("provider", "model"),
    [
        ("openai", "gpt-unheard-of"),
        ("missing", "gpt-4o"),
        ("", "gpt-4o"),
        ("openai", ""),
        ("litellm", "missing/gpt-4o"),
        ("openai", "anthropic/claude-sonnet-4-5"),  # whose bill it is cannot be told
        ("openai", "x" * 10_000),
    ],
)
def test_an_unknown_model_has_no_price(book: PriceBook, provider: str, model: str) -> None:
    assert book.rate_for(provider, model, 1_790_000_000 * 10**9) is None
