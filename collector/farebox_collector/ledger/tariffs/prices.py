"""The stored price book: append-only versions.

The only change to a version is that its validity ends earlier when another version replaces it. The database refuses
any other change, and two prices of the same unit at the same time.
"""

import json
from collections.abc import Callable, Collection, Iterable, Sequence
from decimal import Decimal
from typing import NamedTuple

from sqlalchemy import Connection, bindparam, func, insert, select, tuple_, update
from sqlalchemy.exc import IntegrityError

from farebox_collector.ledger.access.audit_log import note
from farebox_collector.ledger.storage import bulk_insert
from farebox_collector.ledger.tables.prices import price_imports, price_versions, priced_models
from farebox_collector.ledger.tariffs.exchange_rates import load_rates
from farebox_collector.model.records import (
    DEFAULT_TENANT_ID,
    CatalogueRow,
    PricedModel,
    PriceVersion,
)
from farebox_collector.model.units import can_have_price
from farebox_collector.pricing.currencies import USD, in_usd, is_currency
from farebox_collector.pricing.price_lists import price_problem
from farebox_collector.pricing.revision import (
    PriceList,
    Revision,
    Slot,
    by_slot,
    revise,
)

MANUAL = "manual"
"""Source of prices that were set individually."""

_VERSION_COLUMNS = (
    "import_id",
    *CatalogueRow._fields,
    "tenant_id",
    "source",
    "source_version",
    "recorded_at_ns",
)
_EXACT_NAME_FIRST = -1
_NOTED = 20
"""Most prices of one import that the audit log lists; it counts all of them."""
_MOST_NAMED = 200
"""Most models in a query condition; for more, the whole book is read."""


class BookChange(NamedTuple):
    """Numbers of price versions that a change added and closed."""

    added: int
    closed: int


class OverlappingHours(ValueError):
    """Prices of a unit would overlap in some hours of the day; nothing was written."""


def revision_of(
    connection: Connection,
    stated: PriceList,
    at_ns: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Revision:
    """Return what a price list would change in the book from a moment on. Writes nothing."""
    return revise(by_slot(load_versions(connection)), stated, at_ns, progress)


def import_prices(
    connection: Connection,
    stated: PriceList,
    models: Sequence[PricedModel],
    at_ns: int,
    recorded_at_ns: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> BookChange:
    """Apply a price list to the book from `at_ns` on; see `revision.revise`. Raises OverlappingHours."""
    revision = revision_of(connection, stated, at_ns, progress)
    # New matching clauses make a new edition of the book even if no price changes.
    renamed = stated.whole and not set(_models(connection)).issuperset(models)
    _write(connection, revision, stated.source, stated.source_version, recorded_at_ns, even_if_empty=renamed)
    if stated.whole:
        tail = " ON CONFLICT (provider, model) DO UPDATE SET position = excluded.position, match = excluded.match"
        bulk_insert.insert(connection, "priced_models", PricedModel._fields, models, tail)
    else:
        bulk_insert.insert_ignoring_conflicts(
            connection, "priced_models", PricedModel._fields, models, on=("provider", "model")
        )
    return BookChange(len(revision.added), len(revision.closed))


def set_price(
    connection: Connection,
    row: CatalogueRow,
    author: str,
    at_ns: int,
    tenant_id: int | None = None,
    allow_free: bool = False,
) -> BookChange:
    """Set one price from `row.valid_from_ns` on; adds an unknown model by its exact name.

    With a tenant, it is a negotiated price of this tenant. Raises ValueError for a negative price, and for 0 unless
    `allow_free`; raises OverlappingHours.
    """
    if row.usd_per_1k < 0 or (row.usd_per_1k == 0 and not allow_free):
        raise ValueError("a price must be positive; leave a model without a price to record it as unpriced")
    stated = PriceList([row], MANUAL, author, whole=False, dated=True, tenant_id=tenant_id)
    return import_prices(connection, stated, [exact_model(row.provider, row.model)], row.valid_from_ns, at_ns)


def state_price(
    connection: Connection,
    row: CatalogueRow,
    price_per_1k: Decimal,
    currency: str,
    author: str,
    at_ns: int,
    tenant_id: int | None = None,
    allow_free: bool = False,
) -> BookChange:
    """Validate a stated price, convert it from any currency with a rate, and set it.

    The price in `row` is ignored. Raises ValueError with the reason, and OverlappingHours.
    """
    if not can_have_price(row.unit):
        raise ValueError(f"{row.unit!r} is no unit of the price book; custom units begin with x_")
    if currency != USD and not is_currency(currency):
        raise ValueError(f"{currency!r} is no currency: three letters, such as EUR")
    reason = price_problem(price_per_1k, allow_free=allow_free)
    if reason:
        raise ValueError(reason)
    priced = in_usd(row, price_per_1k, currency, load_rates(connection))
    return set_price(connection, priced, author, at_ns, tenant_id, allow_free)


def exact_model(provider: str, model: str) -> PricedModel:
    """Return a model that matches its exact name, before any clause of a published list."""
    return PricedModel(provider, model, _EXACT_NAME_FIRST, json.dumps({"equals": model}))


def load_prices(connection: Connection) -> tuple[list[PriceVersion], list[PricedModel]]:
    """Return every list price that applies at some time, and the matching clauses of models."""
    return load_versions(connection, negotiated=False), _models(connection)


def _models(connection: Connection) -> list[PricedModel]:
    columns = (priced_models.c[name] for name in PricedModel._fields)
    return [PricedModel(*row) for row in connection.execute(select(*columns))]


def load_versions(
    connection: Connection, *, negotiated: bool | None = None, models: Collection[tuple[str, str]] | None = None
) -> list[PriceVersion]:
    """Return versions that apply at some time: list prices, negotiated ones, or both (None); of some models or all."""
    table = price_versions.c
    query = select(*(table[name] for name in PriceVersion._fields)).where(
        table.valid_to_ns.is_(None) | (table.valid_to_ns > table.valid_from_ns)
    )
    if negotiated is not None:
        query = query.where(table.tenant_id.is_not(None) if negotiated else table.tenant_id.is_(None))
    if models is not None and len(models) <= _MOST_NAMED:
        query = query.where(tuple_(table.provider, table.model).in_(sorted(models)))
    return [_version(*row) for row in connection.execute(query.order_by(table.id))]


def book_edition(connection: Connection) -> int:
    """Return a number that grows with every change of the book; 0 for an empty book."""
    return int(connection.execute(select(func.coalesce(func.max(price_imports.c.id), 0))).scalar_one())


def version_of(row: object) -> PriceVersion:
    """Return a row of `price_versions` as a record."""
    return _version(*(getattr(row, name) for name in PriceVersion._fields))


def _version(*values: object) -> PriceVersion:
    version = PriceVersion(*values)  # type: ignore[arg-type]
    original = version.original_per_1k
    return version._replace(
        usd_per_1k=Decimal(version.usd_per_1k),
        original_per_1k=Decimal(original) if original else None,
        usd_per_currency=Decimal(version.usd_per_currency),
    )


def _write(
    connection: Connection, revision: Revision, source: str, source_version: str, at_ns: int, *, even_if_empty: bool
) -> None:
    if not revision.added and not revision.closed and not even_if_empty:
        return
    _note_revision(connection, revision, source, source_version, at_ns)
    key = connection.execute(
        insert(price_imports).values(
            source=source,
            source_version=source_version,
            imported_at_ns=at_ns,
            versions_added=len(revision.added),
            versions_closed=len(revision.closed),
        )
    ).inserted_primary_key
    assert key is not None
    if revision.closed:
        connection.execute(
            update(price_versions)
            .where(price_versions.c.id == bindparam("version"))
            .values(valid_to_ns=bindparam("end")),
            [{"version": version, "end": end} for version, end in revision.closed.items()],
        )
    rows = list(_rows(revision.added, key[0], source, source_version, at_ns))
    try:
        bulk_insert.load(connection, "price_versions", _VERSION_COLUMNS, rows)
    except IntegrityError as error:
        raise OverlappingHours(f"the database refused a price: {error.orig}") from error


def _note_revision(connection: Connection, revision: Revision, source: str, source_version: str, at_ns: int) -> None:
    """Note a revision in the audit log of the tenant that negotiated the prices, or of `default` for list prices."""
    slots = {slot.tenant_id for slot, _ in revision.added}
    tenant_id = next(iter(slots), None) if len(slots) <= 1 else None
    prices = [
        {**{name: str(value) for name, value in slot._asdict().items()}, "usd_per_1k": _plain(row.usd_per_1k)}
        for slot, row in revision.added[:_NOTED]
    ]
    after = {"source": source, "source_version": source_version, "added": len(revision.added), "prices": prices}
    before = {"closed": len(revision.closed), "version_ids": sorted(revision.closed)[:_NOTED]}
    action = "price.set" if source == MANUAL else "price.import"
    tenant = DEFAULT_TENANT_ID if tenant_id is None else tenant_id
    note(connection, tenant, action, _subject(revision), at_ns, before=before, after=after)


def _subject(revision: Revision) -> str:
    slot = revision.added[0][0] if len(revision.added) == 1 else None
    return "" if slot is None else f"{slot.provider}/{slot.model}/{slot.unit}"


def _rows(
    added: Iterable[tuple[Slot, CatalogueRow]], import_id: int, source: str, source_version: str, at_ns: int
) -> Iterable[tuple[object, ...]]:
    for slot, row in added:
        original = "" if row.original_per_1k is None else _plain(row.original_per_1k)
        texts = row._replace(
            usd_per_1k=_plain(row.usd_per_1k),  # type: ignore[arg-type]
            original_per_1k=original,  # type: ignore[arg-type]
            usd_per_currency=_plain(row.usd_per_currency),  # type: ignore[arg-type]
        )
        yield (import_id, *texts, slot.tenant_id, source, source_version, at_ns)


def _plain(number: Decimal) -> str:
    return format(number.normalize(), "f")
