"""Gaps in the price book: periods without a price between two versions, and models without any price."""

from collections.abc import Container, Iterator
from itertools import chain, islice, pairwise
from typing import NamedTuple

from sqlalchemy import Connection, func, select

from farebox_collector.ledger.tables.books import usage_records
from farebox_collector.ledger.tariffs.prices import load_versions
from farebox_collector.ledger.usage.stored_usage import of_verdict
from farebox_collector.model.records import STANDARD
from farebox_collector.model.verdicts import Verdict
from farebox_collector.pricing.revision import Slot, by_slot


class Gap(NamedTuple):
    """A missing price."""

    what: str
    provider: str
    model: str
    unit: str
    from_ns: int | None
    to_ns: int | None


def gaps(connection: Connection, now_ns: int, limit: int) -> Iterator[Gap]:
    """Return at most `limit` missing prices, those of recorded calls first."""
    return islice(chain(_unpriced_calls(connection, limit), _between_versions(connection, now_ns)), limit)


def _unpriced_calls(connection: Connection, limit: int) -> Iterator[Gap]:
    """Yield models of recorded calls that had no price at the time."""
    table = usage_records.c
    rows = connection.execute(
        select(
            table.provider,
            table.model,
            table.reason,
            func.count().label("calls"),
            func.min(table.priced_at_ns).label("first_ns"),
            func.max(table.priced_at_ns).label("last_ns"),
        )
        .where(of_verdict(Verdict.UNPRICED))
        .group_by(table.provider, table.model, table.reason)
        .order_by(func.count().desc())
        .limit(limit)
    )
    for row in rows:
        unit = row.reason.removeprefix("no price for ") if row.reason.startswith("no price for ") else ""
        what = f"{row.calls} unpriced calls: {row.reason}"
        yield Gap(what, row.provider, row.model, "" if " " in unit else unit, row.first_ns, row.last_ns)


def _between_versions(connection: Connection, now_ns: int) -> Iterator[Gap]:
    """Yield prices that end before the next one begins, and steps and conditions without a base price."""
    slots = by_slot(load_versions(connection))
    for slot, versions in slots.items():
        ordered = sorted(versions, key=lambda version: version.valid_from_ns)
        # Between prices for some hours the base price applies: peak hours end on public holidays.
        some_times = slot.daily_from_s != slot.daily_to_s or slot.weekdays
        for version, following in () if some_times and _has_base(slot, slots) else pairwise(ordered):
            if version.valid_to_ns is not None and version.valid_to_ns < following.valid_from_ns:
                yield Gap(
                    "no price between two versions",
                    slot.provider,
                    slot.model,
                    slot.unit,
                    version.valid_to_ns,
                    following.valid_from_ns,
                )
        last = ordered[-1]
        holds = last.valid_to_ns is None or last.valid_to_ns > now_ns
        if holds and slot.tenant_id is None and not _has_base(slot, slots):
            what = "a price for some calls only: the other calls have none"
            yield Gap(what, slot.provider, slot.model, slot.unit, None, None)


def _has_base(slot: Slot, slots: Container[Slot]) -> bool:
    """Return whether calls outside the slot's step, condition or hours have a price."""
    plain = slot._replace(over_input_tokens=0, daily_from_s=0, daily_to_s=0, weekdays=0)
    return plain in slots or plain._replace(condition=STANDARD) in slots
