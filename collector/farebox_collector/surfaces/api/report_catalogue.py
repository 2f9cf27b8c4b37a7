"""Every report: what it is called, what it tells, its rows and their total. The API and the command show the same."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from pydantic import BaseModel
from sqlalchemy import Connection

from farebox_collector.ledger.reports.money_reports import (
    BalanceRange,
    CreditsMoved,
    balance_ranges,
    credits_moved,
    summaries,
    usd_per_credit,
)
from farebox_collector.ledger.reports.reports import UsageFilter, UsageGroup, usage_by, wallets_by_cost
from farebox_collector.model.moments import Days
from farebox_collector.model.verdicts import Verdict
from farebox_collector.surfaces.api.report_rows import (
    BalanceRow,
    CreditsRow,
    Prices,
    SummaryRow,
    UsageRow,
    WalletRow,
    balance_row,
    cell_type,
    credits_row,
)
from farebox_collector.surfaces.api.table_files import Columns


class Question(NamedTuple):
    """What is asked of a report; it leaves alone what it has no use for."""

    days: Days
    groups: tuple[UsageGroup, ...] = ()
    usage: UsageFilter = UsageFilter()
    source: str = ""
    """Only this source of credits."""


class Report(NamedTuple):
    """One report. Amounts are exact, and a total is that of all rows, however many of them are shown."""

    name: str
    meaning: str
    row: type[BaseModel]
    rows: Callable[[Connection, int, Question], Iterator[BaseModel]]
    total: Callable[[Connection, int, Question], BaseModel]
    groups: tuple[UsageGroup, ...]
    """What it can be grouped by."""
    by_default: tuple[UsageGroup, ...] = ()
    of_days: bool = True
    """False for one that tells how things are now."""

    def columns(self, question: Question) -> Columns:
        """The columns that it has for a question: those that it was grouped by first."""
        keys = [group.value for group in question.groups]
        hidden = {group.value for group in UsageGroup} - set(keys) if self.groups else set()
        others = [name for name in self.row.model_fields if name not in hidden and name not in keys]
        if self.row is WalletRow:
            others.remove("wallet")
            others.insert(0, "wallet")
        return [(name, cell_type(name)) for name in (*keys, *others)]


def _prices(connection: Connection, tenant_id: int) -> Prices:
    return Prices(usd_per_credit(connection, tenant_id))


def _usage_rows(connection: Connection, tenant_id: int, question: Question) -> Iterator[UsageRow]:
    prices = _prices(connection, tenant_id)
    for row in usage_by(connection, tenant_id, question.days, question.groups, question.usage):
        yield prices.usage(row, question.groups)


def _usage_total(connection: Connection, tenant_id: int, question: Question) -> UsageRow:
    (total,) = usage_by(connection, tenant_id, question.days, (), question.usage)
    return _prices(connection, tenant_id).usage(total, ())


def _wallet_rows(connection: Connection, tenant_id: int, question: Question) -> Iterator[WalletRow]:
    prices = _prices(connection, tenant_id)
    for row in wallets_by_cost(connection, tenant_id, question.days, question.usage):
        yield prices.wallet(row)


def _wallet_total(connection: Connection, tenant_id: int, question: Question) -> WalletRow:
    wanted = question.usage._replace(charged_of_wallets=True)
    if question.usage == UsageFilter():
        # The charged calls of all wallets are all charged calls, and those are a few rows a day.
        wanted = UsageFilter(verdict=Verdict.CHARGED)
    (total,) = usage_by(connection, tenant_id, question.days, (), wanted)
    return WalletRow(**_prices(connection, tenant_id).figures(total))


def _summary_rows(connection: Connection, tenant_id: int, question: Question) -> Iterator[SummaryRow]:
    prices = _prices(connection, tenant_id)
    for summary in summaries(connection, tenant_id, question.days, by_day=bool(question.groups)):
        yield prices.summary(summary)


def _summary_total(connection: Connection, tenant_id: int, question: Question) -> SummaryRow:
    (total,) = summaries(connection, tenant_id, question.days, by_day=False)
    return _prices(connection, tenant_id).summary(total)


def _credits_rows(connection: Connection, tenant_id: int, question: Question) -> Iterator[CreditsRow]:
    by_day = bool(question.groups)
    moved = credits_moved(connection, tenant_id, question.days, by_day=by_day, source=question.source)
    yield from map(credits_row, moved)


def _credits_total(connection: Connection, tenant_id: int, question: Question) -> CreditsRow:
    moved = credits_moved(connection, tenant_id, question.days, by_day=False, source=question.source)
    sums = (sum(figures) for figures in zip(*(row[2:] for row in moved), strict=True)) if moved else (0, 0, 0, 0)
    return credits_row(CreditsMoved(None, "", *sums), total=True)


def _balance_rows(connection: Connection, tenant_id: int, _: Question) -> Iterator[BalanceRow]:
    yield from map(balance_row, balance_ranges(connection, tenant_id))


def _balance_total(connection: Connection, tenant_id: int, _: Question) -> BalanceRow:
    found = balance_ranges(connection, tenant_id)
    wallets, balance = (sum(figures) for figures in zip(*(row[2:] for row in found), strict=True))
    return balance_row(BalanceRange(None, None, wallets, balance))


_BY_DAY = (UsageGroup.DAY,)

REPORTS: Mapping[str, Report] = {
    report.name: report
    for report in (
        Report(
            "summary",
            "Revenue, cost, fees and profit, credits out, active and new wallets, payers and revenue for each.",
            SummaryRow,
            _summary_rows,
            _summary_total,
            _BY_DAY,
        ),
        Report(
            "usage",
            "Calls, tokens, cost, charge and margin by event, model, day and more; each call counts once.",
            UsageRow,
            _usage_rows,
            _usage_total,
            tuple(UsageGroup),
            (UsageGroup.EVENT,),
        ),
        Report(
            "credits",
            "Credits in and out by where they came from and went to, and what was paid for them.",
            CreditsRow,
            _credits_rows,
            _credits_total,
            _BY_DAY,
        ),
        Report(
            "balances",
            "How the balances of all wallets are spread now.",
            BalanceRow,
            _balance_rows,
            _balance_total,
            (),
            of_days=False,
        ),
        Report(
            "wallets",
            "Wallets with what they paid and what they cost to serve, the dearest first.",
            WalletRow,
            _wallet_rows,
            _wallet_total,
            (),
        ),
    )
}
"""Every report by its name."""


def written_rows(
    rows: Iterator[BaseModel], columns: Columns, before: tuple[Any, ...] = ()
) -> Iterator[tuple[Any, ...]]:
    """Rows as files have them: the cells of these columns, after those of `before`."""
    names = [name for name, _ in columns]
    for row in rows:
        yield (*before, *(getattr(row, name) for name in names))
