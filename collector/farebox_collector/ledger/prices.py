"""The price book on disk: append-only versions.

A version is never altered but for one thing: the end of its validity is brought forward when another takes over. A
version that had not come into force by then is closed at its own start, and so never applies.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from typing import NamedTuple

from sqlalchemy import Connection, bindparam, func, insert, select, update

from farebox_collector.ledger import bulk
from farebox_collector.ledger.tables import price_imports, price_versions, priced_models
from farebox_collector.records import CatalogueRow, PricedModel, PriceVersion

BY_HAND = "manual"
"""The source of prices that somebody set; imports leave them alone."""

_VERSION_COLUMNS = ("import_id", *CatalogueRow._fields, "source", "source_version", "recorded_at_ns")
_EXACT_NAME_FIRST = -1

Slot = tuple[str, str, str, int, int, int]
"""What has one price at a time: provider, model, unit, threshold, hours of the day."""


class BookChange(NamedTuple):
    """What an import or a setting changed, in price versions."""

    added: int
    closed: int


class _Segment(NamedTuple):
    """One price during one half-open time."""

    from_ns: int
    to_ns: int | None
    usd_per_1k: Decimal


def import_prices(
    connection: Connection,
    rows: Iterable[CatalogueRow],
    models: Sequence[PricedModel],
    source: str,
    source_version: str,
    at_ns: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> BookChange:
    """Bring the book up to a published list.

    What is not in the book yet is taken over as stated. Where the list differs from the book it holds from the moment
    of the import on, so that the past stays as it was charged. Prices set by hand are left alone.
    """
    stated: defaultdict[Slot, list[CatalogueRow]] = defaultdict(list)
    for row in rows:
        stated[_slot(row)].append(row)
    current = _current(connection)
    for slot, versions in current.items():
        if versions[0].source == source:
            stated.setdefault(slot, [])
    change = _Change()
    for done, (slot, wanted) in enumerate(stated.items()):
        if done % 500 == 0:
            progress(done, len(stated))
        versions = current.get(slot, [])
        if not versions:
            change.added += wanted
        elif all(version.source != BY_HAND for version in versions):
            change.replace_from(at_ns, slot, versions, wanted)
    _write(connection, change, source, source_version, at_ns)
    tail = " ON CONFLICT (provider, model) DO UPDATE SET position = excluded.position, match = excluded.match"
    bulk.insert(connection, "priced_models", PricedModel._fields, models, tail)
    progress(len(stated), len(stated))
    return BookChange(len(change.added), len(change.closed))


def set_price(connection: Connection, row: CatalogueRow, author: str, at_ns: int) -> BookChange:
    """Set one price by hand from `row.valid_from_ns` on; a model that the book does not know is added by its name.

    Raises ValueError for a price that is not positive.
    """
    if row.usd_per_1k <= 0:
        raise ValueError("a price is positive; a model without one is kept as unpriced, never as free")
    change = _Change()
    change.replace_from(row.valid_from_ns, _slot(row), _current(connection).get(_slot(row), []), [row])
    _write(connection, change, BY_HAND, author, at_ns)
    match = json.dumps({"equals": row.model})
    bulk.insert_ignoring_conflicts(
        connection,
        "priced_models",
        PricedModel._fields,
        [PricedModel(row.provider, row.model, _EXACT_NAME_FIRST, match)],
    )
    return BookChange(len(change.added), len(change.closed))


def load_prices(connection: Connection) -> tuple[list[PriceVersion], list[PricedModel]]:
    """Every price version that applies at some time, and how models are recognised."""
    versions = [version for slot in _current(connection).values() for version in slot]
    columns = (priced_models.c[name] for name in PricedModel._fields)
    return versions, [PricedModel(*row) for row in connection.execute(select(*columns))]


def book_edition(connection: Connection) -> int:
    """A number that grows with every change of the book; 0 for an empty one."""
    return int(connection.execute(select(func.coalesce(func.max(price_imports.c.id), 0))).scalar_one())


def version_of(row: object) -> PriceVersion:
    """A database row of `price_versions` as a record."""
    values = {name: getattr(row, name) for name in PriceVersion._fields}
    return PriceVersion(**{**values, "usd_per_1k": Decimal(values["usd_per_1k"])})


class _Change:
    """Versions to add, and versions to close (id → new end)."""

    def __init__(self) -> None:
        self.added: list[CatalogueRow] = []
        self.closed: dict[int, int] = {}

    def replace_from(
        self, at_ns: int, slot: Slot, versions: Sequence[PriceVersion], wanted: Sequence[CatalogueRow]
    ) -> None:
        """Let `wanted` hold from a moment on, in place of what the book says of that time."""
        after = _segments_after(at_ns, wanted)
        if after == _segments_after(at_ns, versions):
            return
        for version in versions:
            if version.valid_to_ns is None or version.valid_to_ns > at_ns:
                self.closed[version.id] = max(at_ns, version.valid_from_ns)
        for segment in after:
            self.added.append(CatalogueRow(*slot, segment.usd_per_1k, segment.from_ns, segment.to_ns))


def _segments_after(at_ns: int, prices: Iterable[PriceVersion | CatalogueRow]) -> list[_Segment]:
    """The course of a price from a moment on, neighbours of the same price joined."""
    segments: list[_Segment] = []
    for price in sorted(prices, key=lambda price: price.valid_from_ns):
        if price.valid_to_ns is not None and price.valid_to_ns <= at_ns:
            continue
        segment = _Segment(max(at_ns, price.valid_from_ns), price.valid_to_ns, price.usd_per_1k)
        last = segments[-1] if segments else None
        if last and last.to_ns == segment.from_ns and last.usd_per_1k == segment.usd_per_1k:
            segments[-1] = last._replace(to_ns=segment.to_ns)
        else:
            segments.append(segment)
    return segments


def _slot(row: CatalogueRow | PriceVersion) -> Slot:
    return (row.provider, row.model, row.unit, row.over_input_tokens, row.daily_from_s, row.daily_to_s)


def _current(connection: Connection) -> dict[Slot, list[PriceVersion]]:
    """The versions that apply at some time, by what they are the price of."""
    applies = price_versions.c.valid_to_ns.is_(None) | (price_versions.c.valid_to_ns > price_versions.c.valid_from_ns)
    slots: defaultdict[Slot, list[PriceVersion]] = defaultdict(list)
    for row in connection.execute(select(price_versions).where(applies).order_by(price_versions.c.id)):
        version = version_of(row)
        slots[_slot(version)].append(version)
    return slots


def _write(connection: Connection, change: _Change, source: str, source_version: str, at_ns: int) -> None:
    if not change.added and not change.closed:
        return
    key = connection.execute(
        insert(price_imports).values(
            source=source,
            source_version=source_version,
            imported_at_ns=at_ns,
            versions_added=len(change.added),
            versions_closed=len(change.closed),
        )
    ).inserted_primary_key
    assert key is not None
    if change.closed:
        connection.execute(
            update(price_versions)
            .where(price_versions.c.id == bindparam("version"))
            .values(valid_to_ns=bindparam("end")),
            [{"version": version, "end": end} for version, end in change.closed.items()],
        )
    rows = [
        (key[0], *row._replace(usd_per_1k=format(row.usd_per_1k.normalize(), "f")), source, source_version, at_ns)  # type: ignore[arg-type]
        for row in change.added
    ]
    bulk.insert(connection, "price_versions", _VERSION_COLUMNS, rows)
