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
from farebox_collector.ledger.tables.rollups import DAY_SUMS
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
from farebox_collector.model.verdicts import ONE_CALL, Verdict

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

SERVICE_SUMS = (
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
"""The sums of the service totals."""


_TIMES = frozenset(SERVICE_SUMS.index(name) for name in ("latency_us", "first_chunk_us"))


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
    def service(self) -> tuple[str, str, str, str]:
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


ServiceKey = tuple[str, str, str, str]
"""Provider, model, route and region."""


class CallSums(NamedTuple):
    """What a group of calls adds to the totals and roll-ups."""

    groups: dict[GroupKey, Figures]
    services: dict[ServiceKey, list[int]]
    """`SERVICE_SUMS` of the calls that count as one call each, but with times in nanoseconds."""
    wallets: dict[WalletKey, list[int]]
    """`DAY_SUMS` of charged calls. Legs are made from these too."""
    spending: dict[SpendingKey, int]
    """Charges in nanocredits by spender, for limits on spenders other than the wallet itself."""
    uncharged: frozenset[str]
    """The wallets of calls that are recorded and not charged."""
    stakes: list[Stake]
    """The amounts at stake with these calls."""


class BatchSums(NamedTuple):
    """What a batch of calls adds, as the books keep it until it is folded."""

    texts: tuple[str, ...]
    """The sums of each request, without stakes, as `encoded` makes them."""
    cost_nanousd: int
    charge_nanocredits: int
    stakes: list[Stake]

    @classmethod
    def of(cls, calls: Sequence[PricedUsage]) -> Self:
        """Return the sums of calls as the books have them."""
        sums = sums_of(calls)
        money = [figures.money for figures in sums.groups.values()]
        cost, charge = sum(cost for cost, _ in money), sum(charge for _, charge in money)
        return cls((encoded(sums),), cost, charge, sums.stakes)

    @classmethod
    def together(cls, parts: Sequence["BatchSums"]) -> Self:
        """Return the sums of several requests."""
        return cls(
            tuple(text for part in parts for text in part.texts),
            sum(part.cost_nanousd for part in parts),
            sum(part.charge_nanocredits for part in parts),
            [stake for part in parts for stake in part.stakes],
        )


def sums_of(calls: Sequence[PricedUsage]) -> CallSums:
    """Return the sums of calls as the books have them."""
    if not calls:
        return CallSums({}, {}, {}, {}, frozenset(), [])
    columns = _Columns.of(calls)
    groups: defaultdict[tuple[Any, ...], list[PricedUsage]] = defaultdict(list)
    for key, call in zip(columns.group_keys(), calls, strict=True):
        groups[key].append(call)
    services: defaultdict[ServiceKey, list[UsageRecord]] = defaultdict(list)
    for group_key, group in groups.items():
        if group_key[1] in ONE_CALL:
            services[GroupKey._make(group_key).service] += [call.usage for call in group]
    return CallSums(
        {GroupKey._make(key): _figures(key[1], group) for key, group in groups.items()},
        {key: _service_figures(usages) for key, usages in services.items()},
        _by_wallet(columns),
        _by_spender(columns),
        _uncharged(columns),
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


def _uncharged(columns: _Columns) -> frozenset[str]:
    verdicts = columns.call["verdict"]
    if verdicts.count(Verdict.CHARGED) == len(verdicts):
        return frozenset()
    of_calls = zip(columns.usage["wallet"], verdicts, strict=True)
    return frozenset([wallet for wallet, verdict in of_calls if verdict is not Verdict.CHARGED])


def _at_stake(columns: _Columns, calls: Sequence[PricedUsage]) -> list[Stake]:
    particulars = columns.call["particulars"]
    if particulars.count(None) == len(calls):
        return []
    return [stake for call in calls for stake in stakes_of(call)]


def encoded(sums: CallSums) -> str:
    """Return sums as JSON, without the amounts at stake.

    Lists, not objects: groups and services as rows of names and figures; the keys of wallets without the wallet, then
    all rows of wallets in one list, each with the index of its key; the rows of spenders; the other wallets.
    """
    places: dict[tuple[Any, ...], int] = {}
    wallets: list[Any] = []
    for (day, wallet, *rest), figures in sums.wallets.items():
        wallets += (places.setdefault((day, *rest), len(places)), wallet, *figures)
    groups = [(*key, *figures) for key, figures in sums.groups.items()]
    services = [(*key, *figures) for key, figures in sums.services.items()]
    spending = [(*key, charge) for key, charge in sums.spending.items()]
    return _to_json((groups, services, list(places), wallets, spending, sorted(sums.uncharged)))


_to_json = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode
_GROUP_NAMES = len(GroupKey._fields)
_SERVICE_NAMES = 4
_WALLET_ROW = 2 + len(DAY_SUMS)


class SumsInProgress:
    """The sum of texts that `encoded` made, added one after another."""

    def __init__(self) -> None:
        self._groups: dict[tuple[Any, ...], list[int]] = {}
        self._services: dict[Any, list[int]] = {}
        self._wallets: dict[Any, list[int]] = {}
        self._spending: defaultdict[Any, int] = defaultdict(int)
        self._uncharged: set[str] = set()

    def add(self, part: Any) -> None:
        """Add a text, after `json.loads`."""
        groups, services, keys, wallets, spenders, uncharged = part
        for row in groups:
            _add(self._groups, tuple(row[:_GROUP_NAMES]), row[_GROUP_NAMES:])
        for row in services:
            _add(self._services, tuple(row[:_SERVICE_NAMES]), row[_SERVICE_NAMES:])
        for place, wallet, *figures in zip(*[iter(wallets)] * _WALLET_ROW, strict=True):
            day, *rest = keys[place]
            _add(self._wallets, (day, wallet, *rest), figures)
        for *key, charge in spenders:
            self._spending[tuple(key)] += charge
        self._uncharged.update(uncharged)

    def add_sums(self, sums: CallSums) -> None:
        """Add sums that were made before."""
        for key, figures in sums.groups.items():
            _add(self._groups, tuple(key), figures)
        for service, figures_of in sums.services.items():
            _add(self._services, service, figures_of)
        for wallet, row in sums.wallets.items():
            _add(self._wallets, wallet, row)
        for spender, charge in sums.spending.items():
            self._spending[spender] += charge
        self._uncharged.update(sums.uncharged)

    def sums(self) -> CallSums:
        """Return what was added."""
        return CallSums(
            {
                GroupKey(day, Verdict(verdict), *names): Figures(figures)
                for (day, verdict, *names), figures in self._groups.items()
            },
            self._services,
            self._wallets,
            dict(self._spending),
            frozenset(self._uncharged),
            [],
        )


def summed(parts: Iterable[CallSums]) -> CallSums:
    """Return the sum of several sums."""
    total = SumsInProgress()
    for part in parts:
        total.add_sums(part)
    return total.sums()


def _add(sums: dict[Any, list[int]], key: tuple[Any, ...], figures: list[int]) -> None:
    earlier = sums.get(key)
    sums[key] = figures if earlier is None else list(map(add, earlier, figures))


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
    money = [0, 0]
    if verdict is Verdict.CHARGED:
        money = [sum([call.cost_nanousd or 0 for call in calls]), sum([call.charge_nanocredits or 0 for call in calls])]
    return Figures((len(usages), _errors(usages), *_tokens(usages), *money))


def _service_figures(usages: Sequence[UsageRecord]) -> list[int]:
    """Return `SERVICE_SUMS` of calls, but with times in nanoseconds."""
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
    tokens = Buckets._make(_tokens(usages))
    tokens_in = tokens.inclusive_input
    return [
        len(usages),
        _errors(usages),
        sum(latencies),
        *[bisect_right(latencies, bound) for bound in _LATENCY_BOUNDS_NS],
        len(first_chunks),
        sum(first_chunks),
        *[bisect_right(first_chunks, bound) for bound in _FIRST_CHUNK_BOUNDS_NS],
        tokens_in,
        tokens.total - tokens_in,
        *quality_sums([usage.quality for usage in usages], len(hits), sum(hits)),
    ]


def in_microseconds(figures: Sequence[int]) -> list[int]:
    """Return `SERVICE_SUMS` with times in microseconds. Of the sum, so that the parts of a sum do not matter."""
    return [figure // 1000 if place in _TIMES else figure for place, figure in enumerate(figures)]


def _errors(usages: Sequence[UsageRecord]) -> int:
    return len(usages) - [usage.error_type for usage in usages].count("")


def _tokens(usages: Sequence[UsageRecord]) -> list[int]:
    counted = [usage.buckets for usage in usages if usage.buckets is not None]
    return list(map(sum, zip(*counted, strict=True))) if counted else [0] * len(TOKEN_COLUMNS)
