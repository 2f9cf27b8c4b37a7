"""`farebox prices import`: show the changes of a price list, then apply them."""

import time
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from sqlalchemy import Connection

from farebox_collector.commands.tenants import tenant_id_of
from farebox_collector.commands.terminal import (
    AsJson,
    DatabaseUrl,
    Limit,
    Stop,
    figure_table,
    moment_ns,
    out,
    print_json,
    print_table,
    progress_bar,
    reading_books,
    writable_books,
)
from farebox_collector.ledger.tariffs.exchange_rates import load_rates
from farebox_collector.ledger.tariffs.prices import OverlappingHours, import_prices, revision_of
from farebox_collector.model.moments import format_ns
from farebox_collector.model.records import STANDARD
from farebox_collector.pricing.catalogue import bundled_catalogues
from farebox_collector.pricing.litellm import litellm_catalogue
from farebox_collector.pricing.price_csv import csv_catalogue
from farebox_collector.pricing.price_lists import MAX_LIST_BYTES, Catalogue, UnfitList
from farebox_collector.pricing.revision import Difference, Kind, Revision
from farebox_collector.pricing.weekdays import weekday_names


class Source(StrEnum):
    """The source of a price list."""

    GENAI_PRICES = "genai-prices"
    LITELLM = "litellm"
    CSV = "csv"


def import_command(
    file: Annotated[Path | None, typer.Argument(help="The list, for litellm (JSON) and csv.")] = None,
    source: Annotated[Source, typer.Option("--from", help="The kind of list.")] = Source.GENAI_PRICES,
    since: Annotated[datetime | None, typer.Option(help="When changed prices take effect, UTC (default: now).")] = None,
    tenant: Annotated[str, typer.Option(help="The tenant that negotiated these prices; csv only.")] = "",
    apply: Annotated[
        bool | None,
        typer.Option("--apply/--dry-run", help="Apply the changes, or show them (default: ask on a terminal)."),
    ] = None,
    allow_free: Annotated[bool, typer.Option("--allow-free", help="Accept prices of zero.")] = False,
    limit: Limit = 50,
    database_url: DatabaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """Show a list's changes to the price book, then apply them. Past prices and prices set by hand stay."""
    text = "" if source is Source.GENAI_PRICES else _read(file)
    if tenant and source is not Source.CSV:
        raise Stop("--tenant needs --from csv: negotiated prices are read from a CSV file")
    name = file.name if file else ""
    at_ns = moment_ns(since)
    ask = apply is None and out.is_terminal and not as_json
    try:
        if not apply and not ask:
            with reading_books(database_url) as connection, progress_bar("comparing prices") as progress:
                catalogues = _catalogues(connection, source, text, name, at_ns, tenant, allow_free)
                revisions = [revision_of(connection, catalogue.prices, at_ns, progress) for catalogue in catalogues]
            _show(catalogues, revisions, limit, as_json, applied=False)
            return
        with closing(writable_books(database_url)) as database, database.transaction() as connection:
            with progress_bar("comparing prices") as progress:
                catalogues = _catalogues(connection, source, text, name, at_ns, tenant, allow_free)
                revisions = [revision_of(connection, catalogue.prices, at_ns, progress) for catalogue in catalogues]
            if not as_json:
                _show(catalogues, revisions, limit, as_json, applied=not ask)
            changes = any(revision.differences for revision in revisions)
            if ask and (not changes or not typer.confirm("Apply?")):
                return
            for catalogue in catalogues:
                import_prices(connection, catalogue.prices, catalogue.models, at_ns, time.time_ns())
        if as_json:
            _show(catalogues, revisions, limit, as_json, applied=True)
    except (UnfitList, OverlappingHours) as error:
        raise Stop(str(error)) from None


def _read(file: Path | None) -> str:
    if file is None:
        raise Stop("name the file to import")
    try:
        if file.stat().st_size > MAX_LIST_BYTES:
            raise Stop(f"{file} is over {MAX_LIST_BYTES:,} bytes")
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise Stop(f"{file} is not UTF-8") from None
    except OSError as error:
        raise Stop(f"{file}: {error.strerror}") from None


def _catalogues(
    connection: Connection, source: Source, text: str, name: str, at_ns: int, tenant: str, allow_free: bool
) -> list[Catalogue]:
    match source:
        case Source.GENAI_PRICES:
            return bundled_catalogues(allow_free)
        case Source.LITELLM:
            return [litellm_catalogue(text, name, allow_free)]
        case Source.CSV:
            tenant_id = tenant_id_of(connection, tenant) if tenant else None
            return [csv_catalogue(text, name, load_rates(connection), at_ns, tenant_id, allow_free)]


def _show(
    catalogues: Sequence[Catalogue], revisions: Sequence[Revision], limit: int, as_json: bool, *, applied: bool
) -> None:
    """Show the lists as one: first the requested list, then the bundled corrections to it."""
    first, revision = catalogues[0], _together(revisions)
    left_out = sum((catalogue.left_out for catalogue in catalogues), Counter[str]())
    counts = Counter(difference.kind for difference in revision.differences)
    if as_json:
        print_json(
            {
                "source": first.prices.source,
                "source_version": first.prices.source_version,
                "applied": applied,
                "versions_added": len(revision.added),
                "versions_closed": len(revision.closed),
                "prices": {kind.value: counts[kind] for kind in Kind}
                | {"unchanged": revision.unchanged, "kept_by_hand": revision.kept},
                "left_out": dict(left_out),
                "differences": [_json(difference) for difference in revision.differences],
            }
        )
        return
    table = figure_table("Differences", "", "model", "unit", "when", "USD per 1k", "USD new", "from")
    table.columns[-1].no_wrap = True
    # Show changes first and additions last: changes matter most.
    order = [Kind.CHANGED, Kind.CLOSED, Kind.ADDED]
    shown = sorted(revision.differences, key=lambda difference: order.index(difference.kind))[:limit]
    for kind, slot, old, new, from_ns in shown:
        model = f"{slot.provider}/{slot.model}"
        since = "ever" if from_ns == 0 else format_ns(from_ns)[:10]
        table.add_row(kind.value, model, slot.unit, _when(slot), _figure(old), _figure(new), since)
    if shown:
        print_table(table, len(shown), limit)
    for reason, count in left_out.most_common(limit):
        out.print(f"left out: {count} × {reason}")
    out.print(
        f"{counts[Kind.ADDED]} added, {counts[Kind.CHANGED]} changed, {counts[Kind.CLOSED]} closed;"
        f" {revision.unchanged} unchanged, {revision.kept} set by hand kept."
    )
    versions = f"{len(revision.added)} price versions to add, {len(revision.closed)} to close."
    out.print(versions if applied else f"{versions} Not applied; use --apply.")


def _together(revisions: Sequence[Revision]) -> Revision:
    """Combine the changes of lists. A price that one list ends and another restates unchanged is no change."""
    differences = [difference for revision in revisions for difference in revision.differences]
    stated = {difference.slot for difference in differences if difference.kind is not Kind.CLOSED}
    return Revision(
        [added for revision in revisions for added in revision.added],
        {version: end for revision in revisions for version, end in revision.closed.items()},
        [one for one in differences if one.kind is not Kind.CLOSED or one.slot not in stated],
        sum(revision.unchanged for revision in revisions),
        sum(revision.kept for revision in revisions),
    )


def _when(slot: Any) -> str:
    parts = [] if slot.condition == STANDARD else [slot.condition]
    if slot.over_input_tokens:
        parts.append(f"over {slot.over_input_tokens:,}")
    if slot.daily_from_s != slot.daily_to_s:
        ends = (slot.daily_from_s, slot.daily_to_s)
        parts.append("-".join(f"{second // 3600:02d}:{second // 60 % 60:02d}" for second in ends))
    if slot.weekdays:
        parts.append(weekday_names(slot.weekdays))
    return " ".join(parts)


def _figure(usd: Any) -> str:
    return "" if usd is None else format(usd.normalize(), "f")


def _json(difference: Difference) -> dict[str, Any]:
    slot = difference.slot
    return {
        "kind": difference.kind.value,
        "provider": slot.provider,
        "model": slot.model,
        "unit": slot.unit,
        "condition": slot.condition,
        "over_input_tokens": slot.over_input_tokens,
        "hours": _when(slot._replace(condition=STANDARD, over_input_tokens=0, weekdays=0)) or None,
        "weekdays": weekday_names(slot.weekdays) or None,
        "tenant_id": slot.tenant_id,
        "old_usd_per_1k": _figure(difference.old_usd_per_1k) or None,
        "new_usd_per_1k": _figure(difference.new_usd_per_1k) or None,
        "from": format_ns(difference.from_ns),
    }
