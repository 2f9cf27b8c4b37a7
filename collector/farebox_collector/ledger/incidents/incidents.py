"""Incidents: alerts that fired, each stored once with a snapshot of the books, and the queries of the snapshot."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Row, Select, and_, case, desc, func, select, update

from farebox_collector.ledger.access.audit_log import note
from farebox_collector.ledger.storage import bulk_insert
from farebox_collector.ledger.tables.books import usage_records
from farebox_collector.ledger.tables.service import incidents
from farebox_collector.model.verdicts import ONE_CALL

NARROWING = ("event", "provider", "model", "dept", "project", "task", "route", "region")
"""Labels of an alert that are also columns of usage records; they select the incident's calls."""
MOST_RECORDS = 100_000
"""Most records of a window to read, newest first: a snapshot must not delay bookings."""

_COLUMNS = (
    "tenant_id",
    "fingerprint",
    "started_at_ns",
    "recorded_at_ns",
    "ended_at_ns",
    "alert",
    "severity",
    "team",
    "labels",
    "annotations",
    "snapshot",
)


class Incident(NamedTuple):
    """An alert that started to fire; `labels`, `annotations` and `snapshot` are JSON."""

    fingerprint: str
    started_at_ns: int
    recorded_at_ns: int
    ended_at_ns: int | None
    alert: str
    severity: str
    team: str
    labels: str
    annotations: str
    snapshot: str


class Window(NamedTuple):
    """Records priced within [from_ns, to_ns) whose columns have these values."""

    from_ns: int
    to_ns: int
    matching: Mapping[str, str]


def record_incident(connection: Connection, tenant_id: int, incident: Incident) -> bool:
    """Record an incident, or the end of a known one. Returns whether it is new.

    Repeats by Alertmanager never replace what was recorded at the start.
    """
    if bulk_insert.insert_ignoring_conflicts(
        connection, "incidents", _COLUMNS, [(tenant_id, *incident)], on=("tenant_id", "fingerprint", "started_at_ns")
    ):
        after = {"fingerprint": incident.fingerprint, "severity": incident.severity, "labels": incident.labels}
        note(connection, tenant_id, "incident.open", incident.alert, incident.recorded_at_ns, after=after)
        return True
    if incident.ended_at_ns is not None:
        table = incidents.c
        ended = connection.execute(
            update(incidents)
            .where(
                table.tenant_id == tenant_id,
                table.fingerprint == incident.fingerprint,
                table.started_at_ns == incident.started_at_ns,
                table.ended_at_ns.is_(None),
            )
            .values(ended_at_ns=incident.ended_at_ns)
        )
        if ended.rowcount:
            ending = {"fingerprint": incident.fingerprint, "ended_at_ns": incident.ended_at_ns}
            note(connection, tenant_id, "incident.close", incident.alert, incident.recorded_at_ns, after=ending)
    return False


def is_known(connection: Connection, tenant_id: int, fingerprint: str, started_at_ns: int) -> bool:
    """Return whether an incident is in the books."""
    table = incidents.c
    found = select(table.id).where(
        table.tenant_id == tenant_id, table.fingerprint == fingerprint, table.started_at_ns == started_at_ns
    )
    return connection.execute(found).first() is not None


def incidents_of(
    connection: Connection, tenant_id: int, before_id: int | None = None, limit: int = 100, *, open_only: bool = False
) -> Sequence[Row[Any]]:
    """Return incidents, newest first."""
    table = incidents.c
    chosen = select(incidents).where(table.tenant_id == tenant_id)
    if before_id is not None:
        chosen = chosen.where(table.id < before_id)
    if open_only:
        chosen = chosen.where(table.ended_at_ns.is_(None))
    return connection.execute(chosen.order_by(table.id.desc()).limit(limit)).all()


def incident(connection: Connection, tenant_id: int, incident_id: int) -> Row[Any] | None:
    """Return an incident; None if there is none of this number."""
    table = incidents.c
    return connection.execute(select(incidents).where(table.tenant_id == tenant_id, table.id == incident_id)).first()


def sums_by(
    connection: Connection, tenant_id: int, window: Window, columns: Sequence[str], limit: int
) -> Sequence[Row[Any]]:
    """Return the cost of a window's calls by columns, highest first: the columns, calls, errors, cost, tokens."""
    records = _recent(tenant_id, window).subquery()
    by = [records.c[name] for name in columns]
    cost = func.coalesce(func.sum(records.c.cost_nanousd), 0)
    chosen: Select[Any] = (
        select(
            *by,
            func.count().label("calls"),
            func.coalesce(func.sum(records.c.failed), 0).label("errors"),
            cost.label("cost_nanousd"),
            func.coalesce(func.sum(records.c.tokens), 0).label("tokens"),
        )
        .group_by(*by)
        .order_by(desc(cost), *by)
        .limit(limit)
    )
    return connection.execute(chosen).all()


def dearest_calls(connection: Connection, tenant_id: int, window: Window, limit: int) -> Sequence[Row[Any]]:
    """Return the most expensive calls of a window."""
    records = _recent(tenant_id, window).subquery()
    chosen: Select[Any] = (
        select(records).order_by(func.coalesce(records.c.cost_nanousd, 0).desc(), records.c.id.desc()).limit(limit)
    )
    return connection.execute(chosen).all()


def _recent(tenant_id: int, window: Window) -> Select[Any]:
    table = usage_records.c
    conditions: list[ColumnElement[bool]] = [
        table.tenant_id == tenant_id,
        table.priced_at_ns >= window.from_ns,
        table.priced_at_ns < window.to_ns,
        table.verdict.in_(ONE_CALL),
    ]
    conditions += [usage_records.c[name] == value for name, value in window.matching.items() if name in NARROWING]
    tokens = func.coalesce(table.input_tokens, 0) + func.coalesce(table.cache_read_tokens, 0)
    return (
        select(
            table.id,
            table.trace_id,
            table.span_id,
            table.wallet,
            *(usage_records.c[name] for name in NARROWING),
            table.error_type,
            table.latency_ns,
            table.cost_nanousd,
            table.rule_version_id,
            (tokens + func.coalesce(table.output_tokens, 0)).label("tokens"),
            case((table.error_type != "", 1), else_=0).label("failed"),
        )
        .where(and_(*conditions))
        .order_by(table.priced_at_ns.desc())
        .limit(MOST_RECORDS)
    )
