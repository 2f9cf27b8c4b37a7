"""Sixty days of a made-up product: seasons, growth, noise, launches, and forty known incidents. A seed makes one world,
always the same.

Everything is counted in steps of two minutes. What comes out is what a collector would export: counters that grow.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from typing import NamedTuple

STEP_MIN = 2
DAYS = 60
STEPS = DAYS * 24 * 60 // STEP_MIN
QUIET_DAYS = 22
"""Three weeks to learn from; incidents begin after them."""
INCIDENTS = 40
KINDS = ("price_change", "cache_off", "runaway_agent", "prompt_growth", "model_swap", "leaked_key", "threefold")

TUNED = 7
"""The seed of the world that the rules were tuned on."""
HELD_OUT = (101, 202)
"""Seeds of worlds that were not used while the rules were tuned."""

_HOUR = 60 // STEP_MIN
_DAY = 24 * _HOUR


class Model(NamedTuple):
    """List prices in US dollars per 1,000 tokens."""

    provider: str
    name: str
    input: float
    cache_read: float
    output: float


CHEAP = Model("openai", "gpt-4o-mini", 0.00015, 0.000075, 0.0006)
DEAR = Model("openai", "gpt-4o", 0.0025, 0.00125, 0.01)
SMALL = Model("anthropic", "claude-haiku-4-5", 0.001, 0.0001, 0.005)
LARGE = Model("anthropic", "claude-sonnet-4-5", 0.003, 0.0003, 0.015)
LARGEST = Model("anthropic", "claude-opus-4-1", 0.015, 0.0015, 0.075)
MODELS = (CHEAP, DEAR, SMALL, LARGE, LARGEST)


class Product(NamedTuple):
    """One event of one department, as it is on an ordinary weekday on average."""

    dept: str
    event: str
    model: Model
    calls_a_s: float
    input_tokens: float
    cached: float
    """Share of the input that a cache spares."""
    output_tokens: float
    swapped_to: Model
    """A dearer model, which a wrong route would send the calls to."""


PRODUCTS = (
    Product("support", "chat.reply", CHEAP, 9.0, 1500, 0.6, 250, DEAR),
    Product("support", "search.answer", LARGE, 0.6, 1200, 0.3, 200, LARGEST),
    Product("catalogue", "image.caption", SMALL, 1.8, 1300, 0.7, 120, LARGE),
    Product("research", "agent.run", DEAR, 0.9, 1800, 0.5, 200, LARGEST),
)


class Incident(NamedTuple):
    """Something that went wrong with one product between two steps, by a factor."""

    kind: str
    product: int
    start: int
    end: int
    factor: float


class Launch(NamedTuple):
    """More traffic that is meant: rises within `ramp` steps, and stays until its end."""

    product: int
    start: int
    ramp: int
    end: int
    factor: float


_LAUNCHES = (
    Launch(0, 26 * _DAY + 9 * _HOUR, 8 * _HOUR, STEPS, 1.6),
    Launch(2, 37 * _DAY + 10 * _HOUR, 1 * _HOUR, 37 * _DAY + 15 * _HOUR, 2.0),
    Launch(1, 48 * _DAY + 8 * _HOUR, 24 * _HOUR, STEPS, 1.8),
)
"""A product launch, a campaign of an afternoon, a slow rise."""


def launches(seed: int = TUNED) -> tuple[Launch, ...]:
    """What is launched in a world: in other worlds than that of the tuning up to three days earlier or later."""
    if seed == TUNED:
        return _LAUNCHES
    chance = random.Random(seed + 1)
    moved = []
    for launch in _LAUNCHES:
        days, times = chance.randint(-3, 3) * _DAY, chance.uniform(0.9, 1.1)
        end = launch.end if launch.end == STEPS else launch.end + days
        moved.append(launch._replace(start=launch.start + days, end=end, factor=launch.factor * times))
    return tuple(moved)


def sizes(seed: int = TUNED) -> tuple[float, ...]:
    """How busy each product is in a world, of what it is in that of the tuning."""
    chance = random.Random(seed + 2)
    return tuple(1.0 if seed == TUNED else chance.uniform(0.6, 1.6) for _ in PRODUCTS)


def incidents(seed: int = TUNED) -> list[Incident]:
    """Forty incidents, none of which touches another of the same product."""
    chance = random.Random(seed)
    made: list[Incident] = []
    launched = launches(seed)
    free_from = [QUIET_DAYS * _DAY] * len(PRODUCTS)
    span = (STEPS - QUIET_DAYS * _DAY - 12 * _HOUR) // INCIDENTS
    for number in range(INCIDENTS):
        kind = KINDS[number % len(KINDS)]
        start = QUIET_DAYS * _DAY + number * span + chance.randrange(span)
        candidates = [n for n in range(len(PRODUCTS)) if free_from[n] <= start and not _launching(launched, n, start)]
        product = 3 if kind == "runaway_agent" and 3 in candidates else chance.choice(candidates)
        length = chance.randrange(3 * _HOUR, 6 * _HOUR)
        factor = {
            "price_change": chance.uniform(1.5, 2.0),
            "cache_off": 0.05,
            "runaway_agent": chance.uniform(4, 8),
            "prompt_growth": chance.uniform(2.2, 3.5),
            "model_swap": 1.0,
            "leaked_key": chance.uniform(3.5, 6),
            "threefold": 3.0,
        }[kind]
        made.append(Incident(kind, product, start, start + length, factor))
        free_from[product] = start + length + 12 * _HOUR
    return made


class Step(NamedTuple):
    """What one product did during one step."""

    product: int
    model: Model
    calls: int
    input_tokens: float
    cached_tokens: float
    output_tokens: float
    cost_usd: float
    price_factor: float


def history(seed: int = TUNED) -> Iterator[list[Step]]:
    """The steps of all products, one list a step."""
    chance = random.Random(seed + 4)
    happening, launched, size = incidents(seed), launches(seed), sizes(seed)
    drift = [0.0] * len(PRODUCTS)
    for step in range(STEPS):
        row = []
        for number, product in enumerate(PRODUCTS):
            drift[number] = 0.995 * drift[number] + chance.gauss(0, 0.008)
            now = [i for i in happening if i.product == number and i.start <= step < i.end]
            usual = size[number] * math.exp(drift[number]) * _launched(launched, number, step)
            row.append(_step(number, product, step, usual, now, chance))
        yield row


def _step(number: int, product: Product, step: int, usual: float, now: list[Incident], chance: random.Random) -> Step:
    mean = product.calls_a_s * STEP_MIN * 60 * _season(step) * usual
    model, cached, tokens_in, price = product.model, product.cached, product.input_tokens, 1.0
    for incident in now:
        if incident.kind in ("runaway_agent", "leaked_key", "threefold"):
            mean *= incident.factor
        elif incident.kind == "cache_off":
            cached = incident.factor
        elif incident.kind == "prompt_growth":
            tokens_in *= incident.factor
        elif incident.kind == "model_swap":
            model = product.swapped_to
        elif incident.kind == "price_change":
            price = incident.factor
    calls = max(0, round(chance.gauss(mean, math.sqrt(max(mean, 1)) * 1.5)))
    spread = 1 + chance.gauss(0, 0.25 / math.sqrt(max(calls, 1)))
    whole = calls * tokens_in * spread
    read, out = whole * cached, calls * product.output_tokens * spread
    cost = price * ((whole - read) * model.input + read * model.cache_read + out * model.output) / 1000
    return Step(number, model, calls, whole - read, read, out, cost, price)


def _season(step: int) -> float:
    """Nights and weekends, and growth of two percent a week."""
    hour = step / _HOUR % 24
    day = 0.65 - 0.35 * math.cos((hour - 3) / 24 * 2 * math.pi)
    weekday = step // _DAY % 7
    return float(day * (0.55 if weekday >= 5 else 1.0) * 1.02 ** (step / _DAY / 7))


def _launched(launched: Sequence[Launch], number: int, step: int) -> float:
    factor = 1.0
    for launch in launched:
        if launch.product == number and launch.start <= step < launch.end:
            factor *= 1 + (launch.factor - 1) * min(1.0, (step - launch.start) / launch.ramp)
    return factor


def _launching(launched: Sequence[Launch], number: int, step: int) -> bool:
    """Whether a launch is so new that an incident could not be told from it."""
    return any(
        launch.product == number and launch.start - _DAY // 2 <= step <= min(launch.end, launch.start + 8 * _DAY)
        for launch in launched
    )
