"""Facts that few calls have and that change their price: `farebox.usage.*`, `farebox.cost.*`, `farebox.exposure`.

The keys are the same in every dialect. Values are bounded and checked; unusable ones are left out and flagged.
"""

import json
import re
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, NamedTuple

from farebox_collector.dialects.memo import SpanShape
from farebox_collector.dialects.reconcile import Reading
from farebox_collector.dialects.text import (
    MAX_BUCKET,
    InvalidCount,
    clean,
    count_of,
    first_count,
    first_text,
)
from farebox_collector.model.money import NANO, round_half_even
from farebox_collector.model.records import (
    Attributes,
    AttributeValue,
    Buckets,
    ModelLine,
    Rejected,
    UsageRecord,
)
from farebox_collector.model.units import InvalidUnit, Units, billable_units

SERVICE_TIER = "farebox.usage.service_tier"
"""The tier that served the call, for providers whose attributes have no field for it."""
_SPEED = "farebox.usage.speed"
_REGION = "farebox.usage.inference_region"
_EXPOSURE = "farebox.exposure"
_LINES = "farebox.usage.lines"
_STATED = "farebox.cost.stated_usd"
_EXPOSED_INPUT = "farebox.exposure.input_tokens"
_EXPOSED_OUTPUT = "farebox.exposure.output_tokens"

NAMES = frozenset({SERVICE_TIER, _SPEED, _REGION, _EXPOSURE})
_FOR_EACH = frozenset({_LINES, _STATED, _EXPOSED_INPUT, _EXPOSED_OUTPUT})
KEYS = NAMES | _FOR_EACH
ONCE = frozenset({_LINES, _STATED})

MAX_LINES = 16
MAX_LINES_TEXT = 8_000
"""Most lines of other models in one answer, and the longest text of lines, in characters."""
MAX_STATED_USD = 10_000
_WORD = re.compile(r"[a-z0-9][a-z0-9_.-]{0,39}")
_EVERYWHERE = frozenset({"global", "not_available", "default"})
_ORDINARY_SPEEDS = frozenset({"standard", "default", "normal"})
_UNUSABLE = ("billing_fact_unusable",)
_LINES_UNUSABLE = ("line_unusable",)


class Facts(NamedTuple):
    """Facts that calls of one kind have in common, besides tokens."""

    speed: str = ""
    inference_region: str = ""
    exposure: str = ""
    more: bool = False
    """Whether each call has facts of its own."""
    assumptions: tuple[str, ...] = ()


ORDINARY = Facts()


def facts_of(shape: SpanShape, inference_region: str = "") -> Facts:
    """Read the facts in a span's names; `inference_region` comes from the address."""
    if not inference_region and KEYS.isdisjoint(shape.keys):
        return ORDINARY
    speed, region, exposure = (first_text(shape.names, key).lower() for key in (_SPEED, _REGION, _EXPOSURE))
    speed = "" if speed in _ORDINARY_SPEEDS else speed
    region = "" if region in _EVERYWHERE else region
    usable = [not word or _WORD.fullmatch(word) is not None for word in (speed, region, exposure)]
    return Facts(
        speed if usable[0] else "",
        (region if usable[1] else "") or inference_region,
        exposure if usable[2] else "unknown",
        not _FOR_EACH.isdisjoint(shape.keys) or bool(exposure),
        () if all(usable) else _UNUSABLE,
    )


class Conditions(NamedTuple):
    """How the provider processed a call, in its own words; empty: not reported, or ordinary."""

    service_tier: str = ""
    speed: str = ""
    inference_region: str = ""


AS_ORDERED = Conditions()


def conditions_in(usage: Mapping[str, Any]) -> Conditions:
    """Read the conditions from a provider's usage object or from an answer's metadata."""
    tier = usage.get("service_tier") or usage.get("serviceTier") or usage.get("trafficType")
    if not tier and "performanceConfig" in usage:
        how = usage["performanceConfig"]
        tier = how.get("latency") if isinstance(how, dict) else None
    speed, region = usage.get("speed"), usage.get("inference_geo")
    if not (tier or speed or region):
        return AS_ORDERED
    words = [word.lower() if isinstance(word, str) else "" for word in (tier, speed, region)]
    tier, speed, region = (word if _WORD.fullmatch(word) else "" for word in words)
    return Conditions(tier, "" if speed in _ORDINARY_SPEEDS else speed, "" if region in _EVERYWHERE else region)


def as_processed(record: UsageRecord | Rejected, how: Conditions) -> UsageRecord | Rejected:
    """Add the conditions that the provider reported to a record."""
    if how == AS_ORDERED or isinstance(record, Rejected):
        return record
    return record._replace(
        service_tier=how.service_tier or record.service_tier,
        speed=how.speed or record.speed,
        inference_region=how.inference_region or record.inference_region,
    )


class CallFacts(NamedTuple):
    """The facts of one call."""

    lines: tuple[ModelLine, ...] = ()
    stated_cost_nanousd: int | None = None
    assumptions: tuple[str, ...] = ()


def call_facts(attributes: Attributes) -> CallFacts:
    """Read the lines of other models and the provider's stated cost."""
    lines, flags = lines_of(attributes[_LINES]) if _LINES in attributes else ((), ())
    stated = None
    if _STATED in attributes:
        stated = stated_nanousd(attributes[_STATED])
        flags += () if stated is not None else _UNUSABLE
    return CallFacts(lines, stated, flags)


def estimated(reading: Reading, attributes: Attributes) -> Reading:
    """Return the counts of a call whose end was not seen: the received counts, at least the estimate."""
    try:
        went_in, came_out = first_count(attributes, _EXPOSED_INPUT), first_count(attributes, _EXPOSED_OUTPUT)
    except InvalidCount:
        return reading._replace(assumptions=reading.assumptions + _UNUSABLE)
    if went_in is None and came_out is None:
        return reading
    went_in, came_out = min(went_in or 0, MAX_BUCKET), min(came_out or 0, MAX_BUCKET)
    arrived = reading.buckets or Buckets()
    missing = max(0, went_in - arrived.inclusive_input)
    return reading._replace(
        buckets=arrived._replace(input=arrived.input + missing, output=max(arrived.output, came_out))
    )


def lines_of(text: AttributeValue) -> tuple[tuple[ModelLine, ...], tuple[str, ...]]:
    """Read the lines in a JSON list, and flag unusable ones."""
    if not isinstance(text, str) or len(text) > MAX_LINES_TEXT:
        return (), _LINES_UNUSABLE
    try:
        found = json.loads(text) if text else []
    except (ValueError, RecursionError):
        return (), _LINES_UNUSABLE
    if not isinstance(found, list):
        return (), _LINES_UNUSABLE
    lines = [_line(line) for line in found[:MAX_LINES] if isinstance(line, dict)]
    usable = tuple(line for line in lines if line is not None)
    return usable, () if len(usable) == len(found) else _LINES_UNUSABLE


def _line(line: Mapping[str, Any]) -> ModelLine | None:
    """Read one line; None if it names no model or its counts are unusable."""
    names = {
        name: line.get(name) or ""
        for name in ("label", "provider", "model", "service_tier", "speed", "inference_region")
    }
    if not all(isinstance(name, str) for name in names.values()) or not names["model"]:
        return None
    try:
        tokens = _counts(line.get("tokens") or {}, Buckets._fields)
        units = billable_units(_counts(line.get("units") or {}, None))
    except (InvalidCount, InvalidUnit, TypeError, AttributeError):
        return None
    kept = {name: clean(text) for name, text in names.items()}
    return ModelLine(**kept, buckets=_sound(Buckets(**tokens)), units=units)


def _sound(buckets: Buckets) -> Buckets:
    return buckets._replace(reasoning=min(buckets.reasoning, buckets.output))


def _counts(line: Mapping[str, Any], names: tuple[str, ...] | None) -> dict[str, int]:
    """Return counts by name, each at most a billion. Raises InvalidCount for a name that is not in the list."""
    counts: dict[str, int] = {}
    for name, value in list(line.items())[:32]:
        count = count_of(name, value)
        if count is None or count > MAX_BUCKET or (names is not None and name not in names):
            raise InvalidCount("a line has an unusable count")
        counts[name] = count
    return counts


def stated_nanousd(value: object) -> int | None:
    """Convert an amount of US dollars to nano-USD; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, str | int | float) or len(str(value)) > 40:
        return None
    try:
        stated = Decimal(str(value).strip())
    except InvalidOperation:
        return None
    if not stated.is_finite() or not 0 <= stated <= MAX_STATED_USD:
        return None
    numerator, denominator = stated.as_integer_ratio()
    return round_half_even(numerator * NANO, denominator)


def plausible(units: Units) -> bool:
    """Return whether no unit exceeds what a call can use."""
    return all(count <= MAX_BUCKET for _, count in units)
