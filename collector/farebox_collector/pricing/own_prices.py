"""Our corrections of the bundled catalogue, and the conditions that providers state as multipliers.

`own_prices.toml` holds them, each with source, date and reason. They become two price lists: `corrections`, whose
prices hold from the times that they name, and `conditions`, which follow the catalogue's prices. This module is
imported only together with the catalogue.
"""

import json
import re
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

from farebox_collector.model.moments import to_ns
from farebox_collector.model.records import STANDARD, CatalogueRow, PricedModel
from farebox_collector.model.units import INPUT_TOKENS, TOKEN_BUCKETS
from farebox_collector.pricing.conditions import canonical
from farebox_collector.pricing.price_csv import hours_of_day
from farebox_collector.pricing.price_lists import Catalogue
from farebox_collector.pricing.revision import PriceList
from farebox_collector.pricing.weekdays import weekdays_of

CORRECTIONS, CONDITIONS = "farebox-corrections", "farebox-conditions"
"""The sources of these prices in the book."""
FILE = "own_prices.toml"
_TOKENS = TOKEN_BUCKETS | INPUT_TOKENS | {"output_video_tokens", "output_citation_tokens"}
_FREE_UNITS = ("input", "output", "requests")
_FIRST = -1
"""Before every model of the catalogue: models that the catalogue takes for others."""
_LAST = 10**6
"""After every model of the catalogue: clauses for names that no entry matches."""
_SINCE_EVER_NS = 0
_PER_1K = {"usd_per_1m": Decimal("0.001"), "usd_per_1k": Decimal(1), "usd_each": Decimal(1000)}

Slot = tuple[str, str, str, str]
"""Provider, model, unit, condition."""


class Origin(NamedTuple):
    """The origin of an entry."""

    source: str
    date: date
    """The date on which the entry was made."""
    confirmed: bool
    """Whether the figures were read at the source itself, not in a secondary report."""
    reason: str


class Correction(NamedTuple):
    """Prices that replace the catalogue's."""

    origin: Origin
    rows: tuple[CatalogueRow, ...]


class OwnPrices(NamedTuple):
    """The parsed file."""

    version: str
    corrections: tuple[Correction, ...]
    multipliers: tuple[Mapping[str, Any], ...]
    fees: tuple[Mapping[str, Any], ...]
    free: tuple[Mapping[str, Any], ...]
    models: tuple[Mapping[str, Any], ...] = ()


@cache
def own_prices() -> OwnPrices:
    """Read the file of our own prices, which is part of the package."""
    data = tomllib.loads(files("farebox_collector.pricing").joinpath(FILE).read_text(encoding="utf-8"))
    return OwnPrices(
        data["version"],
        tuple(Correction(_origin(entry), tuple(_corrected(entry))) for entry in data["correction"]),
        *(
            tuple({**entry, "origin": _origin(entry)} for entry in data[kind])
            for kind in ("multiplier", "fee", "free", "model")
        ),
    )


def corrected(catalogue: Catalogue, own: OwnPrices | None = None) -> list[Catalogue]:
    """Return the catalogue without the corrected prices, the corrections, and the conditions derived from both."""
    own = own_prices() if own is None else own
    replaced = {slot_of(row) for correction in own.corrections for row in correction.rows}
    rows = [row for row in catalogue.prices.rows if slot_of(row) not in replaced]
    named = {(model.provider, model.model) for model in catalogue.models}
    mine = [row for correction in own.corrections for row in correction.rows if (row.provider, row.model) in named]
    mine += [row for entry in own.models for row in _corrected({**entry, "models": [entry["model"]]})]
    free = [row for entry in own.free for row in _free_rows(entry)]
    conditions = list(_conditions([*rows, *mine], own))
    models = [
        PricedModel(row["provider"], _free_name(row), _LAST, json.dumps({"ends_with": row["ends_with"]}))
        for row in own.free
    ]
    models += [
        PricedModel(row["provider"], row["model"], _FIRST, json.dumps({"or": [{"equals": n} for n in row["names"]]}))
        for row in own.models
    ]
    # The first list holds the clauses of all models.
    return [
        catalogue._replace(prices=catalogue.prices._replace(rows=rows), models=[*catalogue.models, *models]),
        Catalogue(PriceList([*mine, *free], CORRECTIONS, own.version, whole=True, dated=True), (), Counter()),
        Catalogue(PriceList(conditions, CONDITIONS, own.version, whole=True, dated=False), (), Counter()),
    ]


def slot_of(row: CatalogueRow) -> Slot:
    """Return what a correction replaces: all prices of a model's unit in a condition, at all times and steps."""
    return row.provider, row.model, row.unit, row.condition


def _corrected(entry: Mapping[str, Any]) -> Iterator[CatalogueRow]:
    for model in entry["models"]:
        for price in entry["prices"]:
            some_times = "hours" in price or "weekdays" in price
            days_off = [_days(text) for text in entry.get("not_on", ())] if some_times else []
            for hours in price.get("hours", [""]):
                for from_ns, to_ns_ in _validities(price, days_off):
                    yield CatalogueRow(
                        entry["provider"],
                        model,
                        price["unit"],
                        price.get("over", 0),
                        *hours_of_day(hours),
                        _usd_per_1k(price),
                        from_ns,
                        to_ns_,
                        canonical(price.get("condition", STANDARD)),
                        weekdays=weekdays_of(price.get("weekdays", "")),
                    )


def _validities(price: Mapping[str, Any], days_off: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int | None]]:
    """Yield when a price holds: its validity minus the excluded days."""
    start_ns = _moment_ns(price["from"]) if "from" in price else _SINCE_EVER_NS
    end_ns = _moment_ns(price["to"]) if "to" in price else None
    for off_ns, on_ns in sorted(days_off):
        if on_ns <= start_ns or (end_ns is not None and off_ns >= end_ns):
            continue
        if off_ns > start_ns:
            yield start_ns, off_ns
        start_ns = on_ns
    if end_ns is None or start_ns < end_ns:
        yield start_ns, end_ns


def _conditions(rows: Sequence[CatalogueRow], own: OwnPrices) -> Iterator[CatalogueRow]:
    """Yield the prices that multipliers and fees derive from other prices."""
    stated = {(row.provider, row.model, row.condition) for row in rows}
    for multiplier in own.multipliers:
        region, from_ns = multiplier["condition"], _start_ns(multiplier)
        for row in rows:
            if not _applies(multiplier, row) or (not region.startswith("@") and row.condition != STANDARD):
                continue
            condition = f"{row.condition}{region}" if region.startswith("@") else region
            ended = row.valid_to_ns is not None and row.valid_to_ns <= from_ns
            if "@" in row.condition or ended or (row.provider, row.model, condition) in stated:
                continue
            times = Decimal(multiplier["times"]) if row.unit in _TOKENS else Decimal(1)
            yield row._replace(
                condition=condition,
                usd_per_1k=row.usd_per_1k * times,
                valid_from_ns=max(row.valid_from_ns, from_ns),
            )
    priced = {(row.provider, row.model, row.unit) for row in rows}
    first: dict[tuple[str, str], CatalogueRow] = {}
    for row in rows:
        first.setdefault((row.provider, row.model), row)
    for fee in own.fees:
        for row in first.values():
            if _applies(fee, row) and (row.provider, row.model, fee["unit"]) not in priced:
                name = (row.provider, row.model, fee["unit"], 0, 0, 0)
                yield CatalogueRow(*name, _usd_per_1k(fee), _start_ns(fee), None)


def _applies(entry: Mapping[str, Any], row: CatalogueRow) -> bool:
    if row.provider != entry["provider"]:
        return False
    if any(re.fullmatch(pattern, row.model) for pattern in entry.get("but", ())):
        return False
    return "models" not in entry or any(re.fullmatch(pattern, row.model) for pattern in entry["models"])


def _free_rows(entry: Mapping[str, Any]) -> Iterator[CatalogueRow]:
    for unit in _FREE_UNITS:
        yield CatalogueRow(entry["provider"], _free_name(entry), unit, 0, 0, 0, Decimal(0), _SINCE_EVER_NS, None)


def _free_name(entry: Mapping[str, Any]) -> str:
    return f"*{entry['ends_with']}"


def _origin(entry: Mapping[str, Any]) -> Origin:
    return Origin(entry["source"], entry["date"], entry["confirmed"], entry["reason"])


def _usd_per_1k(price: Mapping[str, Any]) -> Decimal:
    ((key, factor),) = [(key, factor) for key, factor in _PER_1K.items() if key in price]
    return Decimal(price[key]) * factor


def _start_ns(entry: Mapping[str, Any]) -> int:
    return _moment_ns(entry["from"]) if "from" in entry else _SINCE_EVER_NS


def _moment_ns(text: str) -> int:
    return to_ns(datetime.fromisoformat(text).replace(tzinfo=UTC))


def _days(text: str) -> tuple[int, int]:
    """Return the start of the first day of `2026-10-01/2026-10-07` and the end of the last, UTC."""
    first, last = (date.fromisoformat(part) for part in text.split("/"))
    return _moment_ns(first.isoformat()), _moment_ns((last + timedelta(days=1)).isoformat())


def redundant_corrections(catalogue: Catalogue, own: OwnPrices | None = None) -> Iterable[str]:
    """Yield a sentence for each correction that the catalogue now includes."""
    own = own_prices() if own is None else own
    listed: dict[Slot, set[tuple[Any, ...]]] = {}
    for row in catalogue.prices.rows:
        listed.setdefault(slot_of(row), set()).add(_content(row))
    for correction in own.corrections:
        mine: dict[Slot, set[tuple[Any, ...]]] = {}
        for row in correction.rows:
            mine.setdefault(slot_of(row), set()).add(_content(row))
        for slot, content in mine.items():
            if listed.get(slot) == content:
                yield f"{'/'.join(slot)}: the catalogue has the same ({correction.origin.reason})"


def _content(row: CatalogueRow) -> tuple[Any, ...]:
    return row.over_input_tokens, row.daily_from_s, row.daily_to_s, row.weekdays, row.usd_per_1k, *row[7:9]
