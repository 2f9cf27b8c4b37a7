"""Serve `GET /metrics` in the format that the scraper requests; only OpenMetrics carries exemplars."""

import asyncio

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from farebox_collector.metrics.exposition import CONTENT_TYPE, openmetrics


def _encode(registry: Collector) -> bytes:
    return openmetrics(registry.collect())


def application(registry: CollectorRegistry) -> Starlette:
    """The ASGI application of the metrics port."""

    async def metrics(request: Request) -> Response:
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        if content_type.startswith(CONTENT_TYPE):
            encode = _encode
        # Reads the books, so it runs in a thread: the event loop serves intake.
        body = await asyncio.to_thread(encode, registry)
        return Response(body, headers={"content-type": content_type})

    return Starlette(routes=[Route("/metrics", metrics), Route("/", metrics)])
