"""Write one line of JSON per model call, if enabled, with the dashboards' figures."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from opentelemetry.sdk.trace import ReadableSpan

from farebox import span_attributes

REQUEST_LOG: Final = "FAREBOX_REQUEST_LOG"
logger: Final = logging.getLogger("farebox.requests")
"""The logger of the lines, at level INFO; the message is the line."""

_PLAIN: Final = {
    "tags.dept": span_attributes.DEPT,
    "tags.project": span_attributes.PROJECT,
    "tags.task": span_attributes.TASK,
    "route": span_attributes.ROUTE,
    "error": span_attributes.ERROR_TYPE,
    "cache_hit": span_attributes.CACHE_HIT,
    "citation_rate": span_attributes.CITATION_RATE,
    "human_reviewed": span_attributes.HUMAN_REVIEWED,
    "input_tokens": span_attributes.USAGE_INPUT,
    "output_tokens": span_attributes.USAGE_OUTPUT,
    "cost_per_1k": span_attributes.COST_PER_1K,
    "cost_actual": span_attributes.COST_ACTUAL,
    "currency": span_attributes.CURRENCY,
}
FIELDS: Final = {
    "ts": "when the call started, ISO 8601 in UTC",
    "trace_id": "32 hex digits; for a quality report, the trace it is about",
    "tags.dept": "the department",
    "tags.project": "the project",
    "tags.task": "the kind of task",
    "model": "the model that answered, else the requested one",
    "provider": "OpenTelemetry's name of the provider",
    "route": "the chosen route or variant",
    "region": "the region of the provider's address, else of the process's resource",
    "latency_ms": "milliseconds until the end of the answer or its stream",
    "error": "the error, as `error.type`",
    "cache_hit": "whether a cache contributed to the answer: the provider's or the application's",
    "citation_rate": "share of statements backed by sources, 0 to 1",
    "human_reviewed": "whether a person reviewed the answer",
    "input_tokens": "all input tokens, including the cache",
    "output_tokens": "all output tokens, including reasoning",
    "total_tokens": "the sum of input and output tokens",
    "cost_per_1k": "estimated cost per 1,000 tokens, in `currency`",
    "cost_actual": "estimated cost of the call, in `currency`",
    "currency": "`USD`",
}
"""The keys of a line, in order, with their meaning. Unknown values are null."""


def line_of(span: ReadableSpan, attributes: Mapping[str, Any]) -> str:
    """Return the line of a span.

    ``ts`` is its start, ISO 8601 in UTC; ``latency_ms`` has a fraction; costs are estimates in ``currency``,
    ``cost_per_1k`` per 1,000 tokens.
    """
    known: dict[str, Any] = {name: attributes.get(key) for name, key in _PLAIN.items()}
    context = span.get_span_context()
    started_ns, ended_ns = span.start_time or 0, span.end_time or 0
    known["ts"] = datetime.fromtimestamp(started_ns / 1e9, tz=UTC).isoformat(timespec="milliseconds")
    known["trace_id"] = attributes.get(span_attributes.QUALITY_TRACE_ID) or (
        f"{context.trace_id:032x}" if context else None
    )
    known["model"] = attributes.get(span_attributes.RESPONSE_MODEL) or attributes.get(span_attributes.REQUEST_MODEL)
    known["provider"] = attributes.get(span_attributes.PROVIDER_NAME) or attributes.get("gen_ai.system")
    known["region"] = attributes.get(span_attributes.CLOUD_REGION) or span.resource.attributes.get(
        span_attributes.CLOUD_REGION
    )
    known["latency_ms"] = round((ended_ns - started_ns) / 1e6, 3)
    counts = [count for count in (known["input_tokens"], known["output_tokens"]) if isinstance(count, int)]
    known["total_tokens"] = sum(counts) if counts else None
    return json.dumps({name: known[name] for name in FIELDS}, ensure_ascii=False)


class RequestLog:
    """Writes the lines if enabled."""

    def __init__(self, wanted: bool | None) -> None:
        """Set up the logger.

        Args:
            wanted: True writes to the logger ``farebox.requests``, which the application configures. None uses
                ``FAREBOX_REQUEST_LOG``: ``stdout``, ``stderr``, a file name, or ``logger``.
        """
        target = "logger" if wanted else "" if wanted is False else os.environ.get(REQUEST_LOG, "").strip()
        self._handler: logging.Handler | None = None
        self.on = bool(target)
        if not self.on:
            return
        if logger.level == logging.NOTSET:
            logger.setLevel(logging.INFO)
        if target in ("stdout", "stderr"):
            self._handler = logging.StreamHandler(getattr(sys, target))
        elif target != "logger":
            self._handler = logging.FileHandler(target, encoding="utf-8", delay=True)
        if self._handler is not None:
            self._handler.setFormatter(logging.Formatter("%(message)s"))
            logger.addHandler(self._handler)
            logger.propagate = False

    def write(self, span: ReadableSpan, attributes: Mapping[str, Any]) -> None:
        """Write a line if enabled."""
        if self.on:
            logger.info("%s", line_of(span, attributes))

    def close(self) -> None:
        """Stop writing."""
        self.on = False
        if self._handler is not None:
            logger.removeHandler(self._handler)
            logger.propagate = True
            self._handler.close()
            self._handler = None
