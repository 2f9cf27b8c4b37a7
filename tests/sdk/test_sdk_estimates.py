"""The estimated cost on a span, against prices worked out by hand."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import farebox
import pytest
from farebox import span_attributes
from farebox.estimates import _plain_cost_usd, cost_attributes, started_at
from farebox_collector.dialects import other_units
from sdk.sdk_support import Metered

TOKENS, UNITS = "gen_ai.usage.", "farebox.units."
AT = datetime(2026, 11, 21, tzinfo=UTC)


def call(provider: str, model: str, **usage: int) -> dict[str, Any]:
    return {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": provider,
        "gen_ai.request.model": model,
        **{f"gen_ai.usage.{key.replace('__', '.')}": count for key, count in usage.items()},
    }


def test_the_cache_is_a_part_of_the_input() -> None:
    """gpt-4o-mini: $0.15, cached $0.075, out $0.60 a million: 600·0.15 + 400·0.075 + 200·0.60 = 240 µ$."""
    usage = {"input_tokens": 1000, "cache_read__input_tokens": 400, "output_tokens": 200}
    cost = cost_attributes(call("openai", "gpt-4o-mini", **usage), AT)
    assert cost["farebox.cost_actual"] == pytest.approx(0.000240)
    assert cost["farebox.cost_per_1k"] == pytest.approx(0.000240 / 1.2)
    assert cost["farebox.currency"] == "USD"


@pytest.mark.parametrize("key", ["cache_write__input_tokens", "cache_creation__input_tokens"])
def test_cache_writes_for_five_minutes_and_for_an_hour(key: str) -> None:
    """claude-haiku-4-5: $1, read $0.10, write $1.25 or $2, out $5: 500 + 40 + 70·1.25 + 30·2 + 1000 = 1687.5 µ$."""
    usage = {"input_tokens": 1000, "cache_read__input_tokens": 400, key: 100, "output_tokens": 200}
    attributes = call("anthropic", "claude-haiku-4-5", **usage)
    attributes["anthropic.usage.cache_creation.ephemeral_1h_input_tokens"] = 30
    assert cost_attributes(attributes, AT)["farebox.cost_actual"] == pytest.approx(0.0016875)


def test_the_service_tier_has_its_price() -> None:
    attributes = call("openai", "gpt-5", input_tokens=1_000_000)
    standard = cost_attributes(attributes, AT)["farebox.cost_actual"]
    flex = cost_attributes({**attributes, "openai.response.service_tier": "flex"}, AT)["farebox.cost_actual"]
    assert (standard, flex) == (1.25, 0.625)


def test_the_price_is_that_of_the_time_of_the_call() -> None:
    """o3 went from $10 to $2 a million on 2025-06-10."""
    attributes = call("openai", "o3", input_tokens=1_000_000)
    before, after = datetime(2025, 6, 9, tzinfo=UTC), datetime(2025, 6, 11, tzinfo=UTC)
    assert cost_attributes(attributes, before)["farebox.cost_actual"] == 10
    assert cost_attributes(attributes, after)["farebox.cost_actual"] == 2


@pytest.mark.parametrize(
    ("provider", "model"),
    [
        ("mistral_ai", "mistral-small-latest"),
        ("gcp.gemini", "gemini-2.5-flash"),
        ("azure.ai.openai", "gpt-4o"),
        ("x_ai", "grok-4"),
    ],
)
def test_the_conventions_names_of_providers_are_understood(provider: str, model: str) -> None:
    assert cost_attributes(call(provider, model, input_tokens=1000), AT)["farebox.cost_actual"]


@pytest.mark.parametrize(
    "attributes",
    [
        call("openai", "gpt-4o"),
        call("openai", "an unknown model", input_tokens=5),
        call("an unknown provider", "gpt-4o", input_tokens=5),
        call("openai", "gpt-4o", input_tokens=5, cache_read__input_tokens=9),
        {**call("openai", "gpt-4o", input_tokens=5), "gen_ai.operation.name": "invoke_agent"},
        {"gen_ai.operation.name": "chat", "gen_ai.usage.input_tokens": 5},
    ],
)
def test_what_cannot_be_priced_has_no_cost(attributes: dict[str, Any]) -> None:
    assert cost_attributes(attributes, AT) == {}


def test_a_model_with_empty_prices_has_no_cost_rather_than_none_to_pay() -> None:
    from genai_prices.data_snapshot import get_snapshot

    provider, model = next(
        (provider.id, model.id)
        for provider in get_snapshot().providers
        for model in provider.models
        if provider.id in ("openrouter", "together", "novita") and not vars(model.get_prices(AT))
    )
    assert cost_attributes(call(provider, model, input_tokens=1000), AT) == {}


@pytest.mark.parametrize(
    ("provider", "model", "used", "cost_usd"),
    [
        # $10 for 1,000 searches, $1.25 in and $10 out a million.
        (
            "openai",
            "gpt-5",
            {TOKENS + "input_tokens": 100, TOKENS + "output_tokens": 10, UNITS + "web_searches": 2},
            0.020225,
        ),
        ("openai", "whisper-1", {UNITS + "audio_seconds": 60}, 0.006),
        ("groq", "whisper-large-v3", {UNITS + "audio_seconds": 3600}, 0.111),
        ("openai", "tts-1", {UNITS + "input_characters": 1000}, 0.015),
        ("mistral_ai", "mistral-ocr-2505", {UNITS + "input_document_pages": 3}, 0.003),
        # $0.60 in and $2.40 out a million for text, $10 and $20 for sound: 60·0.6 + 40·10 + 20·20.
        (
            "openai",
            "gpt-4o-mini-realtime-preview",
            {
                TOKENS + "input_tokens": 100,
                TOKENS + "audio.input_tokens": 40,
                TOKENS + "output_tokens": 20,
                TOKENS + "audio.output_tokens": 20,
            },
            0.000836,
        ),
    ],
)
def test_units_and_tokens_that_are_no_text(provider: str, model: str, used: dict[str, int], cost_usd: float) -> None:
    cost = cost_attributes({**call(provider, model), **used}, AT)
    assert cost["farebox.cost_actual"] == pytest.approx(cost_usd)
    assert ("farebox.cost_per_1k" in cost) == (TOKENS + "input_tokens" in used)


def test_images_by_the_piece_have_no_estimate() -> None:
    assert cost_attributes({**call("openai", "dall-e-3"), UNITS + "images": 1}, AT) == {}


def test_plain_costs_are_those_of_genai_prices() -> None:
    """Of every model, or they are left to it."""
    from genai_prices import Usage
    from genai_prices.data_snapshot import get_snapshot

    usages = (
        {"input_tokens": 1000, "output_tokens": 200, "cache_read_tokens": 400, "cache_write_tokens": 50},
        {"input_tokens": 300_001, "output_tokens": 7},
    )
    compared = 0
    for provider in get_snapshot().providers:
        for model in provider.models:
            for usage in usages:
                plain = _plain_cost_usd(vars(model.get_prices(AT)), usage)
                if plain is not None:
                    compared += 1
                    assert plain == model.calc_price(Usage(**usage), provider, genai_request_timestamp=AT).total_price
    assert compared > 3000


def test_the_collector_knows_the_units() -> None:
    assert set(span_attributes.UNITS_WRITTEN) <= set(other_units.NAMES)


def test_the_estimate_is_on_the_span(metered: Metered) -> None:
    metered.openai().chat.completions.create(
        model="gpt-4o-mini",
        messages=[{"role": "user", "content": "Hello"}],
        extra_headers={"x-usage": "input=1000,output=200,cache_read=400"},
    )
    assert metered.attributes()["farebox.cost_actual"] == pytest.approx(0.000240)


def test_an_estimate_that_fails_costs_the_span_nothing_else(
    metered: Metered, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("farebox.estimates._cost_usd", lambda *_: 1 / 0)
    with farebox.action("chat.reply", wallet="ada"):
        metered.openai().chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "Hi"}])
    assert metered.attributes()["farebox.wallet"] == "ada"
    assert "farebox.cost_actual" not in metered.attributes()
    assert "ZeroDivisionError" in caplog.text


def test_a_start_is_nanoseconds_since_the_epoch() -> None:
    assert started_at(1_795_219_200_000_000_000) == AT
