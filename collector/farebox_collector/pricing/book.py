"""The price book in memory: `PriceBook.rate_for(provider, model, at)` takes about a microsecond after the first call.

Built from price versions and immutable: a reload swaps the whole book between two batches. Cards (`cards`) are compiled
when a model is first looked up, so that loading thousands of models costs nothing for those without calls.
"""

from bisect import bisect_right
from collections import ChainMap, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest
from typing import NamedTuple

from farebox_collector.model.records import STANDARD, PricedModel, PriceVersion
from farebox_collector.pricing.cards import RateCard, rate_card
from farebox_collector.pricing.conditions import (
    STANDARD_TIERS,
    canonical,
    chain,
    lacking,
)
from farebox_collector.pricing.matching import Recogniser
from farebox_collector.pricing.providers import book_provider

REQUESTED_MODEL = "priced_as_the_requested_model"
ANOTHER_PROVIDER = "provider_at_another_provider_s_price"
"""Flags of a card that does not match the call exactly."""

_LOOKUPS_REMEMBERED = 10_000
_DAY_S = 86_400
_NS = 10**9
_DAY_NS = _DAY_S * _NS
_FOREVER_NS = 2**63
"""After the largest time that a call can have."""


class _Times(NamedTuple):
    """A weekly time range, UTC."""

    daily_from_s: int
    daily_to_s: int
    """Half-open hours, which may cross midnight; equal ends mean all day."""
    weekdays: int
    """Monday 1, Tuesday 2, Wednesday 4, …; 0 is every day. The day is that of the priced time, not of the range's
    start."""

    def include(self, at_ns: int) -> bool:
        """Return whether a time lies in the range."""
        second = at_ns // _NS % _DAY_S
        return is_within(second, self.daily_from_s, self.daily_to_s) and is_on(at_ns // _DAY_NS, self.weekdays)


class _Period(NamedTuple):
    """One period, whole or limited to weekly times: the cards for increasing context lengths."""

    valid_from_ns: int
    valid_to_ns: int | None
    times: _Times | None
    """None is always."""
    thresholds: tuple[int, ...]
    """Ascending; card `i` applies if the inclusive input exceeds `thresholds[i]`. The first is 0."""
    cards: tuple[RateCard, ...]


class ModelRates:
    """All cards of one model, by condition; later periods first."""

    def __init__(self, versions: Sequence[PriceVersion]) -> None:
        self._versions = versions
        self.conditions = tuple(sorted({version.condition for version in versions} | {STANDARD}))
        """All conditions that the model has prices for."""
        self._standard = _periods(versions, (STANDARD,))
        # Keyed by conditions that the model has prices for, so that invented tier names add no entries.
        self._by_chain: dict[tuple[str, ...], list[_Period]] = {(STANDARD,): self._standard}

    def card(self, at_ns: int, inclusive_input: int, tier: str = "") -> RateCard | None:
        """Return the card in force at a time for a context length and condition; None in a gap.

        For a condition without any price, return the standard card; its `condition` says so.
        """
        return _card(self.periods(tier), at_ns, inclusive_input)

    def periods(self, tier: str) -> "Sequence[_Period]":
        """Return the periods of a service tier or another condition."""
        if tier in STANDARD_TIERS:
            return self._standard
        serving = tuple(one for one in chain(canonical(tier)) if one in self.conditions)
        periods = self._by_chain.get(serving)
        if periods is None:
            periods = self._by_chain[serving] = _periods(self._versions, serving)
        return periods


def _card(periods: Sequence[_Period], at_ns: int, inclusive_input: int) -> RateCard | None:
    """Return the card of the first period in force at a time, for a context length; None if there is none."""
    for valid_from_ns, valid_to_ns, times, thresholds, cards in periods:
        if at_ns < valid_from_ns or (valid_to_ns is not None and at_ns >= valid_to_ns):
            continue
        if times is None or times.include(at_ns):
            if len(cards) == 1 or inclusive_input <= 0:
                return cards[0]
            # A cliff: over (not at) the threshold the whole call has the higher price.
            return cards[max(0, bisect_right(thresholds, inclusive_input - 1) - 1)]
    return None


class Offer:
    """The prices for calls with the same provider, models and condition; the time is chosen per call.

    The model that answered decides. If it is unknown, the requested model decides, and the call is flagged.
    """

    __slots__ = (
        "__weakref__",
        "_answered",
        "_asked",
        "_asked_flags",
        "_condition",
        "_is_steady",
        "_known",
        "_latest",
        "_own_names",
        "has_steps",
    )

    def __init__(self, book: "PriceBook", provider: str, request_model: str, response_model: str, tier: str) -> None:
        self._answered = book.periods_for(provider, response_model, tier) if response_model else ()
        asks_another = request_model and request_model != response_model
        self._asked = book.periods_for(provider, request_model, tier) if asks_another else ()
        self._asked_flags: tuple[str, ...] = (REQUESTED_MODEL,) if response_model else ()
        self._condition = STANDARD if tier in STANDARD_TIERS else canonical(tier)
        self._known = book.conditions_of(provider, response_model, request_model) if "@" in self._condition else ()
        self._own_names = (book_provider(provider), provider)
        self._latest: tuple[int, int, tuple[RateCard | None, tuple[str, ...]]] = (0, 0, (None, ()))
        """Start, end and answer of the period that was asked about last, if it is the same throughout."""
        self.has_steps = any(len(period.cards) > 1 for period in (*self._answered, *self._asked))
        """Return whether a card depends on the context length."""
        self._is_steady = not self.has_steps and all(period.times is None for period in self._answered)

    def card(self, at_ns: int, inclusive_input: int) -> tuple[RateCard | None, tuple[str, ...]]:
        """Return the card in force at a time for a context length, with its flags; None if there is none."""
        from_ns, to_ns, found = self._latest
        if from_ns <= at_ns < to_ns:
            return found
        found = self._find(at_ns, inclusive_input)
        for period in self._answered if self._is_steady else ():
            if period.valid_from_ns <= at_ns and (period.valid_to_ns is None or at_ns < period.valid_to_ns):
                self._latest = period.valid_from_ns, period.valid_to_ns or _FOREVER_NS, found
        return found

    def _find(self, at_ns: int, inclusive_input: int) -> tuple[RateCard | None, tuple[str, ...]]:
        flags: tuple[str, ...] = ()
        card = _card(self._answered, at_ns, inclusive_input)
        if card is None:
            card = _card(self._asked, at_ns, inclusive_input)
            if card is None:
                return None, ()
            flags = self._asked_flags
        if self._condition != card.condition:
            flags += lacking(self._condition, card.condition, self._known)
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
        """Return a tenant's book: its negotiated prices in front of the prices of this book."""
        own = {key: [*self._listed.get(key, ()), *rows] for key, rows in _by_model(versions).items()}
        book = PriceBook((), ())
        # Shared, not copied: each of a thousand tenants with one negotiated price stores one more model.
        book._versions = ChainMap(own, self._listed)
        book._recogniser = self._recogniser
        return book

    def rates_for(self, reported_provider: str, reported_model: str) -> ModelRates | None:
        """Return the rates of a model as a span names it; None if the book does not know it."""
        key = (reported_provider, reported_model)
        try:
            return self._found[key]
        except KeyError:
            if len(self._found) >= _LOOKUPS_REMEMBERED:
                # Hostile or generated names: clear the cache instead of growing it.
                self._found.clear()
            named = self._recogniser.find(reported_provider, reported_model, self._versions)
            found = None if named is None else self._compile(named)
            self._found[key] = found
            return found

    def rate_for(
        self, provider: str, model: str, at_ns: int, inclusive_input: int = 0, tier: str = ""
    ) -> RateCard | None:
        """Return a model's card at a time for a context length and tier; None if unknown or in a gap of its prices."""
        rates = self.rates_for(provider, model)
        return None if rates is None else rates.card(at_ns, inclusive_input, tier)

    def periods_for(self, provider: str, model: str, tier: str) -> Sequence[_Period]:
        """Return the periods of a model's prices in a service tier; empty if the book does not know the model."""
        rates = self.rates_for(provider, model)
        return () if rates is None else rates.periods(tier)

    def conditions_of(self, provider: str, *models: str) -> tuple[str, ...]:
        """Return the priced conditions of the first of these models that the book knows."""
        found = (self.rates_for(provider, model) for model in models if model)
        return next((rates.conditions for rates in found if rates is not None), ())

    def offer(self, provider: str, request_model: str, response_model: str, tier: str) -> Offer:
        """Return the prices for calls with this provider, these models and this tier or other condition."""
        key = provider, request_model, response_model, tier
        try:
            return self._offers[key]
        except KeyError:
            if len(self._offers) >= _LOOKUPS_REMEMBERED:
                self._offers.clear()
            offer = self._offers[key] = Offer(self, *key)
            return offer

    @property
    def cached_names(self) -> int:
        """Return the number of cached names of models and conditions; bounded."""
        return max(len(self._found), len(self._offers))

    def compile_all(self) -> int:
        """Compile the cards of every model, as calls would one by one. Return the number of models."""
        for key in self._versions:
            self._compile(key)
        return len(self._compiled)

    def _compile(self, key: tuple[str, str]) -> ModelRates:
        if key not in self._compiled:
            self._compiled[key] = ModelRates(self._versions[key])
        return self._compiled[key]


def is_within(second: int, from_s: int, to_s: int) -> bool:
    """Return whether a second of the day lies in half-open hours. They may cross midnight; equal ends mean all day."""
    if from_s < to_s:
        return from_s <= second < to_s
    return from_s == to_s or second >= from_s or second < to_s


def _by_model(versions: Iterable[PriceVersion]) -> dict[tuple[str, str], list[PriceVersion]]:
    by_model: defaultdict[tuple[str, str], list[PriceVersion]] = defaultdict(list)
    for version in versions:
        by_model[version.provider, version.model].append(version)
    return dict(by_model)


def is_on(day: int, weekdays: int) -> bool:
    """Return whether a day, counted from 1970, is one of these weekdays; 0 is every day."""
    # 1970-01-01 was a Thursday.
    return not weekdays or bool(weekdays >> (day + 3) % 7 & 1)


def _periods(versions: Sequence[PriceVersion], serving: Sequence[str]) -> list[_Period]:
    """Cut the versions of one model at every start, end, hour and day, so that each piece has one price per unit.

    `serving` lists the usable conditions, the best first. A negotiated price replaces the list price of the same slot.
    Then, per unit, prices of a better condition precede others; within a condition, prices for weekly times precede
    prices for the whole week.
    """
    ranks = {condition: rank for rank, condition in enumerate(serving)}
    rows = [version for version in versions if version.condition in ranks]
    ends = {row.valid_to_ns for row in rows if row.valid_to_ns is not None}
    edges: list[int] = sorted({row.valid_from_ns for row in rows} | ends)
    times = _times(rows)
    periods: list[_Period] = []
    for start_ns, end_ns in reversed(list(zip_longest(edges, edges[1:]))):
        valid = [row for row in rows if row.valid_from_ns <= start_ns and not _over(row, start_ns)]
        if not valid:
            continue
        for some in times:
            chosen = _chosen([row for row in valid if some is None or _holds(row, some)], ranks)
            if chosen:
                best = min((row.condition for row in chosen), key=ranks.__getitem__)
                thresholds = tuple(sorted({0} | {row.over_input_tokens for row in chosen}))
                cards = tuple(rate_card(_applicable(chosen, threshold), best) for threshold in thresholds)
                periods.append(_Period(start_ns, end_ns, some, thresholds, cards))
    return periods


def _times(rows: Sequence[PriceVersion]) -> list[_Times | None]:
    """Return the weekly times between which prices change; [None], always, if they never change."""
    some_hours = [row for row in rows if row.daily_from_s != row.daily_to_s]
    hours = sorted({row.daily_from_s for row in some_hours} | {row.daily_to_s for row in some_hours}) or [0]
    masks = {row.weekdays for row in rows if row.weekdays}
    by_masks: defaultdict[tuple[bool, ...], int] = defaultdict(int)
    for day in range(7):
        by_masks[tuple(bool(mask >> day & 1) for mask in sorted(masks))] |= 1 << day
    weekdays = list(by_masks.values()) if masks else [0]
    if hours == [0] and weekdays == [0]:
        return [None]
    return [
        _Times(from_s, to_s, days)
        for from_s, to_s in zip(hours, [*hours[1:], hours[0]], strict=True)
        for days in weekdays
    ]


def _holds(row: PriceVersion, times: _Times) -> bool:
    """Return whether a price holds during `times`, a range of `_times` that lies entirely inside or outside its own."""
    on_days = not row.weekdays or bool(row.weekdays & times.weekdays)
    return on_days and is_within(times.daily_from_s, row.daily_from_s, row.daily_to_s)


def _over(row: PriceVersion, at_ns: int) -> bool:
    return row.valid_to_ns is not None and row.valid_to_ns <= at_ns


def _chosen(rows: Sequence[PriceVersion], ranks: Mapping[str, int]) -> list[PriceVersion]:
    """Return the prices that apply among those in force: for each unit the steps of the highest precedence."""
    slots: dict[tuple[str, int, str, bool], PriceVersion] = {}
    for row in sorted(rows, key=lambda row: row.tenant_id is not None):
        slots[row.unit, row.over_input_tokens, row.condition, _is_partial(row)] = row
    best: dict[str, tuple[int, bool]] = {}
    for row in slots.values():
        rank = ranks[row.condition], not _is_partial(row)
        best[row.unit] = min(best.get(row.unit, rank), rank)
    return [row for row in slots.values() if (ranks[row.condition], not _is_partial(row)) == best[row.unit]]


def _is_partial(row: PriceVersion) -> bool:
    """Return whether a price holds only at certain times of the week."""
    return row.daily_from_s != row.daily_to_s or row.weekdays != 0


def _applicable(chosen: Sequence[PriceVersion], threshold: int) -> list[PriceVersion]:
    """Return the versions for one threshold: for each unit the highest step at or below it."""
    by_unit: dict[str, PriceVersion] = {}
    for row in sorted(chosen, key=lambda row: row.over_input_tokens):
        if row.over_input_tokens <= threshold:
            by_unit[row.unit] = row
    return list(by_unit.values())
