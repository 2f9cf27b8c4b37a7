"""Compute what a price list would change in the price book. Pure: the result is shown, then written or discarded.

Versions are immutable except for one thing: the end of validity moves forward when another version takes over. A
version that is not yet in force then is closed at its own start, and so never applies.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from enum import StrEnum
from itertools import pairwise
from typing import NamedTuple

from farebox_collector.model.records import CatalogueRow, PriceVersion

BY_HAND = frozenset({"manual", "csv"})
"""Sources of prices that people set; published lists do not change them."""


class Slot(NamedTuple):
    """Identifies one price: it has one value at a time."""

    tenant_id: int | None
    provider: str
    model: str
    unit: str
    condition: str
    over_input_tokens: int
    daily_from_s: int
    daily_to_s: int
    weekdays: int = 0


class Kind(StrEnum):
    """How the price of a slot changes."""

    ADDED = "added"
    CHANGED = "changed"
    CLOSED = "closed"


class Difference(NamedTuple):
    """The first point at which the course of one price changes, and how."""

    kind: Kind
    slot: Slot
    old_usd_per_1k: Decimal | None
    new_usd_per_1k: Decimal | None
    from_ns: int


class PriceList(NamedTuple):
    """Prices as a source states them, at most one per slot and time."""

    rows: Sequence[CatalogueRow]
    source: str
    source_version: str
    whole: bool
    """Whether the list is complete: prices that it no longer states end."""
    dated: bool
    """Whether prices hold from the times that they state; else prices that differ from the book hold from the import
    on."""
    tenant_id: int | None = None
    """The tenant with these negotiated prices; None for list prices."""


class Revision(NamedTuple):
    """Versions to add and to close, and the resulting changes for people to read."""

    added: list[tuple[Slot, CatalogueRow]]
    closed: dict[int, int]
    """Version → the new end of its validity."""
    differences: list[Difference]
    unchanged: int
    kept: int
    """Slots that the list states and that a person has set."""


class _Segment(NamedTuple):
    """One price during one half-open period."""

    from_ns: int
    to_ns: int | None
    row: CatalogueRow

    @property
    def price(self) -> tuple[Decimal, str, Decimal | None]:
        return self.row.usd_per_1k, self.row.currency, self.row.original_per_1k


def slot_of(row: CatalogueRow | PriceVersion, tenant_id: int | None) -> Slot:
    """Return the slot of a row."""
    return Slot(
        tenant_id,
        row.provider,
        row.model,
        row.unit,
        row.condition,
        row.over_input_tokens,
        row.daily_from_s,
        row.daily_to_s,
        row.weekdays,
    )


def by_slot(versions: Iterable[PriceVersion]) -> dict[Slot, list[PriceVersion]]:
    """Group the versions that apply at some time by slot."""
    slots: defaultdict[Slot, list[PriceVersion]] = defaultdict(list)
    for version in versions:
        if version.valid_to_ns is None or version.valid_to_ns > version.valid_from_ns:
            slots[slot_of(version, version.tenant_id)].append(version)
    return dict(slots)


def revise(
    current: Mapping[Slot, Sequence[PriceVersion]],
    stated: PriceList,
    at_ns: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Revision:
    """Return the changes that bring the book in line with a list.

    Prices that are new to the book are imported as stated, including their past. Where the list differs from the book,
    it holds from `at_ns` on, so that the past stays as charged, unless the list states its own start.
    """
    wanted: defaultdict[Slot, list[CatalogueRow]] = defaultdict(list)
    for row in stated.rows:
        wanted[slot_of(row, stated.tenant_id)].append(row)
    if stated.whole:
        for slot, versions in current.items():
            if slot.tenant_id == stated.tenant_id and versions[-1].source == stated.source:
                wanted.setdefault(slot, [])
    revision = Revision([], {}, [], 0, 0)
    unchanged = kept = 0
    for done, (slot, rows) in enumerate(wanted.items()):
        if done % 500 == 0:
            progress(done, len(wanted))
        versions = current.get(slot, [])
        by_hand = stated.source not in BY_HAND and any(version.source in BY_HAND for version in versions)
        if by_hand:
            kept += 1
            continue
        if not versions and not stated.dated:
            rows = [_dated(row, at_ns) for row in rows]
        first_ns = min((row.valid_from_ns for row in rows), default=at_ns)
        if not _replace_from(first_ns if stated.dated or not versions else at_ns, slot, versions, rows, revision):
            unchanged += 1
    progress(len(wanted), len(wanted))
    return revision._replace(unchanged=unchanged, kept=kept)


def _dated(row: CatalogueRow, at_ns: int) -> CatalogueRow:
    """Date a new price of an undated list: one limited to some hours holds from the import on, since it is not
    permanent."""
    some_hours = row.daily_from_s != row.daily_to_s or row.weekdays
    return row._replace(valid_from_ns=at_ns) if some_hours and not row.valid_from_ns else row


def _replace_from(
    at_ns: int, slot: Slot, versions: Sequence[PriceVersion], rows: Sequence[CatalogueRow], revision: Revision
) -> bool:
    """Replace the book's prices with `rows` from a time on; return False if both already agree."""
    old = _course_from(at_ns, [(version, _stated(version)) for version in versions])
    new = _course_from(at_ns, [(row, row) for row in rows])
    if [(part.from_ns, part.to_ns, part.price) for part in old] == [
        (part.from_ns, part.to_ns, part.price) for part in new
    ]:
        return False
    for version in versions:
        if version.valid_to_ns is None or version.valid_to_ns > at_ns:
            revision.closed[version.id] = max(at_ns, version.valid_from_ns)
    revision.added.extend((slot, part.row._replace(valid_from_ns=part.from_ns, valid_to_ns=part.to_ns)) for part in new)
    revision.differences.append(_difference(slot, old, new))
    return True


def _stated(version: PriceVersion) -> CatalogueRow:
    return CatalogueRow(
        *version[1:10],
        version.condition,
        version.currency,
        version.original_per_1k,
        version.usd_per_currency,
        version.weekdays,
    )


def _course_from(at_ns: int, prices: Sequence[tuple[CatalogueRow | PriceVersion, CatalogueRow]]) -> list[_Segment]:
    """Return the course of a price from a time on; adjacent periods with the same price are joined."""
    segments: list[_Segment] = []
    for price, row in sorted(prices, key=lambda pair: pair[0].valid_from_ns):
        if price.valid_to_ns is not None and price.valid_to_ns <= at_ns:
            continue
        segment = _Segment(max(at_ns, price.valid_from_ns), price.valid_to_ns, row)
        last = segments[-1] if segments else None
        if last and last.to_ns == segment.from_ns and last.price == segment.price:
            segments[-1] = last._replace(to_ns=segment.to_ns)
        else:
            segments.append(segment)
    return segments


def _difference(slot: Slot, old: Sequence[_Segment], new: Sequence[_Segment]) -> Difference:
    """Return the first time at which two courses differ, and how."""
    moments = {edge for part in (*old, *new) for edge in (part.from_ns, part.to_ns) if edge is not None}
    for moment in sorted(moments):
        before, after = _price_at(moment, old), _price_at(moment, new)
        if before != after:
            kind = Kind.ADDED if before is None else Kind.CLOSED if after is None else Kind.CHANGED
            return Difference(kind, slot, before, after, moment)
    # Equal in US dollars, but from another currency.
    usd = new[0].row.usd_per_1k
    return Difference(Kind.CHANGED, slot, usd, usd, new[0].from_ns)


def _price_at(at_ns: int, course: Sequence[_Segment]) -> Decimal | None:
    for part in course:
        if part.from_ns <= at_ns and (part.to_ns is None or at_ns < part.to_ns):
            return part.row.usd_per_1k
    return None


def overlaps(rows: Sequence[CatalogueRow]) -> list[tuple[int, int]]:
    """Return pairs of positions in a list that state a price of the same slot for the same time."""
    slots: defaultdict[Slot, list[tuple[int, CatalogueRow]]] = defaultdict(list)
    for place, row in enumerate(rows):
        slots[slot_of(row, None)].append((place, row))
    found = []
    for stated in slots.values():
        stated.sort(key=lambda item: item[1].valid_from_ns)
        for (place, row), (later_place, later) in pairwise(stated):
            if row.valid_to_ns is None or row.valid_to_ns > later.valid_from_ns:
                found.append((place, later_place))
    return found
