"""Who bills a call: the address before the name, and never OpenAI for a model that it does not sell."""

import pytest
from farebox_collector import dialects
from farebox_collector.dialects.hosts import Billed, billed_at
from farebox_collector.model.records import Attributes, Span, UsageRecord
from farebox_collector.pricing.catalogue import genai_prices_catalogue
from farebox_collector.pricing.matching import Recogniser
from farebox_collector.pricing.providers import book_provider

OFFICIAL = "opentelemetry.instrumentation.genai.openai"
CALL: Attributes = {
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "openai",
    "gen_ai.request.model": "m",
    "gen_ai.usage.input_tokens": 10,
    "gen_ai.usage.output_tokens": 5,
}


def read(attributes: Attributes, scope: str = OFFICIAL) -> UsageRecord:
    span = Span(b"t" * 16, b"s" * 8, b"", 10**18, 10**18 + 1, False, attributes, {}, scope, "1")
    found = dialects.read(span, ())
    assert isinstance(found, UsageRecord), found
    return found


@pytest.mark.parametrize(
    ("address", "provider", "region"),
    [
        ("api.openai.com", "openai", ""),
        ("us.api.openai.com", "openai", "us"),
        ("EU.API.OpenAI.com:443", "openai", "eu"),
        ("https://api.groq.com/openai/v1", "groq", ""),
        ("openrouter.ai", "openrouter", ""),
        ("api.deepseek.com", "deepseek", ""),
        ("us-east-1.api.x.ai", "x_ai", ""),
        ("api.together.xyz", "together", ""),
        ("api.fireworks.ai", "fireworks", ""),
        ("codestral.mistral.ai", "mistral_ai", ""),
        ("my-team.openai.azure.com", "azure.ai.openai", ""),
        ("my-team.services.ai.azure.com", "azure.ai.inference", ""),
        ("bedrock-runtime.us-east-1.amazonaws.com", "aws.bedrock", ""),
        ("bedrock-runtime-fips.us-gov-west-1.amazonaws.com", "aws.bedrock", ""),
        ("bedrock-mantle.eu-west-1.api.aws", "aws.bedrock", ""),
        ("europe-west4-aiplatform.googleapis.com", "gcp.vertex_ai", ""),
        ("aiplatform.googleapis.com", "gcp.vertex_ai", ""),
        ("aiplatform.eu.rep.googleapis.com", "gcp.vertex_ai", ""),
        ("generativelanguage.googleapis.com", "gcp.gemini", ""),
        # What only looks like one of them.
        ("api.openai.com.evil.example", "", ""),
        ("notapi.openai.com", "", ""),
        ("s3.us-east-1.amazonaws.com", "", ""),
        ("localhost", "", ""),
        ("127.0.0.1:4000", "", ""),
        ("", "", ""),
        ("a." * 500, "", ""),
    ],
)
def test_an_address_says_who_bills_and_where(address: str, provider: str, region: str) -> None:
    assert billed_at(address) == Billed(provider, region)


def test_the_address_comes_before_the_name_and_our_own_attribute_before_both() -> None:
    groq = {**CALL, "server.address": "api.groq.com", "gen_ai.request.model": "openai/gpt-oss-120b"}
    assert read(groq).provider == "groq"
    assert read({**groq, "farebox.provider": "cerebras"}).provider == "cerebras"
    regional = read({**CALL, "server.address": "eu.api.openai.com", "gen_ai.request.model": "gpt-4o"})
    assert (regional.provider, regional.inference_region) == ("openai", "eu")
    # The span's own name stays where both mean one provider.
    vertex = {**CALL, "gen_ai.provider.name": "gcp.vertex_ai", "server.address": "us-east5-aiplatform.googleapis.com"}
    assert read(vertex).provider == "gcp.vertex_ai"
    gemini = {**CALL, "gen_ai.provider.name": "gemini", "server.address": "us-east5-aiplatform.googleapis.com"}
    assert read(gemini).provider == "gemini"


@pytest.mark.parametrize(
    ("model", "provider", "flag"),
    [
        ("gpt-4o", "openai", None),
        ("ft:gpt-4o-mini:acme::1", "openai", None),
        ("openai/gpt-oss-120b", "gateway", "provider_not_openai"),
        ("gpt-oss-20b", "gateway", "provider_not_openai"),
        ("anthropic/claude-sonnet-4.5", "gateway", "provider_not_openai"),
        ("gemini-2.5-flash", "google", "provider_from_model"),
        ("grok-4", "x-ai", "provider_from_model"),
    ],
)
def test_a_name_that_is_foreign_to_openai_is_never_openai_s(model: str, provider: str, flag: str | None) -> None:
    record = read({**CALL, "server.address": "127.0.0.1", "gen_ai.request.model": model})
    assert record.provider == provider
    assert set(record.assumptions) - {"wallet_missing"} == ({flag} if flag else set())


def test_open_weights_have_no_price_where_nothing_says_who_sells_them() -> None:
    catalogue = genai_prices_catalogue()
    priced = {(row.provider, row.model) for row in catalogue.prices.rows}
    find = Recogniser(catalogue.models).find
    assert find("gateway", "openai/gpt-oss-120b", priced) is None
    assert find("groq", "openai/gpt-oss-120b", priced) == ("groq", "openai/gpt-oss-120b")
    assert find("gateway", "anthropic/claude-sonnet-4.5", priced) == ("anthropic", "claude-sonnet-4-5")


def test_the_providers_of_addresses_are_those_of_the_price_book() -> None:
    known = {row.provider for row in genai_prices_catalogue().prices.rows}
    addresses = (
        "api.groq.com",
        "openrouter.ai",
        "api.deepseek.com",
        "api.x.ai",
        "api.mistral.ai",
        "x.openai.azure.com",
    )
    for address in (*addresses, "bedrock-runtime.us-east-1.amazonaws.com", "aiplatform.googleapis.com"):
        assert book_provider(billed_at(address).provider) in known


def test_openai_s_client_at_another_provider_counts_as_that_provider_does() -> None:
    gemini = {**CALL, "server.address": "generativelanguage.googleapis.com", "gen_ai.request.model": "gemini-2.5-flash"}
    record = read({**gemini, "gen_ai.usage.total_tokens": 960, "gen_ai.usage.output_tokens": 50})
    assert record.buckets is not None
    assert record.buckets.output == 950
    assert record.other_reading is None
    xai = {**CALL, "server.address": "api.x.ai", "gen_ai.usage.reasoning.output_tokens": 4}
    beside = read({**xai, "gen_ai.usage.total_tokens": 19})
    inside = read({**xai, "gen_ai.usage.total_tokens": 15})
    assert beside.buckets is not None
    assert inside.buckets is not None
    assert (beside.buckets.output, inside.buckets.output) == (9, 5)
