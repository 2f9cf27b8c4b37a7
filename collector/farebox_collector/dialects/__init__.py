"""Dialects: one file per vocabulary, tried in order; each reads a span into a usage record.

The contract of a dialect module:

- `NAME` is its name in usage records and receipts. `KEYS` are all attributes that it reads, `NAMES` those whose values
  distinguish kinds of calls, `ONCE` those whose values never repeat, and `REDUCED` maps an attribute that contains text
  to the function that keeps the allowed part.
- `understand(shape)` is pure. It returns None if the span does not use this vocabulary, `NotBillable` if it does but is
  not a model call, and otherwise a `Call` that reads it. The result may depend on the shape alone: it is cached for all
  spans of the same shape (`memo.py`).
- A `Call` has a pure `read(span, origin)` for ids, times and counts. It returns `Rejected` if its facts cannot be
  booked, `NotBillable` if the span has no usage and therefore is not a call, a `QualityReport` if it describes other
  spans, and a `UsageRecord` otherwise.
- Aliases of one count are coalesced, never added. Buckets are disjoint. Assumptions are named.

A dialect of log records keeps the same contract, and stands in `LOG_DIALECTS`:

- `EVENTS` are the names of the events that it reads. The decoder keeps no attribute of other events.
- It gets a log record as a `Span` (see there). `EVENT_NAME` is among its attributes, and in the dialect's `NAMES`; the
  attributes of the resource are too, under those of the record.
- Its `Call` derives permanent ids with `event_identity.identified` before anything else. A coding agent's goes through
  `agents.agent_record`, which does that, and finds out who pays. `genai_event` is the pattern.
- An event that repeats another event of its tool is `NotBillable`. One that repeats a span is not: the books decide.
"""

from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple, Protocol

from farebox_collector.dialects import (
    agents,
    claude_code,
    codex_cli,
    gemini_cli,
    genai,
    genai_event,
    langfuse,
    openinference,
    other_units,
    providers,
    quality,
    qwen_code,
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
    Memo,
    SpanShape,
)
from farebox_collector.dialects.record import Call
from farebox_collector.dialects.text import Reductions, clean
from farebox_collector.model.records import (
    EVENT_NAME,
    NotBillable,
    QualityReport,
    Rejected,
    Span,
    UsageRecord,
)


class Dialect(Protocol):
    """The interface of every module of this package."""

    NAME: str
    KEYS: frozenset[str]
    NAMES: frozenset[str]
    ONCE: frozenset[str]
    REDUCED: Reductions

    def understand(self, shape: SpanShape) -> Call | NotBillable | None:
        """Read the names of a span; see the package's contract."""


class LogDialect(Dialect, Protocol):
    """The interface of the modules that read log records."""

    EVENTS: frozenset[str]


DIALECTS: tuple[Dialect, ...] = (claude_code, gemini_cli, openinference, vercel, langfuse, genai, quality)
"""The order of lookup. The agents are identified by their scope, the next three by one attribute; all of these may also
carry keys of the conventions."""
LOG_DIALECTS: tuple[LogDialect, ...] = (claude_code, codex_cli, gemini_cli, qwen_code, genai_event)
"""The same for log records."""


def _names(dialects: Iterable[Dialect]) -> tuple[str, ...]:
    """Return the names that some dialect reads, and those of the billing provider and of rare facts."""
    return tuple(sorted(providers.NAMES.union(unusual.NAMES, *(dialect.NAMES for dialect in dialects))))


_NAMES, _LOG_NAMES = _names(DIALECTS), _names(LOG_DIALECTS)
_KEYS_AN_ENTRY = 4
_AGENT_EVENTS = frozenset().union(*(dialect.EVENTS for dialect in LOG_DIALECTS)) - genai_event.EVENTS
_NO_DIALECT = NotBillable("not_genai")


def wanted_attributes(wallet_attributes: Iterable[str]) -> frozenset[str]:
    """Return all attribute keys of spans worth decoding. The decoder drops all others, prompts included."""
    return _wanted(DIALECTS, wallet_attributes) - {EVENT_NAME}


def wanted_log_attributes(wallet_attributes: Iterable[str]) -> frozenset[str]:
    """Return the same for log records."""
    return _wanted(LOG_DIALECTS, wallet_attributes) | agents.KEYS


def _wanted(dialects: Iterable[Dialect], wallet_attributes: Iterable[str]) -> frozenset[str]:
    shared = ATTRIBUTION_KEYS.union(other_units.KEYS, unusual.KEYS, providers.NAMES, wallet_attributes)
    return shared.union(*(dialect.KEYS for dialect in dialects))


def unique_attributes() -> frozenset[str]:
    """Return the wanted keys whose values never repeat, of spans and of log records."""
    return unusual.ONCE.union(*(dialect.ONCE for dialect in (*DIALECTS, *LOG_DIALECTS)))


def reduced_attributes() -> Reductions:
    """Return the wanted keys whose text is reduced, with the function that reduces it (None: keep nothing)."""
    return {key: reduce for dialect in (*DIALECTS, *LOG_DIALECTS) for key, reduce in dialect.REDUCED.items()}


def told_events() -> frozenset[str]:
    """Return the names of the events of log records that some dialect reads."""
    return frozenset().union(*(dialect.EVENTS for dialect in LOG_DIALECTS))


def read(span: Span, wallet_attributes: tuple[str, ...]) -> UsageRecord | QualityReport | NotBillable | Rejected:
    """Read a span with the first dialect that matches."""
    return reader(wallet_attributes).read(span)


def understand(shape: SpanShape) -> Call | NotBillable:
    """Read the names of a span with the first dialect that matches."""
    for dialect in LOG_DIALECTS if EVENT_NAME in shape.keys else DIALECTS:
        understood = dialect.understand(shape)
        if understood is not None:
            return understood
    return _NO_DIALECT


class _Kind(NamedTuple):
    """Spans of one emitter with the same attributes."""

    origins: Memo[Origin]
    calls: Memo[Call | NotBillable]


class Reader:
    """Reads spans and caches how. Safe to share between threads."""

    def __init__(self, wallet_attributes: tuple[str, ...], entries: int = ENTRIES) -> None:
        self._wallet_attributes = wallet_attributes
        self._origin_names = tuple(dict.fromkeys((*ORIGIN_NAMES, *wallet_attributes)))
        self._log_origin_names = tuple(dict.fromkeys((*self._origin_names, EVENT_NAME, *sorted(agents.KEYS))))
        self._origins: dict[tuple[str, frozenset[str]], Memo[Origin]] = {}
        self._calls: dict[tuple[str, str, frozenset[str]], Memo[Call | NotBillable]] = {}
        self._kinds: dict[tuple[str, str, tuple[str, ...]], _Kind] = {}
        self._budget = CacheBudget(self._clear, entries)

    @property
    def entries(self) -> int:
        """Return the number of cached entries."""
        return self._budget.taken

    def read(self, span: Span) -> UsageRecord | QualityReport | NotBillable | Rejected:
        """Read a span with the first dialect that matches."""
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
        names = self._log_origin_names if EVENT_NAME in present else self._origin_names
        naming = present & MEASURED.union(names)
        # The order of the attributes makes no difference; for the origin the emitter makes none either.
        calls = self._calls.get((scope, region, present)) or Memo(
            SpanShape(scope, present, {}, region),
            _LOG_NAMES if EVENT_NAME in present else _NAMES,
            understand,
            self._budget,
        )
        origins = self._origins.get((region, naming)) or Memo(
            SpanShape("", naming, {}, region), names, self._origin, self._budget
        )
        kind = _Kind(origins, calls)
        if len(scope) + len(region) <= MAX_TEXT:
            self._budget.take(1 + len(keys) // _KEYS_AN_ENTRY)
            self._calls[scope, region, present] = calls
            self._origins[region, naming] = origins
            self._kinds[scope, region, keys] = kind
        return kind

    def _origin(self, shape: SpanShape) -> Origin:
        origin = origin_of(shape, self._wallet_attributes)
        of_agent = shape.names.get(EVENT_NAME, "") in _AGENT_EVENTS
        return agents.agent_origin(origin, shape.names, {}) if of_agent else origin

    def _clear(self) -> None:
        self._kinds.clear()
        self._calls.clear()
        self._origins.clear()


@lru_cache(maxsize=8)
def reader(wallet_attributes: tuple[str, ...]) -> Reader:
    """Return the shared reader for these wallet attributes; its cache is shared too."""
    return Reader(wallet_attributes)
