"""Dialects: one file a vocabulary, tried in order; each reads a span into a usage record.

The contract of a dialect module:

- `NAME` is what the usage record and the receipt call it; `KEYS` are all attributes it reads, `NAMES` those of them
  whose values tell one kind of calls from another, `ONCE` those whose values never repeat, and `REDUCED` says of an
  attribute with text in it what little may pass the door.
- `understand(said)` is pure. It returns None when the span does not speak this vocabulary, `NotBillable` when it does
  but is no model call, and otherwise the way to read it. What it was shown is all that this may depend on: it is
  remembered for the next span that says the same (`remembered.py`).
- That way, a `Call`, has a pure `read(span, origin)`, which is left with ids, times and counts. It returns `Rejected`
  when the span's facts can never be booked, `NotBillable` when it turns out to be no call for want of usage, a
  `QualityReport` when it tells of other spans, and a `UsageRecord` otherwise.
- Aliases of one count are coalesced, never added. Buckets come out disjoint. What had to be assumed is named.
"""

from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple, Protocol

from farebox_collector.dialects import (
    genai,
    langfuse,
    openinference,
    other_units,
    providers,
    quality,
    unusual,
    vercel,
)
from farebox_collector.dialects.attribution import (
    ATTRIBUTION_KEYS,
    MEASURED,
    ORIGIN_NAMES,
    REGION,
    Origin,
    origin_of,
)
from farebox_collector.dialects.memo import (
    ENTRIES,
    MAX_TEXT,
    CacheBudget,
    Remembered,
    SpanShape,
)
from farebox_collector.dialects.record import Call
from farebox_collector.dialects.text import Reductions, clean
from farebox_collector.model.records import (
    NotBillable,
    QualityReport,
    Rejected,
    Span,
    UsageRecord,
)


class Dialect(Protocol):
    """What every module of this package offers."""

    NAME: str
    KEYS: frozenset[str]
    NAMES: frozenset[str]
    ONCE: frozenset[str]
    REDUCED: Reductions

    def understand(self, said: SpanShape) -> Call | NotBillable | None:
        """What the names on a span say of its call; see the package's contract."""


DIALECTS: tuple[Dialect, ...] = (openinference, vercel, langfuse, genai, quality)
"""In this order: the first three are known by one attribute, and may carry keys of the conventions beside their own."""

_NAMES = tuple(sorted(providers.NAMES.union(unusual.NAMES, *(dialect.NAMES for dialect in DIALECTS))))
"""The last two say who bills a call, and what few calls have, whatever the dialect."""
_KEYS_AN_ENTRY = 4
_NO_DIALECT = NotBillable("not_genai")


def wanted_attributes(wallet_attributes: Iterable[str]) -> frozenset[str]:
    """All attribute keys worth decoding; everything else, prompts included, is dropped at the door."""
    shared = ATTRIBUTION_KEYS.union(other_units.KEYS, unusual.KEYS, providers.NAMES, wallet_attributes)
    return shared.union(*(dialect.KEYS for dialect in DIALECTS))


def unique_attributes() -> frozenset[str]:
    """Those of the wanted keys whose values never repeat."""
    return unusual.ONCE.union(*(dialect.ONCE for dialect in DIALECTS))


def reduced_attributes() -> Reductions:
    """Wanted keys whose text may hold more than is wanted, and what is to be kept of it (None: nothing)."""
    return {key: reduce for dialect in DIALECTS for key, reduce in dialect.REDUCED.items()}


def read(span: Span, wallet_attributes: tuple[str, ...]) -> UsageRecord | QualityReport | NotBillable | Rejected:
    """Read a span in the first dialect that it speaks."""
    return reader(wallet_attributes).read(span)


def understand(said: SpanShape) -> Call | NotBillable:
    """What the names on a span say in the first dialect that it speaks."""
    for dialect in DIALECTS:
        understood = dialect.understand(said)
        if understood is not None:
            return understood
    return _NO_DIALECT


class _Kind(NamedTuple):
    """Spans of one emitter with the same attributes."""

    origins: Remembered[Origin]
    calls: Remembered[Call | NotBillable]


class Reader:
    """Reads spans, and remembers how. Any thread may use it."""

    def __init__(self, wallet_attributes: tuple[str, ...], entries: int = ENTRIES) -> None:
        self._wallet_attributes = wallet_attributes
        self._origin_names = tuple(dict.fromkeys((*ORIGIN_NAMES, *wallet_attributes)))
        self._naming = MEASURED.union(self._origin_names)
        self._origins: dict[tuple[str, frozenset[str]], Remembered[Origin]] = {}
        self._calls: dict[tuple[str, str, frozenset[str]], Remembered[Call | NotBillable]] = {}
        self._kinds: dict[tuple[str, str, tuple[str, ...]], _Kind] = {}
        self._room = CacheBudget(self._forget, entries)

    @property
    def remembered(self) -> int:
        """How much is remembered, in entries."""
        return self._room.taken

    def read(self, span: Span) -> UsageRecord | QualityReport | NotBillable | Rejected:
        """Read a span in the first dialect that it speaks."""
        _, _, _, _, _, _, attributes, resource, scope, _ = span
        region = ""
        if REGION in resource:
            found = resource[REGION]
            region = found if isinstance(found, str) else clean(found)
        kind = scope, region, tuple(attributes)
        try:
            origins, calls = self._kinds[kind]
        except KeyError:
            origins, calls = self._kind(*kind)
        call = calls.of(attributes)
        if isinstance(call, NotBillable):
            return call
        return call.read(span, origins.of(attributes))

    def _kind(self, scope: str, region: str, keys: tuple[str, ...]) -> _Kind:
        present = frozenset(keys)
        naming = present & self._naming
        # Neither the order of the attributes nor, to who pays, the emitter makes a difference.
        calls = self._calls.get((scope, region, present)) or Remembered(
            SpanShape(scope, present, {}, region), _NAMES, understand, self._room
        )
        origins = self._origins.get((region, naming)) or Remembered(
            SpanShape("", naming, {}, region), self._origin_names, self._origin, self._room
        )
        kind = _Kind(origins, calls)
        if len(scope) + len(region) <= MAX_TEXT:
            self._room.take(1 + len(keys) // _KEYS_AN_ENTRY)
            self._calls[scope, region, present] = calls
            self._origins[region, naming] = origins
            self._kinds[scope, region, keys] = kind
        return kind

    def _origin(self, said: SpanShape) -> Origin:
        return origin_of(said, self._wallet_attributes)

    def _forget(self) -> None:
        self._kinds.clear()
        self._calls.clear()
        self._origins.clear()


@lru_cache(maxsize=8)
def reader(wallet_attributes: tuple[str, ...]) -> Reader:
    """The reader for these wallet attributes; whoever asks shares what it remembers."""
    return Reader(wallet_attributes)
