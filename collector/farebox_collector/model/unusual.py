"""Facts that few calls have, stored as one text per record; empty, and free of cost, for ordinary calls. Pure.

The text is JSON by name without default values; equal facts give equal texts. The result of pricing is stored last,
under its own name: it changes with the prices and is not among the facts that distinguish spans.
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
    """The last fields of `records.UsageRecord`, which documents them."""

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
    """Facts, in the order of `UnusualFacts`, and the result of pricing, as the ledger stores them; empty for an
    ordinary call."""
    if facts == ORDINARY and particulars is None:
        return ""
    plain = UnusualFacts._make(facts)._asdict()
    plain["other_lines"] = [_plain_line(line) for line in plain["other_lines"]]
    if plain["other_reading"] is not None:
        plain["other_reading"] = _nonzero(plain["other_reading"])
    stated = {name: value for name, value in plain.items() if value is not None and value not in ("", [])}
    if particulars is not None:
        stated[_PRICED] = stored_particulars(particulars)
    return json.dumps(stated, separators=(",", ":"))


def facts_in(stored: str) -> str:
    """The text without the result of pricing; equal for equal facts."""
    if not stored or _PRICED not in stored:
        return stored
    values = json.loads(stored)
    values.pop(_PRICED, None)
    return json.dumps(values, separators=(",", ":")) if values else ""


def stored_particulars(particulars: Particulars) -> dict[str, Any]:
    """The result of pricing as plain values by name."""
    plain = {
        **particulars._asdict(),
        "lines": [list(line) for line in particulars.lines],
        "unpriced": [list(unit) for unit in particulars.unpriced],
    }
    return {name: value for name, value in plain.items() if value is not None and value != []}


def read_particulars(stored: str) -> Particulars | None:
    """The result of pricing in a text made by `stored_unusual`."""
    if not stored or _PRICED not in stored:
        return None
    return particulars_of(json.loads(stored).get(_PRICED))


def particulars_of(values: Mapping[str, Any] | None) -> Particulars | None:
    """The particulars in values made by `stored_particulars`."""
    if values is None:
        return None
    given = dict(values)
    given["lines"] = tuple(LinePrice(*line) for line in values.get("lines", ()))
    given["unpriced"] = tuple(UnpricedUnit(*unit) for unit in values.get("unpriced", ()))
    return Particulars(**given)


def read_unusual(stored: str) -> UnusualFacts:
    """The facts in a text made by `stored_unusual`."""
    if not stored:
        return ORDINARY
    values = json.loads(stored)
    other = values.get("other_reading")
    return UnusualFacts(
        values.get("speed", ""),
        values.get("inference_region", ""),
        tuple(_line(line) for line in values.get("other_lines", ())),
        values.get("stated_cost_nanousd"),
        None if other is None else Buckets(**other),
        values.get("exposure", ""),
    )


def stored_column(columns: Sequence[tuple[Any, ...]], particulars: Sequence[Particulars | None]) -> Sequence[str]:
    """`stored_unusual` for many calls. `columns` holds the values of each field of `UnusualFacts`, in call order."""
    calls = len(columns[0])
    # count() is a loop in C that compares identities first.
    ordinary = all(values.count(usual) == calls for values, usual in zip(columns, ORDINARY, strict=True))
    if ordinary and particulars.count(None) == calls:
        return ("",) * calls
    return [
        stored_unusual(facts, priced) for facts, priced in zip(zip(*columns, strict=True), particulars, strict=True)
    ]


def _plain_line(line: ModelLine) -> dict[str, Any]:
    plain: Mapping[str, Any] = {
        **line._asdict(),
        "buckets": _nonzero(line.buckets),
        "units": stored_units(line.units),
    }
    return {name: value for name, value in plain.items() if value not in ("", {})}


def _line(values: Mapping[str, Any]) -> ModelLine:
    given = {**values, "buckets": Buckets(**values.get("buckets", {})), "units": read_units(values.get("units", ""))}
    return ModelLine(**{"label": "", "provider": "", "model": "", **given})


def _nonzero(buckets: Buckets) -> dict[str, int]:
    return {name: count for name, count in buckets._asdict().items() if count}
