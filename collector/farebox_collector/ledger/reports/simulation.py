"""Simulate a proposed rule on past calls. Reads only; exact to the nanocredit."""

from collections import defaultdict
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any, NamedTuple

from sqlalchemy import Connection, func, select

from farebox_collector.ledger.access.tenants import usd_per_credit_of
from farebox_collector.ledger.reports.terms import ListPrice
from farebox_collector.ledger.tables.books import (
    charge_rules,
    usage_records,
)
from farebox_collector.ledger.tables.rollups import usage_days
from farebox_collector.ledger.tables.usage_columns import TOKEN_COLUMNS
from farebox_collector.ledger.usage.action_pricing import ActionKey, ActionSums
from farebox_collector.ledger.usage.tombstones import require_detail
from farebox_collector.model.moments import day_of
from farebox_collector.model.records import Buckets, ChargeRule
from farebox_collector.model.units import read_units
from farebox_collector.model.verdicts import Verdict
from farebox_collector.pricing.rules import (
    EVERY_OTHER_EVENT,
    RuleTerms,
    exact_terms,
    require_chargeable,
    share,
)

_ROWS_AT_ONCE = 5_000
_EVER: dict[str, Any] = {"valid_from_ns": 0, "valid_to_ns": None}


class Outcome(NamedTuple):
    """Actual and simulated figures."""

    calls: int = 0
    charged_nanocredits: int = 0
    proposed_nanocredits: int = 0
    cost_nanousd: int = 0
    charge_value_nanousd: int = 0
    proposed_value_nanousd: int = 0
    """Charge value of the simulated charge."""


class Simulated(NamedTuple):
    """The outcome of a simulation: the same calls summed in two ways."""

    by_event: dict[str, Outcome]
    by_wallet: dict[str, Outcome]


class _Sums:
    """Sums by name."""

    def __init__(self) -> None:
        self._rows: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0, 0, 0])

    def add(self, name: str, charged: int, proposed: int, cost: int) -> None:
        row = self._rows[name]
        row[0] += 1
        row[1] += charged
        row[2] += proposed
        row[3] += cost

    def outcomes(self, price: ListPrice) -> dict[str, Outcome]:
        return {name: Outcome(*row, *map(price.nanousd, row[1:3])) for name, row in sorted(self._rows.items())}


def simulate(
    connection: Connection,
    tenant_id: int,
    event: str,
    terms: RuleTerms,
    from_ns: int,
    to_ns: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Simulated:
    """Recharge the calls of an event that were priced in [from, to); other calls keep their charges.

    `*` selects the events without a specific rule at the end of that period. Raises BadRule and DetailRetired.
    """
    require_chargeable(terms)
    require_detail(connection, tenant_id, from_ns, to_ns, "a rule can be tried on calls")
    usd_per_credit = usd_per_credit_of(connection, tenant_id)
    exact = exact_terms(ChargeRule(0, event, usd_per_credit=Decimal(usd_per_credit), **_EVER, **terms._asdict()))
    own_rules = _events_with_rules(connection, tenant_id, to_ns)
    untouched = ActionSums(0, 0, exact.floor_nanocredits)
    actions: defaultdict[ActionKey, ActionSums] = defaultdict(lambda: untouched)
    by_event, by_wallet = _Sums(), _Sums()
    table = usage_records.c
    chosen = (
        table.tenant_id == tenant_id,
        table.verdict == Verdict.CHARGED,
        table.priced_at_ns >= from_ns,
        table.priced_at_ns < to_ns,
    )
    total = int(connection.execute(select(func.count()).select_from(usage_records).where(*chosen)).scalar_one())
    columns = (table.wallet, table.event, table.action_id, table.cost_nanousd, table.charge_nanocredits, table.units)
    query = select(*columns, *(usage_records.c[name] for name in TOKEN_COLUMNS)).where(*chosen).order_by(table.id)
    rows = connection.execute(query, execution_options={"yield_per": _ROWS_AT_ONCE})
    for number, row in enumerate(rows):
        if number % _ROWS_AT_ONCE == 0:
            progress(number, total)
        wallet, name, action_id, cost, charged, units, *counts = row
        proposed = charged
        if name == event or (event == EVERY_OTHER_EVENT and name not in own_rules):
            proposed = share(exact, cost, Buckets(*counts), read_units(units))
            if exact.floor_nanocredits:
                # A call without an action counts as a separate action.
                before = actions[wallet, name, action_id] if action_id else untouched
                after = actions[wallet, name, action_id] = before.with_call(proposed)
                proposed = after.charge_nanocredits - before.charge_nanocredits
        by_event.add(name, charged, proposed, cost)
        by_wallet.add(wallet, charged, proposed, cost)
    progress(total, total)
    price = ListPrice(Fraction(usd_per_credit))
    return Simulated(by_event.outcomes(price), by_wallet.outcomes(price))


def calls_at_most(connection: Connection, tenant_id: int, from_ns: int, to_ns: int) -> int:
    """Return the charged calls of the days of [from, to): an upper bound of what the simulation reads."""
    table = usage_days.c
    calls = select(func.coalesce(func.sum(table.requests), 0)).where(
        table.tenant_id == tenant_id,
        table.day >= day_of(from_ns),
        table.day <= day_of(max(from_ns, to_ns - 1)),
        table.verdict == Verdict.CHARGED,
    )
    return int(connection.execute(calls).scalar_one())


def _events_with_rules(connection: Connection, tenant_id: int, at_ns: int) -> set[str]:
    rules = charge_rules.c
    found = connection.execute(
        select(rules.event).where(
            rules.tenant_id == tenant_id,
            rules.valid_from_ns <= at_ns,
            (rules.valid_to_ns.is_(None)) | (rules.valid_to_ns > at_ns),
        )
    )
    return {name for (name,) in found}
