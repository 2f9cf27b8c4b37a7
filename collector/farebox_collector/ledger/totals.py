"""Running totals: what the metrics are read from, so that no restart and no second replica resets or doubles a graph.

Three tables out of one look at each batch, and the roll-ups by day (`days`). `usage_totals` holds requests, tokens and
money by event, provider, model, dept, project, task and verdict; corrections add to rows of their own (`reversed`),
since a counter may never fall. `card_totals` holds what charged calls used under the same prices, `reversed` likewise.
`service_totals` holds how calls went by provider, model, route and region, each call once, when it is first recorded.
"""

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from operator import add
from typing import NamedTuple, Self

from sqlalchemy import Connection

from farebox_collector.ledger import bulk
from farebox_collector.ledger.control_tables import (
    FIRST_CHUNK_BOUNDS_MS,
    LATENCY_BOUNDS_MS,
    card_totals,
    credit_totals,
    service_totals,
)
from farebox_collector.ledger.cost_days import CostKey, add_cost_days, known_tier
from farebox_collector.ledger.days import (
    DAY_NS,
    DayKey,
    WalletSums,
    add_usage_days,
    add_wallet_days,
    sum_by_wallet,
)
from farebox_collector.ledger.labels import TableLabels, folded, place
from farebox_collector.ledger.spending import add_spending
from farebox_collector.ledger.tables import TOKEN_COLUMNS, usage_totals
from farebox_collector.records import NO_QUALITY, Buckets, PricedUsage, Quality, UsageRecord
from farebox_collector.verdicts import ONE_CALL, Verdict

MAX_LABELS = 1_000
"""Most combinations of names a tenant has in its usage totals; `labels` says what becomes of more."""
MAX_SERVICE_LABELS = 200
"""The same for its service totals, each of which is two histograms."""

USAGE_LABELS = ("event", "provider", "model", "dept", "project", "task")
SERVICE_LABELS = ("provider", "model", "route", "region")
LATENCY_COLUMNS = tuple(f"latency_le_{bound}ms" for bound in LATENCY_BOUNDS_MS)
FIRST_CHUNK_COLUMNS = tuple(f"first_chunk_le_{bound}ms" for bound in FIRST_CHUNK_BOUNDS_MS)
QUALITY_COLUMNS = (
    "cache_lookups",
    "cache_hits",
    "citation_rates",
    "citation_rate_ppm",
    "human_reviews",
    "human_approvals",
)

_USAGE_KEY = ("tenant_id", *USAGE_LABELS, "verdict", "reversed")
_USAGE_SUMS = ("requests", "errors", *TOKEN_COLUMNS, "cost_nanousd", "charge_nanocredits")
_CARD_KEY = ("tenant_id", "provider", "model", "price_version_ids", "reversed")
_CARD_SUMS = ("requests", *TOKEN_COLUMNS, "cost_nanousd")
_SERVICE_KEY = ("tenant_id", *SERVICE_LABELS)
_SERVICE_SUMS = (
    "requests",
    "errors",
    "latency_us",
    *LATENCY_COLUMNS,
    "first_chunks",
    "first_chunk_us",
    *FIRST_CHUNK_COLUMNS,
    "input_tokens",
    "output_tokens",
    *QUALITY_COLUMNS,
)
_LATENCY_BOUNDS_NS = tuple(bound * 1_000_000 for bound in LATENCY_BOUNDS_MS)
_FIRST_CHUNK_BOUNDS_NS = tuple(bound * 1_000_000 for bound in FIRST_CHUNK_BOUNDS_MS)
_MAX_LATENCY_NS = 86_400 * 10**9
"""A call counts for a day at most: one broken clock must not drown the sum."""
_EMBEDDINGS = "embeddings"

Counted = Sequence[tuple[PricedUsage, Verdict]]


class TotalLabels:
    """The combinations of names that have totals of their own, a tenant."""

    def __init__(self) -> None:
        self.usage = TableLabels(usage_totals, USAGE_LABELS, 3, MAX_LABELS)
        self.service = TableLabels(service_totals, SERVICE_LABELS, 2, MAX_SERVICE_LABELS)
        self.folded = 0
        """How many calls were counted under `other` names since this process began."""


class _Key(NamedTuple):
    """What the calls of one group have in common. The order is that of the tables' labels."""

    day: int
    verdict: Verdict
    event: str
    provider: str
    model: str
    dept: str
    project: str
    task: str
    route: str
    region: str
    price_version_ids: str
    service_tier: str

    @property
    def usage(self) -> tuple[str, ...]:
        return self[2:8]

    @property
    def service(self) -> tuple[str, ...]:
        return self.provider, self.model, self.route, self.region


class _Group(NamedTuple):
    """What both tables need of a group of calls, summed once: lists first, since loops in C cost a tenth."""

    calls: Sequence[PricedUsage]
    usages: list[UsageRecord]
    errors: int
    tokens: Buckets

    @classmethod
    def of(cls, calls: Sequence[PricedUsage]) -> Self:
        usages = [call.usage for call in calls]
        counted = [usage.buckets for usage in usages if usage.buckets is not None]
        tokens = Buckets._make(map(sum, zip(*counted, strict=True))) if counted else Buckets()
        return cls(calls, usages, len(usages) - [usage.error_type for usage in usages].count(""), tokens)


def count_new_calls(
    connection: Connection, tenant_id: int, calls: Counted, charged: WalletSums, labels: TotalLabels
) -> None:
    """Add newly recorded calls to all totals; `charged` are the sums of those that were charged."""
    groups = _grouped(calls)
    _add_usage(connection, tenant_id, groups, labels, reversed=False)
    rows = [(key.service, _service_sums(group)) for key, group in groups.items() if key.verdict in ONE_CALL]
    _add_service(connection, tenant_id, rows, labels)
    add_wallet_days(connection, tenant_id, charged)
    add_spending(connection, tenant_id, calls)


def add_to_totals(
    connection: Connection, tenant_id: int, calls: Counted, labels: TotalLabels, *, reversed: bool
) -> None:
    """Add a correction to the usage totals: records that are taken back with `reversed`, what replaces them without.

    Only ever adds: what holds is what was booked less what was reversed.
    """
    _add_usage(connection, tenant_id, _grouped(calls), labels, reversed=reversed)
    charged = sum_by_wallet(call for call, verdict in calls if verdict is Verdict.CHARGED)
    add_wallet_days(connection, tenant_id, charged, -1 if reversed else 1)
    add_spending(connection, tenant_id, calls, -1 if reversed else 1)


def add_quality(
    connection: Connection,
    tenant_id: int,
    reports: Sequence[tuple[tuple[str, str, str, str], Quality]],
    labels: TotalLabels,
) -> None:
    """Add what was reported of answers after their calls, each under (provider, model, route, region)."""
    before = len(_SERVICE_SUMS) - len(QUALITY_COLUMNS)
    rows = [(label, (*(0,) * before, *_quality_sums([quality], 0, 0))) for label, quality in reports]
    _add_service(connection, tenant_id, rows, labels)


def add_credits(connection: Connection, tenant_id: int, source: str, amount_nanocredits: int) -> None:
    """Count credits that came into (positive) wallets from a source, such as `deposit`. Only ever adds."""
    if amount_nanocredits <= 0:
        raise ValueError("totals only grow")
    key, sums = ("tenant_id", "source"), ("movements", "amount_nanocredits")
    bulk.insert_adding(connection, credit_totals.name, key, sums, [(tenant_id, source, 1, amount_nanocredits)])


def _grouped(calls: Counted) -> dict[_Key, _Group]:
    """Calls by what they have in common: one look-up a call, all sums are then made over whole groups."""
    groups: defaultdict[tuple[int | str, ...], list[PricedUsage]] = defaultdict(list)
    for call, verdict in calls:
        usage = call.usage
        groups[
            call.priced_at_ns // DAY_NS,
            verdict,
            usage.event,
            call.provider,
            call.model,
            usage.dept,
            usage.project,
            usage.task,
            usage.route,
            usage.region,
            call.price_version_ids,
            usage.service_tier,
        ].append(call)
    return {_Key._make(key): _Group.of(group) for key, group in groups.items()}


def _add_usage(
    connection: Connection,
    tenant_id: int,
    groups: Mapping[_Key, _Group],
    labels: TotalLabels,
    *,
    reversed: bool,
) -> None:
    placed = labels.usage.places(connection, tenant_id, (key.usage for key in groups))
    sizes: Counter[tuple[str, ...]] = Counter()
    for key, group in groups.items():
        sizes[key.usage] += len(group.calls)
    labels.folded += folded(placed, sizes)
    days: list[tuple[DayKey, list[int]]] = []
    routes = labels.service.places(connection, tenant_id, (key.service for key in groups))
    costs: list[tuple[CostKey, list[int]]] = []
    sums: defaultdict[tuple[str, ...], Sequence[int]] = defaultdict(lambda: (0,) * len(_USAGE_SUMS))
    cards: defaultdict[tuple[str, ...], Sequence[int]] = defaultdict(lambda: (0,) * len(_CARD_SUMS))
    for key, group in groups.items():
        row = (*place(placed, key.usage), key.verdict)
        figures = _usage_sums(key.verdict, group)
        sums[row] = _added(sums[row], figures)
        if key.verdict is Verdict.CHARGED:
            card = row[1], row[2], key.price_version_ids
            cards[card] = _added(cards[card], (len(group.calls), *group.tokens, figures[-2]))
            used = [len(group.calls), *group.tokens, *figures[-2:]]
            names = row[0], *row[3:6], *place(routes, key.service)[2:], known_tier(key.service_tier)
            costs.append(((key.day, *card, *names), [-figure for figure in used] if reversed else used))
        tokens_in, money = group.tokens.inclusive_input, figures[-2:]
        day = [len(group.calls), group.errors, tokens_in, group.tokens.total - tokens_in, *money]
        days.append(((key.day, row[0], row[1], row[2], key.verdict), [-figure for figure in day] if reversed else day))
    rows = [(tenant_id, *key, int(reversed), *row) for key, row in sorted(sums.items())]
    bulk.insert_adding(connection, usage_totals.name, _USAGE_KEY, _USAGE_SUMS, rows)
    rows = [(tenant_id, *key, int(reversed), *row) for key, row in sorted(cards.items())]
    bulk.insert_adding(connection, card_totals.name, _CARD_KEY, _CARD_SUMS, rows)
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
    sums: defaultdict[tuple[str, ...], Sequence[int]] = defaultdict(lambda: (0,) * len(_SERVICE_SUMS))
    for label, row in counted:
        under = place(placed, label)
        sums[under] = _added(sums[under], row)
    table_rows = [(tenant_id, *under, *row) for under, row in sorted(sums.items())]
    bulk.insert_adding(connection, service_totals.name, _SERVICE_KEY, _SERVICE_SUMS, table_rows)


def _added(left: Sequence[int], right: Sequence[int]) -> list[int]:
    return list(map(add, left, right))


def _usage_sums(verdict: Verdict, group: _Group) -> list[int]:
    """The values of `_USAGE_SUMS`."""
    money = (0, 0)
    if verdict is Verdict.CHARGED:
        costs = [call.cost_nanousd or 0 for call in group.calls]
        charges = [call.charge_nanocredits or 0 for call in group.calls]
        money = (sum(costs), sum(charges))
    return [len(group.calls), group.errors, *group.tokens, *money]


def _service_sums(group: _Group) -> list[int]:
    """The values of `_SERVICE_SUMS`."""
    usages = group.usages
    latencies = sorted([usage.latency_ns for usage in usages])
    if latencies[-1] > _MAX_LATENCY_NS:
        latencies = [min(latency, _MAX_LATENCY_NS) for latency in latencies]
    first_chunks = sorted([u.time_to_first_chunk_ns for u in usages if u.time_to_first_chunk_ns is not None])
    # Where nobody says whether a cache was hit, the provider's own prompt cache counts.
    hits = [
        usage.buckets.cache_read > 0
        for usage in usages
        if usage.buckets is not None and usage.quality.cache_hit is None and usage.operation != _EMBEDDINGS
    ]
    return [
        len(usages),
        group.errors,
        sum(latencies) // 1000,
        *[bisect_right(latencies, bound) for bound in _LATENCY_BOUNDS_NS],
        len(first_chunks),
        sum(first_chunks) // 1000,
        *[bisect_right(first_chunks, bound) for bound in _FIRST_CHUNK_BOUNDS_NS],
        group.tokens.inclusive_input,
        group.tokens.total - group.tokens.inclusive_input,
        *_quality_sums([usage.quality for usage in usages], len(hits), sum(hits)),
    ]


def _quality_sums(told: Sequence[Quality], lookups: int, hits: int) -> list[int]:
    """The values of `QUALITY_COLUMNS`, with what is known of the cache otherwise."""
    said = [quality for quality in told if quality is not NO_QUALITY]
    rates = [quality.citation_rate_ppm for quality in said if quality.citation_rate_ppm is not None]
    return [
        lookups + sum(quality.cache_hit is not None for quality in said),
        hits + sum(quality.cache_hit or 0 for quality in said),
        len(rates),
        sum(rates),
        sum(quality.human_reviewed or 0 for quality in said),
        sum(quality.review_approved or 0 for quality in said),
    ]
