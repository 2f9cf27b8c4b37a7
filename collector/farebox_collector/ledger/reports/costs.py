"""Effective costs of the charged calls of a period, by any of their properties."""

import json
from collections.abc import Mapping
from enum import StrEnum
from fractions import Fraction
from functools import lru_cache
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Select, String, Table, func, literal, or_, select
from sqlalchemy import cast as sql_cast

from farebox_collector.ledger.tables.books import usage_records
from farebox_collector.ledger.tables.prices import price_versions
from farebox_collector.ledger.tables.rollups import cost_days
from farebox_collector.ledger.tables.usage_columns import TOKEN_COLUMNS
from farebox_collector.ledger.tariffs.prices import load_versions, version_of
from farebox_collector.ledger.usage.cost_rollups import known_tier
from farebox_collector.ledger.usage.tombstones import require_detail
from farebox_collector.model.moments import DAY_NS
from farebox_collector.model.records import Buckets, PriceVersion
from farebox_collector.model.verdicts import Verdict
from farebox_collector.pricing.book import ModelRates
from farebox_collector.pricing.cards import RateCard, rate_card
from farebox_collector.pricing.costs import Consumption, EffectiveCost, effective_costs


class Grouping(StrEnum):
    """What costs can be grouped by."""

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
    """A half-open period, by the moment whose price was used."""

    from_ns: int
    to_ns: int


def costs(
    connection: Connection, tenant_id: int, period: Period, grouping: Grouping, list_at_ns: int
) -> list[EffectiveCost]:
    """Return effective costs of a period, highest first, compared with the list prices of a moment.

    Raises DetailRetired for a period with a partial day whose records are past retention.
    """
    consumed = _consumed(connection, tenant_id, period, grouping)
    wanted = {version for use in consumed for version in json.loads(use.price_version_ids)}
    versions = versions_by_id(connection, wanted)
    listed = _list_rates(connection, {(use.provider, use.model) for use in consumed}, list_at_ns)

    @lru_cache(maxsize=10_000)
    def card_of(version_ids: str) -> RateCard:
        return rate_card([versions[number] for number in json.loads(version_ids)])

    return effective_costs(consumed, card_of, lambda provider, model: listed.get((provider, model)))


def _consumed(connection: Connection, tenant_id: int, period: Period, grouping: Grouping) -> list[Consumption]:
    """Return consumption: whole days from the roll-up, partial days before and after from the records."""
    first, end = -(-period.from_ns // DAY_NS), period.to_ns // DAY_NS
    if first >= end:
        return _of_records(connection, tenant_id, period, grouping)
    return [
        *_of_records(connection, tenant_id, Period(period.from_ns, first * DAY_NS), grouping),
        *_of_days(connection, tenant_id, first, end, grouping),
        *_of_records(connection, tenant_id, Period(end * DAY_NS, period.to_ns), grouping),
    ]


def _of_days(connection: Connection, tenant_id: int, first: int, end: int, grouping: Grouping) -> list[Consumption]:
    table = cost_days.c
    key, groups = _key(cost_days, grouping)
    sums = [func.sum(table[name]) for name in ("requests", *TOKEN_COLUMNS, "cost_nanousd")]
    query = (
        select(key, table.provider, table.model, table.price_version_ids, *sums)
        .where(table.tenant_id == tenant_id, table.day >= first, table.day < end)
        .group_by(*groups)
        # Omit rows that corrections took back entirely.
        .having(or_(func.sum(table.requests) != 0, func.sum(table.cost_nanousd) != 0))
    )
    return _consumptions(connection, query)


def _of_records(connection: Connection, tenant_id: int, period: Period, grouping: Grouping) -> list[Consumption]:
    if period.from_ns >= period.to_ns:
        return []
    require_detail(connection, tenant_id, period.from_ns, period.to_ns, "costs are there by whole days, or for parts")
    table = usage_records.c
    key, groups = _key(usage_records, grouping)
    sums = [func.coalesce(func.sum(table[name]), literal(0)) for name in (*TOKEN_COLUMNS, "cost_nanousd")]
    query = (
        select(key, table.provider, table.model, table.price_version_ids, func.count(), *sums)
        .where(
            table.tenant_id == tenant_id,
            table.verdict == Verdict.CHARGED,
            table.priced_at_ns >= period.from_ns,
            table.priced_at_ns < period.to_ns,
        )
        .group_by(*groups)
    )
    found = _consumptions(connection, query)
    if grouping is Grouping.SERVICE_TIER:
        return [used._replace(key=known_tier(used.key)) for used in found]
    return found


def _key(table: Table, grouping: Grouping) -> tuple[ColumnElement[str], list[ColumnElement[Any]]]:
    """Return the displayed key and the columns to group by."""
    columns = table.c
    key: ColumnElement[str] = (
        sql_cast(columns.provider + "/" + columns.model, String)
        if grouping is Grouping.MODEL
        else columns[grouping.value]
    )
    return key.label("key"), [key, columns.provider, columns.model, columns.price_version_ids]


def _consumptions(connection: Connection, query: Select[Any]) -> list[Consumption]:
    # PostgreSQL returns sums of big integers as decimals.
    return [
        Consumption(row[0], row[1], row[2], row[3], int(row[4]), Buckets(*map(int, row[5:-1])), int(row[-1]))
        for row in connection.execute(query)
    ]


def versions_by_id(connection: Connection, wanted: set[int]) -> dict[int, PriceVersion]:
    """Return price versions by id; unknown ids are left out."""
    found: dict[int, PriceVersion] = {}
    ordered = sorted(wanted)
    for start in range(0, len(ordered), 500):
        chunk = select(price_versions).where(price_versions.c.id.in_(ordered[start : start + 500]))
        found.update((row.id, version_of(row)) for row in connection.execute(chunk))
    return found


def _list_rates(
    connection: Connection, models: set[tuple[str, str]], at_ns: int
) -> Mapping[tuple[str, str], Mapping[str, Fraction]]:
    """Return nano-USD by unit for each model at a moment: list price, standard tier, no long context."""
    rows: dict[tuple[str, str], list[PriceVersion]] = {model: [] for model in models}
    for version in load_versions(connection, negotiated=False, models=models):
        if (version.provider, version.model) in rows:
            rows[version.provider, version.model].append(version)
    cards = {model: ModelRates(versions).card(at_ns, 0) for model, versions in rows.items()}
    return {
        model: {unit: Fraction(rate, card.denominator) for unit, rate in card.rates.items()}
        for model, card in cards.items()
        if card is not None
    }
