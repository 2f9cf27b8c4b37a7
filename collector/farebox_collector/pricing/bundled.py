"""Convert the published catalogue of genai-prices to rows of the price book.

Its conditional prices become half-open validities, its tiers `over_input_tokens`, its hours of the day `daily_*`, its
variants conditions; prices per million become USD per 1,000. Omitted entries leave their models `unpriced`, rather than
free or wrong: models without a positive price (unless free ones are allowed), variants by facts that no span reports (a
gateway's route, a kind of search), and prices per hour of audio of two models that are billed for at least ten seconds.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime, time
from decimal import Decimal
from importlib.metadata import version
from typing import Any

from genai_prices import types
from genai_prices.data import providers

from farebox_collector.model.records import STANDARD, CatalogueRow, PricedModel
from farebox_collector.pricing.conditions import STANDARD_TIERS
from farebox_collector.pricing.price_lists import Catalogue
from farebox_collector.pricing.revision import PriceList

SOURCE = "genai-prices"

_TOKENS = {
    "input_mtok": "input",
    "cache_read_mtok": "cache_read",
    "cache_write_mtok": "cache_write",
    "cache_write_1h_mtok": "cache_write_1h",
    "input_audio_mtok": "input_audio",
    "input_image_mtok": "input_image",
    "output_mtok": "output",
    "output_audio_mtok": "output_audio",
    "output_image_mtok": "output_image",
    "output_reasoning_mtok": "output_reasoning",
    "cache_audio_read_mtok": "cache_audio_read_tokens",
    "cache_image_read_mtok": "cache_image_read_tokens",
    "input_video_mtok": "input_video_tokens",
    "output_video_mtok": "output_video_tokens",
    "output_citation_mtok": "output_citation_tokens",
}
_ONES = {
    "requests_kcount": "requests",
    "web_searches_kcount": "web_searches",
    "social_searches_kcount": "social_searches",
    "storage_searches_kcount": "storage_searches",
    "rerank_searches_kcount": "rerank_searches",
    "code_executions_kcount": "code_executions",
    "input_text_messages_kcount": "input_text_messages",
    "input_document_kpages": "input_document_pages",
    "input_annotated_document_kpages": "input_annotated_document_pages",
}
_HOURS = {name: name for name in ("audio_hours", "input_audio_hours", "output_audio_hours")}
_PER_1K = {
    **{key: (unit, Decimal("0.001")) for key, unit in _TOKENS.items()},
    **{key: (unit, Decimal(1)) for key, unit in _ONES.items()},
    **{key: (unit, Decimal(1000)) for key, unit in _HOURS.items()},
    "input_mchars": ("input_characters", Decimal("0.001")),
    "input_gpixels": ("input_pixels", Decimal("0.000001")),
}
"""genai-prices key → unit of the price book, and the factor to a price per thousand."""
_CONDITIONS = ("service_tier", "processing", "speed")
"""Variant keys that are supported; the value is the condition."""
_AT_LEAST_TEN_SECONDS = {("groq", "whisper-large-v3"), ("groq", "whisper-large-v3-turbo")}
_SINCE_EVER_NS = 0


def read_catalogue(allow_free: bool) -> Catalogue:
    """Read the catalogue of the installed genai-prices package; no network."""
    rows: list[CatalogueRow] = []
    models: list[PricedModel] = []
    left_out: Counter[str] = Counter()
    for provider in providers:
        for position, model in enumerate(provider.models):
            model_rows = list(_model_rows(provider.id, model))
            if not model_rows:
                left_out["a model without a price"] += 1
            elif any(row.usd_per_1k > 0 for row in model_rows) or allow_free:
                rows += model_rows
                match = json.dumps(_clause(model.match), separators=(",", ":"))
                models.append(PricedModel(provider.id, model.id, position, match))
            else:
                left_out["a free model"] += 1
    return Catalogue(PriceList(rows, SOURCE, version(SOURCE), whole=True, dated=False), models, left_out)


def _model_rows(provider: str, model: types.ModelInfo) -> Iterator[CatalogueRow]:
    prices = model.prices
    blocks = [types.ConditionalPrice(prices=prices)] if isinstance(prices, types.ModelPrice) else prices
    # By definition of the catalogue, the first block also holds before its own date.
    yield from _course(provider, model.id, blocks, STANDARD, first_since_ever=True)
    variants: defaultdict[tuple[str, str], list[types.ConditionalPrice]] = defaultdict(list)
    for variant in model.price_variants or ():
        ((what, value),) = list(variant.when.items()) if len(variant.when) == 1 else [("", "")]
        if what in _CONDITIONS and value not in STANDARD_TIERS:
            # There the first matching block wins, here the last.
            variants[what, value].insert(0, types.ConditionalPrice(variant.constraint, prices=variant.prices))
    for (_, value), alternatives in variants.items():
        yield from _course(provider, model.id, alternatives, value.lower(), first_since_ever=False)


def _course(
    provider: str, model: str, blocks: list[types.ConditionalPrice], condition: str, *, first_since_ever: bool
) -> Iterator[CatalogueRow]:
    """Yield the rows of prices in one condition. Dated blocks follow one another. Blocks with hours begin with the
    block before them, or have no beginning if there is none."""
    dated = [block for block in blocks if not isinstance(block.constraint, types.TimeOfDateConstraint)]
    starts = [_start_ns(block) for block in dated]
    if starts and first_since_ever:
        starts[0] = _SINCE_EVER_NS
    for block, start_ns, end_ns in zip(dated, starts, [*starts[1:], None], strict=True):
        yield from _block_rows(provider, model, block.prices, (0, 0), start_ns, end_ns, condition)
    since_ns = _SINCE_EVER_NS
    for block in blocks:
        if isinstance(block.constraint, types.TimeOfDateConstraint):
            hours = (_second_of_day(block.constraint.start_time), _second_of_day(block.constraint.end_time))
            yield from _block_rows(provider, model, block.prices, hours, since_ns, None, condition)
        else:
            since_ns = _start_ns(block)


def _block_rows(
    provider: str,
    model: str,
    prices: types.ModelPrice,
    hours: tuple[int, int],
    start_ns: int,
    end_ns: int | None,
    condition: str,
) -> Iterator[CatalogueRow]:
    for key, price in prices.__dict__.items():
        if price is None or (key in _HOURS and (provider, model) in _AT_LEAST_TEN_SECONDS):
            continue
        unit, per_1k = _PER_1K[key]
        steps = [(0, price)] if isinstance(price, Decimal) else [(0, price.base)]
        if isinstance(price, types.TieredPrices):
            steps += [(tier.start, tier.price) for tier in price.tiers]
        for over, usd in steps:
            yield CatalogueRow(provider, model, unit, over, *hours, usd * per_1k, start_ns, end_ns, condition)


def _start_ns(block: types.ConditionalPrice) -> int:
    if isinstance(block.constraint, types.StartDateConstraint):
        return int(datetime.combine(block.constraint.start_date, time(), UTC).timestamp()) * 10**9
    return _SINCE_EVER_NS


def _second_of_day(value: time) -> int:
    offset = value.utcoffset()
    seconds = value.hour * 3600 + value.minute * 60 + value.second
    return (seconds - int(offset.total_seconds() if offset else 0)) % 86_400


def _clause(match: Any) -> dict[str, Any]:
    """Convert a genai-prices clause to the JSON that `matching.compile_match` reads."""
    match match:
        case types.ClauseOr():
            return {"or": [_clause(part) for part in match.or_]}
        case types.ClauseAnd():
            return {"and": [_clause(part) for part in match.and_]}
        case types.ClauseEquals():
            return {"equals": match.equals}
        case types.ClauseStartsWith():
            return {"starts_with": match.starts_with}
        case types.ClauseEndsWith():
            return {"ends_with": match.ends_with}
        case types.ClauseContains():
            return {"contains": match.contains}
        case types.ClauseRegex():
            return {"regex": match.regex}
    raise TypeError(f"unsupported kind of genai-prices clause: {match!r}")
