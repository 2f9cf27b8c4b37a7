"""Take a snapshot of the books when an alert fires, so that an incident can be analysed after prices change."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection

from farebox_collector.ledger.incidents.incidents import (
    NARROWING,
    Incident,
    Window,
    dearest_calls,
    is_known,
    sums_by,
)
from farebox_collector.ledger.reports import statements
from farebox_collector.ledger.storage.database import Database
from farebox_collector.ledger.tariffs.prices import book_edition
from farebox_collector.ledger.tariffs.rules import rules_edition
from farebox_collector.model.moments import format_ns
from farebox_collector.model.money import format_nano

BEFORE_NS = 3600 * 10**9
"""Start of the window before the alert: as far as most rules look back."""
CONTRIBUTORS = 10
CALLS = 20
MOST_SNAPSHOTS = 10
"""Most sets of labels of one notification that get separate snapshots."""
_MAX_RULES = 200


def snapshot(connection: Connection, tenant_id: int, labels: Mapping[str, str], started_at_ns: int, now_ns: int) -> str:
    """Return the snapshot of an incident, as JSON.

    It holds the price book and rules in force, the most expensive contributors of the window by tag and by wallet, the
    routing of calls, and the trace ids of the most expensive calls. The alert's labels restrict the calls.
    """
    matching = {name: value for name, value in labels.items() if name in NARROWING}
    window = Window(max(0, started_at_ns - BEFORE_NS), now_ns, matching)
    rules = statements.charge_rules_of(connection, tenant_id)
    in_force = [
        rule
        for rule in rules
        if rule.valid_from_ns <= started_at_ns and (rule.valid_to_ns is None or rule.valid_to_ns > started_at_ns)
    ]
    return json.dumps(
        {
            "taken_at": format_ns(now_ns),
            "window": {"from": format_ns(window.from_ns), "to": format_ns(now_ns), "matching": matching},
            "price_book_edition": book_edition(connection),
            "charge_rule_edition": rules_edition(connection),
            "charge_rules": [{"event": rule.event, "version_id": rule.id} for rule in in_force[:_MAX_RULES]],
            "contributors": _sums(connection, tenant_id, window, ("dept", "event", "provider", "model")),
            "wallets": _sums(connection, tenant_id, window, ("wallet",)),
            "routing": _sums(connection, tenant_id, window, ("route", "region", "provider", "model")),
            "calls": [_call(row) for row in dearest_calls(connection, tenant_id, window, CALLS)],
        }
    )


def with_snapshots(database: Database, tenant_id: int, found: Sequence[Incident], now_ns: int) -> list[Incident]:
    """Return the incidents, with a snapshot for each new one.

    Alerts with the same labels share a snapshot, which begins before the first of them. Beyond `MOST_SNAPSHOTS` sets of
    labels the rest share one without restriction. Each snapshot is a separate read transaction, to keep these short.
    """
    with database.reading() as connection:
        new = [one for one in found if not is_known(connection, tenant_id, one.fingerprint, one.started_at_ns)]
    begin_ns: dict[tuple[tuple[str, str], ...], int] = {}
    for one in new:
        key = _narrowing(one)
        begin_ns[key] = min(begin_ns.get(key, one.started_at_ns), one.started_at_ns)
    apart = dict(list(begin_ns.items())[:MOST_SNAPSHOTS])
    snapshots = {key: _snapshot(database, tenant_id, dict(key), at_ns, now_ns) for key, at_ns in apart.items()}
    beyond = [at_ns for key, at_ns in begin_ns.items() if key not in apart]
    rest = _snapshot(database, tenant_id, {}, min(beyond), now_ns) if beyond else "{}"
    is_new = {(one.fingerprint, one.started_at_ns) for one in new}
    return [
        one._replace(snapshot=snapshots.get(_narrowing(one), rest))
        if (one.fingerprint, one.started_at_ns) in is_new
        else one
        for one in found
    ]


def _narrowing(incident: Incident) -> tuple[tuple[str, str], ...]:
    labels: dict[str, str] = json.loads(incident.labels)
    return tuple(sorted((name, value) for name, value in labels.items() if name in NARROWING))


def _snapshot(database: Database, tenant_id: int, labels: Mapping[str, str], started_at_ns: int, now_ns: int) -> str:
    with database.reading() as connection:
        return snapshot(connection, tenant_id, labels, started_at_ns, now_ns)


def _sums(connection: Connection, tenant_id: int, window: Window, columns: tuple[str, ...]) -> list[dict[str, Any]]:
    return [
        {
            **{name: getattr(row, name) for name in columns},
            "calls": int(row.calls),
            "errors": int(row.errors),
            "tokens": int(row.tokens),
            "cost_usd": format_nano(int(row.cost_nanousd)),
        }
        for row in sums_by(connection, tenant_id, window, columns, CONTRIBUTORS)
    ]


def _call(row: Any) -> dict[str, Any]:
    return {
        "trace_id": row.trace_id.hex(),
        "span_id": row.span_id.hex(),
        "event": row.event,
        "model": row.model,
        "cost_usd": None if row.cost_nanousd is None else format_nano(row.cost_nanousd),
        "latency_ms": row.latency_ns // 1_000_000,
        "error": row.error_type,
    }
