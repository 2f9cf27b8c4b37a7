"""Receivables: what wallets owe for usage that no credits paid, by wallet and age.

What a wallet owes is its newest usage, as the newest usage is paid last. Its age is that of the calls.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Select, Subquery, case, func, literal, select, union_all

from farebox_collector.ledger.journal.journal import WALLET
from farebox_collector.ledger.reports.wallet_blocks import ROWS_AT_ONCE, sums_by_wallet
from farebox_collector.ledger.tables.books import accounts
from farebox_collector.model.moments import Days
from farebox_collector.model.money import Commodity

AGE_ENDS = (30, 60, 90)
"""Days since the call at which an age ends; the last age has no end."""


class Receivable(NamedTuple):
    """What a wallet owes, or all together, in nanocredits."""

    wallet: str | None
    owed_nano: int
    by_age: tuple[int, ...]
    """The same by age, one more than `AGE_ENDS`, youngest first."""


def receivables(connection: Connection, tenant_id: int, today: int) -> Iterator[Receivable]:
    """Yield wallets that owe, highest debt first."""
    query = _owed(connection, tenant_id, today)
    names = [accounts.c.name, *_columns(query)]
    rows = select(*names).select_from(query.source).where(*query.conditions)
    ranked = rows.order_by(accounts.c.balance_nano, accounts.c.name)
    for name, owed, *recent in connection.execute(ranked, execution_options={"yield_per": ROWS_AT_ONCE}):
        yield _by_age(name, int(owed), [int(charge or 0) for charge in recent])


def receivable(connection: Connection, tenant_id: int) -> int:
    """Return what all wallets owe, in nanocredits."""
    account = accounts.c
    query = select(func.sum(-account.balance_nano)).where(*_in_debt(tenant_id))
    return int(connection.execute(query).scalar() or 0)


class _Query(NamedTuple):
    source: Any
    conditions: tuple[ColumnElement[bool], ...]
    recent: Subquery


def _in_debt(tenant_id: int) -> tuple[ColumnElement[bool], ...]:
    account = accounts.c
    own = (account.tenant_id == tenant_id, account.kind == WALLET, account.commodity == Commodity.CREDIT)
    return (*own, account.balance_nano < 0)


def _owed(connection: Connection, tenant_id: int, today: int) -> _Query:
    recent = _recent(connection, tenant_id, today)
    source = accounts.outerjoin(recent, recent.c.wallet == accounts.c.name)
    return _Query(source, _in_debt(tenant_id), recent)


def _columns(query: _Query) -> list[ColumnElement[Any]]:
    return [-accounts.c.balance_nano, *(query.recent.c[f"age_{number}"] for number in range(len(AGE_ENDS)))]


def _recent(connection: Connection, tenant_id: int, today: int) -> Subquery:
    """Return the charges of wallets in debt by age, for all ages but the last."""
    parts: list[Select[Any]] = []
    begins = (0, *AGE_ENDS)
    for number, (begin, end) in enumerate(zip(begins, AGE_ENDS, strict=False)):
        # The youngest has the calls of tomorrow too, by clocks that are ahead.
        days = Days(today + 1 - end, today + 1 - begin if begin else today + 2)
        sums = sums_by_wallet(connection, tenant_id, days, (accounts.c.balance_nano < 0,))
        part = sums.alias(f"age_{number}").c
        parts.append(select(part.wallet, literal(number).label("age"), part.charge_nanocredits.label("charge")))
    every = union_all(*parts).subquery("ages").c
    by_age = (
        func.sum(case((every.age == number, every.charge), else_=0)).label(f"age_{number}")
        for number in range(len(AGE_ENDS))
    )
    return select(every.wallet, *by_age).group_by(every.wallet).subquery("recent")


def _by_age(wallet: str, owed: int, recent: list[int]) -> Receivable:
    left, ages = owed, []
    for charge in recent:
        ages.append(min(left, max(charge, 0)))
        left -= ages[-1]
    return Receivable(wallet, owed, (*ages, left))


def total_of(rows: Iterator[Receivable]) -> Receivable:
    """Return the sum of receivables."""
    owed, ages = 0, [0] * (len(AGE_ENDS) + 1)
    for row in rows:
        owed += row.owed_nano
        ages = [a + b for a, b in zip(ages, row.by_age, strict=True)]
    return Receivable(None, owed, tuple(ages))
