"""`farebox audit-log`: actions with their actor, address and outcome."""

import json
import sys
from datetime import datetime
from typing import Annotated

import typer

from farebox_collector.commands.tenants import TenantName, tenant_id_of
from farebox_collector.commands.terminal import (
    AsJson,
    DatabaseUrl,
    Limit,
    Stop,
    figure_table,
    moment_ns,
    print_json,
    print_table,
    reading_books,
)
from farebox_collector.ledger.access.audit_log import LogFilter
from farebox_collector.ledger.access.audit_log_chain import heads
from farebox_collector.surfaces.api.audit_log import (
    COLUMNS,
    LogEntry,
    as_cells,
    entries,
)
from farebox_collector.surfaces.api.table_files import write_csv

_Moment = Annotated[datetime | None, typer.Option(formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"])]
_SHOWN = 60


def audit_log_command(
    actor: Annotated[str, typer.Option(help="Only this actor, such as key:0123456789abcdef.")] = "",
    action: Annotated[str, typer.Option(help="Only this action, or the part before its dot, such as key.")] = "",
    subject: Annotated[str, typer.Option(help="Only this subject, such as a wallet.")] = "",
    outcome: Annotated[str, typer.Option(help="done or refused.")] = "",
    since: _Moment = None,
    until: _Moment = None,
    limit: Limit = 100,
    as_csv: Annotated[bool, typer.Option("--csv", help="Write CSV to standard output.")] = False,
    only_heads: Annotated[
        bool,
        typer.Option("--heads", help="Print each chain's last hash, to store out of reach of the database's owner."),
    ] = False,
    tenant: TenantName = "default",
    database_url: DatabaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """List actions with actor, address and outcome, newest first. `farebox audit` finds missing entries."""
    if outcome not in ("", "done", "refused"):
        raise Stop("--outcome must be done or refused")
    start, end = (None if at is None else moment_ns(at) for at in (since, until))
    wanted = LogFilter(actor, action, subject, outcome, start, end)
    with reading_books(database_url) as connection:
        if only_heads:
            print_json([{**head._asdict(), "sha256": head.sha256.hex()} for head in heads(connection)])
            return
        found = entries(connection, tenant_id_of(connection, tenant), wanted, limit)
        if as_csv:
            write_csv(COLUMNS, map(as_cells, found), sys.stdout.buffer)
            return
        shown = list(found)
    if as_json:
        print_json([entry.model_dump() for entry in shown])
        return
    table = figure_table("Audit log", "number", "at", "who", "from", "action", "outcome", "subject", "after")
    for entry in shown:
        who = f"{entry.actor} {entry.actor_name}".strip()
        table.add_row(
            str(entry.number),
            entry.at[:19],
            who,
            entry.address,
            entry.action,
            entry.outcome,
            entry.subject,
            _after(entry),
        )
    print_table(table, len(shown), limit)


def _after(entry: LogEntry) -> str:
    text = "" if entry.after is None else json.dumps(entry.after, ensure_ascii=False)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
