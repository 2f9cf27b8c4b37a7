"""Read a price list in LiteLLM's JSON format: an object of models, each with `litellm_provider` and prices per unit.

A key is a unit, then optionally `_above_200k_tokens`, then optionally a service tier. Prices have no dates: a price
that is new to the book is taken to have always held. A model is recognised by its exact name.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

from farebox_collector.model.records import STANDARD, CatalogueRow, PricedModel
from farebox_collector.pricing.price_lists import (
    Catalogue,
    Problem,
    UnfitList,
    price_problem,
)
from farebox_collector.pricing.providers import PROVIDER_ALIASES, book_provider
from farebox_collector.pricing.revision import PriceList

SOURCE = "litellm"

_UNITS = {
    "input_cost_per_token": "input",
    "output_cost_per_token": "output",
    "cache_read_input_token_cost": "cache_read",
    "cache_creation_input_token_cost": "cache_write",
    "cache_creation_input_token_cost_above_1hr": "cache_write_1h",
    "input_cost_per_audio_token": "input_audio",
    "output_cost_per_audio_token": "output_audio",
    "input_cost_per_image_token": "input_image",
    "output_cost_per_image_token": "output_image",
    "output_cost_per_reasoning_token": "output_reasoning",
    "cache_read_input_audio_token_cost": "cache_audio_read_tokens",
    "cache_read_input_image_token_cost": "cache_image_read_tokens",
    "input_cost_per_video_token": "input_video_tokens",
    "output_cost_per_video_token": "output_video_tokens",
    "citation_cost_per_token": "output_citation_tokens",
    "input_cost_per_character": "input_characters",
    "input_cost_per_text_message": "input_text_messages",
    "input_cost_per_pixel": "input_pixels",
    "input_cost_per_audio_per_second": "input_audio_seconds",
    "input_cost_per_request": "requests",
    "output_cost_per_image": "images",
    "ocr_cost_per_page": "input_document_pages",
    "annotation_cost_per_page": "input_annotated_document_pages",
    "search_context_cost_per_query": "web_searches",
    "file_search_cost_per_1k_calls": "storage_searches",
    "code_interpreter_cost_per_session": "code_executions",
}
_BY_MODE = {
    ("input_cost_per_second", "audio_transcription"): "input_audio_seconds",
    ("output_cost_per_second", "audio_speech"): "output_audio_seconds",
    ("output_cost_per_second", "audio_transcription"): "input_audio_seconds",
    ("output_cost_per_second", "video_generation"): "video_seconds",
    ("input_cost_per_query", "rerank"): "rerank_searches",
    ("input_cost_per_query", "search"): "web_searches",
}
_TIERS = {"batches": "batch", "flex": "flex", "priority": "priority", "fast": "fast"}
_PER_1K_ALREADY = {"file_search_cost_per_1k_calls"}
_SEARCH_SIZE = "search_context_size_medium"
_KEY = re.compile(r"(?P<base>.*?)(?:_above_(?P<thousands>[0-9]+)k_tokens)?(?:_(?P<tier>batches|flex|priority|fast))?")
_PRICE = re.compile(r"(^|_)cost(_|$)")
_SINCE_EVER_NS = 0


def litellm_catalogue(text: str, source_version: str, allow_free: bool = False) -> Catalogue:
    """Read a list. Raises UnfitList for another format and for invalid prices."""
    try:
        entries = json.loads(text, parse_float=Decimal, parse_int=Decimal)
    except (ValueError, RecursionError, InvalidOperation) as error:
        raise UnfitList([Problem("the file", f"is not JSON ({error})")]) from None
    if not isinstance(entries, dict) or not all(isinstance(entry, dict) for entry in entries.values()):
        raise UnfitList([Problem("the file", "is not a JSON object that maps each model to an object")])
    rows: list[CatalogueRow] = []
    models: dict[tuple[str, str], PricedModel] = {}
    left_out: Counter[str] = Counter()
    problems: list[Problem] = []
    lines = _lines_of(text)
    # Names without a provider prefix come first: they are the model's own entry.
    for name in sorted((name for name in entries if name != "sample_spec"), key=lambda name: ("/" in name, name)):
        entry = entries[name]
        provider = _provider(entry.get("litellm_provider"))
        if not provider:
            left_out["no provider is named"] += 1
            continue
        model = _model(name, provider)
        found, wrong = _entry_rows(provider, model, entry, left_out)
        problems += [Problem(f"line {lines.get(name, '?')}, {name}, {key}", reason) for key, reason in wrong]
        if (provider, model) in models:
            left_out["another entry of the same provider and model"] += 1
        elif not found:
            left_out["a model without a price"] += 1
        elif not any(row.usd_per_1k > 0 for row in found) and not allow_free:
            left_out["a free model"] += 1
        else:
            rows += found
            models[provider, model] = PricedModel(provider, model, -1, json.dumps({"equals": model}))
    if problems:
        raise UnfitList(problems)
    prices = PriceList(rows, SOURCE, source_version, whole=True, dated=False)
    return Catalogue(prices, list(models.values()), left_out)


def _entry_rows(
    provider: str, model: str, entry: Mapping[str, Any], left_out: Counter[str]
) -> tuple[list[CatalogueRow], list[tuple[str, str]]]:
    """Return the rows of one model, and the keys with invalid prices, with the reason."""
    rows: dict[tuple[str, int, str], CatalogueRow] = {}
    wrong: list[tuple[str, str]] = []
    for key, over, tier, base, value in _prices(entry):
        unit = _UNITS.get(base) or _BY_MODE.get((base, str(entry.get("mode"))))
        if unit is None:
            left_out[f"no such unit here: {base}"] += 1
            continue
        price = value.get(_SEARCH_SIZE) if isinstance(value, dict) else value
        if not isinstance(price, Decimal):
            if not isinstance(value, dict):
                wrong.append((key, f"{value!r} is not a price"))
            continue
        # A zero next to other prices marks a free unit; a model with only zeros is left out by the caller.
        reason = price_problem(price, allow_free=True)
        if reason:
            wrong.append((key, reason))
            continue
        per_1k = price if base in _PER_1K_ALREADY else price * 1000
        row = CatalogueRow(provider, model, unit, over, 0, 0, per_1k, _SINCE_EVER_NS, None, tier)
        rows.setdefault((unit, over, tier), row)
    return list(rows.values()), wrong


def _prices(entry: Mapping[str, Any]) -> Iterator[tuple[str, int, str, str, Any]]:
    """Yield (key, threshold, condition, unit key, value) for each price of an entry."""
    for key, value in entry.items():
        if value is None or not _PRICE.search(key):
            continue
        found = _KEY.fullmatch(key)
        assert found is not None
        over = int(found["thousands"] or 0) * 1000
        yield key, over, _TIERS.get(found["tier"] or "", STANDARD), found["base"], value


def _provider(named: object) -> str:
    """Return the book's name of a `litellm_provider`, such as `vertex_ai-anthropic_models`."""
    if not isinstance(named, str) or not named.strip() or not named.isprintable():
        return ""
    head = named.partition("-")[0]
    return book_provider(head if named not in PROVIDER_ALIASES and head in PROVIDER_ALIASES else named)


def _model(name: str, provider: str) -> str:
    head, slash, rest = name.partition("/")
    return rest if slash and book_provider(head) == provider else name


def _lines_of(text: str) -> dict[str, int]:
    """Map each entry to the line where it begins, in a file laid out like the published one."""
    opening = re.compile(r'\s*"([^"]+)":\s*\{')
    found = ((number, opening.match(line)) for number, line in enumerate(text.splitlines(), start=1))
    return {match.group(1): number for number, match in found if match}
