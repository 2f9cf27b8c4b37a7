"""Builds OTLP requests with the published schema, as an exporter would."""

import json
import os
import time
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from google.protobuf import json_format
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

Value = str | int | float | bool | list[str]
SCOPE = ("test.instrumentation", "1.0")


class SpanSpec(NamedTuple):
    """One span to be sent."""

    trace_id: bytes
    span_id: bytes
    attributes: Mapping[str, Value]
    parent_span_id: bytes = b""
    start_ns: int = 0
    end_ns: int = 0
    failed: bool = False


def llm_span(
    *,
    trace_id: bytes | None = None,
    span_id: bytes | None = None,
    start_ns: int | None = None,
    latency_ns: int = 500_000_000,
    wallet: str | None = "ada",
    event: str | None = "chat.reply",
    model: str = "gpt-4o-mini",
    input_tokens: Value | None = 1000,
    output_tokens: Value | None = 200,
    response_id: str | None = None,
    failed: bool = False,
    parent_span_id: bytes = b"",
    **attributes: Value | None,
) -> SpanSpec:
    """A GenAI chat span; `attributes` are further ones, `__` for a dot, None for none."""
    start = time.time_ns() - latency_ns if start_ns is None else start_ns
    values: dict[str, Value | None] = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": model,
        "gen_ai.response.model": model,
        "gen_ai.usage.input_tokens": input_tokens,
        "gen_ai.usage.output_tokens": output_tokens,
        "gen_ai.response.id": response_id,
        "farebox.wallet": wallet,
        "farebox.event": event,
    }
    values |= {key.replace("__", "."): value for key, value in attributes.items()}
    return SpanSpec(
        os.urandom(16) if trace_id is None else trace_id,
        os.urandom(8) if span_id is None else span_id,
        {key: value for key, value in values.items() if value is not None},
        parent_span_id,
        start,
        start + latency_ns,
        failed,
    )


def export_request(spans: Iterable[SpanSpec], resource: Mapping[str, Value] | None = None) -> ExportTraceServiceRequest:
    """One request with all spans under one resource and scope."""
    request = ExportTraceServiceRequest()
    resource_spans = request.resource_spans.add()
    resource_spans.resource.attributes.extend(pairs(resource or {"service.name": "test"}))
    scope_spans = resource_spans.scope_spans.add()
    scope_spans.scope.name, scope_spans.scope.version = SCOPE
    for spec in spans:
        span = scope_spans.spans.add(
            trace_id=spec.trace_id,
            span_id=spec.span_id,
            parent_span_id=spec.parent_span_id,
            name="chat",
            kind=3,
            start_time_unix_nano=spec.start_ns,
            end_time_unix_nano=spec.end_ns,
        )
        span.status.code = 2 if spec.failed else 0  # type: ignore[assignment]  # an enum's number
        span.attributes.extend(pairs(spec.attributes))
    return request


def protobuf_body(spans: Iterable[SpanSpec]) -> bytes:
    """A request as OTLP/protobuf."""
    return export_request(spans).SerializeToString()


def json_document(spans: Iterable[SpanSpec]) -> dict[str, Any]:
    """A request as OTLP/JSON: ids in hexadecimal, where protobuf's own JSON has base64."""
    specs = list(spans)
    document: dict[str, Any] = json_format.MessageToDict(export_request(specs))
    shown = document["resourceSpans"][0]["scopeSpans"][0]["spans"]
    for span, spec in zip(shown, specs, strict=True):
        span["traceId"], span["spanId"] = spec.trace_id.hex(), spec.span_id.hex()
        span.pop("parentSpanId", None)
        if spec.parent_span_id:
            span["parentSpanId"] = spec.parent_span_id.hex()
    return document


def json_body(spans: Iterable[SpanSpec]) -> bytes:
    """A request as the bytes of OTLP/JSON."""
    return json.dumps(json_document(spans)).encode()


def pairs(attributes: Mapping[str, Value]) -> list[KeyValue]:
    """Attributes as they are on the wire."""
    return [KeyValue(key=key, value=_any_value(value)) for key, value in attributes.items()]


def _any_value(value: Value) -> AnyValue:
    match value:
        case bool():
            return AnyValue(bool_value=value)
        case int():
            return AnyValue(int_value=value)
        case float():
            return AnyValue(double_value=value)
        case str():
            return AnyValue(string_value=value)
    made = AnyValue()
    made.array_value.values.extend(AnyValue(string_value=item) for item in value)
    return made
