"""Running totals: metrics are read from these, so that restarts and replicas neither reset nor double a graph.

One pass over each batch updates three tables and the daily roll-ups (`usage_rollups`). `usage_totals` holds requests,
tokens and money by event, provider, model, dept, project, task and verdict; corrections add to rows of their own
(`reversed`), because a counter must not fall. `card_totals` holds what charged calls used under the same prices,
`reversed` likewise. `service_totals` holds the outcomes of calls by provider, model, route and region, each call once,
when it is first recorded.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from operator import add

from sqlalchemy import Connection

from farebox_collector.ledger.credits.spending import add_spending
from farebox_collector.ledger.journal.usage_rollups import DayKey, add_usage_days, add_wallet_days
from farebox_collector.ledger.storage import bulk_insert
from farebox_collector.ledger.tables.books import usage_totals
from farebox_collector.ledger.tables.service import card_totals, service_totals
from farebox_collector.ledger.tables.usage_columns import TOKEN_COLUMNS
from farebox_collector.ledger.usage.batch_sums import (
    QUALITY_COLUMNS,
    SERVICE_SUMS,
    CallSums,
    Figures,
    GroupKey,
    in_microseconds,
    quality_sums,
    sums_of,
)
from farebox_collector.ledger.usage.cost_rollups import CostKey, add_cost_days, known_tier
from farebox_collector.ledger.usage.labels import TableLabels, folded, place
from farebox_collector.ledger.usage.stakes import add_stakes, remove_stakes
from farebox_collector.model.records import PricedUsage, Quality
from farebox_collector.model.verdicts import Verdict

MAX_LABELS = 1_000
"""Most combinations of names per tenant in the usage totals; `labels` folds the rest."""
MAX_SERVICE_LABELS = 200
"""The same for the service totals, each of which is two histograms."""

USAGE_LABELS = ("event", "provider", "model", "dept", "project", "task")
SERVICE_LABELS = ("provider", "model", "route", "region")

_USAGE_KEY = ("tenant_id", *USAGE_LABELS, "verdict", "reversed")
_USAGE_SUMS = ("requests", "errors", *TOKEN_COLUMNS, "cost_nanousd", "charge_nanocredits")
_CARD_KEY = ("tenant_id", "provider", "model", "price_version_ids", "reversed")
_CARD_SUMS = ("requests", *TOKEN_COLUMNS, "cost_nanousd")
_SERVICE_KEY = ("tenant_id", *SERVICE_LABELS)


class TotalLabels:
    """The combinations of names that have totals of their own, per tenant."""

    def __init__(self) -> None:
        self.usage = TableLabels(usage_totals, USAGE_LABELS, 3, MAX_LABELS)
        self.service = TableLabels(service_totals, SERVICE_LABELS, 2, MAX_SERVICE_LABELS)
        self.folded = 0
        """Return how many calls this process has counted under `other` names."""


def count_new_calls(connection: Connection, tenant_id: int, sums: CallSums, labels: TotalLabels) -> None:
    """Add newly recorded calls to all totals."""
    _add_usage(connection, tenant_id, sums.groups, labels, reversed=False)
    services = [(key, in_microseconds(figures)) for key, figures in sums.services.items()]
    _add_service(connection, tenant_id, services, labels)
    add_wallet_days(connection, tenant_id, sums.wallets)
    add_spending(connection, tenant_id, sums.spending)


def add_to_totals(
    connection: Connection, tenant_id: int, calls: Sequence[PricedUsage], labels: TotalLabels, *, reversed: bool
) -> None:
    """Add a correction to the usage totals: `reversed` for the old records, without it for their replacements.

    Only ever adds: the current value is what was booked minus what was reversed.
    """
    sums, sign = sums_of(calls), -1 if reversed else 1
    _add_usage(connection, tenant_id, sums.groups, labels, reversed=reversed)
    add_wallet_days(connection, tenant_id, sums.wallets, sign)
    add_spending(connection, tenant_id, sums.spending, sign)
    if reversed:
        remove_stakes(connection, tenant_id, sums.stakes)
    else:
        add_stakes(connection, tenant_id, sums.stakes)


def add_quality(
    connection: Connection,
    tenant_id: int,
    reports: Sequence[tuple[tuple[str, str, str, str], Quality]],
    labels: TotalLabels,
) -> None:
    """Add quality reports that arrived after their calls, each under (provider, model, route, region)."""
    before = len(SERVICE_SUMS) - len(QUALITY_COLUMNS)
    rows = [(label, (*(0,) * before, *quality_sums([quality]))) for label, quality in reports]
    _add_service(connection, tenant_id, rows, labels)


def _add_usage(
    connection: Connection,
    tenant_id: int,
    groups: Mapping[GroupKey, Figures],
    labels: TotalLabels,
    *,
    reversed: bool,
) -> None:
    placed = labels.usage.places(connection, tenant_id, (key.usage for key in groups))
    sizes: Counter[tuple[str, ...]] = Counter()
    for key, figures in groups.items():
        sizes[key.usage] += figures.requests
    labels.folded += folded(placed, sizes)
    days: list[tuple[DayKey, list[int]]] = []
    routes = labels.service.places(connection, tenant_id, (key.service for key in groups))
    costs: list[tuple[CostKey, list[int]]] = []
    sums: defaultdict[tuple[str, ...], Sequence[int]] = defaultdict(lambda: (0,) * len(_USAGE_SUMS))
    cards: defaultdict[tuple[str, ...], Sequence[int]] = defaultdict(lambda: (0,) * len(_CARD_SUMS))
    for key, figures in groups.items():
        row = (*place(placed, key.usage), key.verdict)
        sums[row] = _added(sums[row], figures)
        tokens, money = figures.tokens, figures.money
        if key.verdict is Verdict.CHARGED:
            card = row[1], row[2], key.price_version_ids
            cards[card] = _added(cards[card], (figures.requests, *tokens, money[0]))
            used = [figures.requests, *tokens, *money]
            names = row[0], *row[3:6], *place(routes, key.service)[2:], known_tier(key.service_tier)
            costs.append(((key.day, *card, *names), [-figure for figure in used] if reversed else used))
        tokens_in = tokens.inclusive_input
        day = [figures.requests, figures.errors, tokens_in, tokens.total - tokens_in, *money]
        days.append(((key.day, row[0], row[1], row[2], key.verdict), [-figure for figure in day] if reversed else day))
    rows = [(tenant_id, *key, int(reversed), *row) for key, row in sorted(sums.items())]
    bulk_insert.insert_adding(connection, usage_totals.name, _USAGE_KEY, _USAGE_SUMS, rows)
    rows = [(tenant_id, *key, int(reversed), *row) for key, row in sorted(cards.items())]
    bulk_insert.insert_adding(connection, card_totals.name, _CARD_KEY, _CARD_SUMS, rows)
    add_usage_days(connection, tenant_id, days)
    add_cost_days(connection, tenant_id, costs)


def _add_service(
    connection: Connection,
    tenant_id: int,
    rows: Iterable[tuple[tuple[str, ...], Sequence[int]]],
    labels: TotalLabels,
) -> None:
    counted = list(rows)
    placed = labels.service.places(connection, tenant_id, (label for label, _ in counted))
    sums: defaultdict[tuple[str, ...], Sequence[int]] = defaultdict(lambda: (0,) * len(SERVICE_SUMS))
    for label, row in counted:
        under = place(placed, label)
        sums[under] = _added(sums[under], row)
    table_rows = [(tenant_id, *under, *row) for under, row in sorted(sums.items())]
    bulk_insert.insert_adding(connection, service_totals.name, _SERVICE_KEY, SERVICE_SUMS, table_rows)


def _added(left: Sequence[int], right: Sequence[int]) -> list[int]:
    return list(map(add, left, right))
