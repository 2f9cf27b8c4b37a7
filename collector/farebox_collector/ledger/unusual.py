"""Facts that few calls have, as one text a record: ordinary calls have none, and cost nothing more. Pure.

The text is JSON by name, without what has its default, and the same for the same facts.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from farebox_collector.records import Buckets, ModelLine
from farebox_collector.units import read_units, stored_units


class UnusualFacts(NamedTuple):
    """The last fields of `records.UsageRecord`, which says what they mean."""

    speed: str = ""
    inference_region: str = ""
    other_lines: tuple[ModelLine, ...] = ()
    stated_cost_nanousd: int | None = None
    other_reading: Buckets | None = None
    exposure: str = ""


ORDINARY = UnusualFacts()


def stored_unusual(facts: tuple[Any, ...]) -> str:
    """Facts, in the order of `UnusualFacts`, as the books keep them; empty for an ordinary call."""
    if facts == ORDINARY:
        return ""
    plain = UnusualFacts._make(facts)._asdict()
    plain["other_lines"] = [_plain_line(line) for line in plain["other_lines"]]
    if plain["other_reading"] is not None:
        plain["other_reading"] = _told(plain["other_reading"])
    told = {name: value for name, value in plain.items() if value is not None and value not in ("", [])}
    return json.dumps(told, separators=(",", ":"))


def read_unusual(stored: str) -> UnusualFacts:
    """The facts of the text that `stored_unusual` made."""
    if not stored:
        return ORDINARY
    told = json.loads(stored)
    other = told.get("other_reading")
    return UnusualFacts(
        told.get("speed", ""),
        told.get("inference_region", ""),
        tuple(_line(line) for line in told.get("other_lines", ())),
        told.get("stated_cost_nanousd"),
        None if other is None else Buckets(**other),
        told.get("exposure", ""),
    )


def stored_column(columns: Sequence[tuple[Any, ...]]) -> Sequence[str]:
    """`stored_unusual` of many calls, from the values of each field of `UnusualFacts` in the order of the calls."""
    calls = len(columns[0])
    # Counting is a loop in C that compares by identity first.
    if all(values.count(usual) == calls for values, usual in zip(columns, ORDINARY, strict=True)):
        return ("",) * calls
    return [stored_unusual(facts) for facts in zip(*columns, strict=True)]


def _plain_line(line: ModelLine) -> dict[str, Any]:
    plain: Mapping[str, Any] = {
        **line._asdict(),
        "buckets": _told(line.buckets),
        "units": stored_units(line.units),
    }
    return {name: value for name, value in plain.items() if value not in ("", {})}


def _line(told: Mapping[str, Any]) -> ModelLine:
    given = {**told, "buckets": Buckets(**told.get("buckets", {})), "units": read_units(told.get("units", ""))}
    return ModelLine(**{"label": "", "provider": "", "model": "", **given})


def _told(buckets: Buckets) -> dict[str, int]:
    return {name: count for name, count in buckets._asdict().items() if count}
