"""The audit log over HTTP as JSON pages and CSV: actor, action, address and outcome."""

import json
import tempfile
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse
from pydantic import AwareDatetime, BaseModel, Field
from sqlalchemy import Connection

from farebox_collector.ledger.access.audit_log import LogFilter, entries_of
from farebox_collector.ledger.access.people import logins_of
from farebox_collector.model.moments import format_ns
from farebox_collector.surfaces.api.context import Context, Name, moment_ns
from farebox_collector.surfaces.api.pages import (
    Cursor,
    Limit,
    Page,
    decode_cursor,
    page,
)
from farebox_collector.surfaces.api.problems import RESPONSES
from farebox_collector.surfaces.api.table_files import MEDIA_TYPES, CellType, write_csv

MOST_ROWS = 100_000
"""Most entries of one CSV file."""
_AT_ONCE = 1_000
COLUMNS = (
    ("number", CellType.COUNT),
    *((name, CellType.TEXT) for name in ("at", "actor", "actor_name", "address", "action", "outcome", "subject")),
    *((name, CellType.TEXT) for name in ("before", "after", "sha256")),
)
"""The columns of the CSV file."""
_IN_MEMORY = 2**20
_CHUNK = 2**16
_CSV: dict[int | str, dict[str, Any]] = {200: {"content": {"text/csv": {"schema": {"type": "string"}}}}}


class LogEntry(BaseModel):
    """One entry of the audit log."""

    number: int = Field(description="1, 2, 3, … without a gap.")
    at: str
    actor: str = Field(
        description="`person:<number>`, `key:<id>`, `link:<link id>`, `cli:<OS user>`, `local`, `system`."
    )
    actor_name: str = Field(description="A person's login; empty for other actors.")
    address: str = Field(description="The request's address; empty for commands and background jobs.")
    action: str = Field(examples=["key.revoke"])
    outcome: Literal["done", "refused"]
    subject: str = Field(description="The wallet, event or key acted on; empty if erased.")
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    sha256: str = Field(description="The hash of this entry, including the previous entry's hash.")


Actor = Annotated[Name, Query(max_length=200, description="Only this actor's entries.")]
Action = Annotated[Name, Query(max_length=100, description="Only this action, or the part before its dot: `key`.")]
Subject = Annotated[Name, Query(max_length=500, description="Only this subject.")]
Outcome = Annotated[Literal["", "done", "refused"], Query(description="Only this outcome.")]


def router(context: Context) -> APIRouter:
    """The endpoints under /v1/audit-log."""
    routes = APIRouter(prefix="/v1/audit-log", tags=["audit log"], responses=RESPONSES)

    @routes.get("")
    def list_entries(
        actor: Actor = "",
        action: Action = "",
        subject: Subject = "",
        outcome: Outcome = "",
        since: AwareDatetime | None = None,
        until: AwareDatetime | None = None,
        cursor: Cursor = None,
        limit: Limit = 100,
    ) -> Page[LogEntry]:
        """List actions of people, keys and commands in this tenant, newest first."""
        (before,) = decode_cursor(cursor, int) or (None,)
        wanted = _filter(actor, action, subject, outcome, since, until)
        with context.database.reading() as connection:
            rows = entries_of(connection, context.tenant_id, wanted, before, limit + 1)
            logins = logins_of(connection, context.tenant_id)
        return page(rows, limit, lambda row: show_entry(row, logins), lambda row: (row.number,))

    @routes.get("/csv", response_class=StreamingResponse, responses=_CSV)
    def export_entries(
        actor: Actor = "",
        action: Action = "",
        subject: Subject = "",
        outcome: Outcome = "",
        since: AwareDatetime | None = None,
        until: AwareDatetime | None = None,
    ) -> StreamingResponse:
        """Export at most 100,000 entries as CSV, newest first."""
        wanted = _filter(actor, action, subject, outcome, since, until)
        # Write to a temporary file first: a slow client must not hold a database snapshot open.
        file = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY)  # noqa: SIM115  (closed when it is sent)
        with context.database.reading() as connection:
            write_csv(COLUMNS, map(as_cells, entries(connection, context.tenant_id, wanted, MOST_ROWS)), file)
        file.seek(0)

        def chunks() -> Iterator[bytes]:
            with file:
                while chunk := file.read(_CHUNK):
                    yield chunk

        headers = {"Content-Disposition": 'attachment; filename="audit-log.csv"'}
        return StreamingResponse(chunks(), media_type=MEDIA_TYPES["csv"], headers=headers)

    return routes


def entries(connection: Connection, tenant_id: int, wanted: LogFilter, limit: int) -> Iterator[LogEntry]:
    """Yield entries newest first, reading a thousand at a time."""
    logins = logins_of(connection, tenant_id)
    before: int | None = None
    while limit > 0:
        rows = entries_of(connection, tenant_id, wanted, before, min(limit, _AT_ONCE))
        yield from (show_entry(row, logins) for row in rows)
        if len(rows) < min(limit, _AT_ONCE):
            return
        limit, before = limit - len(rows), rows[-1].number


def as_cells(entry: LogEntry) -> list[Any]:
    """Return an entry as CSV cells."""
    values = entry.model_dump()
    texts = {name: "" if values[name] is None else json.dumps(values[name], ensure_ascii=False) for name in _JSON}
    return [texts.get(name, values[name]) for name, _ in COLUMNS]


_JSON = ("before", "after")


def show_entry(row: Any, logins: dict[int, str]) -> LogEntry:
    """Convert a row of `audit_log` to its API model."""
    details = json.loads(row.details) if row.details else {}
    kind, _, number = row.actor.partition(":")
    name = logins.get(int(number), "") if kind == "person" and number.isdecimal() else ""
    return LogEntry(
        number=row.number,
        at=format_ns(row.at_ns),
        actor=row.actor,
        actor_name=name,
        address=row.address,
        action=row.action,
        outcome=row.outcome,
        subject=row.subject,
        before=details.get("before"),
        after=details.get("after"),
        sha256=bytes(row.sha256).hex(),
    )


def _filter(
    actor: str,
    action: str,
    subject: str,
    outcome: str,
    since: AwareDatetime | None,
    until: AwareDatetime | None,
) -> LogFilter:
    start, end = (None if at is None else moment_ns(at) for at in (since, until))
    return LogFilter(actor, action, subject, outcome, start, end)
