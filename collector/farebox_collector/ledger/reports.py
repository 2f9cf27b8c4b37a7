"""Reports: what people ask of the books about days. Read from the roll-ups, however many usage records there are."""

from collections.abc import Sequence
from enum import StrEnum
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Row, Table, and_, func, select

from farebox_collector.ledger.day_tables import usage_days, wallet_days
from farebox_collector.ledger.days import DAY_SUMS
from farebox_collector.ledger.journal import WALLET
from farebox_collector.ledger.tables import accounts
from farebox_collector.money import Commodity
from farebox_collector.verdicts import ONE_CALL


class Days(NamedTuple):
    """UTC days since 1970, half-open."""

    first: int
    end: int

    @property
    def before(self) -> "Days":
        """As many days, directly before these."""
        return Days(2 * self.first - self.end, self.first)


class UsageGroup(StrEnum):
    """What the usage of a tenant can be told apart by."""

    DAY = "day"
    EVENT = "event"
    PROVIDER = "provider"
    MODEL = "model"
    VERDICT = "verdict"


class WalletGroup(StrEnum):
    """What the usage of one wallet can be told apart by."""

    DAY = "day"
    EVENT = "event"


def usage_by(
    connection: Connection,
    tenant_id: int,
    days: Days,
    groups: Sequence[UsageGroup],
    *,
    event: str = "",
    model: str = "",
    verdict: str = "",
) -> Sequence[Row[Any]]:
    """Calls, tokens, cost and charge (`DAY_SUMS`) by these groups, in their order; each call counts once."""
    table = usage_days.c
    conditions = [_within(usage_days, tenant_id, days)]
    conditions.append(table.verdict == verdict if verdict else table.verdict.in_(sorted(ONE_CALL)))
    conditions += [table[name] == value for name, value in (("event", event), ("model", model)) if value]
    columns = [table[group] for group in groups]
    return connection.execute(
        select(*columns, *_sums(usage_days)).where(and_(*conditions)).group_by(*columns).order_by(*columns)
    ).all()


def wallet_by(
    connection: Connection, tenant_id: int, wallet: str, days: Days, group: WalletGroup
) -> Sequence[Row[Any]]:
    """The charged calls of one wallet (`DAY_SUMS`) by day or event, in that order: one look-up a day."""
    table = wallet_days.c
    column = table[group]
    one_by_one = table.day.in_(range(days.first, days.end))
    return connection.execute(
        select(column, *_sums(wallet_days))
        .where(table.tenant_id == tenant_id, one_by_one, table.wallet == wallet)
        .group_by(column)
        .order_by(column)
    ).all()


def top_wallets(
    connection: Connection, tenant_id: int, days: Days, *, event: str = "", model: str = "", limit: int = 100
) -> Sequence[Row[Any]]:
    """Wallets with their charged calls (`DAY_SUMS`), those that cost us most first."""
    table = wallet_days.c
    conditions = [_within(wallet_days, tenant_id, days)]
    conditions += [table[name] == value for name, value in (("event", event), ("model", model)) if value]
    cost = func.sum(table.cost_nanousd)
    return connection.execute(
        select(table.wallet, *_sums(wallet_days))
        .where(and_(*conditions))
        .group_by(table.wallet)
        .having(func.sum(table.requests) > 0)
        .order_by(cost.desc(), table.wallet)
        .limit(limit)
    ).all()


def held_nanocredits(connection: Connection, tenant_id: int, wallet: str) -> int:
    """What a wallet has set aside in holds."""
    table = accounts.c
    found = connection.execute(
        select(table.held_nano).where(
            table.tenant_id == tenant_id,
            table.kind == WALLET,
            table.name == wallet,
            table.commodity == Commodity.CREDIT,
        )
    ).scalar()
    return int(found or 0)


def _within(table: Table, tenant_id: int, days: Days) -> ColumnElement[bool]:
    return and_(table.c.tenant_id == tenant_id, table.c.day >= days.first, table.c.day < days.end)


def _sums(table: Table) -> list[ColumnElement[Any]]:
    return [func.sum(table.c[name]).label(name) for name in DAY_SUMS]
