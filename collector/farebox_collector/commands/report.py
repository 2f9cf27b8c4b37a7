"""`farebox report`: the API's reports on a terminal or as a file."""

import re
import sys
import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from pydantic import ValidationError
from sqlalchemy import Connection

from farebox_collector.commands.tenants import TenantName, tenant_id_of
from farebox_collector.commands.terminal import (
    DatabaseUrl,
    Limit,
    Stop,
    figure_table,
    print_json,
    print_table,
    reading_books,
)
from farebox_collector.surfaces.api.problems import ApiError
from farebox_collector.surfaces.api.report_catalogue import REPORTS, Question, Report
from farebox_collector.surfaces.api.report_rows import shown_day
from farebox_collector.surfaces.api.reports import (
    AgentsQuery,
    ByDay,
    ByMonth,
    CreditsQuery,
    CurrentQuery,
    DeferredQuery,
    Period,
    SeatsQuery,
    Shape,
    UsageQuery,
    WalletsQuery,
    chosen_columns,
    question_of,
    write_report,
)
from farebox_collector.surfaces.api.table_files import ParquetMissing

ReportFormat = Literal["table", "json", "csv", "parquet"]

_QUERIES: dict[str, type[Shape]] = {
    "summary": ByDay,
    "bridge": ByMonth,
    "deferred": DeferredQuery,
    "receivables": CurrentQuery,
    "usage": UsageQuery,
    "credits": CreditsQuery,
    "balances": CurrentQuery,
    "wallets": WalletsQuery,
    "agents": AgentsQuery,
    "unreported": Period,
    "seats": SeatsQuery,
}
_LAST_DAYS = {"today": 1, "7d": 7, "30d": 30, "90d": 90}
_FORMS = "today, 7d, 30d, 90d, a month (2026-04), a day, or two days (2026-04-01..2026-04-15)"
_IN_A_TABLE = {
    "summary": ("charge_value_usd", "revenue_usd", "cost_usd", "profit_usd"),
    "bridge": ("charge_value_usd", "revenue_usd", "profit_usd", "cash_in_usd"),
    "deferred": ("opening_usd", "sold_usd", "used_usd", "closing_usd"),
    "receivables": ("wallet", "receivable_usd", "to_30_days_usd", "older_usd"),
    "usage": ("requests", "charge_credits", "charge_value_usd", "cost_usd", "margin_at_list_percent"),
    "credits": ("source", "movements", "credits_in", "credits_out", "cash_in_usd"),
    "balances": ("from_credits", "to_credits", "wallets", "balance_credits"),
    "agents": ("requests", "errors", "sessions", "cache_hit_percent", "cost_usd", "list_equivalent_usd"),
    "wallets": ("wallet", "requests", "charge_credits", "cost_usd", "margin_at_list_percent", "balance_credits"),
    "seats": ("month", "tool", "account", "plan", "requests", "list_equivalent_usd", "seat_usd", "plan_pays"),
    "unreported": ("day", "tool", "developer", "unreported_input_tokens", "unreported_output_tokens", "exposure_usd"),
}
"""Columns that fit on a terminal; --columns selects others."""
_NO_FILTERS = {*ByDay.model_fields}
_COUNTS = ("requests", "errors", "sessions", "developers", "tokens", "wallets", "payers", "movements")


def report_command(
    name: Annotated[str, typer.Argument(help=f"One of {', '.join(REPORTS)}.")],
    period: Annotated[str, typer.Option(help=f"UTC days: {_FORMS}.")] = "30d",
    by: Annotated[list[str] | None, typer.Option(help="Group by this; repeatable.")] = None,
    filters: Annotated[
        list[str] | None, typer.Option("--filter", help="Such as event=chat.reply or wallets=new; repeatable.")
    ] = None,
    columns: Annotated[str | None, typer.Option(help="Comma-separated columns, in order.")] = None,
    compare: Annotated[bool, typer.Option("--compare", help="Add the same number of preceding days.")] = False,
    format: Annotated[ReportFormat, typer.Option(help="A file has all rows; a table the first ones.")] = "table",
    output: Annotated[Path | None, typer.Option(help="The file to write (default for CSV: standard output).")] = None,
    limit: Limit = 50,
    tenant: TenantName = "default",
    database_url: DatabaseUrl = None,
) -> None:
    """Report the bridge, deferred revenue, usage and more: `report bridge --period 2026-04` covers April."""
    if name not in REPORTS:
        raise Stop(f"unknown report {name!r}; choose from {', '.join(REPORTS)}")
    report, now_ns = REPORTS[name], time.time_ns()
    query = _query(name, period, by, filters, compare, limit)
    try:
        question = question_of(query, now_ns)
        shown = chosen_columns(report, question, columns.split(",") if columns else None)
    except (ApiError, ValueError) as error:
        raise Stop(getattr(error, "detail", str(error))) from None
    if compare and question.days.before.first < 0:
        raise Stop("--compare: there are no days before 1970; choose a later --period")
    with reading_books(database_url) as connection:
        tenant_id = tenant_id_of(connection, tenant)
        if format in ("csv", "parquet"):
            _write_file(
                lambda file: write_report(connection, tenant_id, report, question, shown, compare, format, file),
                format,
                output,
            )
        elif format == "json":
            print_json(_as_json(connection, tenant_id, report, question, compare, limit))
        elif report.one_row and not question.groups:
            periods = [question, *([question._replace(days=question.days.before)] if compare else [])]
            _print_figures(connection, tenant_id, report, periods, [column for column, _ in shown])
        else:
            names = [group.value for group in question.groups] + list(_IN_A_TABLE[name])
            names = [column for column, _ in shown] if columns else names
            _print(connection, tenant_id, report, question, names, limit)
            if compare:
                _print(connection, tenant_id, report, question._replace(days=question.days.before), names, limit)


def _query(name: str, period: str, by: list[str] | None, filters: list[str] | None, compare: bool, limit: int) -> Shape:
    """Build the request from the options, validated as over HTTP. Raises Stop."""
    kind = _QUERIES[name]
    given: dict[str, Any] = {}
    for one in filters or ():
        key, equals, value = one.partition("=")
        if not equals or key not in kind.model_fields or key in _NO_FILTERS:
            raise Stop(f"{one!r} is not a filter of this report")
        given[key] = value
    if by:
        if "group_by" not in kind.model_fields:
            raise Stop(f"the report {name} has no grouping; omit --by")
        given["group_by"] = by
    if "days" in kind.model_fields:
        given |= _days(period)
    if "compare" in kind.model_fields:
        given["compare"] = compare
    elif compare:
        raise Stop(f"the report {name} cannot compare periods; omit --compare")
    try:
        return kind(**given, limit=min(limit, 10_000))
    except ValidationError as error:
        first = error.errors()[0]
        raise Stop(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def _days(period: str) -> dict[str, Any]:
    """Return the period as request fields. Raises Stop."""
    if period in _LAST_DAYS:
        return {"days": _LAST_DAYS[period]}
    if re.fullmatch(r"[0-9]{1,3}d", period):
        return {"days": int(period[:-1])}
    try:
        if re.fullmatch(r"[0-9]{4}-[0-9]{2}", period):
            first = datetime.strptime(period, "%Y-%m").replace(tzinfo=UTC).date()
            following = first.replace(year=first.year + first.month // 12, month=first.month % 12 + 1)
            return {"first": first, "last": following - timedelta(days=1)}
        begin, _, end = period.partition("..")
        return {"first": date.fromisoformat(begin), "last": date.fromisoformat(end or begin)}
    except ValueError:
        raise Stop(f"{period!r} is not a period; use {_FORMS}") from None


def _write_file(write: Callable[[Any], None], format: str, output: Path | None) -> None:
    if output is None and format == "parquet":
        raise Stop("a Parquet file needs --output")
    try:
        if output is None:
            write(sys.stdout.buffer)
            sys.stdout.buffer.flush()
        else:
            with open(output, "wb") as file:
                write(file)
    except ParquetMissing as error:
        raise Stop(str(error)) from None


def _as_json(
    connection: Connection, tenant_id: int, report: Report, question: Question, compare: bool, limit: int
) -> dict[str, Any]:
    def part(of: Question) -> dict[str, Any]:
        return {
            "first_day": shown_day(of.days.first),
            "last_day": shown_day(of.days.end - 1),
            "items": [row.model_dump() for row in islice(report.rows(connection, tenant_id, of), limit)],
            "total": report.total(connection, tenant_id, of).model_dump(),
        }

    before = question._replace(days=question.days.before)
    return part(question) | ({"previous": part(before)} if compare else {})


def _print_figures(
    connection: Connection, tenant_id: int, report: Report, periods: list[Question], columns: list[str]
) -> None:
    """Print a report of one row from top to bottom, with a column for each period."""
    table = figure_table(report.name.capitalize())
    table.add_column("")
    for question in periods:
        days = f"{shown_day(question.days.first)} to {shown_day(question.days.end - 1)}"
        table.add_column(days, justify="right")
    rows = [report.total(connection, tenant_id, question) for question in periods]
    for name in columns:
        table.add_row(name.replace("_", " "), *(_cell(getattr(row, name)) for row in rows))
    print_table(table, len(columns), 0)


def _print(
    connection: Connection, tenant_id: int, report: Report, question: Question, columns: list[str], limit: int
) -> None:
    """Print a table with its total."""
    days = f", {shown_day(question.days.first)} to {shown_day(question.days.end - 1)}" if report.of_days else ""
    table = figure_table(f"{report.name.capitalize()}{days}")
    for name in columns:
        figures = name.endswith(("_usd", "_credits", "_percent", *_COUNTS)) or name in ("credits_in", "credits_out")
        table.add_column(name.replace("_", " "), justify="right" if figures else "left", overflow="fold")
    rows = list(islice(report.rows(connection, tenant_id, question), limit))
    for row in rows:
        table.add_row(*(_cell(getattr(row, name)) for name in columns))
    table.add_section()
    total = report.total(connection, tenant_id, question)
    cells = [_cell(getattr(total, name)) for name in columns]
    table.add_row(*(["all", *cells[1:]] if cells and not cells[0] else cells))
    print_table(table, len(rows), limit)


def _cell(value: Any) -> str:
    return "" if value is None else f"{value:,}" if isinstance(value, int) else str(value)
