"""Usage reports by day, read from the roll-ups: their cost does not grow with the number of records."""

from collections.abc import Iterator, Sequence
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
from farebox_collector.ledger.reports.wallet_blocks import ROWS_AT_ONCE, ServedWallet, ranked_wallets, sums_of_wallets
from farebox_collector.ledger.tables.books import accounts
from farebox_collector.ledger.tables.rollups import DAY_SUMS, usage_days, wallet_days, within
from farebox_collector.model.moments import DAY_NS, Days
from farebox_collector.model.money import Commodity
from farebox_collector.model.verdicts import ONE_CALL, Verdict

WalletAge = Literal["", "new", "returning"]
"""Wallets created within some days, or before them; empty for all."""


class UsageGroup(StrEnum):
    """What the usage of a tenant can be grouped by."""

    DAY = "day"
    EVENT = "event"
    PROVIDER = "provider"
    MODEL = "model"
    VERDICT = "verdict"


class UsageFilter(NamedTuple):
    """Filter of usage; an empty field does not filter. A filter of wallets selects charged calls only."""

    event: str = ""
    provider: str = ""
    model: str = ""
    verdict: str = ""
    wallets: WalletAge = ""
    balance_from_nano: int | None = None
    """Wallets with at least this balance now."""
    balance_below_nano: int | None = None
    charged_of_wallets: bool = False
    """Read the charged calls of wallets in any case."""

    @property
    def of_wallets(self) -> bool:
        """Whether it filters wallets."""
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
    """Return calls, tokens, cost and charge (`DAY_SUMS`) by these groups, in their order; each call counts once.

    Without groups it is one row of sums, which may be NULL if there is no usage.
    """
    if wanted.of_wallets:
        if not groups and wanted.verdict in ("", Verdict.CHARGED) and not _named(wallet_days, wanted):
            return sums_of_wallets(connection, tenant_id, days, _chosen(days, wanted))
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
    """Return `usage_by` for the charged calls of filtered wallets."""
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
    """Group sums by these columns, in their order; omit rows that corrections took back entirely."""
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
) -> Iterator[ServedWallet]:
    """Yield wallets with their charged calls (`DAY_SUMS`), balance_nano and created_at_ns, highest cost first."""
    chosen = _chosen(days, wanted)
    if not _named(wallet_days, wanted):
        yield from ranked_wallets(connection, tenant_id, days, chosen, limit)
        return
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
        .where(*chosen)
        .order_by(table.cost_nanousd.desc(), table.wallet)
        .limit(limit)
    )
    for row in _streamed(connection, query):
        yield ServedWallet(row.wallet, *map(int, row[1:]))


def _within(table: Table, tenant_id: int, days: Days) -> ColumnElement[bool]:
    return and_(table.c.tenant_id == tenant_id, within(table.c.day, days))


def _named(table: Table, wanted: UsageFilter) -> list[ColumnElement[bool]]:
    names = ("event", "provider", "model")
    return [table.c[name] == value for name in names if (value := getattr(wanted, name))]


def _chosen(days: Days, wanted: UsageFilter) -> list[ColumnElement[bool]]:
    """Return the conditions on the accounts of the wallets."""
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
    """Return the sums of `DAY_SUMS` under their names."""
    return [func.sum(table.c[name]).label(name) for name in DAY_SUMS]


def _streamed(connection: Connection, query: Select[Any]) -> CursorResult[Any]:
    return connection.execute(query, execution_options={"yield_per": ROWS_AT_ONCE})
