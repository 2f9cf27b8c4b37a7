"""What other models did within one answer: an advisor, a compaction, images. Each has a price of its own."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from farebox.guard import report

LINES_MAX: Final = 16
"""How many lines one answer has at most, after those of one model for one purpose are taken together."""
LINES_BYTES_MAX: Final = 8 * 1024
"""How long the lines of one answer are at most, as JSON."""


@dataclass
class Line:
    """Tokens and units of one model for one purpose, none of which is among the counts of the call."""

    label: str
    model: str
    provider: str = ""
    """Empty: the provider of the call."""
    service_tier: str = ""
    speed: str = ""
    inference_region: str = ""
    tokens: dict[str, int] = field(default_factory=dict)
    """Disjoint buckets: ``input`` (not cached), ``cache_read``, ``cache_write``, ``output`` and the like."""
    units: dict[str, int] = field(default_factory=dict)

    def described(self) -> dict[str, Any]:
        """As it stands on the span; what is empty is left out."""
        parts: dict[str, Any] = {"label": self.label, "model": self.model}
        for name in ("provider", "service_tier", "speed", "inference_region"):
            if text := getattr(self, name):
                parts[name] = text
        parts["tokens"] = {name: count for name, count in self.tokens.items() if count}
        if units := {name: count for name, count in self.units.items() if count}:
            parts["units"] = units
        return parts


def as_attribute(lines: Iterable[Line]) -> str | None:
    """The lines as the text of a span attribute; None where there are none.

    Lines of one model for one purpose become one, and those that do not fit are left out, which the log says.
    """
    together: dict[tuple[str, ...], Line] = {}
    for line in lines:
        key = (line.label, line.model, line.provider, line.service_tier, line.speed, line.inference_region)
        known = together.setdefault(
            key, Line(line.label, line.model, line.provider, line.service_tier, line.speed, line.inference_region)
        )
        _add(known.tokens, line.tokens)
        _add(known.units, line.units)
    described = [
        line.described() for line in together.values() if any(line.tokens.values()) or any(line.units.values())
    ]
    if not described:
        return None
    kept = described[:LINES_MAX]
    text = json.dumps(kept, separators=(",", ":"))
    while len(text) > LINES_BYTES_MAX and kept:
        kept.pop()
        text = json.dumps(kept, separators=(",", ":"))
    if len(kept) < len(described):
        report("lines", f"farebox: an answer of {len(described)} models is charged for {len(kept)} of them only")
    return text if kept else None


def _add(sums: dict[str, int], counts: Mapping[str, int]) -> None:
    for name, count in counts.items():
        sums[name] = sums.get(name, 0) + count
