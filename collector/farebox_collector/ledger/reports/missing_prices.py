"""List prices that recorded calls needed and the book lacks, with the command that sets each.

Pricing flags a call when it uses a substitute: the price of another unit, the standard price, another provider's price.
The flags of the newest records become this list.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, Select, func, select

from farebox_collector.ledger.tables.books import usage_records
from farebox_collector.ledger.tables.prices import price_imports
from farebox_collector.model.units import UNITS
from farebox_collector.model.unusual import read_particulars, read_unusual
from farebox_collector.model.verdicts import Verdict
from farebox_collector.pricing.conditions import REGION_FLAG, TIER_FLAG, condition_of
from farebox_collector.pricing.own_prices import CORRECTIONS
from farebox_collector.pricing.parts import WITHOUT_PRICE

_NEWEST = 100_000
"""Number of newest records to read."""
_AT, _PRICE, _STANDARD = "_at_", "_price", "standard"


class MissingPrice(NamedTuple):
    """A price that calls needed and the book lacks."""

    what: str
    provider: str
    model: str
    unit: str
    condition: str
    calls: int
    remedy: str


def missing_prices(connection: Connection) -> Iterator[MissingPrice]:
    """Yield missing prices, most calls first."""
    if not _corrected(connection):
        what = "the book has none of the corrections of the bundled catalogue"
        yield MissingPrice(what, "", "", "", "", 0, "farebox prices import --apply")
    found: Counter[tuple[str, str, str, str, str]] = Counter()
    for row in _newest(connection):
        unusual = read_unusual(row.unusual)
        condition = condition_of(row.service_tier, unusual.speed, unusual.inference_region)
        for flag in row.assumptions.split(","):
            for missing in _of_flag(flag, row.provider, row.model, condition):
                found[missing] += row.calls
            if flag == WITHOUT_PRICE:
                particulars = read_particulars(row.unusual)
                for part, unit, _ in particulars.unpriced if particulars else ():
                    line = unusual.other_lines[part - 1] if part else None
                    name = (row.provider, row.model) if line is None else (line.provider or row.provider, line.model)
                    found["has no price: not included in the charge", *name, unit, _STANDARD] += row.calls
    for (what, provider, model, unit, condition), calls in found.most_common():
        yield MissingPrice(what, provider, model, unit, condition, calls, _remedy(provider, model, unit, condition))


def _of_flag(flag: str, provider: str, model: str, condition: str) -> Iterator[tuple[str, str, str, str, str]]:
    if flag in (TIER_FLAG, REGION_FLAG):
        what = "tier or speed" if flag == TIER_FLAG else "region"
        yield f"the {what} has no price: billed at a less specific one", provider, model, "input", condition
        return
    unit, at, rest = flag.partition(_AT)
    if not at or unit not in UNITS or not rest.endswith(_PRICE):
        return
    stand_in = rest.removesuffix(_PRICE)
    if stand_in == _STANDARD:
        yield "has no price in this condition: billed at the standard price", provider, model, unit, condition
    else:
        yield f"has no separate price: billed as {stand_in}", provider, model, unit, _STANDARD


def _remedy(provider: str, model: str, unit: str, condition: str) -> str:
    how = "" if condition == _STANDARD else f" --condition {condition}"
    return f"farebox prices set {provider} {model} {unit} USD_PER_1000{how}"


def _corrected(connection: Connection) -> bool:
    """Return whether the corrections of the bundled catalogue were ever imported."""
    imports = price_imports.c
    found = select(func.count()).where(imports.source == CORRECTIONS)
    return bool(connection.execute(found).scalar_one())


def _newest(connection: Connection) -> Sequence[Row[Any]]:
    """Return the newest charged records with flags, grouped by equal flags."""
    table = usage_records.c
    newest = (
        select(table.provider, table.model, table.service_tier, table.assumptions, table.unusual)
        .where(table.verdict == Verdict.CHARGED, table.assumptions != "")
        .order_by(table.id.desc())
        .limit(_NEWEST)
        .subquery()
    )
    columns = list(newest.c)
    query: Select[Any] = select(*columns, func.count().label("calls")).group_by(*columns)
    return connection.execute(query).all()
