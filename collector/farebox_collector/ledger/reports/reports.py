"""Reports: what people ask of the books about days of usage. Read from the roll-ups, however many records there are."""

from collections.abc import Sequence
from enum import StrEnum
from typing import Any, Literal, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Connection,
    CursorResult,
    Select,
    Table,
    and_,
    false,
    func,
    literal,
    or_,
    select,
)

from farebox_collector.ledger.journal.journal import WALLET
from farebox_collector.ledger.tables.books import accounts
from farebox_collector.ledger.tables.rollups import DAY_SUMS, usage_days, wallet_days, within
from farebox_collector.model.moments import DAY_NS, Days
from farebox_collector.model.money import Commodity
from farebox_collector.model.verdicts import ONE_CALL, Verdict

ROWS_AT_ONCE = 1_000
"""Rows that a report takes from the database at a time, however many it has."""


class UsageGroup(StrEnum):
    """What the usage of a tenant can be told apart by."""

    DAY = "day"
    EVENT = "event"
    PROVIDER = "provider"
    MODEL = "model"
    VERDICT = "verdict"


class UsageFilter(NamedTuple):
    """Whose and which usage; empty fields do not filter. With one that looks at wallets, charged calls only count."""

    event: str = ""
    provider: str = ""
    model: str = ""
    verdict: str = ""
    wallets: Literal["", "new", "returning"] = ""
    """Wallets that came into being within the days, or before them."""
    balance_from_nano: int | None = None
    """Wallets with this balance now, or more."""
    balance_below_nano: int | None = None
    charged_of_wallets: bool = False
    """Look at the charged calls of wallets in any case."""

    @property
    def of_wallets(self) -> bool:
        """Whether it chooses among wallets."""
        if self.charged_of_wallets:
            return True
        return bool(self.wallets) or self.balance_from_nano is not None or self.balance_below_nano is not None


def usage_by(
    connection: Connection,
    tenant_id: int,
    days: Days,
    groups: Sequence[UsageGroup],
    wanted: UsageFilter = UsageFilter(),  # noqa: B008  (immutable)
) -> CursorResult[Any]:
    """Calls, tokens, cost and charge (`DAY_SUMS`) by these groups, in their order; each call counts once.

    Without groups it is one row of sums, which are NULL where there is nothing.
    """
    if wanted.of_wallets:
        return _usage_of_wallets(connection, tenant_id, days, groups, wanted)
    kept = usage_days.c.verdict
    columns = [usage_days.c[group] for group in groups]
    query = select(*columns, *day_sums(usage_days)).where(
        _within(usage_days, tenant_id, days),
        *_named(usage_days, wanted),
        kept == wanted.verdict if wanted.verdict else kept.in_(sorted(ONE_CALL)),
    )
    return _streamed(connection, _grouped(query, usage_days, columns))


def _usage_of_wallets(
    connection: Connection, tenant_id: int, days: Days, groups: Sequence[UsageGroup], wanted: UsageFilter
) -> CursorResult[Any]:
    """`usage_by` for wallets of a kind: their charged calls."""
    account, table = accounts.c, wallet_days.c
    charged = literal(Verdict.CHARGED.value).label("verdict")
    columns = [charged if group is UsageGroup.VERDICT else table[group] for group in groups]
    query = select(*columns, *day_sums(wallet_days)).where(
        _within(wallet_days, tenant_id, days), *_named(wallet_days, wanted)
    )
    chosen = _chosen(days, wanted)
    if chosen:
        own = and_(account.tenant_id == tenant_id, account.kind == WALLET, account.name == table.wallet)
        query = query.join(accounts, and_(own, account.commodity == Commodity.CREDIT)).where(*chosen)
    if wanted.verdict and wanted.verdict != Verdict.CHARGED:
        query = query.where(false())
    return _streamed(connection, _grouped(query, wallet_days, [column for column in columns if column is not charged]))


def _grouped(query: Select[Any], source: Table, columns: Sequence[ColumnElement[Any]]) -> Select[Any]:
    """Rows of sums by these columns, in their order; what corrections took back whole leaves no row."""
    if not columns:
        return query
    something = or_(*(func.sum(source.c[name]) != 0 for name in DAY_SUMS))
    return query.group_by(*columns).having(something).order_by(*columns)


def wallets_by_cost(
    connection: Connection,
    tenant_id: int,
    days: Days,
    wanted: UsageFilter = UsageFilter(),  # noqa: B008  (immutable)
    limit: int | None = None,
) -> CursorResult[Any]:
    """Wallets with their charged calls (`DAY_SUMS`), balance_nano and created_at_ns, those that cost us most first."""
    kept = wallet_days.c
    served = (
        select(kept.wallet, *day_sums(wallet_days))
        .where(_within(wallet_days, tenant_id, days), *_named(wallet_days, wanted))
        .group_by(kept.wallet)
        .having(func.sum(kept.requests) > 0)
        .subquery()
    )
    table, account = served.c, accounts.c
    query = (
        select(served, account.balance_nano, account.created_at_ns)
        .join(
            accounts,
            and_(
                account.tenant_id == tenant_id,
                account.kind == WALLET,
                account.name == table.wallet,
                account.commodity == Commodity.CREDIT,
            ),
        )
        .where(*_chosen(days, wanted))
        .order_by(table.cost_nanousd.desc(), table.wallet)
        .limit(limit)
    )
    return _streamed(connection, query)


def _within(table: Table, tenant_id: int, days: Days) -> ColumnElement[bool]:
    return and_(table.c.tenant_id == tenant_id, within(table.c.day, days))


def _named(table: Table, wanted: UsageFilter) -> list[ColumnElement[bool]]:
    names = ("event", "provider", "model")
    return [table.c[name] == value for name in names if (value := getattr(wanted, name))]


def _chosen(days: Days, wanted: UsageFilter) -> list[ColumnElement[bool]]:
    """What the accounts of the wanted wallets are like."""
    account, conditions = accounts.c, []
    if wanted.wallets:
        start_ns = days.first * DAY_NS
        new = and_(account.created_at_ns >= start_ns, account.created_at_ns < days.end * DAY_NS)
        conditions.append(new if wanted.wallets == "new" else account.created_at_ns < start_ns)
    if wanted.balance_from_nano is not None:
        conditions.append(account.balance_nano >= wanted.balance_from_nano)
    if wanted.balance_below_nano is not None:
        conditions.append(account.balance_nano < wanted.balance_below_nano)
    return conditions


def day_sums(table: Table) -> list[ColumnElement[Any]]:
    """The sums of `DAY_SUMS` under their names."""
    return [func.sum(table.c[name]).label(name) for name in DAY_SUMS]


def _streamed(connection: Connection, query: Select[Any]) -> CursorResult[Any]:
    return connection.execute(query, execution_options={"yield_per": ROWS_AT_ONCE})
