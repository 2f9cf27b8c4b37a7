"""Read the published catalogue of genai-prices into rows of our price book.

Its conditional prices become half-open validities, its tiers become `over_input_tokens`, its hours of the day become
`daily_*`; prices per million become USD per 1,000. Left out, so that those models come out `unpriced` rather than free:
models without any positive token price, and units that a span cannot report (searches, pages, hours of audio).
"""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, time
from decimal import Decimal
from importlib.metadata import version
from typing import Any, NamedTuple

from genai_prices import types
from genai_prices.data import providers

from farebox_collector.records import CatalogueRow, PricedModel

SOURCE = "genai-prices"

_UNITS = {
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
    "requests_kcount": "requests",
}
_SINCE_EVER_NS = 0


class Catalogue(NamedTuple):
    """A published price list: its rows, how its models are recognised, and where it is from."""

    rows: list[CatalogueRow]
    models: list[PricedModel]
    source: str
    source_version: str


def genai_prices_catalogue() -> Catalogue:
    """The catalogue inside the installed genai-prices package; no network."""
    rows: list[CatalogueRow] = []
    models: list[PricedModel] = []
    for provider in providers:
        for position, model in enumerate(provider.models):
            model_rows = list(_model_rows(provider.id, model))
            if any(row.usd_per_1k > 0 for row in model_rows):
                rows += model_rows
                match = json.dumps(_clause(model.match), separators=(",", ":"))
                models.append(PricedModel(provider.id, model.id, position, match))
    return Catalogue(rows, models, SOURCE, version(SOURCE))


def _model_rows(provider: str, model: types.ModelInfo) -> Iterator[CatalogueRow]:
    prices = model.prices
    blocks = [types.ConditionalPrice(prices=prices)] if isinstance(prices, types.ModelPrice) else prices
    dated = [block for block in blocks if not isinstance(block.constraint, types.TimeOfDateConstraint)]
    starts = [_start_ns(block) for block in dated]
    if starts:
        # The first block also holds before its own date: that is how the catalogue is defined.
        starts[0] = _SINCE_EVER_NS
    for block, start_ns, end_ns in zip(dated, starts, [*starts[1:], None], strict=True):
        yield from _block_rows(provider, model.id, block.prices, (0, 0), start_ns, end_ns)
    for block in blocks:
        if isinstance(block.constraint, types.TimeOfDateConstraint):
            hours = (_second_of_day(block.constraint.start_time), _second_of_day(block.constraint.end_time))
            yield from _block_rows(provider, model.id, block.prices, hours, _SINCE_EVER_NS, None)


def _block_rows(
    provider: str,
    model: str,
    prices: types.ModelPrice,
    hours: tuple[int, int],
    start_ns: int,
    end_ns: int | None,
) -> Iterator[CatalogueRow]:
    for key, unit in _UNITS.items():
        price: Decimal | types.TieredPrices | None = getattr(prices, key)
        if price is None:
            continue
        steps = [(0, price)] if isinstance(price, Decimal) else [(0, price.base)]
        if isinstance(price, types.TieredPrices):
            steps += [(tier.start, tier.price) for tier in price.tiers]
        per_1k = Decimal(1) if key.endswith("_kcount") else Decimal("0.001")
        for over, usd in steps:
            yield CatalogueRow(provider, model, unit, over, *hours, usd * per_1k, start_ns, end_ns)


def _start_ns(block: types.ConditionalPrice) -> int:
    if isinstance(block.constraint, types.StartDateConstraint):
        return int(datetime.combine(block.constraint.start_date, time(), UTC).timestamp()) * 10**9
    return _SINCE_EVER_NS


def _second_of_day(value: time) -> int:
    offset = value.utcoffset()
    seconds = value.hour * 3600 + value.minute * 60 + value.second
    return (seconds - int(offset.total_seconds() if offset else 0)) % 86_400


def _clause(match: Any) -> dict[str, Any]:
    """A clause of genai-prices as the JSON that `matching.compile_match` reads."""
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
    raise TypeError(f"genai-prices has a kind of clause that is new to us: {match!r}")
