"""Remember what spans of one place in a program have in common.

The calls of one place repeat the same attributes in the same order, and most of the same values; only ids, times and
counts differ. So reading a span has two steps. `understand`, a pure function of a `SpanShape`, works out which
attributes there are and what the names among them say. It sees nothing else, so its result holds for every span of that
shape. What is left for each span are its ids, times and counts.

The memory is bounded: it holds `ENTRIES` results, none of more than `MAX_TEXT` characters of names, and starts anew
when it is full; that is some five MiB as spans ordinarily are, and forty at the worst.
"""

from collections.abc import Callable, Iterable
from operator import itemgetter
from typing import Any, Generic, NamedTuple, TypeVar

from farebox_collector.model.records import Attributes, AttributeValue

ENTRIES = 16_384
"""Most results that are remembered at a time."""
MAX_TEXT = 512
"""Longest names that are remembered, in characters, those of one span together."""
_TEXT = {str}

Understood = TypeVar("Understood")


class SpanShape(NamedTuple):
    """All that `understand` may know of a span."""

    scope: str
    """The name of its instrumentation scope."""
    keys: frozenset[str]
    """Its attributes."""
    names: Attributes
    """The values of those among them that are names."""
    region: str = ""
    """Where the resource is that made the span."""


class CacheBudget:
    """How much more may be remembered before everything is forgotten."""

    def __init__(self, forget: Callable[[], None], entries: int) -> None:
        self._forget = forget
        self._entries = self._left = entries

    @property
    def taken(self) -> int:
        """How much is remembered."""
        return self._entries - self._left

    def take(self, entries: int = 1) -> None:
        """Make room for something more that is as large as so many entries."""
        # Two threads that count at once may be off by one, which no bound here minds.
        if self._left < entries:
            self._left = self._entries
            self._forget()
        self._left -= entries


class Remembered(Generic[Understood]):
    """What `understand` makes of spans with certain attributes, by the values of the `names` among them."""

    __slots__ = ("_known", "_names", "_pick", "_room", "_said", "_typed", "_understand")

    def __init__(
        self, said: SpanShape, names: Iterable[str], understand: Callable[[SpanShape], Understood], room: CacheBudget
    ) -> None:
        self._said = said
        self._names = tuple([name for name in names if name in said.keys])
        self._pick = _picker(self._names)
        self._understand = understand
        self._room = room
        self._known: dict[tuple[Any, ...], Understood] = {}
        self._typed = False

    def of(self, attributes: Attributes) -> Understood:
        """What a span with these attributes says; their keys are those of `said`."""
        values = self._pick(attributes)
        try:
            return self._known[(*values, *map(type, values)) if self._typed else values]
        except KeyError:
            return self._anew(values)

    def _anew(self, values: tuple[AttributeValue, ...]) -> Understood:
        scope, keys, _, region = self._said
        understood = self._understand(SpanShape(scope, keys, dict(zip(self._names, values, strict=False)), region))
        types = set(map(type, values))
        if not types <= _TEXT:
            # 1, 1.0 and True are equal, and not the same name: from now on types are looked at too.
            self._typed = True
        # (0.0 and -0.0 are of one type even, and never a good name.)
        if float not in types and len("".join(map(str, values))) <= MAX_TEXT:
            self._room.take()
            self._known[(*values, *map(type, values)) if self._typed else values] = understood
        return understood


def _picker(names: tuple[str, ...]) -> Callable[[Attributes], tuple[AttributeValue, ...]]:
    """The values of these attributes as a tuple, made in C."""
    if not names:
        return lambda attributes: ()
    # A single name would be picked bare; twice is a tuple again.
    return itemgetter(*names) if len(names) > 1 else itemgetter(names[0], names[0])
