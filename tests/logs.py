"""Builds OTLP log requests with the published schema, as an exporter would."""

import json
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from google.protobuf import json_format
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from spans import SCOPE, Value, pairs


class LogSpec(NamedTuple):
    """One log record to be sent."""

    attributes: Mapping[str, Value]
    event_name: str = ""
    body: str = ""
    time_ns: int = 0
    observed_ns: int = 0
    severity: int = 9
    trace_id: bytes = b""
    span_id: bytes = b""


GENAI_EVENT = "gen_ai.client.inference.operation.details"


def genai_event(
    time_ns: int,
    *,
    wallet: str | None = "ada",
    model: str = "gpt-4o-mini",
    input_tokens: Value | None = 1000,
    output_tokens: Value | None = 200,
    response_id: str | None = None,
    trace_id: bytes = b"",
    span_id: bytes = b"",
    severity: int = 9,
    **attributes: Value | None,
) -> LogSpec:
    """The event of the conventions; `attributes` are further ones, `__` for a dot, None for none."""
    values: dict[str, Value | None] = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": model,
        "gen_ai.response.model": model,
        "gen_ai.usage.input_tokens": input_tokens,
        "gen_ai.usage.output_tokens": output_tokens,
        "gen_ai.response.id": response_id,
        "farebox.wallet": wallet,
        "farebox.event": "chat.reply",
    }
    values |= {key.replace("__", "."): value for key, value in attributes.items()}
    stated = {key: value for key, value in values.items() if value is not None}
    return LogSpec(stated, GENAI_EVENT, "", time_ns, time_ns, severity, trace_id, span_id)


def logs_request(
    records: Iterable[LogSpec], resource: Mapping[str, Value] | None = None, scope: tuple[str, str] = SCOPE
) -> ExportLogsServiceRequest:
    """One request with all records under one resource and scope."""
    request = ExportLogsServiceRequest()
    resource_logs = request.resource_logs.add()
    resource_logs.resource.attributes.extend(pairs(resource or {"service.name": "test"}))
    scope_logs = resource_logs.scope_logs.add()
    scope_logs.scope.name, scope_logs.scope.version = scope
    for spec in records:
        record = scope_logs.log_records.add(
            time_unix_nano=spec.time_ns,
            observed_time_unix_nano=spec.observed_ns,
            severity_number=spec.severity,
            trace_id=spec.trace_id,
            span_id=spec.span_id,
            event_name=spec.event_name,
        )
        if spec.body:
            record.body.string_value = spec.body
        record.attributes.extend(pairs(spec.attributes))
    return request


def logs_as_json(request: ExportLogsServiceRequest) -> bytes:
    """OTLP/JSON: protobuf's JSON, but for the ids, which are hexadecimal."""
    document = json_format.MessageToDict(request)
    for resource_logs, shown_resource in zip(request.resource_logs, document.get("resourceLogs", ()), strict=True):
        scopes = shown_resource.get("scopeLogs", ())
        for scope_logs, shown_scope in zip(resource_logs.scope_logs, scopes, strict=True):
            for record, shown in zip(scope_logs.log_records, shown_scope.get("logRecords", ()), strict=True):
                shown.update({"traceId": record.trace_id.hex(), "spanId": record.span_id.hex()})
    return json.dumps(document).encode()
