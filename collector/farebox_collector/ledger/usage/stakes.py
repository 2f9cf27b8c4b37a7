"""Amounts at stake: how much of the charges may be wrong, and what calls may cost whose end was not seen.

A record has one row per flag as long as it may change: corrections and retention delete the rows. Metrics are read from
the sums by flag.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, delete, func, select, tuple_

from farebox_collector.ledger.storage import bulk_insert
from farebox_collector.ledger.tables.stakes import stake_totals, stakes
from farebox_collector.model.records import PricedUsage
from farebox_collector.model.verdicts import Verdict
from farebox_collector.pricing.parts import (
    BY_ESTIMATE,
    STATED_IMPLAUSIBLE,
    STATED_ZERO,
    WITHOUT_PRICE,
)

EXPOSED = "exposed"
COUNTS_DISAGREE = "counts_disagree"
COUNT_FLAGS = (
    "counts_ambiguous",
    "total_does_not_add_up",
    "reasoning_over_output",
    "reasoning_added_to_output",
    "output_from_total",
    "cache_over_input",
    "cache_outside_input",
    "cache_assumed_inside_input",
    COUNTS_DISAGREE,
)
"""Assumptions about contradictory counts; the last is used if the record has none of the others."""
FLAGS = (*COUNT_FLAGS, WITHOUT_PRICE, EXPOSED, STATED_IMPLAUSIBLE, STATED_ZERO, BY_ESTIMATE)
"""The flags, in display order."""

Stake = tuple[str, bytes, bytes, int, str, str, str, int]
"""Flag, trace id, span id, time of pricing, wallet, provider, model, nano-USD."""

_COLUMNS = ("tenant_id", "flag", "trace_id", "span_id", "priced_at_ns", "wallet", "provider", "model", "amount_nanousd")


class StakeFilter(NamedTuple):
    """Selects rows; an empty field does not filter."""

    flag: str = ""
    wallet: str = ""


def stakes_of(call: PricedUsage) -> list[Stake]:
    """Return the amounts at stake with a call as the books have it; most calls have none."""
    found = call.particulars
    priced: list[tuple[str, int]] = []
    if found is None:
        return []
    cost = call.cost_nanousd or 0
    if call.verdict is Verdict.EXPOSED:
        priced.append((EXPOSED, found.estimate_nanousd or 0))
    elif call.verdict is Verdict.CHARGED:
        if found.at_stake_nanousd:
            flag_of_counts = next((flag for flag in COUNT_FLAGS if flag in call.assumptions), COUNTS_DISAGREE)
            priced.append((flag_of_counts, found.at_stake_nanousd))
        if WITHOUT_PRICE in call.assumptions:
            priced.append((WITHOUT_PRICE, 0))
        # An absurd stated cost does not measure the amount at stake.
        doubted = (flag for flag in (STATED_IMPLAUSIBLE, STATED_ZERO) if flag in call.assumptions)
        priced += [(flag, cost) for flag in doubted]
        if BY_ESTIMATE in call.assumptions:
            priced.append((BY_ESTIMATE, cost))
    usage = call.usage
    names = call.priced_at_ns, usage.wallet, call.provider, call.model
    return [(flag, usage.trace_id, usage.span_id, *names, amount) for flag, amount in priced]


def add_stakes(connection: Connection, tenant_id: int, added: Sequence[Stake]) -> None:
    """Add the amounts at stake with records that were just booked."""
    if added:
        rows = [(tenant_id, *stake) for stake in sorted(added)]
        bulk_insert.insert(connection, stakes.name, _COLUMNS, rows)
        _count(connection, tenant_id, added, 1)


def remove_stakes(connection: Connection, tenant_id: int, removed: Sequence[Stake]) -> None:
    """Remove the amounts at stake with records that were corrected or retired."""
    if removed:
        table = stakes.c
        keys = sorted(stake[:3] for stake in removed)
        connection.execute(
            delete(stakes).where(
                table.tenant_id == tenant_id, tuple_(table.flag, table.trace_id, table.span_id).in_(keys)
            )
        )
        _count(connection, tenant_id, removed, -1)


def _count(connection: Connection, tenant_id: int, changed: Iterable[Stake], sign: int) -> None:
    records: Counter[str] = Counter()
    amounts: Counter[str] = Counter()
    for stake in changed:
        records[stake[0]] += sign
        amounts[stake[0]] += sign * stake[-1]
    rows = [(tenant_id, flag, records[flag], amounts[flag]) for flag in sorted(records)]
    bulk_insert.insert_adding(connection, stake_totals.name, ("tenant_id", "flag"), ("records", "amount_nanousd"), rows)


def stake_sums(connection: Connection, tenant_id: int | None = None) -> dict[str, tuple[int, int]]:
    """Return flag → records and nano-USD at stake, of one tenant or of all; includes every flag."""
    table = stake_totals.c
    query = select(table.flag, func.sum(table.records), func.sum(table.amount_nanousd)).group_by(table.flag)
    if tenant_id is not None:
        query = query.where(table.tenant_id == tenant_id)
    found = {flag: (int(records), int(amount)) for flag, records, amount in connection.execute(query)}
    return {flag: found.get(flag, (0, 0)) for flag in FLAGS}


def stake_rows(
    connection: Connection,
    tenant_id: int,
    wanted: StakeFilter,
    after: tuple[int, str, bytes, bytes] | None,
    limit: int,
) -> Sequence[Row[Any]]:
    """Return rows of a tenant, newest first; `after` is the key of the last row of the page before."""
    table = stakes.c
    place = (table.priced_at_ns, table.flag, table.trace_id, table.span_id)
    query = select(stakes).where(table.tenant_id == tenant_id)
    if wanted.flag:
        query = query.where(table.flag == wanted.flag)
    if wanted.wallet:
        query = query.where(table.wallet == wanted.wallet)
    if after is not None:
        query = query.where(tuple_(*place) < tuple_(*after))
    return connection.execute(query.order_by(*(column.desc() for column in place)).limit(limit)).all()


def keys_at_stake(
    connection: Connection, tenant_id: int, flag: str, after: tuple[bytes, bytes], limit: int
) -> list[tuple[bytes, bytes]]:
    """Return trace and span ids of the next few records of a flag after a key, in key order."""
    table = stakes.c
    found = connection.execute(
        select(table.trace_id, table.span_id)
        .where(
            table.tenant_id == tenant_id,
            table.flag == flag,
            tuple_(table.trace_id, table.span_id) > tuple_(*after),
        )
        .order_by(table.trace_id, table.span_id)
        .limit(limit)
    )
    return [(bytes(trace_id), bytes(span_id)) for trace_id, span_id in found]
