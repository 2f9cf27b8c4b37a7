"""Makes calls with the google-genai and mistralai clients of this environment, metered; prints what was sent of each.

    python other_calls.py http://127.0.0.1:8090 [own]

With ``own`` the mistralai client opens spans of its own, too.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import json
import sys
from collections.abc import Callable
from typing import Any

import farebox
from google import genai
from mistralai.client import Mistral
from mistralai.extra import observability
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

USAGE = {"x-usage": "input=1000,output=200,cache_read=400,reasoning=50,pages=3"}
GEMINI = {"model": "gemini-2.5-flash", "contents": "Hello", "config": {"http_options": {"headers": USAGE}}}
SMALL: Any = {
    "model": "mistral-small-latest",
    "messages": [{"role": "user", "content": "Hello"}],
    "http_headers": USAGE,
}
PAGE = {"type": "document_url", "document_url": "https://example.com/a.pdf"}


def mistral_client(url: str) -> Mistral:
    """A client, with its own spans if they are asked for."""
    client = Mistral(api_key="none", server_url=url)
    if "own" in sys.argv[2:]:
        observability.set_tracer_provider(client, trace.get_tracer_provider())
    return client


def calls(url: str) -> dict[str, Callable[[], Any]]:
    """Each way to call, by its name; each reads its answer to the end."""
    google = genai.Client(api_key="none", http_options={"base_url": url})
    mistral = mistral_client(url)

    # An asyncio client belongs to its loop, so each of these has its own.
    async def google_async() -> None:
        google = genai.Client(api_key="none", http_options={"base_url": url})
        await google.aio.models.generate_content(**GEMINI)

    async def google_stream_async() -> None:
        google = genai.Client(api_key="none", http_options={"base_url": url})
        async for _ in await google.aio.models.generate_content_stream(**GEMINI):
            pass

    async def mistral_async() -> None:
        mistral = mistral_client(url)
        await mistral.chat.complete_async(**SMALL)

    async def mistral_stream_async() -> None:
        mistral = mistral_client(url)
        async for _ in await mistral.chat.stream_async(**SMALL):
            pass

    return {
        "google": lambda: google.models.generate_content(**GEMINI),
        "google stream": lambda: list(google.models.generate_content_stream(**GEMINI)),
        "google async": lambda: asyncio.run(google_async()),
        "google stream async": lambda: asyncio.run(google_stream_async()),
        "mistral": lambda: mistral.chat.complete(**SMALL),
        "mistral stream": lambda: list(mistral.chat.stream(**SMALL)),
        "mistral async": lambda: asyncio.run(mistral_async()),
        "mistral stream async": lambda: asyncio.run(mistral_stream_async()),
        "mistral embeddings": lambda: mistral.embeddings.create(
            model="mistral-embed", inputs=["Hello"], http_headers={"x-usage": "input=77"}
        ),
        "mistral pages": lambda: mistral.ocr.process(model="mistral-ocr-latest", document=PAGE, http_headers=USAGE),
    }


def told(span: ReadableSpan) -> dict[str, Any]:
    """The attributes of a span, and its scope."""
    scope = span.instrumentation_scope.name if span.instrumentation_scope else ""
    return {"scope": scope, **dict(span.attributes or {})}


def main() -> None:
    """Turn it on, call, and tell."""
    url = sys.argv[1]
    provider = TracerProvider(shutdown_on_exit=False)
    trace.set_tracer_provider(provider)  # the clients' own spans come from the global one
    exporter, applications = InMemorySpanExporter(), InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(applications))
    farebox.instrument(
        model_urls={f"{url}/v1": "mistral_ai", f"{url}/v1/models": "gcp.gemini", f"{url}/v1beta": "gcp.gemini"},
        exporter=exporter,
    )
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
    versions = {name: importlib.metadata.version(name) for name in ("google-genai", "mistralai")}
    print(json.dumps({"clients": versions, "calls": answers}))


if __name__ == "__main__":
    main()
