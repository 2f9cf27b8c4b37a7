"""What the tests of the SDK share: a metered process, an OTLP receiver, and readers for what arrives."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anthropic
import farebox
import grpc
import openai
from anthropic import AsyncAnthropic
from openai import AsyncOpenAI
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

REPOSITORY = Path(__file__).parents[2]
DEMO = REPOSITORY / "instrumentation" / "demo"
ANTHROPIC_CLIENT_SCOPE = "com.anthropic.sdk.python"


@dataclass
class Metered:
    """This process with metering on. It has a tracer provider of its own, so no test touches the global one."""

    model_url: str
    provider: TracerProvider
    exporter: InMemorySpanExporter = field(default_factory=InMemorySpanExporter)
    clients: ExitStack = field(default_factory=ExitStack)

    def spans(self) -> list[ReadableSpan]:
        """What was exported so far, in the order in which it ended."""
        assert farebox.flush(10)
        return list(self.exporter.get_finished_spans())

    def span(self) -> ReadableSpan:
        """The only span that was exported."""
        (span,) = self.spans()
        return span

    def attributes(self) -> dict[str, Any]:
        """The attributes of the only span."""
        return dict(self.span().attributes or {})

    def openai(self) -> openai.OpenAI:
        client = openai.OpenAI(base_url=f"{self.model_url}/v1", api_key="none", max_retries=0)
        return self.clients.enter_context(client)

    def async_openai(self) -> AsyncOpenAI:
        return AsyncOpenAI(base_url=f"{self.model_url}/v1", api_key="none", max_retries=0)

    def anthropic(self) -> anthropic.Anthropic:
        client = anthropic.Anthropic(
            base_url=self.model_url,
            api_key="none",
            max_retries=0,
            open_telemetry={"tracer_provider": self.provider},
        )
        return self.clients.enter_context(client)

    def async_anthropic(self) -> AsyncAnthropic:
        return AsyncAnthropic(
            base_url=self.model_url,
            api_key="none",
            max_retries=0,
            open_telemetry={"tracer_provider": self.provider},
        )


class OtlpReceiver(trace_service_pb2_grpc.TraceServiceServicer):
    """A real OTLP/gRPC endpoint that keeps what it is sent."""

    def __init__(self) -> None:
        self.requests: list[trace_service_pb2.ExportTraceServiceRequest] = []
        self.endpoint = ""

    def Export(
        self, request: trace_service_pb2.ExportTraceServiceRequest, context: grpc.ServicerContext
    ) -> trace_service_pb2.ExportTraceServiceResponse:
        self.requests.append(request)
        return trace_service_pb2.ExportTraceServiceResponse()

    def spans(self) -> list[dict[str, Any]]:
        return [span for request in self.requests for span in spans_of(request)]


def spans_of(request: trace_service_pb2.ExportTraceServiceRequest) -> list[dict[str, Any]]:
    """The attributes of all spans, with the scope's and the service's names."""
    return [
        {
            "scope": of_scope.scope.name,
            "service": attributes_of(of_resource.resource.attributes)["service.name"],
            **attributes_of(span.attributes),
        }
        for of_resource in request.resource_spans
        for of_scope in of_resource.scope_spans
        for span in of_scope.spans
    ]


def attributes_of(pairs: Any) -> dict[str, Any]:
    """OTLP's attributes as a dictionary."""
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}


def scope(span: ReadableSpan) -> str:
    return span.instrumentation_scope.name if span.instrumentation_scope else ""
