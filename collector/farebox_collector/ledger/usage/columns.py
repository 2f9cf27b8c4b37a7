"""Calls as rows of `usage_records` and back, as `tables.usage_columns` declares it. Pure.

The functions are generated at import, as `collections.namedtuple` generates its own: each span passes through them, and
without that they take up to twice as long. Calls are stored column by column for the same reason.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from itertools import repeat
from typing import Any, Self

from farebox_collector.ledger.tables.usage_columns import CALL_KEY, USAGE, USAGE_COLUMNS, Stored
from farebox_collector.model.records import PricedUsage, UsageRecord

BATCH_COLUMNS = ("tenant_id", "transaction_id", "received_at_ns")
"""The columns that all records of a batch have in common."""
CALL_COLUMNS = tuple(column.name for stored in USAGE if stored.inputs for column in stored.columns)
"""The columns made of a call."""
FACT_COLUMNS = tuple(column.name for column in USAGE_COLUMNS if column.fact)
"""The columns on which two arrivals of one span must agree."""

_CALL = [stored for stored in USAGE if stored.inputs]
_USAGE_FIELDS = [f"usage_{name}" for name in UsageRecord._fields]
_OUTCOME_FIELDS = PricedUsage._fields[1:]
_READ_FACTS = [stored.columns[0].name for stored in _CALL if stored.read_fact is not None]


def _names(inputs: Iterable[str]) -> list[str]:
    """Inputs as names of variables."""
    return [name.replace(".", "_") for name in inputs]


def _generated(signature: str, lines: Iterable[str], **codecs: Any) -> Any:
    """The function of this source; `codecs` are the names that it uses."""
    name = signature.partition("(")[0]
    source = "\n    ".join((f"def {signature}:", *lines))
    namespace = {"__name__": __name__, **codecs}
    exec(source, namespace)  # noqa: S102  (made of our own declaration alone)
    return namespace[name]


def _codecs(kind: str) -> dict[str, Any]:
    """The codecs of a kind by the names that the sources give them."""
    return {f"{kind}_{stored.columns[0].name}": getattr(stored, kind) for stored in _CALL}


def _column(stored: Stored) -> str:
    """The values of columns, call by call."""
    inputs = ", ".join(_names(stored.inputs))
    if stored.store is None:
        return inputs
    return f"{'*' * (len(stored.columns) > 1)}store_{stored.columns[0].name}({inputs})"


def _fact(stored: Stored) -> str:
    """The columns of one usage record as facts."""
    name, spread = stored.columns[0].name, "*" * (len(stored.columns) > 1)
    inputs = _names(field for field in stored.inputs if field.startswith("usage."))
    made = inputs[0] if len(inputs) == 1 else f"({', '.join(inputs)})"
    if stored.fact is not None:
        made = f"fact_{name}({made})"
    if stored.empty is not None:
        made = f"({made} if {inputs[0]} else {stored.empty!r})"
    return spread + made


def _read(stored: Stored) -> str:
    """The assignment of what columns of a row give back."""
    columns = ", ".join(column.name for column in stored.columns)
    if stored.read is not None:
        columns = f"read_{stored.columns[0].name}({columns})"
    return f"{', '.join(_names(f'to.{name}' for name in stored.outputs))} = {columns}"


call_columns: Callable[[Sequence[PricedUsage], Sequence[bytes | None]], list[Sequence[Any]]] = _generated(
    f"call_columns(calls, {CALL_KEY})",
    (
        f"usages, {', '.join(_OUTCOME_FIELDS)} = zip(*calls, strict=True)",
        f"{', '.join(_USAGE_FIELDS)} = zip(*usages, strict=True)",
        f"return [{', '.join(map(_column, _CALL))}]",
    ),
    **_codecs("store"),
)
"""The values of each of `CALL_COLUMNS` for some calls, in call order; the second argument has the keys they claim."""

call_of_row: Callable[[Sequence[Any]], PricedUsage] = _generated(
    "call_of_row(row)",
    (
        f"{', '.join(CALL_COLUMNS)} = row",
        *(_read(stored) for stored in _CALL if stored.outputs),
        f"usage = usage_of(({', '.join(f'to_{name}' for name in _USAGE_FIELDS)}))",
        f"return call_of((usage, {', '.join(f'to_{name}' for name in _OUTCOME_FIELDS)}))",
    ),
    usage_of=UsageRecord._make,
    call_of=PricedUsage._make,
    **_codecs("read"),
)
"""The call of a row of `CALL_COLUMNS`."""

facts_of: Callable[[PricedUsage], tuple[Any, ...]] = _generated(
    "facts_of(call)",
    (
        f"{', '.join(_USAGE_FIELDS)} = call.usage",
        f"return ({', '.join(_fact(stored) for stored in _CALL if stored.columns[0].fact)})",
    ),
    **_codecs("fact"),
)
"""The values of `FACT_COLUMNS` for one call."""

facts_of_row: Callable[[Sequence[Any]], tuple[Any, ...]] = _generated(
    "facts_of_row(row)",
    (
        f"{', '.join(FACT_COLUMNS)} = row",
        *(f"{name} = read_fact_{name}({name})" for name in _READ_FACTS),
        f"return ({', '.join(FACT_COLUMNS)})",
    ),
    **_codecs("read_fact"),
)
"""The facts in stored values of `FACT_COLUMNS`."""


class Columns:
    """Calls as columns of the books: of each the values in the order of the calls, or the one value that all share."""

    def __init__(self, size: int, values: Mapping[str, Any]) -> None:
        self.size = size
        self.values = values

    @classmethod
    def of(cls, calls: Sequence[PricedUsage], keys: Sequence[bytes | None]) -> Self:
        """Return calls as columns; `keys` are those that they claim."""
        columns = map(shared_value, call_columns(calls, keys)) if calls else ([] for _ in CALL_COLUMNS)
        return cls(len(calls), dict(zip(CALL_COLUMNS, columns, strict=True)))

    def each(self, name: str) -> Iterable[Any]:
        """Return the values of a column, call by call."""
        values = self.values[name]
        return values if type(values) is list else repeat(values, self.size)

    def rows(self, *names: str) -> "zip[tuple[Any, ...]]":
        """Return the values of some columns, call by call."""
        return zip(*map(self.each, names), strict=True)

    def zipped(self, *columns: Any) -> "zip[tuple[Any, ...]]":
        """Return the values of any columns, call by call."""
        return zip(*[one if type(one) is list else repeat(one, self.size) for one in columns], strict=True)

    def numbers(self, name: str) -> Any:
        """Return a column of numbers, with zero for what calls do not have."""
        values = self.values[name]
        if type(values) is not list:
            return values or 0
        return [value or 0 for value in values] if None in values else values

    def total(self, names: Iterable[str]) -> Any:
        """Return the column of the sums, call by call, of columns of numbers."""
        columns = [column for column in map(self.numbers, names) if column != 0]
        if len(columns) < 2:
            return columns[0] if columns else 0
        return list(map(sum, self.zipped(*columns)))

    def sum(self, column: Any) -> int:
        """Return the sum of a column of numbers over all calls."""
        return sum(column) if type(column) is list else column * self.size

    def having(self, name: str, values: Collection[Any]) -> "Columns":
        """Return the calls that have one of these values in a column."""
        column = self.values[name]
        if type(column) is not list:
            return self if column in values else self._at((), self.values)
        return self._at([place for place, value in enumerate(column) if value in values], self.values)

    def groups(self, by: Sequence[str], names: Iterable[str]) -> "Iterator[tuple[Any, Columns]]":
        """Yield the columns `names` of the calls that agree in the columns `by`, with the values of these."""
        places: defaultdict[Any, list[int]] = defaultdict(list)
        for place, key in enumerate(self.rows(*by)):
            places[key].append(place)
        for key, group in places.items():
            yield key, self._at(group, names)

    def _at(self, places: Sequence[int], names: Iterable[str]) -> "Columns":
        columns = ((name, self.values[name]) for name in names)
        return Columns(
            len(places),
            {name: [one[place] for place in places] if type(one) is list else one for name, one in columns},
        )


def shared_value(values: Sequence[Any]) -> Any:
    """Return the values of a column, or the single value if all are equal."""
    first = values[0]
    return first if values[-1] == first and values.count(first) == len(values) else list(values)


def facts_digest(facts: tuple[Any, ...]) -> bytes:
    """A digest of the values of `FACT_COLUMNS`, kept permanently: equal for equal facts only."""
    if not facts[-1]:
        # Spans without unusual facts keep the digest that they had before there were any.
        facts = facts[:-1]
    return blake2b(json.dumps(facts).encode(), digest_size=16).digest()
