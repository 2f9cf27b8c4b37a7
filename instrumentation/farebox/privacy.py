"""Remove private data from spans: request headers, and content unless the standard variable enables it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from opentelemetry.sdk.trace import Event

from farebox.guard import fault

CAPTURE: Final = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"

Redact = Callable[[str, Any], Any]
"""Takes the name and value of a span attribute; returns the value to send, or None to send neither."""

# Content attributes of the vocabularies. Some clients and instrumentations write them unasked.
_CONTENT: Final = (
    "ai.prompt",
    "ai.response.object",
    "ai.response.text",
    "ai.response.toolCalls",
    "embedding.embeddings",
    "gen_ai.completion",
    "gen_ai.content.",
    "gen_ai.input.messages",
    "gen_ai.output.messages",
    "gen_ai.prompt",
    "gen_ai.system_instructions",
    "gen_ai.tool.call.arguments",
    "gen_ai.tool.call.result",
    "gen_ai.tool.definitions",
    "input.value",
    "langfuse.observation.input",
    "langfuse.observation.output",
    "llm.choices",
    "llm.input_messages",
    "llm.output_messages",
    "llm.prompt",
    "llm.tools",
    "output.value",
    "retrieval.documents",
    "tool.parameters",
    "traceloop.entity.input",
    "traceloop.entity.output",
)
# OpenLLMetry writes the request headers that a caller adds, including keys.
_NEVER: Final = (
    "gen_ai.headers",
    "gen_ai.request.headers",
    "http.request.header.",
    "http.response.header.",
    "llm.headers",
    "llm.request.headers",
)
_OFF: Final = frozenset({"", "false", "no_content"})


class Privacy:
    """Filters attributes and events."""

    def __init__(self, redact: Redact | None = None) -> None:
        """``redact`` is called for every attribute to send. Reads the standard variable now."""
        self._redact = redact
        self._content_wanted = os.environ.get(CAPTURE, "").strip().lower() not in _OFF
        self._held_back = _NEVER if self._content_wanted else (*_NEVER, *_CONTENT)

    def outgoing(self, attributes: Mapping[str, Any]) -> dict[str, Any]:
        """Return the attributes to send, without those on which ``redact`` fails."""
        kept = {key: value for key, value in attributes.items() if not key.startswith(self._held_back)}
        return kept if self._redact is None else self._redacted(kept, self._redact)

    def events(self, events: Iterable[Event]) -> tuple[Event, ...]:
        """Return the events to send: content only if enabled, all passed through ``redact``."""
        if self._redact is not None:
            return tuple(
                Event(event.name, self._redacted(dict(event.attributes or {}), self._redact), event.timestamp)
                for event in self._enabled_events(events)
            )
        return tuple(self._enabled_events(events))

    def _enabled_events(self, events: Iterable[Event]) -> Iterable[Event]:
        return events if self._content_wanted else [event for event in events if event.name == "exception"]

    def _redacted(self, attributes: dict[str, Any], redact: Redact) -> dict[str, Any]:
        redacted: dict[str, Any] = {}
        for key, value in attributes.items():
            try:
                new = redact(key, value)
            except Exception as error:
                fault("redacting an attribute", error)
                continue
            if new is not None:
                redacted[key] = new
        return redacted
