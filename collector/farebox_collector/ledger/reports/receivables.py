"""Receivables: what wallets owe for usage that no credits paid, by wallet and age.

What a wallet owes is its newest usage, as the newest usage is paid last. Its age is that of the calls.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from sqlalchemy import ColumnElement, Connection, func, select

from farebox_collector.ledger.journal.journal import WALLET
from farebox_collector.ledger.reports.wallet_blocks import charges_of
from farebox_collector.ledger.tables.books import accounts
from farebox_collector.model.moments import Days
from farebox_collector.model.money import Commodity

AGE_ENDS = (30, 60, 90)
"""Days since the call at which an age ends; the last age has no end."""

_FIRST_WALLETS, _WALLETS_AT_ONCE = 128, 1_000
"""Wallets whose ages are read at a time; often only the first are shown."""


class Receivable(NamedTuple):
    """What a wallet owes, or all together, in nanocredits."""

    wallet: str | None
    owed_nano: int
    by_age: tuple[int, ...]
    """The same by age, one more than `AGE_ENDS`, youngest first."""


def receivables(connection: Connection, tenant_id: int, today: int) -> Iterator[Receivable]:
    """Yield wallets that owe, highest debt first."""
    account = accounts.c
    query = select(account.name, -account.balance_nano).where(*_in_debt(tenant_id))
    ranked = connection.execute(query.order_by(account.balance_nano, account.name)).all()
    start, size = 0, _FIRST_WALLETS
    while start < len(ranked):
        owed = {name: int(nano) for name, nano in ranked[start : start + size]}
        start, size = start + size, _WALLETS_AT_ONCE
        ages = _by_age(connection, tenant_id, today, owed)
        yield from (Receivable(name, nano, tuple(ages[name])) for name, nano in owed.items())


def receivable(connection: Connection, tenant_id: int) -> int:
    """Return what all wallets owe, in nanocredits."""
    account = accounts.c
    query = select(func.sum(-account.balance_nano)).where(*_in_debt(tenant_id))
    return int(connection.execute(query).scalar() or 0)


def _in_debt(tenant_id: int) -> tuple[ColumnElement[bool], ...]:
    account = accounts.c
    own = (account.tenant_id == tenant_id, account.kind == WALLET, account.commodity == Commodity.CREDIT)
    return (*own, account.balance_nano < 0)


def _by_age(connection: Connection, tenant_id: int, today: int, owed: Mapping[str, int]) -> dict[str, list[int]]:
    """Return what wallets owe by the age of the calls; reads an age only for wallets that owe more than the younger."""
    left = dict(owed)
    ages: dict[str, list[int]] = {name: [] for name in owed}
    for begin, end in zip((0, *AGE_ENDS), AGE_ENDS, strict=False):
        wanted = [name for name, nano in left.items() if nano]
        # The youngest has the calls of tomorrow too, by clocks that are ahead.
        days = Days(today + 1 - end, today + 1 - begin if begin else today + 2)
        charged = charges_of(connection, tenant_id, days, wanted) if wanted else {}
        for name, nano in left.items():
            ages[name].append(min(nano, max(charged.get(name, 0), 0)))
            left[name] = nano - ages[name][-1]
    return {name: [*of_wallet, left[name]] for name, of_wallet in ages.items()}


def total_of(rows: Iterator[Receivable]) -> Receivable:
    """Return the sum of receivables."""
    owed, ages = 0, [0] * (len(AGE_ENDS) + 1)
    for row in rows:
        owed += row.owed_nano
        ages = [a + b for a, b in zip(ages, row.by_age, strict=True)]
    return Receivable(None, owed, tuple(ages))
