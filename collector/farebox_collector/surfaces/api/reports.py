"""Reports over HTTP: JSON pages, or a CSV or Parquet file with every row."""

import tempfile
from collections.abc import Iterator
from datetime import date
from enum import StrEnum
from itertools import islice
from typing import IO, Annotated, Any, Generic, Literal, TypeVar

from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Connection

from farebox_collector.ledger.reports.agent_usage import AgentGroup
from farebox_collector.ledger.reports.deferred import DeferredGroup
from farebox_collector.ledger.reports.reports import UsageFilter, UsageGroup, WalletAge
from farebox_collector.model.moments import DAY_NS, Days, whole_months
from farebox_collector.model.money import AmountError, parse_nano
from farebox_collector.model.verdicts import Verdict
from farebox_collector.surfaces.api.context import Context, Name
from farebox_collector.surfaces.api.finance_rows import BridgeRow, DeferredRow, ReceivableRow
from farebox_collector.surfaces.api.pages import decode_cursor, encode_cursor
from farebox_collector.surfaces.api.problems import RESPONSES, ApiError
from farebox_collector.surfaces.api.report_catalogue import (
    REPORTS,
    Question,
    Report,
    written_rows,
)
from farebox_collector.surfaces.api.report_rows import (
    EPOCH,
    AgentRow,
    BalanceRow,
    CreditsRow,
    SeatRow,
    SummaryRow,
    UnreportedRow,
    UsageRow,
    WalletRow,
    shown_day,
)
from farebox_collector.surfaces.api.table_files import (
    MEDIA_TYPES,
    WRITERS,
    CellType,
    Columns,
    ParquetMissing,
)

MAX_DAYS = 400
_LAST_DAY = 106_751
"""The last day that a 64-bit Unix time in nanoseconds can represent."""
_IN_MEMORY = 2**20
_CHUNK = 2**16

_FILES: dict[int | str, dict[str, Any]] = {
    200: {"content": {kind: {"schema": {"type": "string", "format": "binary"}} for kind in MEDIA_TYPES.values()}}
}

Row = TypeVar("Row")


class Format(StrEnum):
    """The format of a report."""

    JSON = "json"
    CSV = "csv"
    PARQUET = "parquet"


class ReportPage(BaseModel, Generic[Row]):
    """A report of UTC days and, if requested, of as many days before."""

    first_day: str
    last_day: str
    items: list[Row]
    next_cursor: str | None = Field(description="Send it as `cursor` for the next rows; null at the end.")
    total: Row = Field(description="The total of all rows, including other pages.")
    previous: list[Row] | None = Field(None, description="The preceding days, if requested.")
    previous_total: Row | None = None


class Shape(BaseModel):
    """The requested form of a report."""

    model_config = ConfigDict(extra="forbid")

    format: Format = Format.JSON
    columns: list[str] | None = Field(None, description="Columns of a file, in order (default: all).", max_length=50)
    limit: int = Field(1_000, ge=1, le=10_000, description="Maximum rows in JSON; files have all rows.")
    cursor: str | None = Field(None, max_length=200, description="The `next_cursor` of the previous page.")


class Dated(Shape):
    """The days of a report."""

    days: int = Field(30, ge=1, le=MAX_DAYS, description="Number of UTC days, including today.")
    first: date | None = Field(None, description="The first UTC day, instead of `days`.")
    last: date | None = Field(None, description="The last UTC day (default: today).")


class Period(Dated):
    """Days that may be compared with the same number of days before."""

    compare: bool = Field(False, description="Add the same number of preceding days; files mark them in a column.")


class ByDay(Period):
    """A period that may be grouped by day."""

    group_by: list[Literal["day"]] = Field([], max_length=1, description="`day` for a row per day.")


class CreditsQuery(ByDay):
    """Parameters of the credits report."""

    source: Name = Field("", description="Only this source: `deposit`, `grant`, `refund`, `expiry`, `usage`, …")


class WalletsQuery(Period):
    """Parameters that select wallets and their calls."""

    event: Name = ""
    provider: Name = ""
    model: Name = ""
    wallets: WalletAge = Field("", description="Created within these days, or before.")
    min_balance_credits: str = Field("", description="Wallets with at least this balance now.")
    max_balance_credits: str = Field("", description="Wallets with less than this balance now.")


class UsageQuery(WalletsQuery):
    """Parameters that select calls; with a wallet filter, only charged calls count."""

    group_by: list[UsageGroup] = Field([UsageGroup.EVENT], max_length=len(UsageGroup), description="In this order.")
    verdict: Verdict | Literal[""] = ""


class AgentsQuery(Period):
    """Parameters of the report on coding agents."""

    group_by: list[AgentGroup] = Field([AgentGroup.DEVELOPER], max_length=len(AgentGroup), description="In this order.")


class SeatsQuery(Dated):
    """Parameters of the report on seats, which has every UTC month that these days touch, whole."""


class ByMonth(Period):
    """A period that may be grouped by month."""

    group_by: list[Literal["month"]] = Field([], max_length=1, description="`month` for a row per UTC month.")


class DeferredQuery(Period):
    """Parameters of deferred revenue."""

    group_by: list[DeferredGroup] = Field(
        [], max_length=len(DeferredGroup), description="`sold` is the month of the sale; in this order."
    )


class CurrentQuery(Shape):
    """Parameters of a report of the current state, which has no filter."""


def router(context: Context) -> APIRouter:
    """The endpoints under /v1/reports."""
    routes = APIRouter(prefix="/v1/reports", tags=["reports"], responses=RESPONSES)

    @routes.get("/summary", response_model=ReportPage[SummaryRow], responses=_FILES)
    def report_summary(query: Annotated[ByDay, Query()]) -> Any:
        """Report charge value, revenue, cost, fees, profit, cash in, active and new wallets, payers."""
        return _answer(context, "summary", query)

    @routes.get("/bridge", response_model=ReportPage[BridgeRow], responses=_FILES)
    def report_bridge(query: Annotated[ByMonth, Query()]) -> Any:
        """Report each line from charge value to revenue, profit and cash in, to the nano-dollar."""
        return _answer(context, "bridge", query)

    @routes.get("/deferred", response_model=ReportPage[DeferredRow], responses=_FILES)
    def report_deferred(query: Annotated[DeferredQuery, Query()]) -> Any:
        """Report how deferred revenue rolled forward, by month, by pack and by month of sale."""
        return _answer(context, "deferred", query)

    @routes.get("/receivables", response_model=ReportPage[ReceivableRow], responses=_FILES)
    def report_receivables(query: Annotated[CurrentQuery, Query()]) -> Any:
        """Report what wallets owe for usage that no credits paid, by wallet and age, highest debt first."""
        return _answer(context, "receivables", query)

    @routes.get("/usage", response_model=ReportPage[UsageRow], responses=_FILES)
    def report_usage(query: Annotated[UsageQuery, Query()]) -> Any:
        """Report calls, tokens, cost, charge and margin at list by event, model, day and more, each call once."""
        return _answer(context, "usage", query)

    @routes.get("/credits", response_model=ReportPage[CreditsRow], responses=_FILES)
    def report_credits(query: Annotated[CreditsQuery, Query()]) -> Any:
        """Report credits in and out by source, and what was paid for them."""
        return _answer(context, "credits", query)

    @routes.get("/balances", response_model=ReportPage[BalanceRow], responses=_FILES)
    def report_balances(query: Annotated[CurrentQuery, Query()]) -> Any:
        """Report the current distribution of wallet balances."""
        return _answer(context, "balances", query)

    @routes.get("/wallets", response_model=ReportPage[WalletRow], responses=_FILES)
    def report_wallets(query: Annotated[WalletsQuery, Query()]) -> Any:
        """Report wallets with their charges and cost to serve, most expensive first."""
        return _answer(context, "wallets", query)

    @routes.get("/agents", response_model=ReportPage[AgentRow], responses=_FILES)
    def report_agents(query: Annotated[AgentsQuery, Query()]) -> Any:
        """Report coding agents by developer, repository, session and more: calls, tokens, cache, errors, cost."""
        return _answer(context, "agents", query)

    @routes.get("/unreported", response_model=ReportPage[UnreportedRow], responses=_FILES)
    def report_unreported(query: Annotated[Period, Query()]) -> Any:
        """Report tokens that metrics of coding agents tell and no call does, by day, tool and developer: exposure."""
        return _answer(context, "unreported", query)

    @routes.get("/seats", response_model=ReportPage[SeatRow], responses=_FILES)
    def report_seats(query: Annotated[SeatsQuery, Query()]) -> Any:
        """Report seats of coding agents by UTC month: calls, tokens, their list price, and whether the plan pays."""
        return _answer(context, "seats", query)

    return routes


def days_of(now_ns: int, days: int, first: date | None, last: date | None) -> Days:
    """Return the days of a period. Raises ValueError if invalid."""
    end = (now_ns // DAY_NS if last is None else (last - EPOCH).days) + 1
    begin = end - days if first is None else (first - EPOCH).days
    if not 0 <= begin < end <= begin + MAX_DAYS or end > _LAST_DAY:
        raise ValueError(f"the period must begin in 1970 or later, before it ends, and have at most {MAX_DAYS} days")
    return Days(begin, end)


def period_of(now_ns: int, days: int, first: date | None, last: date | None) -> Days:
    """Return the days of a requested period. Raises ApiError 400."""
    try:
        return days_of(now_ns, days, first, last)
    except ValueError as error:
        raise ApiError(400, str(error)) from None


def question_of(query: Shape, now_ns: int) -> Question:
    """Return a report's question from a request. Raises ApiError."""
    if not isinstance(query, Dated):
        return Question(Days(now_ns // DAY_NS, now_ns // DAY_NS + 1))
    days = period_of(now_ns, query.days, query.first, query.last)
    if isinstance(query, SeatsQuery):
        return Question(whole_months(days))
    groups = tuple(dict.fromkeys(map(_group, getattr(query, "group_by", ()))))
    if not isinstance(query, WalletsQuery):
        return Question(days, groups, source=getattr(query, "source", ""))
    usage = UsageFilter(
        query.event,
        query.provider,
        query.model,
        getattr(query, "verdict", ""),
        query.wallets,
        _balance(query.min_balance_credits, "min_balance_credits"),
        _balance(query.max_balance_credits, "max_balance_credits"),
    )
    return Question(days, groups, usage)


def _group(name: str) -> StrEnum:
    return name if isinstance(name, StrEnum) else DeferredGroup(name) if name == "month" else UsageGroup(name)


def write_report(
    connection: Connection,
    tenant_id: int,
    report: Report,
    question: Question,
    columns: Columns,
    compare: bool,
    kind: str,
    file: IO[bytes],
) -> None:
    """Write all rows of a report to a file. Raises ParquetMissing."""

    def rows() -> Iterator[tuple[Any, ...]]:
        periods = {"current": question.days} | ({"previous": question.days.before} if compare else {})
        for name, days in periods.items():
            found = report.rows(connection, tenant_id, question._replace(days=days))
            yield from written_rows(found, columns, (name,) if compare else ())

    heading = [("period", CellType.TEXT)] if compare else []
    WRITERS[kind]([*heading, *columns], rows(), file)


def chosen_columns(report: Report, question: Question, wanted: list[str] | None) -> Columns:
    """Return a file's columns in the requested order. Raises ValueError for an unknown column."""
    known = dict(report.columns(question))
    unknown = [name for name in wanted or () if name not in known]
    if unknown:
        raise ValueError(f"unknown column {unknown[0]!r}; choose from {', '.join(known)}")
    return [(name, known[name]) for name in wanted or known]


def _answer(context: Context, name: str, query: Shape) -> Any:
    report = REPORTS[name]
    question = question_of(query, context.clock())
    compare = isinstance(query, Period) and query.compare
    if compare and question.days.before.first < 0:
        raise ApiError(400, "compare: there are no days before 1970; choose a later period")
    if query.format is not Format.JSON:
        return _file(context, report, question, query, compare)
    (start,) = decode_cursor(query.cursor, int) or (0,)
    if not 0 <= start < 2**31:
        raise ApiError(400, "invalid cursor; send the next_cursor of this list's previous page")
    before = question._replace(days=question.days.before)
    with context.database.reading() as connection:

        def part(of: Question, size: int) -> list[Any]:
            return list(islice(report.rows(connection, context.tenant_id, of), start, start + size))

        found = part(question, query.limit + 1)
        previous = part(before, query.limit) if compare else None
        return {
            "first_day": shown_day(question.days.first),
            "last_day": shown_day(question.days.end - 1),
            "items": found[: query.limit],
            "next_cursor": encode_cursor(start + query.limit) if len(found) > query.limit else None,
            "total": report.total_of(connection, context.tenant_id, question, found),
            "previous": previous,
            "previous_total": (
                None if previous is None else report.total_of(connection, context.tenant_id, before, previous)
            ),
        }


def _file(context: Context, report: Report, question: Question, query: Shape, compare: bool) -> StreamingResponse:
    """Write the whole report to a temporary file first: a slow client must not hold a database snapshot open."""
    kind = query.format.value
    file = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY)  # noqa: SIM115  (closed when it is sent)
    try:
        columns = chosen_columns(report, question, query.columns)
        with context.database.reading() as connection:
            write_report(connection, context.tenant_id, report, question, columns, compare, kind, file)
    except ValueError as error:
        raise ApiError(400, str(error)) from None
    except ParquetMissing as error:
        raise ApiError(501, str(error)) from None
    size = file.tell()
    file.seek(0)

    def chunks() -> Iterator[bytes]:
        with file:
            while chunk := file.read(_CHUNK):
                yield chunk

    name = f"{report.name}-{shown_day(question.days.first)}-{shown_day(question.days.end - 1)}.{kind}"
    headers = {"Content-Disposition": f'attachment; filename="{name}"', "Content-Length": str(size)}
    return StreamingResponse(chunks(), media_type=MEDIA_TYPES[kind], headers=headers)


def _balance(text: str, name: str) -> int | None:
    try:
        return parse_nano(text) if text else None
    except AmountError as error:
        raise ApiError(422, f"{name}: {error}") from None
