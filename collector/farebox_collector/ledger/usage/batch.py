"""The calls of a request in the form of the books: as columns, with their sums. Pure.

Reader processes prepare them, so that the single committing thread, for which all requests wait, has little left to do.
Only the ordinary case is prepared: every call is charged, by itself, and has its own response id, so that only rows
already in the books can change the result.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import cached_property
from itertools import chain, repeat
from typing import Any, NamedTuple, overload

from farebox_collector.ledger.usage.batch_sums import BatchSums
from farebox_collector.ledger.usage.claims import claimed, slots
from farebox_collector.ledger.usage.columns import CALL_COLUMNS, Columns, call_of_row, shared_value
from farebox_collector.ledger.usage.entries import COVERED_REASON
from farebox_collector.ledger.usage.response_ids import call_key
from farebox_collector.ledger.usage.wrappers import sums_up_calls
from farebox_collector.model.records import PricedUsage
from farebox_collector.model.verdicts import Verdict

_SHARE = "action_share_nanocredits"
"""The column of a call's share in its action's charge: None if it is charged by itself."""
_PLACE = {name: place for place, name in enumerate(CALL_COLUMNS)}
_COVERED: dict[str, Any] = {
    "verdict": Verdict.COVERED.value,
    "reason": COVERED_REASON,
    "call_key": None,
    "cost_nanousd": None,
    "charge_nanocredits": None,
    "price_version_ids": "",
    "rule_version_id": None,
    "action_share_nanocredits": None,
}
"""What the columns of a call are when another one stands for it."""
_WORTH_A_STATEMENT = 64
"""For fewer calls, a statement with values shared by all rows costs more than it saves."""


class Prepared(NamedTuple):
    """Calls in the form of the books."""

    size: int
    columns: list[Any]
    """For each of `CALL_COLUMNS` a list of its values in the order of the calls, or the one value that all share."""
    assumptions: list[tuple[str, ...]] | tuple[str, ...]
    """The dialect's assumptions about each span, or about all of them; pricing may have added others since."""
    claims: list[tuple[int, bytes]]
    """The time slots and keys that the calls claim; see `claims`."""
    sums: BatchSums

    def column(self, name: str) -> Iterable[Any]:
        """Return the values of a column, in the order of the calls."""
        values = self.columns[_PLACE[name]]
        return values if type(values) is list else repeat(values, self.size)

    def columns_of(self, *names: str) -> "zip[tuple[Any, ...]]":
        """Return the values of some columns, call by call."""
        return zip(*map(self.column, names), strict=True)

    def rows(self) -> tuple[tuple[str, ...], tuple[Any, ...], list[tuple[Any, ...]]]:
        """Return names of columns; values of the first of them, shared by all calls; values of the others by call."""
        tell_apart = self.size >= _WORTH_A_STATEMENT
        same = [name for name in CALL_COLUMNS if tell_apart and type(self.columns[_PLACE[name]]) is not list]
        others = [name for name in CALL_COLUMNS if name not in same]
        values = tuple(self.columns[_PLACE[name]] for name in same)
        return (*same, *others), values, list(self.columns_of(*others))

    def places_of_claims(self) -> Iterable[int]:
        """Return the number of the call that makes each claim, counted from 0."""
        keys = self.columns[_PLACE["call_key"]]
        if len(self.claims) == self.size and type(keys) is list and None not in keys:
            return range(self.size)  # Each call makes one claim at least.
        calls = enumerate(self.columns_of("call_key", "started_at_ns", "latency_ns"))
        return [place for place, (key, *times) in calls if key is not None for _ in slots(key, *times)]

    def covering(self, numbers: Collection[int]) -> "Prepared | None":
        """Return the same calls, of which others stand for some, counted from 0; None if one of them has unusual facts.

        They are covered as `Entry.cover` covers a call.
        """
        by_name = dict(zip(CALL_COLUMNS, self.columns, strict=True))
        if by_name["unusual"] != "":
            return None
        for name, value in _COVERED.items():
            own = self.column(name)
            by_name[name] = shared_value([value if n in numbers else one for n, one in enumerate(own)])
        left = [claim for claim, n in zip(self.claims, self.places_of_claims(), strict=True) if n not in numbers]
        covered = self._replace(columns=list(by_name.values()), claims=left)
        return covered._replace(sums=BatchSums.of(Calls(prepared=covered), Columns(self.size, by_name)))

    def without(self, numbers: Collection[int]) -> "Prepared | None":
        """Return these calls without some, counted from 0; None if one of the others may sum up the rest now."""
        return _prepare([self.call(number) for number in range(self.size) if number not in numbers])

    def call(self, number: int) -> PricedUsage:
        """Return one of the calls, counted from 0."""
        row = [values[number] if type(values) is list else values for values in self.columns]
        assumed = self.assumptions[number] if isinstance(self.assumptions, list) else self.assumptions
        call = call_of_row(row)
        return call._replace(usage=call.usage._replace(assumptions=assumed))


class Calls(Sequence[PricedUsage]):
    """Priced calls in their order. Prepared calls are built again on access."""

    def __init__(self, calls: Sequence[PricedUsage] = (), prepared: Prepared | None = None) -> None:
        self._calls = calls
        self.prepared = prepared

    @classmethod
    def of(cls, calls: Sequence[PricedUsage]) -> "Calls":
        """Return these calls, prepared if possible."""
        return cls(calls, _prepare(calls))

    @classmethod
    def together(cls, parts: Sequence["Calls"]) -> "Calls":
        """Merge the calls of several requests of one tenant."""
        if len(parts) == 1:
            return parts[0]
        prepared = [part.prepared for part in parts if part.prepared is not None]
        joined = _joined(prepared) if len(prepared) == len(parts) else None
        return cls(list(chain.from_iterable(parts))) if joined is None else cls(prepared=joined)

    def __len__(self) -> int:
        """Return the number of calls."""
        return len(self._calls) if self.prepared is None else self.prepared.size

    @overload
    def __getitem__(self, place: int) -> PricedUsage: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[PricedUsage]: ...
    def __getitem__(self, place: int | slice) -> PricedUsage | Sequence[PricedUsage]:
        """Return one or several calls."""
        if self.prepared is None or self._calls:
            return self._calls[place]
        numbers = range(self.prepared.size)[place]
        return self.prepared.call(numbers) if isinstance(numbers, int) else [self.prepared.call(n) for n in numbers]

    def __iter__(self) -> Iterator[PricedUsage]:
        """Iterate over all calls, each built once."""
        return iter(self._whole)

    def __eq__(self, other: object) -> bool:
        """Compare the calls and their order, regardless of their form."""
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    @property
    def assumptions(self) -> Iterable[str]:
        """Return the assumptions about each call as the books store them: flags separated by commas."""
        if self.prepared is None:
            return [",".join(call.assumptions) for call in self._calls]
        return self.prepared.column("assumptions")

    def columns_of(self, *names: str) -> "zip[tuple[Any, ...]]":
        """Return the values of some columns of the books, call by call."""
        if self.prepared is None:
            return Columns.of(self._calls, [None] * len(self._calls)).rows(*names)
        return self.prepared.columns_of(*names)

    @property
    def priced_ns(self) -> tuple[int | None, int | None]:
        """Return the first and the last time of pricing; None without calls."""
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
    """Prepare calls; None unless each is charged, by itself, under its own response id."""
    if not calls:
        return None
    keys = [call_key(call.usage.response_id) for call in calls]
    named = Columns.of(calls, keys)
    if None in keys or named.values["verdict"] != Verdict.CHARGED or named.values[_SHARE] is not None:
        return None
    columns = list(named.values.values())
    if not _all_differ(columns, len(calls)) or sums_up_calls(calls, named):
        return None
    assumptions = shared_value([call.usage.assumptions for call in calls])
    claims = claimed(zip(keys, named.rows("started_at_ns", "latency_ns"), strict=True))
    return Prepared(len(calls), columns, assumptions, claims, BatchSums.of(calls, named))


def _joined(parts: Sequence[Prepared]) -> Prepared | None:
    """Merge the calls of several requests.

    None if two calls have the same span or the same response, or if one may sum up others of the same trace.
    """
    columns = [
        _end_to_end([(values, part.size) for values, part in zip(column, parts, strict=True)])
        for column in zip(*(part.columns for part in parts), strict=True)
    ]
    size = sum(part.size for part in parts)
    if not _all_differ(columns, size) or (_share_traces(parts) and _any_within(columns)):
        return None
    assumptions = _end_to_end([(part.assumptions, part.size) for part in parts])
    return Prepared(
        size,
        columns,
        assumptions,
        [claim for part in parts for claim in part.claims],
        BatchSums.together([part.sums for part in parts]),
    )


def _end_to_end(parts: Sequence[tuple[Any, int]]) -> Any:
    """Concatenate the values of columns, each with its length."""
    first = parts[0][0]
    if type(first) is not list and all(type(values) is not list and values == first for values, _ in parts):
        return first
    return list(chain.from_iterable(values if type(values) is list else repeat(values, size) for values, size in parts))


def _all_differ(columns: Sequence[Any], size: int) -> bool:
    """Return whether each call has its own span and its own response."""
    keys, spans, traces = (columns[_PLACE[name]] for name in ("call_key", "span_id", "trace_id"))
    if size == 1:
        return True
    if type(keys) is not list or len(set(keys)) < size or type(spans) is not list:
        return False
    if len(set(spans)) == size:
        return True
    each = (values if type(values) is list else repeat(values, size) for values in (traces, spans))
    return len(set(zip(*each, strict=True))) == size


def _any_within(columns: Sequence[Any]) -> bool:
    """Return whether a call is within another: a span around calls may sum them up (`wrappers`)."""
    spans, parents = (columns[_PLACE[name]] for name in ("span_id", "parent_span_id"))
    return not set(_each(spans)).isdisjoint(_each(parents))


def _share_traces(parts: Sequence[Prepared]) -> bool:
    """Return whether calls of two requests belong to one trace."""
    traces = [set(_each(part.columns[_PLACE["trace_id"]])) for part in parts]
    return len(set().union(*traces)) < sum(map(len, traces))


def _each(values: Any) -> Sequence[Any]:
    """Return the different values of a column, some of them more than once."""
    return values if type(values) is list else (values,)
