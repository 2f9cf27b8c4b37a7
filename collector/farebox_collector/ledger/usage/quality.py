"""Quality reports by people and checks on answers, sent after their calls: kept once, counted with their call."""

from collections.abc import Sequence

from sqlalchemy import Connection, select

from farebox_collector.ledger.storage import bulk_insert
from farebox_collector.ledger.tables.books import usage_records
from farebox_collector.ledger.usage.running_totals import TotalLabels, add_quality
from farebox_collector.ledger.usage.span_index import of_traces
from farebox_collector.model.records import Quality, QualityReport
from farebox_collector.model.verdicts import ONE_CALL

UNKNOWN = "unknown"
"""Provider and model of a report whose trace has no call in the books yet."""

_COLUMNS = (
    "tenant_id",
    "trace_id",
    "span_id",
    "subject_trace_id",
    "received_at_ns",
    *Quality._fields,
    "provider",
    "model",
)


def keep_reports(
    connection: Connection,
    tenant_id: int,
    reports: Sequence[QualityReport],
    received_at_ns: int,
    labels: TotalLabels,
) -> None:
    """Store reports and count the new ones; a repeated report changes nothing."""
    subjects = _subjects(connection, tenant_id, {report.subject_trace_id for report in reports})
    counted: list[tuple[tuple[str, str, str, str], Quality]] = []
    for report in sorted(reports):
        subject = subjects.get(report.subject_trace_id, (UNKNOWN, UNKNOWN, "", ""))
        row = (
            tenant_id,
            report.trace_id,
            report.span_id,
            report.subject_trace_id,
            received_at_ns,
            *report.quality,
            *subject[:2],
        )
        if bulk_insert.insert_ignoring_conflicts(
            connection, "quality_reports", _COLUMNS, [row], on=("tenant_id", "trace_id", "span_id")
        ):
            counted.append((subject, report.quality))
    if counted:
        add_quality(connection, tenant_id, counted, labels)


def _subjects(connection: Connection, tenant_id: int, trace_ids: set[bytes]) -> dict[bytes, tuple[str, str, str, str]]:
    """Return (provider, model, route, region) of the last call of each trace, which produced the answer."""
    if not trace_ids:
        return {}
    table = usage_records.c
    found = connection.execute(
        select(table.trace_id, table.provider, table.model, table.route, table.region)
        .where(of_traces(connection, tenant_id, trace_ids), table.verdict.in_(ONE_CALL))
        .order_by(table.started_at_ns, table.id)
    )
    return {trace_id: (provider, model, route, region) for trace_id, provider, model, route, region in found}
