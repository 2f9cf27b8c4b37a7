"""The calls of a request as the books will have them: by columns, with their sums. Pure.

Prepared where requests are read, so that the one thread that commits, for which everybody waits, has little left to do.
Only the ordinary case is prepared: every call is charged, by itself, and says by a response id which call it is, so
that nothing but what is in the books already can make anything else of it.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import cached_property
from itertools import chain, repeat
from typing import Any, NamedTuple, overload

from farebox_collector.ledger.usage.batch_sums import CallSums, added, sums_of
from farebox_collector.ledger.usage.claims import reached
from farebox_collector.ledger.usage.columns import CALL_COLUMNS, call_columns, call_of_row
from farebox_collector.ledger.usage.response_ids import call_key
from farebox_collector.model.records import PricedUsage
from farebox_collector.model.verdicts import Verdict

_PLACE = {name: place for place, name in enumerate(CALL_COLUMNS)}
_WORTH_A_STATEMENT = 64
"""With fewer calls a statement of its own, which says once what all have in common, costs more than it saves."""


class Prepared(NamedTuple):
    """Calls as the books will have them."""

    size: int
    columns: list[Any]
    """For each of `CALL_COLUMNS` a list of its values in the order of the calls, or the one value that all have."""
    assumptions: list[tuple[str, ...]] | tuple[str, ...]
    """What had to be assumed to read each span, or all of them: pricing may have added to it since."""
    claims: int
    """How many slots of time the calls reach into together; see `call_claims`."""
    sums: CallSums

    def column(self, name: str) -> Iterable[Any]:
        """The values of a column, in the order of the calls."""
        values = self.columns[_PLACE[name]]
        return values if type(values) is list else repeat(values, self.size)

    def columns_of(self, *names: str) -> "zip[tuple[Any, ...]]":
        """The values of some columns, call by call."""
        return zip(*map(self.column, names), strict=True)

    def rows(self) -> tuple[tuple[str, ...], tuple[Any, ...], list[tuple[Any, ...]]]:
        """Names of columns; values of the first of them, which all calls have; and values of the others by call."""
        tell_apart = self.size >= _WORTH_A_STATEMENT
        same = [name for name in CALL_COLUMNS if tell_apart and type(self.columns[_PLACE[name]]) is not list]
        others = [name for name in CALL_COLUMNS if name not in same]
        values = tuple(self.columns[_PLACE[name]] for name in same)
        return (*same, *others), values, list(self.columns_of(*others))

    def without(self, numbers: Collection[int]) -> "Prepared":
        """These calls but some of them, counted from 0. One must be left."""
        left = _prepare([self.call(number) for number in range(self.size) if number not in numbers])
        assert left is not None
        return left

    def call(self, number: int) -> PricedUsage:
        """One of the calls, counted from 0."""
        row = [values[number] if type(values) is list else values for values in self.columns]
        assumed = self.assumptions[number] if isinstance(self.assumptions, list) else self.assumptions
        call = call_of_row(row)
        return call._replace(usage=call.usage._replace(assumptions=assumed))


class Calls(Sequence[PricedUsage]):
    """Priced calls in their order. If they are prepared, each is made again when somebody looks at it."""

    def __init__(self, calls: Sequence[PricedUsage] = (), prepared: Prepared | None = None) -> None:
        self._calls = calls
        self.prepared = prepared

    @classmethod
    def of(cls, calls: Sequence[PricedUsage]) -> "Calls":
        """These calls, prepared if they can be."""
        return cls(calls, _prepare(calls))

    @classmethod
    def together(cls, parts: Sequence["Calls"]) -> "Calls":
        """The calls of several requests of one tenant as those of one."""
        if len(parts) == 1:
            return parts[0]
        prepared = [part.prepared for part in parts if part.prepared is not None]
        joined = _joined(prepared) if len(prepared) == len(parts) else None
        return cls(list(chain.from_iterable(parts))) if joined is None else cls(prepared=joined)

    def __len__(self) -> int:
        """How many they are."""
        return len(self._calls) if self.prepared is None else self.prepared.size

    @overload
    def __getitem__(self, place: int) -> PricedUsage: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[PricedUsage]: ...
    def __getitem__(self, place: int | slice) -> PricedUsage | Sequence[PricedUsage]:
        """One of them, or some."""
        if self.prepared is None or self._calls:
            return self._calls[place]
        numbers = range(self.prepared.size)[place]
        return self.prepared.call(numbers) if isinstance(numbers, int) else [self.prepared.call(n) for n in numbers]

    def __iter__(self) -> Iterator[PricedUsage]:
        """All of them, made once."""
        return iter(self._whole)

    def __eq__(self, other: object) -> bool:
        """Whether they are the same calls in the same order, however they are kept."""
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    @property
    def assumptions(self) -> Iterable[str]:
        """What had to be assumed of each, as the books keep it: flags with commas between them."""
        if self.prepared is None:
            return [",".join(call.assumptions) for call in self._calls]
        return self.prepared.column("assumptions")

    @cached_property
    def latencies_ns(self) -> Sequence[int]:
        """How long each took."""
        if self.prepared is None:
            return [call.usage.latency_ns for call in self._calls]
        return list(self.prepared.column("latency_ns"))

    @property
    def priced_ns(self) -> tuple[int | None, int | None]:
        """The first and the last moment whose prices they have; None without any."""
        if self.prepared is None:
            moments = [call.priced_at_ns for call in self._calls]
        else:
            values = self.prepared.columns[_PLACE["priced_at_ns"]]
            moments = values if type(values) is list else [values]
        return (min(moments), max(moments)) if moments else (None, None)

    @cached_property
    def _whole(self) -> Sequence[PricedUsage]:
        return self[:]


def _prepare(calls: Sequence[PricedUsage]) -> Prepared | None:
    """Calls as the books will have them; None unless each is charged, by itself, under a response id of its own."""
    if not calls or not all(map(_is_ordinary, calls)):
        return None
    keys = [call_key(call.usage.response_id) for call in calls]
    columns = [_told_once(values) for values in call_columns(calls, keys)]
    if not _all_differ(columns, len(calls)):
        return None
    assumptions = _told_once([call.usage.assumptions for call in calls])
    times = ((call.usage.started_at_ns, call.usage.latency_ns) for call in calls)
    claims = reached(zip(keys, times, strict=True))
    return Prepared(len(calls), columns, assumptions, claims, sums_of(calls))


def _is_ordinary(call: PricedUsage) -> bool:
    return call.verdict is Verdict.CHARGED and call.action_floor_nanocredits is None and call.usage.response_id != ""


def _joined(parts: Sequence[Prepared]) -> Prepared | None:
    """The calls of several requests together; None if two of them have the same span or the same response."""
    columns = [
        _end_to_end([(values, part.size) for values, part in zip(column, parts, strict=True)])
        for column in zip(*(part.columns for part in parts), strict=True)
    ]
    size = sum(part.size for part in parts)
    if not _all_differ(columns, size):
        return None
    assumptions = _end_to_end([(part.assumptions, part.size) for part in parts])
    return Prepared(
        size, columns, assumptions, sum(part.claims for part in parts), added([part.sums for part in parts])
    )


def _told_once(values: Sequence[Any]) -> Any:
    """Values of a column, or the one that they all are."""
    first = values[0]
    return first if values[-1] == first and values.count(first) == len(values) else list(values)


def _end_to_end(parts: Sequence[tuple[Any, int]]) -> Any:
    """The values of columns, each with its length, as those of one."""
    first = parts[0][0]
    if type(first) is not list and all(type(values) is not list and values == first for values, _ in parts):
        return first
    return list(chain.from_iterable(values if type(values) is list else repeat(values, size) for values, size in parts))


def _all_differ(columns: Sequence[Any], size: int) -> bool:
    """Whether each call has a span and a response of its own, and none is within another."""
    names = ("call_key", "span_id", "trace_id", "parent_span_id")
    keys, spans, traces, parents = (columns[_PLACE[name]] for name in names)
    if size == 1:
        return True
    if type(keys) is not list or len(set(keys)) < size or type(spans) is not list:
        return False
    # One within another may be summed up by it (`wrappers`).
    if not set(spans).isdisjoint(parents if type(parents) is list else (parents,)):
        return False
    if len(set(spans)) == size:
        return True
    each = (values if type(values) is list else repeat(values, size) for values in (traces, spans))
    return len(set(zip(*each, strict=True))) == size
