"""Cache what spans of the same shape have in common.

Calls from one place in a program repeat the same attributes in the same order, and most of the same values; only ids,
times and counts differ. So reading a span has two steps. `understand`, a pure function of a `SpanShape`, finds which
attributes are present and what the names among them mean. Its result holds for every span of that shape. The second
step reads the ids, times and counts of each span.

The cache is bounded: it holds `ENTRIES` results, each with at most `MAX_TEXT` characters of names, and is cleared when
full. It takes about five MiB with ordinary spans, and forty at worst.
"""

from collections.abc import Callable, Iterable
from operator import itemgetter
from typing import Any, Generic, NamedTuple, TypeVar

from farebox_collector.model.records import Attributes, AttributeValue

ENTRIES = 16_384
"""Most cached results."""
MAX_TEXT = 512
"""Longest names that are cached, in characters, all names of one span together."""
_TEXT = {str}

Understood = TypeVar("Understood")


class SpanShape(NamedTuple):
    """Everything that `understand` may read of a span."""

    scope: str
    """The name of its instrumentation scope."""
    keys: frozenset[str]
    """Its attributes."""
    names: Attributes
    """The values of the keys that are names."""
    region: str = ""
    """The region of the resource that sent the span."""


class CacheBudget:
    """Counts cached entries and clears the cache when the limit is reached."""

    def __init__(self, clear: Callable[[], None], entries: int) -> None:
        self._clear = clear
        self._entries = self._left = entries

    @property
    def taken(self) -> int:
        """Return the number of cached entries."""
        return self._entries - self._left

    def take(self, entries: int = 1) -> None:
        """Reserve space for this many entries."""
        # Two threads that count at once may be off by one, which the bound tolerates.
        if self._left < entries:
            self._left = self._entries
            self._clear()
        self._left -= entries


class Memo(Generic[Understood]):
    """Results of `understand` for spans with the same attributes, by the values of the `names` among them."""

    __slots__ = ("_budget", "_known", "_names", "_pick", "_shape", "_typed", "_understand")

    def __init__(
        self, shape: SpanShape, names: Iterable[str], understand: Callable[[SpanShape], Understood], budget: CacheBudget
    ) -> None:
        self._shape = shape
        self._names = tuple([name for name in names if name in shape.keys])
        self._pick = _picker(self._names)
        self._understand = understand
        self._budget = budget
        self._known: dict[tuple[Any, ...], Understood] = {}
        self._typed = False

    def of(self, attributes: Attributes) -> Understood:
        """Return the result for a span with these attributes; their keys are those of `shape`."""
        values = self._pick(attributes)
        try:
            return self._known[(*values, *map(type, values)) if self._typed else values]
        except KeyError:
            return self._compute(values)

    def _compute(self, values: tuple[AttributeValue, ...]) -> Understood:
        scope, keys, _, region = self._shape
        understood = self._understand(SpanShape(scope, keys, dict(zip(self._names, values, strict=False)), region))
        types = set(map(type, values))
        if not types <= _TEXT:
            # 1, 1.0 and True are equal, but different names: from now on the key includes the types.
            self._typed = True
        # (0.0 and -0.0 even have the same type, but neither is a valid name.)
        if float not in types and len("".join(map(str, values))) <= MAX_TEXT:
            self._budget.take()
            self._known[(*values, *map(type, values)) if self._typed else values] = understood
        return understood


def _picker(names: tuple[str, ...]) -> Callable[[Attributes], tuple[AttributeValue, ...]]:
    """Return a function, implemented in C, that returns the values of these attributes as a tuple."""
    if not names:
        return lambda attributes: ()
    # itemgetter returns a bare value for a single name; naming it twice gives a tuple.
    return itemgetter(*names) if len(names) > 1 else itemgetter(names[0], names[0])
