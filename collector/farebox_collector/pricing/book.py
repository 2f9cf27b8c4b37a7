"""The price book in memory: `PriceBook.rate_for(provider, model, at)` answers in about a microsecond once asked.

Built from price versions; immutable, so that a reload swaps the whole book between two batches. Rates become integers
over one common denominator a card, so that a cost is exact until its single rounding. Cards are made when a model is
first asked for: a book of thousands of models is loaded without working out those that nobody calls.
"""

import json
from bisect import bisect_right
from collections import ChainMap, defaultdict
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import zip_longest
from math import lcm
from typing import NamedTuple

from farebox_collector.pricing.matching import Recogniser
from farebox_collector.pricing.providers import book_provider
from farebox_collector.records import STANDARD, Buckets, PricedModel, PriceVersion
from farebox_collector.units import PER_HOUR, REQUESTS, stand_in

STANDARD_TIERS = frozenset({"", "default", STANDARD, "auto", "on_demand", "on-demand", "standard_only"})
"""What providers call the service tier whose price is the standard one."""
_TIER_NAMES = {"batches": "batch", "batch_api": "batch"}

REQUESTED_MODEL = "priced_as_the_requested_model"
STANDARD_TIER = "service_tier_at_standard_price"
ANOTHER_PROVIDER = "provider_at_another_provider_s_price"
"""What is said of a card that is not quite that of the call."""

_LOOKUPS_REMEMBERED = 10_000
_DAY_S = 86_400
_NS = 10**9
_HOUR_S = 3600
_REASONING = "output_reasoning"
_TEXT = tuple(Buckets._fields.index(name) for name in ("input", "cache_read", "output", "reasoning"))


Marks = tuple[tuple[int, tuple[str, ...] | None], ...]
"""(field of `Buckets`, what to flag if it has tokens; None: it has no price)"""


@dataclass(frozen=True, slots=True)
class RateCard:
    """The rates of one model at one moment, in one condition and context length, over a common denominator.

    A unit costs `rates[unit] / denominator` nano-USD a piece.
    """

    provider: str
    model: str
    rates: Mapping[str, int]
    denominator: int
    version_ids: str
    """JSON list of the price versions behind the rates."""
    condition: str
    """What was asked for if the model has a price for it, else `standard`."""
    standard_units: frozenset[str]
    """Units whose price is the standard one although the card's condition is another."""
    bucket_rates: tuple[int, ...]
    """The rate of each field of `Buckets`, stand-ins included; for reasoning what it adds to that of output."""
    marks: Marks
    """Where there is something to flag."""
    text_rates: tuple[int, int, int, int]
    """Those of `bucket_rates` that most calls need: input, read from a cache, output, reasoning."""
    text_marks: Marks
    """`marks` of these."""
    fee: int
    """For each call, over the denominator."""
    fee_flags: tuple[str, ...]


class _Period(NamedTuple):
    """One stretch of time, of all days or of some hours of them: the cards for growing context lengths."""

    valid_from_ns: int
    valid_to_ns: int | None
    daily_from_s: int
    daily_to_s: int
    thresholds: tuple[int, ...]
    """Ascending; card `i` applies when the inclusive input is over `thresholds[i]`, the first being 0."""
    cards: tuple[RateCard, ...]


class ModelRates:
    """All cards of one model, by condition; later periods first."""

    def __init__(self, versions: Sequence[PriceVersion]) -> None:
        self._standard = _periods(versions, STANDARD)
        self._by_tier: dict[str, list[_Period]] = dict.fromkeys(STANDARD_TIERS, self._standard)
        for condition in {version.condition for version in versions} - {STANDARD}:
            self._by_tier[condition] = _periods(versions, condition)

    def card(self, at_ns: int, inclusive_input: int, tier: str = "") -> RateCard | None:
        """The card that holds at a moment for a context length and service tier; None in a gap.

        A tier that the model has no price for at all gets the standard card, whose `condition` says so.
        """
        return _card(self.periods(tier), at_ns, inclusive_input)

    def periods(self, tier: str) -> "Sequence[_Period]":
        """The periods of a service tier."""
        periods = self._by_tier.get(tier)
        if periods is None:
            name = tier.lower()
            periods = self._by_tier.get(_TIER_NAMES.get(name, name), self._standard)
        return periods


def _card(periods: Sequence[_Period], at_ns: int, inclusive_input: int) -> RateCard | None:
    """The card of the first period that holds at a moment, for a context length; None if there is none."""
    for valid_from_ns, valid_to_ns, daily_from_s, daily_to_s, thresholds, cards in periods:
        if at_ns < valid_from_ns or (valid_to_ns is not None and at_ns >= valid_to_ns):
            continue
        if daily_from_s == daily_to_s or is_within(at_ns // _NS % _DAY_S, daily_from_s, daily_to_s):
            if len(cards) == 1 or inclusive_input <= 0:
                return cards[0]
            # A cliff: over (not at) the threshold the whole call has the higher price.
            return cards[max(0, bisect_right(thresholds, inclusive_input - 1) - 1)]
    return None


class Offer:
    """What a book asks for calls that name provider, models and service tier alike: all of it but the moment's choice.

    The model that answered counts, else the one that was asked for, flagged.
    """

    __slots__ = ("__weakref__", "_answered", "_asked", "_asked_flags", "_own_names", "_own_tier", "has_steps")

    def __init__(self, book: "PriceBook", provider: str, request_model: str, response_model: str, tier: str) -> None:
        self._answered = book.periods_for(provider, response_model, tier) if response_model else ()
        asks_another = request_model and request_model != response_model
        self._asked = book.periods_for(provider, request_model, tier) if asks_another else ()
        self._asked_flags: tuple[str, ...] = (REQUESTED_MODEL,) if response_model else ()
        self._own_tier = tier not in STANDARD_TIERS
        self._own_names = (book_provider(provider), provider)
        self.has_steps = any(len(period.cards) > 1 for period in (*self._answered, *self._asked))
        """Whether a card depends on the context length."""

    def card(self, at_ns: int, inclusive_input: int) -> tuple[RateCard | None, tuple[str, ...]]:
        """The card that holds at a moment for a context length, and what is to be said of it; None if there is none."""
        flags: tuple[str, ...] = ()
        card = _card(self._answered, at_ns, inclusive_input)
        if card is None:
            card = _card(self._asked, at_ns, inclusive_input)
            if card is None:
                return None, ()
            flags = self._asked_flags
        if self._own_tier and card.condition == STANDARD:
            flags += (STANDARD_TIER,)
        return card, flags if card.provider in self._own_names else (*flags, ANOTHER_PROVIDER)


class PriceBook:
    """Price versions and how models are recognised. Read-only; safe to share between threads."""

    def __init__(self, versions: Iterable[PriceVersion], models: Iterable[PricedModel]) -> None:
        self._listed = _by_model(versions)
        self._versions: Mapping[tuple[str, str], list[PriceVersion]] = self._listed
        self._recogniser = Recogniser(models)
        self._compiled: dict[tuple[str, str], ModelRates] = {}
        self._found: dict[tuple[str, str], ModelRates | None] = {}
        self._offers: dict[tuple[str, str, str, str], Offer] = {}

    def with_own_prices(self, versions: Iterable[PriceVersion]) -> "PriceBook":
        """The book of a tenant that has negotiated prices: these, and for everything else those of this book."""
        own = {key: [*self._listed.get(key, ()), *rows] for key, rows in _by_model(versions).items()}
        book = PriceBook((), ())
        # Shared, not copied: a thousand tenants with a price of their own each hold one model more.
        book._versions = ChainMap(own, self._listed)
        book._recogniser = self._recogniser
        return book

    def rates_for(self, reported_provider: str, reported_model: str) -> ModelRates | None:
        """The rates of a model as a span names it; None if the book does not know it."""
        key = (reported_provider, reported_model)
        try:
            return self._found[key]
        except KeyError:
            if len(self._found) >= _LOOKUPS_REMEMBERED:
                # Hostile or generated names: forget rather than grow.
                self._found.clear()
            named = self._recogniser.find(reported_provider, reported_model, self._versions)
            found = None if named is None else self._compile(named)
            self._found[key] = found
            return found

    def rate_for(
        self, provider: str, model: str, at_ns: int, inclusive_input: int = 0, tier: str = ""
    ) -> RateCard | None:
        """The card of a model at a moment for a context length and tier; None if unknown or in a gap of its prices."""
        rates = self.rates_for(provider, model)
        return None if rates is None else rates.card(at_ns, inclusive_input, tier)

    def periods_for(self, provider: str, model: str, tier: str) -> Sequence[_Period]:
        """The periods of a model's prices in a service tier; none if the book does not know it."""
        rates = self.rates_for(provider, model)
        return () if rates is None else rates.periods(tier)

    def offer(self, provider: str, request_model: str, response_model: str, tier: str) -> Offer:
        """What calls cost that name provider, models and tier like this."""
        key = provider, request_model, response_model, tier
        try:
            return self._offers[key]
        except KeyError:
            if len(self._offers) >= _LOOKUPS_REMEMBERED:
                self._offers.clear()
            offer = self._offers[key] = Offer(self, *key)
            return offer

    def compile_all(self) -> int:
        """Make the cards of every model, as calls would one by one; returns how many models there are."""
        for key in self._versions:
            self._compile(key)
        return len(self._compiled)

    def _compile(self, key: tuple[str, str]) -> ModelRates:
        if key not in self._compiled:
            self._compiled[key] = ModelRates(self._versions[key])
        return self._compiled[key]


def is_within(second: int, from_s: int, to_s: int) -> bool:
    """Whether a second of the day lies in half-open hours, which may go past midnight; equal ends mean all day."""
    if from_s < to_s:
        return from_s <= second < to_s
    return from_s == to_s or second >= from_s or second < to_s


def _by_model(versions: Iterable[PriceVersion]) -> dict[tuple[str, str], list[PriceVersion]]:
    by_model: defaultdict[tuple[str, str], list[PriceVersion]] = defaultdict(list)
    for version in versions:
        by_model[version.provider, version.model].append(version)
    return dict(by_model)


def _periods(versions: Sequence[PriceVersion], condition: str) -> list[_Period]:
    """Cut the versions of one model at every start, end and hour of the day, so that each piece has one price a unit.

    A negotiated price stands in for the list price of the same thing. Of what is left, a price for some hours of the
    day comes before one for all day, and one for the condition before the standard one, a unit at a time.
    """
    rows = [version for version in versions if version.condition in (STANDARD, condition)]
    ends = {row.valid_to_ns for row in rows if row.valid_to_ns is not None}
    edges: list[int] = sorted({row.valid_from_ns for row in rows} | ends)
    some_hours = [row for row in rows if row.daily_from_s != row.daily_to_s]
    hours = sorted({row.daily_from_s for row in some_hours} | {row.daily_to_s for row in some_hours}) or [0]
    periods: list[_Period] = []
    for start_ns, end_ns in reversed(list(zip_longest(edges, edges[1:]))):
        valid = [row for row in rows if row.valid_from_ns <= start_ns and not _over(row, start_ns)]
        if not valid:
            continue
        for from_s, to_s in zip(hours, [*hours[1:], hours[0]], strict=True):
            chosen = _chosen([row for row in valid if is_within(from_s, row.daily_from_s, row.daily_to_s)])
            if chosen:
                thresholds = tuple(sorted({0} | {row.over_input_tokens for row in chosen}))
                cards = tuple(rate_card(_applicable(chosen, threshold), condition) for threshold in thresholds)
                periods.append(_Period(start_ns, end_ns, from_s, to_s, thresholds, cards))
    return periods


def _over(row: PriceVersion, at_ns: int) -> bool:
    return row.valid_to_ns is not None and row.valid_to_ns <= at_ns


def _chosen(rows: Sequence[PriceVersion]) -> list[PriceVersion]:
    """Of the prices that hold at one moment those that apply: for each unit the steps of what comes first."""
    slots: dict[tuple[str, int, str, bool], PriceVersion] = {}
    for row in sorted(rows, key=lambda row: row.tenant_id is not None):
        slots[row.unit, row.over_input_tokens, row.condition, row.daily_from_s == row.daily_to_s] = row
    best: dict[str, tuple[bool, bool]] = {}
    for row in slots.values():
        best[row.unit] = max(best.get(row.unit, (False, False)), _rank(row))
    return [row for row in slots.values() if _rank(row) == best[row.unit]]


def _rank(row: PriceVersion) -> tuple[bool, bool]:
    return row.condition != STANDARD, row.daily_from_s != row.daily_to_s


def _applicable(chosen: Sequence[PriceVersion], threshold: int) -> list[PriceVersion]:
    """The versions over one threshold: for each unit the highest step at or below it."""
    by_unit: dict[str, PriceVersion] = {}
    for row in sorted(chosen, key=lambda row: row.over_input_tokens):
        if row.over_input_tokens <= threshold:
            by_unit[row.unit] = row
    return list(by_unit.values())


def rate_card(versions: Sequence[PriceVersion], condition: str = STANDARD) -> RateCard:
    """The card that price versions make up, at most one a unit."""
    # USD per 1,000 to nano-USD per one.
    exact = {row.unit: Fraction(row.usd_per_1k) * 10**6 for row in versions}
    for seconds, hours in PER_HOUR.items():
        if hours in exact:
            exact.setdefault(seconds, exact[hours] / _HOUR_S)
    denominator = lcm(*(rate.denominator for rate in exact.values()))
    rates = {unit: int(rate * denominator) for unit, rate in exact.items()}
    own = any(row.condition == condition for row in versions)
    standard_units: frozenset[str] = frozenset()
    if own and condition != STANDARD:
        standard_units = frozenset(row.unit for row in versions if row.condition == STANDARD)
    bucket_rates, marks = _by_bucket(rates, standard_units)
    return RateCard(
        provider=versions[0].provider if versions else "",
        model=versions[0].model if versions else "",
        rates=rates,
        denominator=denominator,
        version_ids=json.dumps(sorted(row.id for row in versions), separators=(",", ":")),
        condition=condition if own else STANDARD,
        standard_units=standard_units,
        bucket_rates=bucket_rates,
        marks=marks,
        text_rates=tuple(bucket_rates[index] for index in _TEXT),  # type: ignore[arg-type]
        text_marks=tuple(mark for mark in marks if mark[0] in _TEXT),
        fee=rates.get(REQUESTS, 0),
        fee_flags=price_flags(REQUESTS, REQUESTS, standard_units) if REQUESTS in rates else (),
    )


def price_flags(unit: str, priced_as: str, standard_units: Container[str]) -> tuple[str, ...]:
    """What is said of a unit that is billed at another's price, or at the standard one in another condition."""
    flags: tuple[str, ...] = () if priced_as == unit else (f"{unit}_at_{priced_as}_price",)
    return (*flags, f"{unit}_at_standard_price") if priced_as in standard_units else flags


def _by_bucket(rates: Mapping[str, int], standard_units: Container[str]) -> tuple[tuple[int, ...], Marks]:
    """`RateCard.bucket_rates` and `RateCard.marks`."""
    found: list[int] = []
    marks: list[tuple[int, tuple[str, ...] | None]] = []
    for index, bucket in enumerate(Buckets._fields):
        unit = _REASONING if bucket == "reasoning" else bucket
        priced_as = stand_in(unit, rates)
        rate = 0 if priced_as is None else rates[priced_as]
        if unit is _REASONING:
            found.append(rate - rates.get("output", 0) if priced_as else 0)
        else:
            found.append(rate)
        flags = None if priced_as is None else price_flags(unit, priced_as, standard_units)
        if flags or (flags is None and unit is not _REASONING):
            marks.append((index, flags))
    return tuple(found), tuple(marks)
