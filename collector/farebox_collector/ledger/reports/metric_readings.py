"""Read the books for metrics; no other module does. Sums over all tenants; no reading names a wallet."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from types import SimpleNamespace
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, Select, and_, case, func, or_, select, tuple_

from farebox_collector.ledger.credits.lots import (
    BREAKAGE_ACCOUNT,
    DEFERRED_ACCOUNT,
    REFUNDED_ACCOUNT,
    REVENUE_ACCOUNT,
)
from farebox_collector.ledger.credits.movements import RECEIPTS_ACCOUNT
from farebox_collector.ledger.journal.journal import WALLET
from farebox_collector.ledger.payments.payment_fees import FEES_ACCOUNT
from farebox_collector.ledger.reports.terms import ListPrice
from farebox_collector.ledger.tables.books import accounts, tenants, usage_totals
from farebox_collector.ledger.tables.corrections import correction_totals
from farebox_collector.ledger.tables.prices import price_versions
from farebox_collector.ledger.tables.rollups import wallet_days
from farebox_collector.ledger.tables.service import credit_totals, incidents, service_totals
from farebox_collector.ledger.usage.correction_totals import SUMS as CORRECTION_SUMS
from farebox_collector.ledger.usage.running_totals import SERVICE_LABELS
from farebox_collector.model.moments import DAY_NS, day_of
from farebox_collector.model.money import NANO, Commodity
from farebox_collector.model.records import DEFAULT_TENANT_ID, STANDARD

BALANCE_BOUNDS_CREDITS = (0, 1, 5, 10, 50, 100, 500, 1000)
RUNWAYS_NS: Mapping[str, int] = {"1d": DAY_NS, "7d": 7 * DAY_NS}
_RATE_DAYS = (2, 7)
_MOST_PRICES = 5_000
RECEIVABLE = "receivable"
_ACCOUNTS: Mapping[str, tuple[str, int]] = {
    "revenue": (REVENUE_ACCOUNT.kind, -1),
    "breakage": (BREAKAGE_ACCOUNT.kind, -1),
    "refunds": (REFUNDED_ACCOUNT.kind, 1),
    "fees": (FEES_ACCOUNT.kind, 1),
    "cash_in": (RECEIPTS_ACCOUNT.kind, 1),
    "deferred_revenue": (DEFERRED_ACCOUNT.kind, -1),
}
"""Term of money → the kind of account that holds it, and its sign."""
_A_WALLET = (accounts.c.kind == WALLET, accounts.c.commodity == Commodity.CREDIT)


class WalletReading(NamedTuple):
    """Counts and sums of wallet balances."""

    wallets: int
    below: Mapping[int, int]
    """Bound in credits → wallets with a balance below it."""
    positive_nanocredits: int
    negative_nanocredits: int


def usage_rows(connection: Connection) -> Sequence[Row[Any]]:
    """Return the usage totals of all tenants."""
    return connection.execute(select(usage_totals)).all()


def service_rows(connection: Connection) -> Sequence[Any]:
    """Return the service totals, summed over tenants."""
    figures = [name for column in service_totals.c if (name := column.name) not in ("id", "tenant_id", *SERVICE_LABELS)]
    return _over_tenants(connection.execute(select(service_totals)), SERVICE_LABELS, figures)


def credits_in(connection: Connection) -> dict[str, int]:
    """Return nanocredits added to wallets, by source."""
    table = credit_totals.c
    found: Counter[str] = Counter()
    for source, amount in connection.execute(select(table.source, table.amount_nanocredits)):
        found[source] += amount
    return dict(found)


def correction_rows(connection: Connection) -> Sequence[Any]:
    """Return the figures of `correction_totals` by cause, summed over tenants."""
    return _over_tenants(connection.execute(select(correction_totals)), ("cause",), CORRECTION_SUMS)


def incidents_by_severity(connection: Connection) -> dict[str, int]:
    """Return the number of incidents ever recorded, by severity."""
    found = connection.execute(select(incidents.c.severity, func.count()).group_by(incidents.c.severity))
    return {row.severity: row[1] for row in found}


def wallets(connection: Connection) -> WalletReading:
    """Return counts and sums of all wallet balances, in one query."""
    table = accounts.c
    below = [_count(table.balance_nano < bound * NANO) for bound in BALANCE_BOUNDS_CREDITS]
    balance = table.balance_nano
    # Sum whole credits and remainders separately: the sum of all balances may exceed SQLite's 64 bits.
    parts = [
        func.coalesce(func.sum(case((sign, part), else_=0)), 0)
        for sign in (balance > 0, balance < 0)
        for part in (balance.op("/")(NANO), balance.op("%")(NANO))
    ]
    row = connection.execute(select(func.count(), *below, *parts).where(*_A_WALLET)).one()
    figures = [int(figure) for figure in row]
    whole, rest, owed_whole, owed_rest = figures[-len(parts) :]
    return WalletReading(
        figures[0],
        dict(zip(BALANCE_BOUNDS_CREDITS, figures[1 : -len(parts)], strict=True)),
        whole * NANO + rest,
        owed_whole * NANO + owed_rest,
    )


def wallets_running_dry(connection: Connection, now_ns: int) -> dict[str, int]:
    """Return, by horizon, wallets whose credits run out within it at their spending rate.

    Both rates, of the last two UTC days and of the last seven, must agree: neither a busy hour nor spending of a week
    ago is a trend. Wallets count as at least a day old. Reads the days of wallets with spending, not every wallet.
    """
    today, table, days = day_of(now_ns), accounts.c, wallet_days.c
    rates = []
    spent = (
        select(
            days.tenant_id,
            days.wallet,
            *(
                func.sum(case((days.day > today - length, days.charge_nanocredits), else_=0) * 1.0).label(
                    f"spent_{length}d"
                )
                for length in _RATE_DAYS
            ),
        )
        .join(tenants, tenants.c.id == days.tenant_id)  # For the index, which begins with the tenant.
        .where(days.day > today - max(_RATE_DAYS))
        .group_by(days.tenant_id, days.wallet)
        .subquery()
    )
    for length in _RATE_DAYS:
        window_ns = now_ns - (today - length + 1) * DAY_NS
        age_ns = now_ns - table.created_at_ns
        counted_ns = case((age_ns < DAY_NS, DAY_NS), (age_ns < window_ns, age_ns), else_=max(window_ns, DAY_NS))
        # Floats are precise enough for a count, and the product of two amounts would not fit an integer.
        rates.append(1.0 * spent.c[f"spent_{length}d"] / counted_ns)
    dry = [
        _count(and_(table.balance_nano > 0, *(table.balance_nano < rate * time_ns for rate in rates)))
        for time_ns in RUNWAYS_NS.values()
    ]
    of_wallet = and_(table.tenant_id == spent.c.tenant_id, table.name == spent.c.wallet, *_A_WALLET)
    row = connection.execute(select(*dry).select_from(spent.join(accounts, of_wallet))).one()
    return dict(zip(RUNWAYS_NS, map(int, row), strict=True))


def _over_tenants(rows: Iterable[Row[Any]], labels: Sequence[str], figures: Sequence[str]) -> Sequence[Any]:
    """Return rows summed by label over tenants; in Python, because a sum in the database may overflow."""
    sums: dict[tuple[str, ...], Counter[str]] = {}
    for row in rows:
        of_labels = sums.setdefault(tuple(getattr(row, name) for name in labels), Counter())
        for name in figures:
            of_labels[name] += int(getattr(row, name))
    return [
        SimpleNamespace(**dict(zip(labels, key, strict=True)), **{name: found[name] for name in figures})
        for key, found in sums.items()
    ]


def list_prices(connection: Connection, models: Sequence[tuple[str, str]], at_ns: int) -> Sequence[Row[Any]]:
    """Return base prices of models at a moment: provider, model, unit, usd_per_1k."""
    price = price_versions.c
    chosen: Select[Any] = (
        select(price.provider, price.model, price.unit, price.usd_per_1k)
        .where(
            price.valid_from_ns <= at_ns,
            or_(price.valid_to_ns.is_(None), price.valid_to_ns > at_ns),
            price.over_input_tokens == 0,
            price.daily_from_s == price.daily_to_s,
            price.weekdays == 0,
            price.condition == STANDARD,
            price.tenant_id.is_(None),
            tuple_(price.provider, price.model).in_(models),
        )
        .order_by(price.id)
        .limit(_MOST_PRICES)
    )
    return connection.execute(chosen).all()


def list_price_of_tenants(connection: Connection) -> dict[int, ListPrice]:
    """Return the list price of the credit of each tenant."""
    return {row.id: ListPrice(Fraction(row.usd_per_credit)) for row in connection.execute(select(tenants))}


def money(connection: Connection, prices: Mapping[int, ListPrice]) -> dict[str, int]:
    """Return the terms of money that the ledger has accounts for, and what wallets owe, in nano-USD."""
    account, kinds = accounts.c, {kind: (term, sign) for term, (kind, sign) in _ACCOUNTS.items()}
    # By tenant, for the index of accounts.
    of_tenants = select(account.kind, account.balance_nano).join(tenants, tenants.c.id == account.tenant_id)
    rows = connection.execute(of_tenants.where(account.kind.in_(kinds), account.commodity == Commodity.USD))
    found: Counter[str] = Counter(dict.fromkeys((*_ACCOUNTS, RECEIVABLE), 0))
    for kind, balance in rows:
        term, sign = kinds[kind]
        found[term] += sign * int(balance)
    owed = (
        select(account.tenant_id, func.sum(account.balance_nano))
        .where(*_A_WALLET, account.balance_nano < 0)
        .group_by(account.tenant_id)
    )
    for tenant_id, balance in connection.execute(owed):
        found[RECEIVABLE] += prices[tenant_id].nanousd(-int(balance))
    return dict(found)


def usd_per_credit(connection: Connection) -> str:
    """Return the list price of the default tenant's credit, as a decimal."""
    price = select(tenants.c.usd_per_credit).where(tenants.c.id == DEFAULT_TENANT_ID)
    return str(connection.execute(price).scalar_one())


def _count(condition: Any) -> Any:
    return func.coalesce(func.sum(case((condition, 1), else_=0)), 0)
