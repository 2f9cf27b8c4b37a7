"""Sum what calls add to the totals and roll-ups, once for all tables. Pure and additive: the sums of two groups of
calls are the sums of both. So they can be computed by reader processes, and added by the thread that commits.
"""

import json
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Sequence
from operator import add, itemgetter
from typing import Any, NamedTuple, Self

from farebox_collector.ledger.credits.spending import SpendingKey
from farebox_collector.ledger.journal.usage_rollups import WalletKey
from farebox_collector.ledger.tables.rollups import DAY_SUMS
from farebox_collector.ledger.tables.service import FIRST_CHUNK_BOUNDS_MS, LATENCY_BOUNDS_MS
from farebox_collector.ledger.tables.usage_columns import TOKEN_COLUMNS, Tokens, token_columns
from farebox_collector.ledger.usage.columns import Columns, shared_value
from farebox_collector.ledger.usage.stakes import Stake, stakes_of
from farebox_collector.model.moments import DAY_NS
from farebox_collector.model.records import NO_QUALITY, Buckets, PricedUsage, Quality
from farebox_collector.model.verdicts import ONE_CALL, STORED, Verdict

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
_UNCHARGED = STORED - {Verdict.CHARGED}
_INPUT_TOKENS, _OUTPUT_TOKENS = token_columns(Tokens.INPUT), token_columns(Tokens.OUTPUT)
_MONEY_COLUMNS = ("cost_nanousd", "charge_nanocredits")
_WALLET_KEY = ("day", "wallet", "event", "provider", "model", "rule_version_id")
_SPENDING = ("day", "wallet", "user_id", "dept", "project", "charge_nanocredits")
_SERVICE_KEY = ("provider", "model", "route", "region")
_CACHE_FACTS = ("cache_read_tokens", "cache_hit", "operation")
_SERVICE_FACTS = ("error_type", "latency_ns", "time_to_first_chunk_ns", "operation", *TOKEN_COLUMNS, *Quality._fields)

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
    wallets: dict[WalletKey, Sequence[int]]
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
    def of(cls, calls: Sequence[PricedUsage], columns: Columns | None = None) -> Self:
        """Return the sums of calls as the books have them; see `sums_of`."""
        sums = sums_of(calls, columns)
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


def sums_of(calls: Sequence[PricedUsage], columns: Columns | None = None) -> CallSums:
    """Return the sums of calls as the books have them. `columns` are the calls as columns, if they exist already.

    Most figures are the same for all calls, or zero, and a column has such a figure once.
    """
    if not calls:
        return CallSums({}, {}, {}, {}, frozenset(), [])
    columns = columns or Columns.of(calls, [None] * len(calls))
    days = shared_value([at_ns // DAY_NS for at_ns in columns.each("priced_at_ns")])
    columns = Columns(columns.size, {**columns.values, "day": days})
    charged = columns.having("verdict", {Verdict.CHARGED})
    return CallSums(
        _by_group(columns),
        _by_service(columns.having("verdict", ONE_CALL)),
        _by_wallet(charged),
        _by_spender(charged),
        frozenset(columns.having("verdict", _UNCHARGED).each("wallet")),
        [] if columns.values["unusual"] == "" else [stake for call in calls for stake in stakes_of(call)],
    )


def _by_group(columns: Columns) -> dict[GroupKey, Figures]:
    """Return the sums of groups. Only charges count as money."""
    keys = columns.rows(*GroupKey._fields)
    figures = columns.zipped(1, _errors(columns), *map(columns.numbers, (*TOKEN_COLUMNS, *_MONEY_COLUMNS)))
    found = {}
    for (day, verdict, *names), row in _added_up(keys, figures).items():
        key = GroupKey(day, Verdict(verdict), *names)
        found[key] = sums = Figures(row)
        if key.verdict is not Verdict.CHARGED:
            sums[_MONEY] = (0, 0)
    return found


def _by_wallet(charged: Columns) -> dict[WalletKey, Sequence[int]]:
    keys = charged.rows(*_WALLET_KEY)
    tokens = charged.total(_INPUT_TOKENS), charged.total(_OUTPUT_TOKENS)
    return _added_up(keys, charged.zipped(1, _errors(charged), *tokens, *map(charged.numbers, _MONEY_COLUMNS)))


def _by_spender(charged: Columns) -> dict[SpendingKey, int]:
    if not any(charged.values[name] for name in ("user_id", "dept", "project")):
        return {}
    sums: defaultdict[SpendingKey, int] = defaultdict(int)
    for day, wallet, user_id, dept, project, charge in charged.rows(*_SPENDING):
        if dept or project or user_id:
            sums[day, wallet if user_id else "", user_id, dept, project] += charge or 0
    return dict(sums)


def _by_service(columns: Columns) -> dict[ServiceKey, list[int]]:
    return {key: _service_figures(group) for key, group in columns.groups(_SERVICE_KEY, _SERVICE_FACTS)}


def _added_up(keys: Iterable[Any], figures: Iterable[Sequence[int]]) -> dict[Any, Sequence[int]]:
    """Sum rows of figures by key."""
    sums: dict[Any, Sequence[int]] = {}
    for key, row in zip(keys, figures, strict=True):
        earlier = sums.get(key)
        # For wallets there is nearly always none: a batch has about as many wallets as calls.
        sums[key] = row if earlier is None else list(map(add, earlier, row))
    return sums


def _errors(columns: Columns) -> Any:
    """Return a column: 1 for a call that failed, else 0."""
    found = columns.values["error_type"]
    return [int(error != "") for error in found] if type(found) is list else int(found != "")


def encoded(sums: CallSums) -> str:
    """Return sums as JSON, without the amounts at stake.

    Lists, not objects: groups and services as rows of names and figures; the keys of wallets without the wallet, then
    all rows of wallets in one list, each with the index of its key; the rows of spenders; the other wallets.
    """
    places: dict[tuple[Any, ...], int] = {}
    wallets: list[Any] = []
    for key, figures in sums.wallets.items():
        wallets += (places.setdefault(_BUT_WALLET(key), len(places)), key[1], *figures)
    groups = [(*key, *figures) for key, figures in sums.groups.items()]
    services = [(*key, *figures) for key, figures in sums.services.items()]
    spending = [(*key, charge) for key, charge in sums.spending.items()]
    return _to_json((groups, services, list(places), wallets, spending, sorted(sums.uncharged)))


_to_json = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode
_GROUP_NAMES = len(GroupKey._fields)
_SERVICE_NAMES = 4
_BUT_WALLET = itemgetter(0, *range(2, len(_WALLET_KEY)))
_WALLET_ROW = 2 + len(DAY_SUMS)


class SumsInProgress:
    """The sum of texts that `encoded` made, added one after another."""

    def __init__(self) -> None:
        self._groups: dict[tuple[Any, ...], list[int]] = {}
        self._services: dict[Any, list[int]] = {}
        self._wallets: dict[Any, Sequence[int]] = {}
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


def _add(sums: dict[Any, Any], key: tuple[Any, ...], figures: Sequence[int]) -> None:
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


def _service_figures(calls: Columns) -> list[int]:
    """Return `SERVICE_SUMS` of calls, but with times in nanoseconds."""
    latencies = sorted(calls.each("latency_ns"))
    if latencies[-1] > _MAX_LATENCY_NS:
        latencies = [min(latency, _MAX_LATENCY_NS) for latency in latencies]
    first_chunks = sorted([time_ns for time_ns in calls.each("time_to_first_chunk_ns") if time_ns is not None])
    # If no cache hit is reported, the provider's own prompt cache counts.
    hits = [
        read > 0
        for read, reported, operation in calls.rows(*_CACHE_FACTS)
        if read is not None and reported is None and operation != _EMBEDDINGS
    ]
    rated = any(calls.values[name] is not None for name in Quality._fields)
    return [
        calls.size,
        calls.sum(_errors(calls)),
        sum(latencies),
        *[bisect_right(latencies, bound) for bound in _LATENCY_BOUNDS_NS],
        len(first_chunks),
        sum(first_chunks),
        *[bisect_right(first_chunks, bound) for bound in _FIRST_CHUNK_BOUNDS_NS],
        calls.sum(calls.total(_INPUT_TOKENS)),
        calls.sum(calls.total(_OUTPUT_TOKENS)),
        *quality_sums(map(Quality._make, calls.rows(*Quality._fields)) if rated else (), len(hits), sum(hits)),
    ]


def in_microseconds(figures: Sequence[int]) -> list[int]:
    """Return `SERVICE_SUMS` with times in microseconds. Of the sum, so that the parts of a sum do not matter."""
    return [figure // 1000 if place in _TIMES else figure for place, figure in enumerate(figures)]
