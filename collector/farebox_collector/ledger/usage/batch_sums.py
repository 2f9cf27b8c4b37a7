"""Sum what calls add to the totals and roll-ups, once for all tables. Pure and additive: the sums of two groups of
calls are the sums of both. So they can be computed by reader processes, and added by the thread that commits.
"""

import json
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from operator import add
from typing import Any, NamedTuple, Self

from farebox_collector.ledger.credits.spending import SpendingKey
from farebox_collector.ledger.journal.usage_rollups import WalletKey
from farebox_collector.ledger.tables.service import FIRST_CHUNK_BOUNDS_MS, LATENCY_BOUNDS_MS
from farebox_collector.ledger.tables.usage_columns import TOKEN_COLUMNS
from farebox_collector.ledger.usage.stakes import Stake, stakes_of
from farebox_collector.model.moments import DAY_NS
from farebox_collector.model.records import (
    NO_QUALITY,
    Buckets,
    PricedUsage,
    Quality,
    UsageRecord,
)
from farebox_collector.model.verdicts import Verdict

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
_LATENCY_BOUNDS_NS = tuple(bound * 1_000_000 for bound in LATENCY_BOUNDS_MS)
_FIRST_CHUNK_BOUNDS_NS = tuple(bound * 1_000_000 for bound in FIRST_CHUNK_BOUNDS_MS)
_MAX_LATENCY_NS = 86_400 * 10**9
"""Longest latency that is counted: one day, so that one broken clock does not distort the sum."""
_EMBEDDINGS = "embeddings"

# Input tokens first, then output tokens.
_OUTPUT, _REASONING = Buckets._fields.index("output"), Buckets._fields.index("reasoning")

# Positions of figures in a group's list.
_REQUESTS, _ERRORS = 0, 1
_TOKENS = slice(2, 2 + len(TOKEN_COLUMNS))
_MONEY = slice(_TOKENS.stop, _TOKENS.stop + 2)
_LATENCY_NS = _MONEY.stop
_LATENCIES = slice(_LATENCY_NS + 1, _LATENCY_NS + 1 + len(LATENCY_COLUMNS))
_FIRST_CHUNKS, _FIRST_CHUNK_NS = _LATENCIES.stop, _LATENCIES.stop + 1
_FIRST_CHUNKS_BY = slice(_FIRST_CHUNK_NS + 1, _FIRST_CHUNK_NS + 1 + len(FIRST_CHUNK_COLUMNS))
_QUALITY = slice(_FIRST_CHUNKS_BY.stop, _FIRST_CHUNKS_BY.stop + len(QUALITY_COLUMNS))


class GroupKey(NamedTuple):
    """The labels that the calls of one group share. The order is that of the tables' labels."""

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
        """Return its labels in the usage totals."""
        return self[2:8]

    @property
    def service(self) -> tuple[str, ...]:
        """Return its labels in the service totals."""
        return self.provider, self.model, self.route, self.region


class Figures(list[int]):
    """The sums of a group of calls. A list, because groups are added figure by figure."""

    @property
    def requests(self) -> int:
        """Return the number of calls."""
        return self[_REQUESTS]

    @property
    def errors(self) -> int:
        """Return the number of failed calls."""
        return self[_ERRORS]

    @property
    def tokens(self) -> Buckets:
        """Return their tokens."""
        return Buckets._make(self[_TOKENS])

    @property
    def money(self) -> tuple[int, int]:
        """Return their cost in nano-USD and their charge in nanocredits."""
        cost, charge = self[_MONEY]
        return cost, charge

    @property
    def usage(self) -> list[int]:
        """Return the sums of the usage totals: requests, errors, tokens, cost and charge."""
        return self[: _MONEY.stop]

    @property
    def service(self) -> list[int]:
        """Return the sums of the service totals, times in microseconds."""
        tokens = self.tokens
        return [
            self.requests,
            self.errors,
            self[_LATENCY_NS] // 1000,
            *self[_LATENCIES],
            self[_FIRST_CHUNKS],
            self[_FIRST_CHUNK_NS] // 1000,
            *self[_FIRST_CHUNKS_BY],
            tokens.inclusive_input,
            tokens.total - tokens.inclusive_input,
            *self[_QUALITY],
        ]


class CallSums(NamedTuple):
    """What a group of calls adds to the totals and roll-ups."""

    groups: dict[GroupKey, Figures]
    wallets: dict[WalletKey, list[int]]
    """`DAY_SUMS` of charged calls. Legs are made from these too."""
    spending: dict[SpendingKey, int]
    """Charges in nanocredits by spender, for limits on spenders other than the wallet itself."""
    stakes: list[Stake]
    """The amounts at stake with these calls."""


def sums_of(calls: Sequence[PricedUsage]) -> CallSums:
    """Return the sums of calls as the books have them."""
    if not calls:
        return CallSums({}, {}, {}, [])
    columns = _Columns.of(calls)
    groups: defaultdict[tuple[Any, ...], list[PricedUsage]] = defaultdict(list)
    for key, call in zip(columns.group_keys(), calls, strict=True):
        groups[key].append(call)
    return CallSums(
        {GroupKey._make(key): _figures(key[1], group) for key, group in groups.items()},
        _by_wallet(columns),
        _by_spender(columns),
        _at_stake(columns, calls),
    )


class _Columns(NamedTuple):
    """Calls as columns: a loop over columns takes a third of the time of a loop over calls."""

    usage: Mapping[str, Sequence[Any]]
    call: Mapping[str, Sequence[Any]]
    days: list[int]

    @classmethod
    def of(cls, calls: Sequence[PricedUsage]) -> Self:
        call = dict(zip(PricedUsage._fields, zip(*calls, strict=True), strict=True))
        usage = dict(zip(UsageRecord._fields, zip(*call["usage"], strict=True), strict=True))
        return cls(usage, call, [at_ns // DAY_NS for at_ns in call["priced_at_ns"]])

    def group_keys(self) -> Iterator[tuple[Any, ...]]:
        """Yield the values of `GroupKey`."""
        usage, call = self.usage, self.call
        tags = (usage[name] for name in ("dept", "project", "task", "route", "region"))
        model = (usage["event"], call["provider"], call["model"])
        return zip(
            self.days, call["verdict"], *model, *tags, call["price_version_ids"], usage["service_tier"], strict=True
        )


def _by_wallet(columns: _Columns) -> dict[WalletKey, list[int]]:
    usage, call = columns.usage, columns.call
    keys = zip(
        columns.days,
        usage["wallet"],
        usage["event"],
        call["provider"],
        call["model"],
        call["rule_version_id"],
        strict=True,
    )
    facts = (usage["error_type"], usage["buckets"], call["cost_nanousd"], call["charge_nanocredits"])
    sums: dict[WalletKey, list[int]] = {}
    for key, verdict, error, buckets, cost, charge in zip(keys, call["verdict"], *facts, strict=True):
        if verdict is not Verdict.CHARGED:
            continue
        tokens = (sum(buckets[:_OUTPUT]), sum(buckets[_OUTPUT:_REASONING])) if buckets else (0, 0)
        figures = [1, 1 if error else 0, *tokens, cost or 0, charge or 0]
        earlier = sums.get(key)
        # Nearly always one call: a batch has about as many wallets as calls.
        sums[key] = figures if earlier is None else list(map(add, earlier, figures))
    return sums


def _by_spender(columns: _Columns) -> dict[SpendingKey, int]:
    usage, call = columns.usage, columns.call
    spenders = [usage[name] for name in ("user_id", "dept", "project")]
    if not any(map(any, spenders)):
        return {}
    sums: defaultdict[SpendingKey, int] = defaultdict(int)
    facts = (call["verdict"], call["charge_nanocredits"], columns.days, usage["wallet"])
    for verdict, charge, day, wallet, user_id, dept, project in zip(*facts, *spenders, strict=True):
        if (dept or project or user_id) and verdict is Verdict.CHARGED:
            sums[day, wallet if user_id else "", user_id, dept, project] += charge or 0
    return dict(sums)


def _at_stake(columns: _Columns, calls: Sequence[PricedUsage]) -> list[Stake]:
    particulars = columns.call["particulars"]
    if particulars.count(None) == len(calls):
        return []
    return [stake for call in calls for stake in stakes_of(call)]


def added(sums: Sequence[CallSums]) -> CallSums:
    """Return the sum of several groups of calls."""
    if len(sums) == 1:
        return sums[0]
    groups: dict[GroupKey, Figures] = {}
    wallets: dict[WalletKey, list[int]] = {}
    spending: defaultdict[SpendingKey, int] = defaultdict(int)
    for part in sums:
        for group, figures in part.groups.items():
            of_group = groups.get(group)
            groups[group] = figures if of_group is None else Figures(map(add, of_group, figures))
        for wallet, row in part.wallets.items():
            of_wallet = wallets.get(wallet)
            wallets[wallet] = row if of_wallet is None else list(map(add, of_wallet, row))
        for spender, charge in part.spending.items():
            spending[spender] += charge
    return CallSums(groups, wallets, dict(spending), [stake for part in sums for stake in part.stakes])


def encoded(sums: CallSums) -> str:
    """Return sums as JSON, without the amounts at stake."""
    parts = [list(named.items()) for named in (sums.groups, sums.wallets, sums.spending)]
    return json.dumps(parts, separators=(",", ":"))


def decoded(parts: Any) -> CallSums:
    """Return the sums of a text that `encoded` made, after `json.loads`."""
    groups, wallets, spending = parts
    return CallSums(
        {GroupKey(key[0], Verdict(key[1]), *key[2:]): Figures(figures) for key, figures in groups},
        {tuple(key): figures for key, figures in wallets},
        {tuple(key): charge for key, charge in spending},
        [],
    )


def quality_sums(reports: Iterable[Quality], lookups: int = 0, hits: int = 0) -> list[int]:
    """Return the values of `QUALITY_COLUMNS`; cache lookups and hits known from elsewhere are added."""
    reported = [quality for quality in reports if quality is not NO_QUALITY]
    rates = [quality.citation_rate_ppm for quality in reported if quality.citation_rate_ppm is not None]
    return [
        lookups + sum(quality.cache_hit is not None for quality in reported),
        hits + sum(quality.cache_hit or 0 for quality in reported),
        len(rates),
        sum(rates),
        sum(quality.human_reviewed or 0 for quality in reported),
        sum(quality.review_approved or 0 for quality in reported),
    ]


def _figures(verdict: Verdict, calls: Sequence[PricedUsage]) -> Figures:
    """Return the sums of a group: builds lists first, because loops in C cost a tenth."""
    usages = [call.usage for call in calls]
    counted = [usage.buckets for usage in usages if usage.buckets is not None]
    tokens = list(map(sum, zip(*counted, strict=True))) if counted else [0] * len(TOKEN_COLUMNS)
    money = [0, 0]
    if verdict is Verdict.CHARGED:
        costs = [call.cost_nanousd or 0 for call in calls]
        charges = [call.charge_nanocredits or 0 for call in calls]
        money = [sum(costs), sum(charges)]
    latencies = sorted([usage.latency_ns for usage in usages])
    if latencies[-1] > _MAX_LATENCY_NS:
        latencies = [min(latency, _MAX_LATENCY_NS) for latency in latencies]
    first_chunks = sorted([u.time_to_first_chunk_ns for u in usages if u.time_to_first_chunk_ns is not None])
    # If no cache hit is reported, the provider's own prompt cache counts.
    hits = [
        usage.buckets.cache_read > 0
        for usage in usages
        if usage.buckets is not None and usage.quality.cache_hit is None and usage.operation != _EMBEDDINGS
    ]
    return Figures(
        (
            len(usages),
            len(usages) - [usage.error_type for usage in usages].count(""),
            *tokens,
            *money,
            sum(latencies),
            *[bisect_right(latencies, bound) for bound in _LATENCY_BOUNDS_NS],
            len(first_chunks),
            sum(first_chunks),
            *[bisect_right(first_chunks, bound) for bound in _FIRST_CHUNK_BOUNDS_NS],
            *quality_sums([usage.quality for usage in usages], len(hits), sum(hits)),
        )
    )
