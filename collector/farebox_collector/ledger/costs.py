"""Effective costs out of the books: what charged calls of a period used, by any of their properties."""

import json
from collections.abc import Mapping
from enum import StrEnum
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

from sqlalchemy import Connection, String, func, literal, select
from sqlalchemy import cast as sql_cast

from farebox_collector.ledger.prices import load_versions, version_of
from farebox_collector.ledger.tables import TOKEN_COLUMNS, price_versions, usage_records
from farebox_collector.pricing.book import ModelRates, RateCard, rate_card
from farebox_collector.pricing.costs import Consumption, EffectiveCost, effective_costs
from farebox_collector.records import Buckets, PriceVersion
from farebox_collector.verdicts import Verdict


class Grouping(StrEnum):
    """What costs can be shown by."""

    MODEL = "model"
    PROVIDER = "provider"
    EVENT = "event"
    DEPT = "dept"
    PROJECT = "project"
    TASK = "task"
    ROUTE = "route"
    REGION = "region"
    SERVICE_TIER = "service_tier"


class Period(NamedTuple):
    """A half-open time, by the moment whose price was used."""

    from_ns: int
    to_ns: int


def costs(
    connection: Connection, tenant_id: int, period: Period, grouping: Grouping, list_at_ns: int
) -> list[EffectiveCost]:
    """Effective costs of a period, dearest group first; compared with the list prices of a moment."""
    table = usage_records.c
    key = table.provider + "/" + table.model if grouping is Grouping.MODEL else table[grouping.value]
    key = sql_cast(key, String) if grouping is Grouping.MODEL else key
    rows = connection.execute(
        select(
            key.label("key"),
            table.provider,
            table.model,
            table.price_version_ids,
            func.count(),
            *(func.coalesce(func.sum(table[name]), literal(0)) for name in TOKEN_COLUMNS),
            func.sum(table.cost_nanousd),
        )
        .where(
            table.tenant_id == tenant_id,
            table.verdict == Verdict.CHARGED,
            table.priced_at_ns >= period.from_ns,
            table.priced_at_ns < period.to_ns,
        )
        .group_by(key, table.provider, table.model, table.price_version_ids)
    ).all()
    # PostgreSQL sums big integers to its decimals.
    consumed = [
        Consumption(row[0], row[1], row[2], row[3], int(row[4]), Buckets(*map(int, row[5:-1])), int(row[-1]))
        for row in rows
    ]
    wanted = {version for use in consumed for version in json.loads(use.price_version_ids)}
    versions = versions_by_id(connection, wanted)
    listed = _list_rates(connection, {(use.provider, use.model) for use in consumed}, list_at_ns)

    @lru_cache(maxsize=10_000)
    def card_of(version_ids: str) -> RateCard:
        return rate_card([versions[number] for number in json.loads(version_ids)])

    return effective_costs(consumed, card_of, lambda provider, model: listed.get((provider, model)))


def versions_by_id(connection: Connection, wanted: set[int]) -> dict[int, PriceVersion]:
    """The price versions of some ids; an id that is in no book is left out."""
    found: dict[int, PriceVersion] = {}
    ordered = sorted(wanted)
    for start in range(0, len(ordered), 500):
        chunk = select(price_versions).where(price_versions.c.id.in_(ordered[start : start + 500]))
        found.update((row.id, version_of(row)) for row in connection.execute(chunk))
    return found


def _list_rates(
    connection: Connection, models: set[tuple[str, str]], at_ns: int
) -> Mapping[tuple[str, str], Mapping[str, Fraction]]:
    """Nano-USD by unit of each model at a moment: list price, standard tier, no long context."""
    rows: dict[tuple[str, str], list[PriceVersion]] = {model: [] for model in models}
    for version in load_versions(connection, negotiated=False):
        if (version.provider, version.model) in rows:
            rows[version.provider, version.model].append(version)
    cards = {model: ModelRates(versions).card(at_ns, 0) for model, versions in rows.items()}
    return {
        model: {unit: Fraction(rate, card.denominator) for unit, rate in card.rates.items()}
        for model, card in cards.items()
        if card is not None
    }
