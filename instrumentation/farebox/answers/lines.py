"""Work of other models within an answer, each with its own price: an advisor, a compaction, images."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from farebox.guard import report

LINES_MAX: Final = 16
"""Maximum lines of an answer, after merging those of the same model and purpose."""
LINES_BYTES_MAX: Final = 8 * 1024
"""Maximum length of an answer's lines as JSON."""


@dataclass
class Line:
    """Tokens and units of one model for one purpose, not included in the call's counts."""

    label: str
    model: str
    provider: str = ""
    """Empty for the call's provider."""
    service_tier: str = ""
    speed: str = ""
    inference_region: str = ""
    tokens: dict[str, int] = field(default_factory=dict)
    """Disjoint buckets, such as ``input`` (not cached), ``cache_read``, ``cache_write`` and ``output``."""
    units: dict[str, int] = field(default_factory=dict)

    def described(self) -> dict[str, Any]:
        """Return the line as on the span, without empty fields."""
        parts: dict[str, Any] = {"label": self.label, "model": self.model}
        for name in ("provider", "service_tier", "speed", "inference_region"):
            if text := getattr(self, name):
                parts[name] = text
        parts["tokens"] = {name: count for name, count in self.tokens.items() if count}
        if units := {name: count for name, count in self.units.items() if count}:
            parts["units"] = units
        return parts


def as_attribute(lines: Iterable[Line]) -> str | None:
    """Return the lines as the text of a span attribute; None without lines.

    Lines of the same model and purpose are merged. Lines that do not fit are dropped and logged.
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
