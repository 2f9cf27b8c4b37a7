"""Read a price list in CSV as written by people; `docs/explanation/prices.md` describes the columns.

The list is not complete: prices that it omits stay, and published lists do not change prices that it set. Its prices
hold from the times that it names, which may be in the past.
"""

import csv
import io
import json
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation

from farebox_collector.model.moments import to_ns
from farebox_collector.model.records import CatalogueRow, PricedModel
from farebox_collector.model.units import can_have_price
from farebox_collector.pricing.conditions import MAX_CONDITION, canonical
from farebox_collector.pricing.currencies import (
    USD,
    ExchangeRates,
    NoExchangeRate,
    in_usd,
    is_currency,
)
from farebox_collector.pricing.price_lists import (
    MAX_LIST_ROWS,
    Catalogue,
    Problem,
    UnfitList,
    price_problem,
)
from farebox_collector.pricing.providers import book_provider
from farebox_collector.pricing.revision import PriceList, overlaps
from farebox_collector.pricing.weekdays import weekdays_of

SOURCE = "csv"
REQUIRED = ("provider", "model", "unit")
PRICES: Mapping[str, Decimal] = {"price_per_1k": Decimal(1), "price_per_1m": Decimal("0.001")}
"""The allowed price columns, and the factor to a price per thousand."""
OPTIONAL = ("currency", "valid_from", "valid_to", "condition", "over_input_tokens", "hours", "weekdays")
_MAX_NAME = 150
_EXACT_NAME_FIRST = -1


class _InvalidRow(ValueError):
    """A row without a valid price; the message is the reason."""


def csv_catalogue(
    text: str,
    source_version: str,
    rates: ExchangeRates,
    at_ns: int,
    tenant_id: int | None = None,
    allow_free: bool = False,
) -> Catalogue:
    """Read a list; prices without a `valid_from` hold from `at_ns` on. Raises UnfitList."""
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    rows: list[CatalogueRow] = []
    places: list[int] = []
    problems: list[Problem] = []
    try:
        price_column = _price_column(reader.fieldnames or ())
        for line in reader:
            try:
                rows.append(_row(line, price_column, rates, at_ns, allow_free))
                places.append(reader.line_num)
            except (_InvalidRow, NoExchangeRate) as error:
                problems.append(Problem(f"line {reader.line_num}", str(error)))
            if len(rows) + len(problems) > MAX_LIST_ROWS:
                raise UnfitList([Problem("the file", f"has more than {MAX_LIST_ROWS:,} rows")])
    except (csv.Error, _InvalidRow) as error:
        raise UnfitList([Problem(f"line {reader.line_num}", str(error))]) from None
    problems += [Problem(f"line {places[later]}", f"overlaps line {places[place]}") for place, later in overlaps(rows)]
    if problems:
        raise UnfitList(problems)
    if not rows:
        raise UnfitList([Problem("the file", "has no prices")])
    names = dict.fromkeys((row.provider, row.model) for row in rows)
    models = [PricedModel(*name, _EXACT_NAME_FIRST, json.dumps({"equals": name[1]})) for name in names]
    prices = PriceList(rows, SOURCE, source_version, whole=False, dated=True, tenant_id=tenant_id)
    return Catalogue(prices, models, Counter())


def _price_column(columns: object) -> str:
    """Return the price column. Raises _InvalidRow for an unknown or incomplete heading."""
    found = [str(column) for column in columns] if isinstance(columns, list | tuple) else []
    unknown = [column for column in found if column not in {*REQUIRED, *PRICES, *OPTIONAL}]
    missing = [column for column in REQUIRED if column not in found]
    prices = [column for column in found if column in PRICES]
    if unknown:
        raise _InvalidRow(f"unknown column {unknown[0]!r}; use {', '.join((*REQUIRED, *PRICES, *OPTIONAL))}")
    if missing or len(prices) != 1 or len(found) != len(set(found)):
        raise _InvalidRow(f"the heading must name {', '.join(REQUIRED)} and one of {', '.join(PRICES)}, each once")
    return prices[0]


def _row(
    line: Mapping[str | None, str | None], price_column: str, rates: ExchangeRates, at_ns: int, allow_free: bool
) -> CatalogueRow:
    if None in line or None in line.values():
        raise _InvalidRow("has more or fewer columns than the heading")
    cells = {str(column): (cell or "").strip() for column, cell in line.items()}
    provider, model, unit = book_provider(cells["provider"]), cells["model"], cells["unit"]
    for name in (provider, model):
        if not name or len(name) > _MAX_NAME or not name.isprintable():
            raise _InvalidRow(f"provider and model must have 1 to {_MAX_NAME} printable characters")
    if not can_have_price(unit):
        raise _InvalidRow(f"{unit!r} is not a unit of the price book; begin the name of a custom unit with x_")
    currency = cells.get("currency", "").upper() or USD
    if not is_currency(currency):
        raise _InvalidRow(f"{currency!r} is not a currency; use three letters, such as EUR")
    per_1k = _decimal(cells[price_column], "the price") * PRICES[price_column]
    reason = price_problem(per_1k, allow_free=allow_free)
    if reason:
        raise _InvalidRow(reason)
    from_ns = _moment_ns(cells.get("valid_from", ""))
    to_ns_ = _moment_ns(cells.get("valid_to", ""))
    from_ns = at_ns if from_ns is None else from_ns
    if to_ns_ is not None and to_ns_ <= from_ns:
        raise _InvalidRow("valid_to must be after valid_from")
    over = _decimal(cells.get("over_input_tokens", "") or "0", "over_input_tokens")
    if over != over.to_integral_value() or not 0 <= over < 10**12:
        raise _InvalidRow("over_input_tokens must be a whole number of tokens")
    condition = canonical(cells.get("condition", ""))
    if len(condition) > MAX_CONDITION or not condition.isprintable():
        raise _InvalidRow("condition must be a service tier, a speed or a region, such as batch, fast or standard@us")
    hours = hours_of_day(cells.get("hours", ""))
    try:
        weekdays = weekdays_of(cells.get("weekdays", ""))
    except ValueError as error:
        raise _InvalidRow(str(error)) from None
    row = CatalogueRow(provider, model, unit, int(over), *hours, per_1k, from_ns, to_ns_, condition, weekdays=weekdays)
    return in_usd(row, per_1k, currency, rates)


def hours_of_day(text: str) -> tuple[int, int]:
    """Parse `22:00-06:00` as UTC seconds of the day; empty means all day. Raises ValueError with the reason."""
    if not text:
        return 0, 0
    try:
        start, end = (datetime.strptime(part.strip(), "%H:%M") for part in text.split("-"))
    except ValueError:
        raise _InvalidRow(f"{text!r} are not hours of the day; write them as 22:00-06:00 (UTC)") from None
    if start == end:
        raise _InvalidRow("hours of the day must end at another time than they begin")
    return start.hour * 3600 + start.minute * 60, end.hour * 3600 + end.minute * 60


def _moment_ns(text: str) -> int | None:
    """Parse an ISO date or time as nanoseconds; UTC if it has no offset."""
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text)
        return to_ns(moment if moment.tzinfo else moment.replace(tzinfo=UTC))
    except ValueError:
        raise _InvalidRow(f"{text!r} is not a date; write it as 2026-11-01") from None


def _decimal(text: str, what: str) -> Decimal:
    try:
        number = Decimal(text) if len(text) <= 40 else Decimal("NaN")
    except InvalidOperation:
        number = Decimal("NaN")
    if not number.is_finite():
        raise _InvalidRow(f"{what} must be a number, not {text[:40]!r}")
    return number
