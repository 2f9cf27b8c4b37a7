"""Switches one emitter on and makes the scripted calls; run in the emitter's own environment.

    python emitters.py NAME MODEL_URL

Spans go to OTEL_EXPORTER_OTLP_ENDPOINT over HTTP. To record another emitter, add a function here, a requirements file
beside, and run `make record-dialects`.
"""

import os
import sys
from collections.abc import Callable

from framework_calls import langchain_calls, pydantic_ai_calls
from opentelemetry import trace
from opentelemetry._logs import set_logger_provider
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from provider_calls import anthropic_calls, google_calls, mistral_calls, openai_calls


def genai_openai(url: str) -> None:
    from opentelemetry.instrumentation.genai.openai import OpenAIInstrumentor

    OpenAIInstrumentor().instrument()
    openai_calls(url)


def genai_anthropic(url: str) -> None:
    """The official instrumentation around a client that emits spans itself: two emitters at once."""
    from opentelemetry.instrumentation.genai.anthropic import AnthropicInstrumentor

    AnthropicInstrumentor().instrument()
    anthropic_calls(url)


def anthropic_client(url: str) -> None:
    """The client's own spans, and nothing else."""
    anthropic_calls(url)


def openai_v2(url: str) -> None:
    from opentelemetry.instrumentation.openai_v2 import OpenAIInstrumentor

    OpenAIInstrumentor().instrument()
    openai_calls(url)


def openllmetry(url: str) -> None:
    from opentelemetry.instrumentation.anthropic import AnthropicInstrumentor
    from opentelemetry.instrumentation.openai import OpenAIInstrumentor

    OpenAIInstrumentor().instrument()
    AnthropicInstrumentor().instrument()
    openai_calls(url)
    anthropic_calls(url)


def openllmetry_langchain(url: str) -> None:
    from opentelemetry.instrumentation.langchain import LangchainInstrumentor

    LangchainInstrumentor().instrument()
    langchain_calls(url)


def openllmetry_google(url: str) -> None:
    from opentelemetry.instrumentation.google_generativeai import GoogleGenerativeAiInstrumentor

    GoogleGenerativeAiInstrumentor().instrument()
    google_calls(url)


def openinference(url: str) -> None:
    from openinference.instrumentation.anthropic import AnthropicInstrumentor
    from openinference.instrumentation.openai import OpenAIInstrumentor

    OpenAIInstrumentor().instrument()
    AnthropicInstrumentor().instrument()
    openai_calls(url)
    anthropic_calls(url)


def openinference_langchain(url: str) -> None:
    from openinference.instrumentation.langchain import LangChainInstrumentor

    LangChainInstrumentor().instrument()
    langchain_calls(url)


def openinference_google(url: str) -> None:
    from openinference.instrumentation.google_genai import GoogleGenAIInstrumentor

    GoogleGenAIInstrumentor().instrument()
    google_calls(url)


def openlit(url: str) -> None:
    import openlit as package

    others = ["httpx", "requests", "urllib", "urllib3", "aiohttp-client"]
    package.init(disable_metrics=True, disabled_instrumentors=others)
    openai_calls(url)
    anthropic_calls(url)
    google_calls(url)


def pydantic_ai(url: str) -> None:
    from pydantic_ai import Agent
    from pydantic_ai.embeddings import Embedder

    Agent.instrument_all()
    Embedder.instrument_all()
    pydantic_ai_calls(url)


def logfire(url: str) -> None:
    import logfire as package

    package.configure(send_to_logfire=False, console=False, inspect_arguments=False)
    package.instrument_openai()
    package.instrument_anthropic()
    openai_calls(url)
    anthropic_calls(url)


def langfuse(url: str) -> None:
    from langfuse import Langfuse
    from langfuse.openai import OpenAI

    everything = OTLPSpanExporter()
    Langfuse(
        public_key="none",
        secret_key="none",
        base_url=url,
        span_exporter=everything,
        should_export_span=lambda span: True,
    )
    openai_calls(url, OpenAI)


def mistralai(url: str) -> None:
    mistral_calls(url)


def google_genai(url: str) -> None:
    from opentelemetry.instrumentation.google_genai import GoogleGenAiSdkInstrumentor

    GoogleGenAiSdkInstrumentor().instrument()
    google_calls(url)


def two_instrumentations(url: str) -> None:
    """OpenLLMetry and OpenInference around the same clients."""
    from openinference.instrumentation.anthropic import AnthropicInstrumentor
    from openinference.instrumentation.openai import OpenAIInstrumentor

    OpenAIInstrumentor().instrument()
    AnthropicInstrumentor().instrument()
    openllmetry(url)


def framework_and_client(url: str) -> None:
    """A framework's instrumentation, and another of the client that the framework uses."""
    from openinference.instrumentation.langchain import LangChainInstrumentor
    from opentelemetry.instrumentation.genai.openai import OpenAIInstrumentor

    LangChainInstrumentor().instrument()
    OpenAIInstrumentor().instrument()
    langchain_calls(url)


EMITTERS: dict[str, Callable[[str], None]] = {
    "genai-openai": genai_openai,
    "genai-anthropic": genai_anthropic,
    "anthropic-client": anthropic_client,
    "openai-v2": openai_v2,
    "openllmetry": openllmetry,
    "openllmetry-langchain": openllmetry_langchain,
    "openllmetry-google": openllmetry_google,
    "openinference": openinference,
    "openinference-langchain": openinference_langchain,
    "openinference-google": openinference_google,
    "openlit": openlit,
    "pydantic-ai": pydantic_ai,
    "logfire": logfire,
    "langfuse": langfuse,
    "mistralai": mistralai,
    "google-genai": google_genai,
    "genai-openai-events": genai_openai,
    "genai-anthropic-events": genai_anthropic,
    "two-instrumentations": two_instrumentations,
    "framework-and-client": framework_and_client,
}
BRINGS_ITS_PROVIDER = frozenset({"langfuse"})
TELLS_EVENTS = "-events"
"""The end of the names of emitters that write the event of the conventions beside each span."""


def _log_events() -> LoggerProvider:
    provider = LoggerProvider()
    provider.add_log_record_processor(BatchLogRecordProcessor(OTLPLogExporter()))
    set_logger_provider(provider)
    os.environ["OTEL_INSTRUMENTATION_GENAI_EMIT_EVENT"] = "true"
    return provider


def main() -> None:
    name, url = sys.argv[1:]
    if name not in BRINGS_ITS_PROVIDER:
        provider = TracerProvider()
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        trace.set_tracer_provider(provider)
    logs = _log_events() if name.endswith(TELLS_EVENTS) else None
    EMITTERS[name](url)
    trace.get_tracer_provider().force_flush()  # type: ignore[attr-defined]
    if logs is not None:
        logs.force_flush()


if __name__ == "__main__":
    main()
