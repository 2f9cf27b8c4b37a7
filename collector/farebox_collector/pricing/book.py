"""The price book in memory: `PriceBook.rate_card(provider, model, at)` answers in well under a microsecond once asked.

Built from price versions; immutable, so that a reload swaps the whole book between two batches. Rates become integers
over one common denominator a card, so that a cost is exact until its single rounding.
"""

import json
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from math import lcm
from typing import NamedTuple

from farebox_collector.pricing.matching import (
    FALLBACK_PROVIDERS,
    Matcher,
    book_provider,
    compile_match,
    dashed_date,
)
from farebox_collector.records import PricedModel, PriceVersion

_LOOKUPS_REMEMBERED = 10_000
_LONGEST_NAME = 150
"""Longer names are no model's, whatever they begin with."""
_DAY_S = 86_400
_NS = 10**9


class RateCard(NamedTuple):
    """The rates of one model at one moment and context length, over a common denominator.

    A unit costs `rates[unit] / denominator` nano-USD a token. `input`, `output` and the rest are fields of `Buckets`.
    """

    provider: str
    model: str
    rates: Mapping[str, int]
    denominator: int
    version_ids: str
    """JSON list of the price versions behind the rates."""


class _Period(NamedTuple):
    """One stretch of validity of one model: the cards for growing context lengths."""

    daily_from_s: int
    daily_to_s: int
    thresholds: tuple[int, ...]
    """Ascending; card `i` applies when the inclusive input is over `thresholds[i]`, the first being 0."""
    cards: tuple[RateCard, ...]
    valid_from_ns: int
    valid_to_ns: int | None

    def covers(self, at_ns: int) -> bool:
        """Whether this period's prices hold at a moment."""
        if at_ns < self.valid_from_ns or (self.valid_to_ns is not None and at_ns >= self.valid_to_ns):
            return False
        if self.daily_from_s == self.daily_to_s:
            return True
        second = at_ns // _NS % _DAY_S
        if self.daily_from_s < self.daily_to_s:
            return self.daily_from_s <= second < self.daily_to_s
        return second >= self.daily_from_s or second < self.daily_to_s


class ModelRates:
    """All periods of one model; hours of the day take precedence over all-day prices, later starts over earlier."""

    def __init__(self, periods: Sequence[_Period]) -> None:
        self._periods = sorted(
            periods, key=lambda period: (period.daily_from_s == period.daily_to_s, -period.valid_from_ns)
        )

    def card(self, at_ns: int, inclusive_input: int) -> RateCard | None:
        """The card that holds at a moment for a context length; None in a gap."""
        for period in self._periods:
            if period.covers(at_ns):
                if inclusive_input <= 0:
                    return period.cards[0]
                # A cliff: over (not at) the threshold the whole call has the higher price.
                return period.cards[max(0, bisect_right(period.thresholds, inclusive_input - 1) - 1)]
        return None


class PriceBook:
    """Every price version and how models are recognised. Read-only; safe to share between threads."""

    def __init__(self, versions: Iterable[PriceVersion], models: Iterable[PricedModel]) -> None:
        by_model: defaultdict[tuple[str, str], list[PriceVersion]] = defaultdict(list)
        for version in versions:
            by_model[version.provider, version.model].append(version)
        self._versions = dict(by_model)
        self._matchers: defaultdict[str, list[tuple[str, Matcher]]] = defaultdict(list)
        for model in sorted(models, key=lambda model: (model.provider, model.position)):
            self._matchers[model.provider].append((model.model, compile_match(model.match)))
        self._compiled: dict[tuple[str, str], ModelRates] = {}
        self._found: dict[tuple[str, str], ModelRates | None] = {}

    def rates_for(self, reported_provider: str, reported_model: str) -> ModelRates | None:
        """The rates of a model as a span names it; None if the book does not know it."""
        key = (reported_provider, reported_model)
        try:
            return self._found[key]
        except KeyError:
            if len(self._found) >= _LOOKUPS_REMEMBERED:
                # Hostile or generated names: forget rather than grow.
                self._found.clear()
            usable = len(reported_model) <= _LONGEST_NAME and reported_model.isprintable()
            found = self._look_up(book_provider(reported_provider), reported_model.lower()) if usable else None
            self._found[key] = found
            return found

    def rate_for(self, provider: str, model: str, at_ns: int, inclusive_input: int = 0) -> RateCard | None:
        """The card of a model at a moment for a context length; None if unknown or in a gap of its prices."""
        rates = self.rates_for(provider, model)
        return None if rates is None else rates.card(at_ns, inclusive_input)

    def _look_up(self, provider: str, model: str) -> ModelRates | None:
        for name in dict.fromkeys((model, dashed_date(model))):
            for seller in (provider, *FALLBACK_PROVIDERS.get(provider, ())):
                for candidate, matches in self._matchers.get(seller, ()):
                    if matches(name) and (seller, candidate) in self._versions:
                        return self._compile(seller, candidate)
        return None

    def _compile(self, provider: str, model: str) -> ModelRates:
        key = (provider, model)
        if key not in self._compiled:
            self._compiled[key] = ModelRates(_periods(self._versions[key]))
        return self._compiled[key]


def _periods(versions: Sequence[PriceVersion]) -> list[_Period]:
    """Cut the versions of one model at every start and end, so that each stretch has one price a unit and threshold."""
    by_hours: defaultdict[tuple[int, int], list[PriceVersion]] = defaultdict(list)
    for version in versions:
        by_hours[version.daily_from_s, version.daily_to_s].append(version)
    periods = []
    for (daily_from_s, daily_to_s), rows in by_hours.items():
        starts = {row.valid_from_ns for row in rows} | {row.valid_to_ns for row in rows if row.valid_to_ns is not None}
        edges = sorted(starts)
        for start_ns, end_ns in zip(edges, [*edges[1:], None], strict=True):
            valid = [
                row
                for row in rows
                if row.valid_from_ns <= start_ns and (row.valid_to_ns is None or row.valid_to_ns > start_ns)
            ]
            if valid:
                thresholds = tuple(sorted({0} | {row.over_input_tokens for row in valid}))
                cards = tuple(rate_card(_applicable(valid, threshold)) for threshold in thresholds)
                periods.append(_Period(daily_from_s, daily_to_s, thresholds, cards, start_ns, end_ns))
    return periods


def _applicable(valid: Sequence[PriceVersion], threshold: int) -> list[PriceVersion]:
    """The versions over one threshold: for each unit the highest step at or below it."""
    by_unit: dict[str, PriceVersion] = {}
    for row in sorted(valid, key=lambda row: row.over_input_tokens):
        if row.over_input_tokens <= threshold:
            by_unit[row.unit] = row
    return list(by_unit.values())


def rate_card(versions: Sequence[PriceVersion]) -> RateCard:
    """The card that price versions make up, at most one a unit."""
    # USD per 1,000 to nano-USD per one.
    exact = {row.unit: Fraction(row.usd_per_1k) * 10**6 for row in versions}
    denominator = lcm(*(rate.denominator for rate in exact.values()))
    return RateCard(
        provider=versions[0].provider,
        model=versions[0].model,
        rates={unit: int(rate * denominator) for unit, rate in exact.items()},
        denominator=denominator,
        version_ids=json.dumps(sorted(row.id for row in versions), separators=(",", ":")),
    )
