"""Alertmanager's webhook: an incident each, once, with what the books said when it was recorded."""

import json
from typing import Any

import pytest
from harness import Collector, farebox
from spans import llm_span, protobuf_body

LABELS = {"alertname": "FareboxCostSpike", "severity": "critical", "team": "finance", "event": "chat.reply"}


def alert(**changes: Any) -> dict[str, Any]:
    """An alert as Alertmanager 0.25 sends it."""
    return {
        "status": "firing",
        "labels": LABELS,
        "annotations": {"summary": "chat.reply costs several times what it should", "runbook_url": "x#y"},
        "startsAt": "2026-03-01T10:00:00.000Z",
        "endsAt": "0001-01-01T00:00:00Z",
        "generatorURL": "http://prometheus:9090/graph",
        "fingerprint": "0f1e2d3c4b5a6978",
        **changes,
    }


def notify(collector: Collector, *alerts: dict[str, Any]) -> Any:
    body = {"version": "4", "groupKey": "{}", "receiver": "incidents", "status": "firing", "alerts": alerts}
    return collector.api.post("/v1/alerts/alertmanager", json=body)


def test_an_alert_is_one_incident_however_often_it_is_repeated(shared_collector: Collector) -> None:
    shared_collector.export_grpc(protobuf_body([llm_span()]))
    assert notify(shared_collector, alert()).json() == {"recorded": 1, "known": 0}
    assert notify(shared_collector, alert(), alert()).json() == {"recorded": 0, "known": 2}
    (incident,) = shared_collector.pages("/v1/incidents", firing=True)
    assert (incident["alert"], incident["ended_at"]) == ("FareboxCostSpike", None)
    before = shared_collector.api.get(f"/v1/incidents/{incident['id']}").json()

    resolved = alert(status="resolved", endsAt="2026-03-01T11:00:00Z")
    assert notify(shared_collector, resolved).json() == {"recorded": 0, "known": 1}
    assert shared_collector.pages("/v1/incidents", firing=True) == []
    after = shared_collector.api.get(f"/v1/incidents/{incident['id']}").json()
    assert after["ended_at"].startswith("2026-03-01T11:00:00")
    assert after["snapshot"] == before["snapshot"], "what was known then is not rewritten"

    again = alert(startsAt="2026-03-02T10:00:00Z")
    assert notify(shared_collector, again).json() == {"recorded": 1, "known": 0}, "the next time is another incident"
    shown = farebox("incidents", "show", str(incident["id"]), "--database-url", shared_collector.database_url)
    assert "FareboxCostSpike (critical)" in shown.stdout
    listed = farebox("incidents", "list", "--json", "--database-url", shared_collector.database_url)
    assert len(json.loads(listed.stdout)) == 2


@pytest.mark.parametrize(
    "body",
    [
        {"alerts": [{"status": "firing"}]},
        {"alerts": [alert(fingerprint="not hex")]},
        {"alerts": [alert(status="maybe")]},
        {"alerts": [alert(startsAt="yesterday")]},
        {"alerts": [alert(labels={f"l{n}": "" for n in range(51)})]},
        {},
    ],
    ids=["no-labels", "fingerprint", "status", "time", "too-many-labels", "nothing"],
)
def test_what_is_no_notification_is_refused(shared_collector: Collector, body: dict[str, Any]) -> None:
    before = shared_collector.pages("/v1/incidents")
    assert shared_collector.api.post("/v1/alerts/alertmanager", json=body).status_code == 422
    assert shared_collector.pages("/v1/incidents") == before
