"""Every report: name, summary, rows and total. The API and the command share them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Any, NamedTuple

from pydantic import BaseModel
from sqlalchemy import Connection

from farebox_collector.ledger.reports.agent_usage import AgentGroup, agent_usage
from farebox_collector.ledger.reports.bridge import bridge, bridges
from farebox_collector.ledger.reports.deferred import DeferredGroup, deferred
from farebox_collector.ledger.reports.money_reports import (
    BalanceRange,
    CreditsMoved,
    balance_ranges,
    credits_moved,
    summaries,
)
from farebox_collector.ledger.reports.receivables import receivables
from farebox_collector.ledger.reports.receivables import total_of as total_receivable
from farebox_collector.ledger.reports.reports import UsageFilter, UsageGroup, usage_by, wallets_by_cost
from farebox_collector.ledger.reports.seats import seats, sum_of
from farebox_collector.ledger.reports.terms import list_price
from farebox_collector.ledger.reports.unreported_usage import Unreported, unreported_usage
from farebox_collector.model.moments import Days, months_of
from farebox_collector.model.verdicts import Verdict
from farebox_collector.surfaces.api.finance_rows import (
    BridgeRow,
    DeferredRow,
    ReceivableRow,
    bridge_row,
    deferred_row,
    receivable_row,
    shown_month,
)
from farebox_collector.surfaces.api.report_rows import (
    AgentRow,
    BalanceRow,
    CreditsRow,
    Prices,
    SeatRow,
    SummaryRow,
    UnreportedRow,
    UsageRow,
    WalletRow,
    agent_row,
    balance_row,
    cell_type,
    credits_row,
    seat_row,
    unreported_row,
)
from farebox_collector.surfaces.api.table_files import Columns


class Question(NamedTuple):
    """The parameters of a report; each report uses those that it needs."""

    days: Days
    groups: tuple[StrEnum, ...] = ()
    """Members of the report's own enumeration of groups."""
    usage: UsageFilter = UsageFilter()
    source: str = ""
    """Only this source of credits."""


class Report(NamedTuple):
    """A report. Amounts are exact; the total covers all rows, shown or not."""

    name: str
    meaning: str
    row: type[BaseModel]
    rows: Callable[[Connection, int, Question], Iterator[BaseModel]]
    total: Callable[[Connection, int, Question], BaseModel]
    groups: tuple[StrEnum, ...]
    """Possible groupings."""
    by_default: tuple[StrEnum, ...] = ()
    of_days: bool = True
    """False for a report of the current state."""
    one_row: bool = False
    """Whether it has one row without groups, which is the total."""

    def total_of(
        self, connection: Connection, tenant_id: int, question: Question, rows: Sequence[BaseModel]
    ) -> BaseModel:
        """Return the total, if possible without a query: `rows` are those that are shown."""
        if self.one_row and not question.groups and rows:
            return rows[0]
        return self.total(connection, tenant_id, question)

    def columns(self, question: Question) -> Columns:
        """Return the columns for a question, grouping columns first."""
        keys = [group.value for group in question.groups]
        hidden = {group.value for group in self.groups} - set(keys)
        others = [name for name in self.row.model_fields if name not in hidden and name not in keys]
        if self.row is WalletRow:
            others.remove("wallet")
            others.insert(0, "wallet")
        return [(name, cell_type(name)) for name in (*keys, *others)]


def _prices(connection: Connection, tenant_id: int) -> Prices:
    return Prices(list_price(connection, tenant_id))


def _usage_rows(connection: Connection, tenant_id: int, question: Question) -> Iterator[UsageRow]:
    prices, groups = _prices(connection, tenant_id), [UsageGroup(group) for group in question.groups]
    for row in usage_by(connection, tenant_id, question.days, groups, question.usage):
        yield prices.usage(row, groups)


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
        # All wallets together are all charged calls: read those from a few rows per day.
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


def _agent_rows(connection: Connection, tenant_id: int, question: Question) -> Iterator[AgentRow]:
    groups = [AgentGroup(group) for group in question.groups]
    for row in agent_usage(connection, tenant_id, question.days, groups):
        yield agent_row(row, groups)


def _agent_total(connection: Connection, tenant_id: int, question: Question) -> AgentRow:
    (total,) = agent_usage(connection, tenant_id, question.days, ())
    return agent_row(total, ())


def _unreported_rows(connection: Connection, tenant_id: int, question: Question) -> Iterator[UnreportedRow]:
    yield from map(unreported_row, unreported_usage(connection, tenant_id, question.days))


def _unreported_total(connection: Connection, tenant_id: int, question: Question) -> UnreportedRow:
    found = [row[3:] for row in unreported_usage(connection, tenant_id, question.days)]
    sums = (sum(figures) for figures in zip(*found, strict=True)) if found else (0, 0, 0, 0, 0)
    return unreported_row(Unreported(0, "", "", *sums), total=True)


def _seat_rows(connection: Connection, tenant_id: int, question: Question) -> Iterator[SeatRow]:
    for seat in seats(connection, tenant_id, question.days):
        yield seat_row(seat, shown_month(seat.month))


def _seat_total(connection: Connection, tenant_id: int, question: Question) -> SeatRow:
    return seat_row(sum_of(seats(connection, tenant_id, question.days)), None, total=True)


def _balance_rows(connection: Connection, tenant_id: int, _: Question) -> Iterator[BalanceRow]:
    yield from map(balance_row, balance_ranges(connection, tenant_id))


def _balance_total(connection: Connection, tenant_id: int, _: Question) -> BalanceRow:
    found = balance_ranges(connection, tenant_id)
    wallets, balance = (sum(figures) for figures in zip(*(row[2:] for row in found), strict=True))
    return balance_row(BalanceRange(None, None, wallets, balance))


def _bridge_rows(connection: Connection, tenant_id: int, question: Question) -> Iterator[BridgeRow]:
    price = list_price(connection, tenant_id)
    months = list(months_of(question.days)) if question.groups else [(None, question.days)]
    found = bridges(connection, tenant_id, [days for _, days in months], price)
    yield from (bridge_row(one, month) for one, (month, _) in zip(found, months, strict=True))


def _bridge_total(connection: Connection, tenant_id: int, question: Question) -> BridgeRow:
    return bridge_row(bridge(connection, tenant_id, question.days, list_price(connection, tenant_id)))


def _deferred_rows(connection: Connection, tenant_id: int, question: Question) -> Iterator[DeferredRow]:
    groups = [DeferredGroup(group) for group in question.groups]
    yield from map(deferred_row, deferred(connection, tenant_id, question.days, groups))


def _deferred_total(connection: Connection, tenant_id: int, question: Question) -> DeferredRow:
    (total,) = deferred(connection, tenant_id, question.days)
    return deferred_row(total)


def _receivable_rows(connection: Connection, tenant_id: int, question: Question) -> Iterator[ReceivableRow]:
    price = list_price(connection, tenant_id)
    for found in receivables(connection, tenant_id, question.days.first):
        yield receivable_row(found, price)


def _receivable_total(connection: Connection, tenant_id: int, question: Question) -> ReceivableRow:
    total = total_receivable(receivables(connection, tenant_id, question.days.first))
    return receivable_row(total, list_price(connection, tenant_id))


_BY_DAY = (UsageGroup.DAY,)

REPORTS: Mapping[str, Report] = {
    report.name: report
    for report in (
        Report(
            "summary",
            "Charge value, revenue, cost, fees, profit, cash in, active and new wallets, payers, revenue per wallet.",
            SummaryRow,
            _summary_rows,
            _summary_total,
            _BY_DAY,
            one_row=True,
        ),
        Report(
            "bridge",
            "From charge value to revenue, profit and cash in, line by line.",
            BridgeRow,
            _bridge_rows,
            _bridge_total,
            (DeferredGroup.MONTH,),
            one_row=True,
        ),
        Report(
            "deferred",
            "Deferred revenue: opening, sold, used, expired, returned and closing, by month, pack and month of sale.",
            DeferredRow,
            _deferred_rows,
            _deferred_total,
            tuple(DeferredGroup),
            one_row=True,
        ),
        Report(
            "receivables",
            "What wallets owe for usage that no credits paid, by wallet and age.",
            ReceivableRow,
            _receivable_rows,
            _receivable_total,
            (),
            of_days=False,
        ),
        Report(
            "usage",
            "Calls, tokens, cost, charge and margin at list by event, model, day and more; each call counts once.",
            UsageRow,
            _usage_rows,
            _usage_total,
            tuple(UsageGroup),
            (UsageGroup.EVENT,),
        ),
        Report(
            "credits",
            "Credits in and out by source, and what was paid for them.",
            CreditsRow,
            _credits_rows,
            _credits_total,
            _BY_DAY,
        ),
        Report(
            "balances",
            "The current distribution of wallet balances.",
            BalanceRow,
            _balance_rows,
            _balance_total,
            (),
            of_days=False,
        ),
        Report(
            "wallets",
            "Wallets with their charges and cost to serve, most expensive first.",
            WalletRow,
            _wallet_rows,
            _wallet_total,
            (),
        ),
        Report(
            "agents",
            "Coding agents by developer, repository, session and more: calls, tokens, cache, errors, cost.",
            AgentRow,
            _agent_rows,
            _agent_total,
            tuple(AgentGroup),
            (AgentGroup.DEVELOPER,),
        ),
        Report(
            "unreported",
            "Tokens that the metrics of coding agents tell and no call does, by day, tool and developer: exposure.",
            UnreportedRow,
            _unreported_rows,
            _unreported_total,
            (),
        ),
        Report(
            "seats",
            "Seats of coding agents by UTC month: calls, tokens, their list price, and whether the plan pays.",
            SeatRow,
            _seat_rows,
            _seat_total,
            (),
        ),
    )
}
"""Every report by name."""


def written_rows(
    rows: Iterator[BaseModel], columns: Columns, before: tuple[Any, ...] = ()
) -> Iterator[tuple[Any, ...]]:
    """Yield file rows: the cells of `before`, then of these columns."""
    names = [name for name, _ in columns]
    for row in rows:
        yield (*before, *(getattr(row, name) for name in names))
