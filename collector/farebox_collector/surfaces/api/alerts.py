"""Alerts and incidents: Alertmanager's webhook and the incidents that it recorded."""

import json
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from farebox_collector.dialects.text import clean
from farebox_collector.insight.incidents import with_snapshots
from farebox_collector.ledger.incidents.incidents import (
    Incident,
    incident,
    incidents_of,
    record_incident,
)
from farebox_collector.model.moments import format_ns
from farebox_collector.model.names import MAX_NAME
from farebox_collector.surfaces.api.context import Context, moment_ns
from farebox_collector.surfaces.api.pages import (
    Cursor,
    Limit,
    Page,
    decode_cursor,
    page,
)
from farebox_collector.surfaces.api.problems import RESPONSES, ApiError

Labels = Annotated[dict[str, str], Field(max_length=50)]
MOST_ALERTS = 50
"""Most alerts of one notification; Alertmanager's `max_alerts` is set to it."""
_MAX_ANNOTATION = 2_000


class Alert(BaseModel):
    """One alert of a notification."""

    status: str = Field(pattern="^(firing|resolved)$")
    labels: Labels
    annotations: Labels = {}
    startsAt: datetime
    endsAt: datetime | None = None
    fingerprint: str = Field(pattern="^[0-9a-f]{1,32}$")


class Notification(BaseModel):
    """A notification from Alertmanager (version 4); fields that are not needed are ignored."""

    model_config = ConfigDict(extra="ignore")

    version: str = "4"
    alerts: list[Alert] = Field(max_length=MOST_ALERTS)


class Noted(BaseModel):
    """The result of a notification."""

    recorded: int = Field(description="New incidents.")
    known: int = Field(description="Alerts recorded before; a resolved one now has an end.")


class IncidentSummary(BaseModel):
    """An alert that fired."""

    id: int
    alert: str
    severity: str
    team: str
    summary: str
    started_at: str
    ended_at: str | None = Field(description="Null while the alert fires.")
    labels: dict[str, str]


class IncidentReport(IncidentSummary):
    """An incident with the snapshot taken when it was recorded."""

    description: str
    annotations: dict[str, str]
    snapshot: dict[str, Any] = Field(description="Price book and rules in force, contributors, routing, dearest calls.")


def webhook_router(context: Context) -> APIRouter:
    """The endpoint that Alertmanager calls."""
    routes = APIRouter(prefix="/v1/alerts", tags=["alerts"], responses=RESPONSES)

    @routes.post("/alertmanager")
    def notify(notification: Notification) -> Noted:
        """Record the alerts of a notification as incidents, each once by its fingerprint and start."""
        now_ns = context.clock()
        found = [_incident(alert, now_ns) for alert in notification.alerts]
        # Snapshots read many rows. Take them before the write transaction, so that no writer waits for them.
        found = with_snapshots(context.database, context.tenant_id, found, now_ns)
        recorded = context.database.transact(
            lambda connection: sum(record_incident(connection, context.tenant_id, incident) for incident in found)
        )
        return Noted(recorded=recorded, known=len(notification.alerts) - recorded)

    return routes


def router(context: Context) -> APIRouter:
    """The endpoints under /v1/incidents."""
    routes = APIRouter(prefix="/v1/incidents", tags=["alerts"], responses=RESPONSES)

    @routes.get("")
    def list_incidents(
        cursor: Cursor = None,
        limit: Limit = 100,
        firing: Annotated[bool, Query(description="Only incidents that fire now.")] = False,
    ) -> Page[IncidentSummary]:
        """List incidents, last recorded first."""
        (before,) = decode_cursor(cursor, int) or (None,)
        with context.database.reading() as connection:
            rows = incidents_of(connection, context.tenant_id, before, limit + 1, open_only=firing)
        return page(rows, limit, lambda row: IncidentSummary(**summary_of(row)), lambda row: (row.id,))

    @routes.get("/{incident_id}")
    def get_incident(incident_id: int) -> IncidentReport:
        """Return an incident with its snapshot."""
        with context.database.reading() as connection:
            row = incident(connection, context.tenant_id, incident_id) if abs(incident_id) < 2**63 else None
        if row is None:
            raise ApiError(404, "there is no such incident")
        return IncidentReport(**report_of(row))

    return routes


def _incident(alert: Alert, now_ns: int) -> Incident:
    """Convert an alert to an incident without a snapshot."""
    started_at_ns = moment_ns(alert.startsAt)
    ended_at_ns = moment_ns(alert.endsAt) if alert.status == "resolved" and alert.endsAt else None
    labels = {clean(name): clean(value) for name, value in alert.labels.items()}
    return Incident(
        fingerprint=alert.fingerprint,
        started_at_ns=started_at_ns,
        recorded_at_ns=now_ns,
        ended_at_ns=ended_at_ns,
        alert=labels.get("alertname", "")[:MAX_NAME],
        severity=labels.get("severity", ""),
        team=labels.get("team", ""),
        labels=json.dumps(labels),
        annotations=json.dumps({clean(name): _long(value) for name, value in alert.annotations.items()}),
        snapshot="{}",
    )


def _long(text: str) -> str:
    """Bound an annotation and make it printable, as names are."""
    return "".join(char if char.isprintable() else "\ufffd" for char in text[:_MAX_ANNOTATION])


def summary_of(row: Any) -> dict[str, Any]:
    """Return an incident as lists show it."""
    return {
        "id": row.id,
        "alert": row.alert,
        "severity": row.severity,
        "team": row.team,
        "summary": json.loads(row.annotations).get("summary", ""),
        "started_at": format_ns(row.started_at_ns),
        "ended_at": None if row.ended_at_ns is None else format_ns(row.ended_at_ns),
        "labels": json.loads(row.labels),
    }


def report_of(row: Any) -> dict[str, Any]:
    """Return an incident with all its details."""
    annotations = json.loads(row.annotations)
    return {
        **summary_of(row),
        "description": annotations.get("description", ""),
        "annotations": annotations,
        "snapshot": json.loads(row.snapshot),
    }
