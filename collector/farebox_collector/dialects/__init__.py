"""Dialects: one file a vocabulary, tried in order; each reads a span into a usage record.

The contract of a dialect module:

- `NAME` is what the usage record and the receipt call it; `KEYS` are all attributes it reads, `ONCE` those of them
  whose values never repeat, and `REDUCED` says of an attribute with text in it what little may pass the door.
- `read(span, origin)` is pure. It returns None when the span does not speak this vocabulary, `NotBillable` when it does
  but is no model call, `Rejected` when its facts can never be booked, a `QualityReport` when it tells of other spans,
  and a `UsageRecord` otherwise.
- Aliases of one count are coalesced, never added. Buckets come out disjoint. What had to be assumed is named.
"""

from collections.abc import Iterable
from typing import Protocol

from farebox_collector.dialects import genai, langfuse, openinference, other_units, quality, vercel
from farebox_collector.dialects.attribution import ATTRIBUTION_KEYS, Origin, attribute_span
from farebox_collector.dialects.text import Reductions
from farebox_collector.records import NotBillable, QualityReport, Rejected, Span, UsageRecord


class Dialect(Protocol):
    """What every module of this package offers."""

    NAME: str
    KEYS: frozenset[str]
    ONCE: frozenset[str]
    REDUCED: Reductions

    def read(self, span: Span, origin: Origin) -> UsageRecord | QualityReport | NotBillable | Rejected | None:
        """Read one span; see the package's contract."""


DIALECTS: tuple[Dialect, ...] = (openinference, vercel, langfuse, genai, quality)
"""In this order: the first three are known by one attribute, and may carry keys of the conventions beside their own."""

_NO_DIALECT = NotBillable("not_genai")


def wanted_attributes(wallet_attributes: Iterable[str]) -> frozenset[str]:
    """All attribute keys worth decoding; everything else, prompts included, is dropped at the door."""
    return ATTRIBUTION_KEYS.union(other_units.KEYS, wallet_attributes, *(dialect.KEYS for dialect in DIALECTS))


def unique_attributes() -> frozenset[str]:
    """Those of the wanted keys whose values never repeat."""
    return frozenset().union(*(dialect.ONCE for dialect in DIALECTS))


def reduced_attributes() -> Reductions:
    """Wanted keys whose text may hold more than is wanted, and what is to be kept of it (None: nothing)."""
    return {key: reduce for dialect in DIALECTS for key, reduce in dialect.REDUCED.items()}


def read(span: Span, wallet_attributes: tuple[str, ...]) -> UsageRecord | QualityReport | NotBillable | Rejected:
    """Read a span in the first dialect that it speaks."""
    origin = attribute_span(span, wallet_attributes)
    for dialect in DIALECTS:
        reading = dialect.read(span, origin)
        if reading is not None:
            return reading
    return _NO_DIALECT
