"""Serves the bundled model server over HTTP/2 and calls it with httpx, plain and in streams; prints what was sent.

python http2_calls.py PATH_OF_THE_DEMO
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import threading
from typing import Any

import farebox
import httpx
from hypercorn.asyncio import serve
from hypercorn.config import Config
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

sys.path.append(sys.argv[1])

from model_server import application

USAGE = {"x-usage": "input=1000,output=200,cache_read=400,reasoning=50"}
ASK: dict[str, Any] = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}]}
STREAM = {**ASK, "stream": True, "stream_options": {"include_usage": True}}


def serving(listener: socket.socket) -> None:
    """Serve until the process ends."""
    config = Config()
    config.bind = [f"fd://{listener.fileno()}"]
    config.loglevel = "WARNING"
    asyncio.run(serve(application, config, shutdown_trigger=asyncio.Event().wait))


def main() -> None:
    """Call, and tell."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
    threading.Thread(target=serving, args=(listener,), daemon=True).start()
    exporter = InMemorySpanExporter()
    farebox.instrument(model_urls=[url], tracer_provider=TracerProvider(shutdown_on_exit=False), exporter=exporter)

    async def in_loop() -> None:
        async with httpx.AsyncClient(http1=False, http2=True, base_url=url, headers=USAGE) as client:
            versions.add((await client.post("/chat/completions", json=ASK)).http_version)
            async with client.stream("POST", "/chat/completions", json=STREAM) as response:
                bodies.append([chunk async for chunk in response.aiter_lines()])

    versions, bodies = set(), []
    with httpx.Client(http1=False, http2=True, base_url=url, headers=USAGE) as client:
        versions.add(client.post("/chat/completions", json=ASK).http_version)
        with client.stream("POST", "/chat/completions", json=STREAM) as response:
            bodies.append(list(response.iter_lines()))
    asyncio.run(in_loop())
    assert farebox.flush(10)
    sent = [dict(span.attributes or {}) for span in exporter.get_finished_spans()]
    print(json.dumps({"versions": sorted(versions), "lines": [len(body) for body in bodies], "sent": sent}))


if __name__ == "__main__":
    main()
