"""Makes calls with the OpenAI client of this environment, metered; prints as JSON what was sent of each.

    python client_calls.py http://127.0.0.1:8090 first opentelemetry.instrumentation.openai …

Behind the model server's address: whether Farebox is turned on ``first`` or ``last``, and the modules of other
instrumentations, which are turned on as well. With ``OTEL_EXPORTER_OTLP_ENDPOINT`` everything is also sent there.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import farebox
import openai
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

GPT = "gpt-4o-mini"
USAGE = {"x-usage": "input=1000,output=200,cache_read=400,reasoning=50"}
CHAT: Any = {"model": GPT, "messages": [{"role": "user", "content": "Hello"}], "extra_headers": USAGE}
RESPONSE: Any = {"model": GPT, "input": "Hello", "extra_headers": USAGE}
STREAM: Any = {"stream": True, "stream_options": {"include_usage": True}}


def calls(url: str) -> dict[str, Callable[[], Any]]:
    """Each way to call, by its name; each reads its answer to the end."""
    options: dict[str, Any] = {"base_url": f"{url}/v1", "api_key": "none", "max_retries": 0}
    client = openai.OpenAI(**options)

    def in_loop(**more: Any) -> Callable[[], Any]:
        async def call() -> None:
            async with openai.AsyncOpenAI(**options) as client:
                answer = await client.chat.completions.create(**CHAT, **more)
                if more:
                    async for _ in answer:
                        pass

        return lambda: asyncio.run(call())

    return {
        "chat": lambda: client.chat.completions.create(**CHAT),
        "chat stream": lambda: list(client.chat.completions.create(**CHAT, **STREAM)),
        "chat async": in_loop(),
        "chat stream async": in_loop(**STREAM),
        "chat raw response": lambda: client.chat.completions.with_raw_response.create(**CHAT).parse(),
        "chat with options": lambda: client.with_options(timeout=5).chat.completions.create(**CHAT),
        "responses": lambda: client.responses.create(**RESPONSE),
        "responses stream": lambda: list(client.responses.create(**RESPONSE, stream=True)),
        "embeddings": lambda: client.embeddings.create(
            model="text-embedding-3-small", input="Hello", extra_headers={"x-usage": "input=77"}
        ),
        "image": lambda: client.images.generate(
            model="gpt-image-1", prompt="A pixel", extra_headers={"x-usage": "input=50,output=200"}
        ),
        "transcript": lambda: client.audio.transcriptions.create(
            model="whisper-1", file=("a.mp3", b"ID3"), extra_headers={"x-usage": "seconds=60"}
        ),
        "speech": lambda: client.audio.speech.create(model="tts-1", voice="alloy", input="Hello there!").read(),
    }


class Sent(InMemorySpanExporter):
    """Keeps what is sent, and sends it."""

    def __init__(self) -> None:
        super().__init__()
        self._otlp = OTLPSpanExporter() if "OTEL_EXPORTER_OTLP_ENDPOINT" in os.environ else None

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Both, or neither."""
        if self._otlp is not None and (result := self._otlp.export(spans)) is not SpanExportResult.SUCCESS:
            return result
        return super().export(spans)


def told(span: ReadableSpan) -> dict[str, Any]:
    """The attributes of a span, and its scope."""
    scope = span.instrumentation_scope.name if span.instrumentation_scope else ""
    return {"scope": scope, **dict(span.attributes or {})}


def main() -> None:
    """Turn everything on, call, and tell."""
    url, order, *others = sys.argv[1:]
    provider = TracerProvider(shutdown_on_exit=False)
    exporter, applications = Sent(), InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(applications))

    def on() -> None:
        farebox.instrument(model_urls=[f"{url}/v1"], tracer_provider=provider, exporter=exporter)

    if order == "first":
        on()
    for module in others:
        importlib.import_module(module).OpenAIInstrumentor().instrument(tracer_provider=provider)
    if order == "last":
        on()
    answers: dict[str, Any] = {}
    for name, call in calls(url).items():
        with farebox.action("chat.reply", wallet="ada"):
            call()
        assert farebox.flush(10)
        answers[name] = {
            "sent": [told(span) for span in exporter.get_finished_spans()],
            "all_scopes": sorted({told(span)["scope"] for span in applications.get_finished_spans()}),
        }
        exporter.clear()
        applications.clear()
    farebox.uninstrument()
    print(json.dumps({"client": openai.__version__, "calls": answers}))


if __name__ == "__main__":
    main()
