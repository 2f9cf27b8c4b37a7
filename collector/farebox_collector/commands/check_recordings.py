"""`farebox check-recordings`: check offline how recorded HTTP calls are metered and priced."""

import logging
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from farebox_collector.cache.tariffs import Tariffs
from farebox_collector.commands.terminal import (
    AsJson,
    Stop,
    err,
    figure_table,
    out,
    print_json,
    settings_from,
    writable_books,
)
from farebox_collector.intake.reader import RequestReader, SpanReader
from farebox_collector.ledger.storage.connect import open_database
from farebox_collector.ledger.storage.database import Database
from farebox_collector.recordings.exchanges import AT_THE_END, BrokenRecording
from farebox_collector.recordings.files import exchanges_in
from farebox_collector.recordings.judging import (
    MISSED,
    Call,
    Finding,
    Judge,
    Outcome,
    as_json,
    usd,
)
from farebox_collector.recordings.sdk_process import SdkMissing, SdkProcess


def check_recordings(
    files: Annotated[list[Path], typer.Argument(help="HAR files, or VCR cassettes in YAML or JSON.")],
    model_url: Annotated[
        list[str] | None,
        typer.Option(help="A base URL of a model API, such as a gateway, or url=provider. Repeatable."),
    ] = None,
    database_url: Annotated[
        str | None, typer.Option(help="Price by these books (default: by the bundled catalogue).")
    ] = None,
    sdk_python: Annotated[str, typer.Option(help="The Python that has the SDK installed.")] = sys.executable,
    all_entries: Annotated[bool, typer.Option("--all", help="Also list entries that are not model calls.")] = False,
    json_output: AsJson = False,
) -> None:
    """Replay recorded HTTP calls through the SDK, the dialects and the prices, and show each call's cost.

    Nothing is sent, and bodies are neither stored nor shown. Calls are priced as of when they were recorded.
    Exits with status 1 if a call was not recognised, metered or priced, or if a file cannot be read to its end.
    """
    counts: dict[str, Counter[Outcome]] = {}
    cost: Counter[str] = Counter()
    listed: list[dict[str, Any]] = []
    broken: list[str] = []
    with _judge(database_url) as judge, _sdk(sdk_python, model_url or []) as sdk:
        for file in files:
            name = str(file)
            counts[name] = Counter()
            try:
                for found in _findings(file, judge, sdk):
                    counts[name][found.outcome] += 1
                    cost[name] += found.cost_nanousd
                    if json_output:
                        listed.append({"file": name, **as_json(found)})
                    elif all_entries or found.outcome is not Outcome.OTHER:
                        _print(name, found)
            except BrokenRecording as error:
                broken.append(str(error))
                err.print(f"farebox: {error}", style="bold red", soft_wrap=True)
    totals: Counter[Outcome] = sum(counts.values(), Counter())
    if json_output:
        print_json({"items": listed, "summary": _summary(counts, cost), "broken": broken})
    else:
        _print_summary(counts, cost)
    if broken or any(totals[outcome] for outcome in MISSED):
        raise typer.Exit(1)


def _findings(file: Path, judge: Judge, sdk: SdkProcess) -> Iterator[Finding]:
    for exchange in exchanges_in(file):
        yield judge.unusable(exchange) if exchange.unusable else judge.judge(exchange, sdk.replay(exchange))
    rest = sdk.rest()
    if rest.otlp is not None:
        yield judge.judge(AT_THE_END, rest)


@contextmanager
def _judge(database_url: str | None) -> Iterator[Judge]:
    settings = settings_from(database_url=database_url)
    with _books(database_url) as database:
        tariffs = Tariffs(database, time.time_ns)
        yield Judge(RequestReader(settings, tariffs), SpanReader(settings, tariffs))


@contextmanager
def _books(database_url: str | None) -> Iterator[Database]:
    """Open the books to price by; without any, temporary ones with the bundled catalogue."""
    if database_url is not None:
        with closing(open_database(settings_from(database_url=database_url).database_url, writable=False)) as database:
            yield database
        return
    logging.getLogger("farebox_collector").setLevel(logging.WARNING)
    with (
        tempfile.TemporaryDirectory(prefix="farebox-check-") as folder,
        closing(writable_books(f"sqlite:///{folder}/books.db")) as database,
    ):
        yield database


@contextmanager
def _sdk(python: str, model_urls: list[str]) -> Iterator[SdkProcess]:
    try:
        with SdkProcess(python, model_urls) as sdk:
            yield sdk
    except SdkMissing as error:
        raise Stop(str(error)) from None


def _print(file: str, found: Finding) -> None:
    exchange = found.exchange
    place = f"{exchange.method} {exchange.place}" if exchange.url else ""
    _line(f"{file} #{exchange.entry}  {place}  {exchange.status or ''}".rstrip())
    for call in found.calls:
        _line(f"    read     {_read(call)}")
        if call.cost_nanousd is not None:
            _line(f"    priced   ${usd(call.cost_nanousd)}{_conditions(call)}{_stated(call)}")
        for line in call.other_lines:
            _line(f"    with     {line}")
        for name, meaning in call.assumed.items():
            _line(f"    assumed  {name}: {meaning}")
    _line(f"    {found.outcome.value}{f': {found.why}' if found.why else ''}")


def _line(text: str) -> None:
    out.print(text, soft_wrap=True)


def _read(call: Call) -> str:
    parts = [f"{name} {count:,}" for name, count in (*call.tokens.items(), *call.units.items())]
    return f"{call.provider} {call.model}  {', '.join(parts) or 'no usage'}".strip()


def _conditions(call: Call) -> str:
    return f" ({', '.join(f'{name} {value}' for name, value in call.conditions.items())})" if call.conditions else ""


def _stated(call: Call) -> str:
    stated = usd(call.stated_cost_nanousd)
    return f", the provider says ${stated}" if stated is not None else ""


def _summary(counts: dict[str, Counter[Outcome]], cost: Counter[str]) -> list[dict[str, Any]]:
    return [
        {"file": name, **{outcome.value: of_file[outcome] for outcome in Outcome}, "cost_usd": usd(cost[name])}
        for name, of_file in counts.items()
    ]


def _print_summary(counts: dict[str, Counter[Outcome]], cost: Counter[str]) -> None:
    shown = [outcome for outcome in Outcome if any(of_file[outcome] for of_file in counts.values())]
    table = figure_table("Recorded exchanges", "file", *(outcome.value for outcome in shown), "USD")
    for column in table.columns[1:]:
        column.no_wrap = True
    for name, of_file in counts.items():
        table.add_row(name, *(str(of_file[outcome]) for outcome in shown), usd(cost[name]) or "0")
    if len(counts) > 1:
        totals: Counter[Outcome] = sum(counts.values(), Counter())
        table.add_section()
        table.add_row("all", *(str(totals[outcome]) for outcome in shown), usd(sum(cost.values())) or "0")
    out.print(table)
