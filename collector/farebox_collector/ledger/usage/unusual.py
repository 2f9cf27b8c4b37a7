"""Facts that few calls have, as one text a record: ordinary calls have none, and cost nothing more. Pure.

The text is JSON by name, without what has its default, and the same for the same facts. What pricing made of them is
under a name of its own, the last: it changes with the prices, and is none of the facts that tell spans apart.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from farebox_collector.model.records import (
    Buckets,
    LinePrice,
    ModelLine,
    Particulars,
    UnpricedUnit,
    UsageRecord,
)
from farebox_collector.model.units import read_units, stored_units


class UnusualFacts(NamedTuple):
    """The last fields of `records.UsageRecord`, which says what they mean."""

    speed: str = ""
    inference_region: str = ""
    other_lines: tuple[ModelLine, ...] = ()
    stated_cost_nanousd: int | None = None
    other_reading: Buckets | None = None
    exposure: str = ""


ORDINARY = UnusualFacts()
_FIELDS = slice(UsageRecord._fields.index("speed"), len(UsageRecord._fields))
_PRICED = "priced"


def unusual_facts(usage: UsageRecord) -> tuple[Any, ...]:
    """The facts of a record, in the order of `UnusualFacts`."""
    facts: tuple[Any, ...] = usage[_FIELDS]  # type: ignore[assignment]
    return facts


def stored_unusual(facts: tuple[Any, ...], particulars: Particulars | None = None) -> str:
    """Facts, in the order of `UnusualFacts`, and what pricing made of them, as the books keep them; empty for an
    ordinary call."""
    if facts == ORDINARY and particulars is None:
        return ""
    plain = UnusualFacts._make(facts)._asdict()
    plain["other_lines"] = [_plain_line(line) for line in plain["other_lines"]]
    if plain["other_reading"] is not None:
        plain["other_reading"] = _told(plain["other_reading"])
    told = {name: value for name, value in plain.items() if value is not None and value not in ("", [])}
    if particulars is not None:
        told[_PRICED] = stored_particulars(particulars)
    return json.dumps(told, separators=(",", ":"))


def facts_in(stored: str) -> str:
    """The text of the facts alone: what tells whether two spans are the same."""
    if not stored or _PRICED not in stored:
        return stored
    told = json.loads(stored)
    told.pop(_PRICED, None)
    return json.dumps(told, separators=(",", ":")) if told else ""


def stored_particulars(particulars: Particulars) -> dict[str, Any]:
    """What pricing made of a call, as plain values by name."""
    plain = {
        **particulars._asdict(),
        "lines": [list(line) for line in particulars.lines],
        "unpriced": [list(unit) for unit in particulars.unpriced],
    }
    return {name: value for name, value in plain.items() if value is not None and value != []}


def read_particulars(stored: str) -> Particulars | None:
    """What pricing made of a call, out of the text that `stored_unusual` made."""
    if not stored or _PRICED not in stored:
        return None
    return particulars_of(json.loads(stored).get(_PRICED))


def particulars_of(told: Mapping[str, Any] | None) -> Particulars | None:
    """The particulars of the values that `stored_particulars` gave."""
    if told is None:
        return None
    given = dict(told)
    given["lines"] = tuple(LinePrice(*line) for line in told.get("lines", ()))
    given["unpriced"] = tuple(UnpricedUnit(*unit) for unit in told.get("unpriced", ()))
    return Particulars(**given)


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


def stored_column(columns: Sequence[tuple[Any, ...]], particulars: Sequence[Particulars | None]) -> Sequence[str]:
    """`stored_unusual` of many calls, from the values of each field of `UnusualFacts` in the order of the calls."""
    calls = len(columns[0])
    # Counting is a loop in C that compares by identity first.
    ordinary = all(values.count(usual) == calls for values, usual in zip(columns, ORDINARY, strict=True))
    if ordinary and particulars.count(None) == calls:
        return ("",) * calls
    return [
        stored_unusual(facts, priced) for facts, priced in zip(zip(*columns, strict=True), particulars, strict=True)
    ]


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
