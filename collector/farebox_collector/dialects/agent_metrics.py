"""Read the metrics in which coding agents tell their tokens. Pure.

They are never charged. A difference from the calls in the books shows that events were lost on the way.
"""

import math
from collections.abc import Iterable, Mapping
from hashlib import blake2b
from typing import NamedTuple

from farebox_collector.dialects.agents import INSTALLATION, ORGANIZATION, PERSON
from farebox_collector.dialects.attribution import WALLET
from farebox_collector.dialects.text import first_identity, first_text
from farebox_collector.model.records import MetricPoint

INPUT, OUTPUT = "input", "output"
_TYPES: Mapping[str, tuple[str, str, Mapping[str, str]]] = {
    "claude_code.token.usage": (
        "claude_code",
        "type",
        {"input": INPUT, "cacheRead": INPUT, "cacheCreation": INPUT, "output": OUTPUT},
    ),
    # The input includes the cache.
    "gemini_cli.token.usage": ("gemini_cli", "type", {"input": INPUT, "output": OUTPUT, "thought": OUTPUT}),
    "codex.turn.token_usage": ("codex_cli", "token_type", {"input": INPUT, "output": OUTPUT}),
}
"""Metric → tool, the attribute with the kind of tokens, and its values. Other values are parts of these."""
METRICS = frozenset(_TYPES)
_SERIES = ("session.id", "conversation.id", "model", "query_source", "agent.name", "effort", "installation.id")
_INSTANCE = ("service.instance.id", "host.name", "process.pid")
KEYS = frozenset({WALLET, INSTALLATION, ORGANIZATION, "type", "token_type", *PERSON, *_SERIES, *_INSTANCE})
MAX_TOKENS = 10**12
"""Largest value of a point that is believed."""


class MeterReading(NamedTuple):
    """One point of a series of tokens."""

    tool: str
    person: str
    """Who used them, as `agents` names the user of a call; empty if the metric does not tell."""
    kind: str
    """`INPUT`, which includes the cache, or `OUTPUT`."""
    series: bytes
    tokens: int
    is_delta: bool
    start_ns: int
    time_ns: int


def meter_readings(points: Iterable[MetricPoint]) -> list[MeterReading]:
    """Read the points of `METRICS`; those of unknown kinds, and values that are no counts, are left out."""
    found = []
    for point in points:
        tool, key, kinds = _TYPES[point.metric]
        kind = kinds.get(str(point.attributes.get(key, "")))
        if kind is None or not (math.isfinite(point.value) and 0 <= point.value <= MAX_TOKENS):
            continue
        person = first_identity(point.attributes, *PERSON, INSTALLATION, WALLET, ORGANIZATION)
        found.append(
            MeterReading(
                tool,
                person,
                kind,
                _series(point),
                round(point.value),
                point.is_delta,
                point.start_ns,
                point.time_ns,
            )
        )
    return found


def _series(point: MetricPoint) -> bytes:
    """Return what identifies the series of a point: its metric and all attributes that distinguish series."""
    parts = [point.metric, point.scope, *(first_text(point.attributes, key) for key in sorted(KEYS))]
    framed = b"".join(len(text).to_bytes(4, "big") + text for text in (part.encode(errors="replace") for part in parts))
    return blake2b(framed, digest_size=16, person=b"farebox.series").digest()
