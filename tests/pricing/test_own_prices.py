"""Our own corrections of the bundled catalogue, against figures worked out by hand from the providers' pages."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from farebox_collector.model.records import Buckets, CatalogueRow, PriceVersion
from farebox_collector.model.units import can_have_price
from farebox_collector.pricing.book import PriceBook
from farebox_collector.pricing.catalogue import bundled_catalogues, genai_prices_catalogue
from farebox_collector.pricing.conditions import condition_of
from farebox_collector.pricing.own_prices import (
    CONDITIONS,
    CORRECTIONS,
    own_prices,
    redundant_corrections,
    slot_of,
)
from farebox_collector.pricing.price import cost
from farebox_collector.pricing.price_lists import Catalogue
from farebox_collector.pricing.revision import overlaps, revise

NOW = datetime(2026, 11, 30, 12, 0, tzinfo=UTC)
MILLION = 10**6


def ns(moment: datetime) -> int:
    return int(moment.timestamp()) * 10**9


@pytest.fixture(scope="module")
def catalogues() -> list[Catalogue]:
    return bundled_catalogues()


@pytest.fixture(scope="module")
def book(catalogues: list[Catalogue]) -> PriceBook:
    rows = [(catalogue.prices.source, row) for catalogue in catalogues for row in catalogue.prices.rows]
    versions = [
        PriceVersion(number, *row[:9], source, "", row.condition, weekdays=row.weekdays)
        for number, (source, row) in enumerate(rows, start=1)
    ]
    return PriceBook(versions, catalogues[0].models)


def usd(book: PriceBook, provider: str, model: str, at: datetime = NOW, how: str = "", **used: int) -> Decimal:
    """What a million of some tokens cost."""
    buckets = Buckets(**{name: MILLION * count for name, count in used.items() if name in Buckets._fields})
    units = tuple((name, count) for name, count in used.items() if name not in Buckets._fields)
    card = book.rate_for(provider, model, ns(at), buckets.inclusive_input, how)
    assert card is not None, (provider, model)
    return Decimal(cost(card, buckets, units)[0]) / 10**9


FAST, US = condition_of("", "fast"), condition_of("", "", "us")
FAST_US, BATCH_US = condition_of("", "fast", "us"), condition_of("batch", "", "us")
MONDAY_PEAK, MONDAY_NOON = datetime(2026, 11, 30, 2, tzinfo=UTC), datetime(2026, 11, 30, 12, tzinfo=UTC)
SATURDAY, HOLIDAY = datetime(2026, 11, 28, 2, tzinfo=UTC), datetime(2026, 10, 5, 2, tzinfo=UTC)


@pytest.mark.parametrize(
    ("provider", "model", "at", "how", "used", "dollars"),
    [
        ("openai", "gpt-4o-audio-preview", NOW, "", {"input_audio": 1, "output_audio": 1}, "120"),
        ("openai", "gpt-4o-audio-preview-2025-06-03", NOW, "", {"input": 1, "output": 1}, "12.5"),
        ("openai", "gpt-4o-mini-audio-preview", NOW, "", {"input_audio": 1, "output_audio": 1}, "30"),
        # Inference in the United States: 1.1 times, on top of the cache, of fast mode and of a batch.
        ("anthropic", "claude-opus-5", NOW, "", {"input": 1, "cache_read": 1, "output": 1}, "30.5"),
        ("anthropic", "claude-opus-5", NOW, US, {"input": 1, "cache_read": 1, "output": 1}, "33.55"),
        ("anthropic", "claude-opus-5", NOW, FAST, {"input": 1, "output": 1}, "60"),
        ("anthropic", "claude-opus-5", NOW, FAST_US, {"input": 1, "output": 1}, "66"),
        ("anthropic", "claude-opus-5", NOW, BATCH_US, {"input": 1, "output": 1}, "16.5"),
        ("anthropic", "claude-sonnet-4-6", NOW, US, {"cache_write": 1, "cache_write_1h": 1}, "10.725"),
        ("anthropic", "claude-sonnet-4-5", NOW, US, {"output": 1}, "15"),  # not for models before Opus 4.6
        ("anthropic", "claude-opus-5", NOW, US, {"web_searches": 1000}, "10"),  # no tokens
        ("anthropic", "claude-opus-4-6", NOW, FAST, {"input": 1, "output": 1}, "180"),
        ("anthropic", "claude-opus-4-6", datetime(2026, 3, 1, tzinfo=UTC), FAST, {"input": 1, "output": 1}, "285"),
        ("anthropic", "claude-opus-4-7", NOW, FAST, {"input": 1, "output": 1}, "180"),
        # Regional hosts of OpenAI: 10 percent, for models since 5 March 2026.
        ("openai", "gpt-5.4-mini", NOW, condition_of("", "", "eu"), {"input": 1, "output": 1}, "5.775"),
        ("openai", "gpt-5.4-mini", NOW, US, {"input": 1, "output": 1}, "5.775"),
        ("openai", "gpt-4o-mini", NOW, condition_of("", "", "eu"), {"input": 1, "output": 1}, "0.75"),
        ("together", "meta-llama/Llama-3.3-70B-Instruct-Turbo", NOW, US, {"input": 1, "output": 1}, None),
        # Google's and Amazon's tiers.
        ("google", "gemini-2.5-flash", NOW, "flex", {"input": 1, "output": 1}, "1.4"),
        ("google", "gemini-2.5-flash", NOW, "SERVICE_TIER_PRIORITY", {"input": 1, "output": 1}, "5.04"),
        ("google", "gemini-2.5-flash", NOW, "ON_DEMAND", {"input": 1, "output": 1}, "2.8"),
        ("google", "gemini-2.5-flash", NOW, "ON_DEMAND_FLEX", {"input": 1, "output": 1}, "1.4"),
        ("aws", "amazon.nova-pro-v1:0", NOW, "priority", {"input": 1, "output": 1}, "7"),
        ("aws", "amazon.nova-pro-v1:0", NOW, "flex", {"input": 1, "output": 1}, "2"),
        ("aws", "amazon.nova-pro-v1:0", NOW, "optimized", {"input": 1, "output": 1}, "5"),
        # DeepSeek's peak hours: Monday to Friday, but not on Chinese holidays, and not before there were any.
        ("deepseek", "deepseek-v4-pro", MONDAY_PEAK, "", {"input": 1, "output": 1}, "5.28"),
        ("deepseek", "deepseek-v4-pro", MONDAY_NOON, "", {"input": 1, "output": 1}, "2.64"),
        ("deepseek", "deepseek-v4-pro", SATURDAY, "", {"input": 1, "output": 1}, "2.64"),
        ("deepseek", "deepseek-v4-pro", HOLIDAY, "", {"input": 1, "output": 1}, "2.64"),
        ("deepseek", "deepseek-v4-pro", datetime(2026, 8, 10, 2, tzinfo=UTC), "", {"input": 1, "output": 1}, "1.305"),
        ("deepseek", "deepseek-v4-pro", datetime(2026, 8, 17, 2, tzinfo=UTC), "", {"input": 1, "output": 1}, "5.28"),
        ("deepseek", "deepseek-flash", MONDAY_PEAK, "", {"input": 1, "cache_read": 1, "output": 1}, "1.506"),
        ("deepseek", "deepseek-flash", SATURDAY, "", {"input": 1, "cache_read": 1, "output": 1}, "0.753"),
        ("deepseek", "deepseek-v4-flash", MONDAY_PEAK, "", {"input": 1, "output": 1}, "1.5"),
        ("deepseek", "deepseek-v4-flash", datetime(2026, 9, 1, 2, tzinfo=UTC), "", {"input": 1, "output": 1}, "1.76"),
        ("deepseek", "deepseek-chat", datetime(2025, 3, 1, 20, tzinfo=UTC), "", {"input": 1, "output": 1}, "0.685"),
        ("deepseek", "deepseek-chat", datetime(2025, 2, 1, 20, tzinfo=UTC), "", {"input": 1, "output": 1}, "1.37"),
        ("deepseek", "deepseek-chat", datetime(2025, 9, 10, 20, tzinfo=UTC), "", {"input": 1, "output": 1}, "2.24"),
        ("deepseek", "deepseek-reasoner", NOW, "", {"input": 1, "output": 1}, "0.7"),
        # Fees, and what is free on purpose.
        ("openai", "gpt-5.4-mini", NOW, "", {"container_sessions": 2}, "0.06"),
        ("azure", "gpt-4o-mini", NOW, "", {"container_sessions": 1}, "0.03"),
        ("openai", "gpt-4o-search-preview", NOW, "", {"input": 1, "requests": 1}, "2.525"),
        ("openai", "gpt-4o-mini-search-preview", NOW, "", {"input": 1, "output": 1}, "0.775"),
        ("openai", "gpt-4o-mini-search-preview-2025-03-11", NOW, "", {"input": 1, "output": 1}, "0.775"),
        ("openai", "gpt-4o-mini", NOW, "", {"input": 1, "output": 1}, "0.75"),
        ("openai", "gpt-5-search-api", NOW, "", {"input": 1, "requests": 1}, "1.26"),
        ("openai", "gpt-4.1-mini", NOW, "", {"preview_web_searches": 2}, "0.05"),
        ("openai", "gpt-4o", NOW, "", {"preview_web_searches": 2}, "0.05"),
        ("openai", "o4-mini", NOW, "", {"preview_web_searches": 2}, "0.02"),
        ("openai", "gpt-5", NOW, "", {"preview_web_searches": 2, "web_searches": 1}, "0.03"),
        ("x-ai", "grok-4-0709", NOW, "", {"web_searches": 1, "document_searches": 1, "storage_searches": 1}, "0.0175"),
        ("groq", "openai/gpt-oss-120b", NOW, "", {"web_searches": 1, "advanced_web_searches": 1}, "0.013"),
        ("mistral", "mistral-large-latest", NOW, "", {"web_searches": 1, "code_executions": 1}, "0.06"),
        ("google", "gemini-2.5-pro", NOW, "", {"map_searches": 2}, "0.05"),
        ("google", "gemini-3.6-flash", NOW, "", {"map_searches": 2}, "0.028"),
        ("voyageai", "rerank-2.5", NOW, "", {"input": 2}, "0.1"),
        ("voyageai", "rerank-2.5-lite", NOW, "", {"input": 2}, "0.04"),
        ("google", "imagen-4.0-generate-001", NOW, "", {"images": 2}, "0.08"),
        ("google", "imagen-4.0-ultra-generate-001", NOW, "", {"images": 2}, "0.12"),
        ("google", "text-embedding-005", NOW, "", {"input": 9, "input_characters": 1000}, "0.000025"),
        ("mistral", "voxtral-mini-latest", NOW, "", {"input": 1, "output": 1, "audio_seconds": 60}, "0.003"),
        # Bedrock's Mantle endpoint names models without date, version and profile.
        ("aws", "openai.gpt-oss-120b", NOW, "", {"input": 1, "output": 1}, "0.75"),
        ("aws", "anthropic.claude-haiku-4-5", NOW, "", {"input": 1, "output": 1}, "6.6"),
        ("gateway", "meta-llama/llama-3.3-70b-instruct:free", NOW, "", {"input": 1, "output": 1}, "0"),
        ("openrouter", "missing/heard-of-it:free", NOW, "", {"input": 1, "output": 1}, "0"),
    ],
)
def test_prices_are_those_of_the_provider_s_page(
    book: PriceBook, provider: str, model: str, at: datetime, how: str, used: dict[str, int], dollars: str | None
) -> None:
    found = usd(book, provider, model, at, how, **used)
    plain = usd(book, provider, model, at, "", **used)
    assert found == (plain * Decimal("1.25") if dollars is None else Decimal(dollars))


def test_every_entry_names_its_source_its_date_and_its_reason() -> None:
    own = own_prices()
    entries = [entry["origin"] for entry in (*own.multipliers, *own.fees, *own.free, *own.models)]
    for origin in (*entries, *(correction.origin for correction in own.corrections)):
        assert origin.source.startswith("https://"), origin
        assert datetime(2026, 1, 1, tzinfo=UTC).date() <= origin.date <= NOW.date()
        assert origin.reason
        assert type(origin.confirmed) is bool
    assert all(can_have_price(row.unit) for correction in own.corrections for row in correction.rows)


def test_no_correction_became_needless_and_each_is_of_a_model_that_the_catalogue_has() -> None:
    """Where this fails the catalogue has caught up: take the entry out of the file."""
    catalogue = genai_prices_catalogue()
    assert list(redundant_corrections(catalogue)) == []
    models = {(model.provider, model.model) for model in catalogue.models}
    assert {slot_of(row)[:2] for one in own_prices().corrections for row in one.rows} <= models


def test_a_correction_that_the_catalogue_has_too_is_reported() -> None:
    catalogue = genai_prices_catalogue()
    (audio, *_) = own_prices().corrections
    caught_up = catalogue._replace(prices=catalogue.prices._replace(rows=[*catalogue.prices.rows, audio.rows[0]]))
    assert [line.partition(":")[0] for line in redundant_corrections(caught_up)] == [
        "openai/gpt-4o-audio-preview/input_audio/standard"
    ]


def test_every_multiplier_and_fee_makes_prices(catalogues: list[Catalogue]) -> None:
    made = {(row.provider, row.condition) for row in catalogues[2].prices.rows}
    for multiplier in own_prices().multipliers:
        head = "standard" if multiplier["condition"].startswith("@") else ""
        assert (multiplier["provider"], head + multiplier["condition"]) in made
    assert {row.provider for row in catalogues[2].prices.rows if row.unit == "container_sessions"} == {
        "openai",
        "azure",
    }


def test_the_lists_never_state_two_prices_of_one_thing(catalogues: list[Catalogue]) -> None:
    rows = [row for catalogue in catalogues for row in catalogue.prices.rows]
    assert overlaps(rows) == []
    assert [catalogue.prices.source for catalogue in catalogues[1:]] == [CORRECTIONS, CONDITIONS]


def test_the_next_import_changes_nothing(catalogues: list[Catalogue]) -> None:
    """Nor does it undo what was corrected."""
    current: dict[object, list[PriceVersion]] = {}
    for number, (source, row) in enumerate(
        [(one.prices.source, row) for one in catalogues for row in one.prices.rows], start=1
    ):
        version = PriceVersion(number, *row[:9], source, "", row.condition, weekdays=row.weekdays)
        current.setdefault(slot(row), []).append(version)
    for catalogue in catalogues:
        revision = revise(current, catalogue.prices, ns(NOW))  # type: ignore[arg-type]
        # What holds for some hours without a date begins with an import, and stays as it began.
        assert [one for one in revision.differences if one.slot.daily_from_s == one.slot.daily_to_s] == []
        assert revision.closed == {}


def slot(row: CatalogueRow) -> object:
    from farebox_collector.pricing.revision import slot_of as price_slot

    return price_slot(row, None)
