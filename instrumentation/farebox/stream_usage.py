"""Request usage of OpenAI-style chat streams, and hide it from callers that did not request it.

Such a stream reports its usage in an additional last event, and only if the request has
``stream_options.include_usage``. Callers still see an additional ``"usage": null`` on the other events.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

from farebox.endpoints import Endpoint, Shape
from farebox.model_request import ModelRequest

_OPERATIONS: Final = frozenset({"chat", "text_completion"})
_REPLACED_HEADERS: Final = frozenset({b"content-length", b"transfer-encoding", b"accept-encoding"})
_NO_CHOICES: Final = re.compile(rb'"choices"\s*:\s*\[\]').search
_END_OF_EVENT: Final = re.compile(rb"\r?\n\r?\n")


def asks_for_usage(endpoint: Endpoint, request: ModelRequest, path: str) -> bool:
    """Return whether this is a stream that could report usage but would not."""
    options = request.fields.get("stream_options")
    return (
        request.streams
        and endpoint.shape is Shape.OPENAI
        and endpoint.operation in _OPERATIONS
        and path.rstrip("/").endswith("/completions")
        and (options is None or (isinstance(options, dict) and "include_usage" not in options))
    )


def asking(request: Any, fields: ModelRequest) -> Any:
    """Return a new request of httpx or httpx2 that requests usage; the caller's is unchanged."""
    options = {**(fields.fields.get("stream_options") or {}), "include_usage": True}
    body = json.dumps({**fields.fields, "stream_options": options}, ensure_ascii=False, separators=(",", ":"))
    kept = [(name, value) for name, value in request.headers.raw if name.lower() not in _REPLACED_HEADERS]
    # The event to remove must be readable in passing, so disable compression.
    headers = [*kept, (b"accept-encoding", b"identity")]
    return type(request)(
        request.method, request.url, headers=headers, content=body.encode(), extensions=request.extensions
    )


class UsageFilter:
    """Forwards a stream of events without the event that holds only the usage.

    It forwards whole events; a partial one waits for its end.
    """

    def __init__(self) -> None:
        """Start empty."""
        self._held = bytearray()

    def feed(self, chunk: bytes) -> bytes:
        """Return the caller's part of this chunk and the waiting bytes."""
        if (
            not self._held
            and chunk.endswith(b"\n\n")
            and b'"choices":[]' not in chunk
            and b'"choices": []' not in chunk
        ):
            return chunk
        self._held += chunk
        passed = bytearray()
        while end := _END_OF_EVENT.search(self._held):
            event = bytes(self._held[: end.end()])
            del self._held[: end.end()]
            if not _only_usage(event):
                passed += event
        return bytes(passed)

    def rest(self) -> bytes:
        """Return a last event that was not closed."""
        rest, self._held = bytes(self._held), bytearray()
        return rest


def _only_usage(event: bytes) -> bool:
    data = b"\n".join(line[5:] for line in event.splitlines() if line.startswith(b"data:"))
    if b'"usage"' not in data:
        return False
    try:
        payload = json.loads(data)
    except ValueError:
        return False
    return isinstance(payload, dict) and payload.get("choices") == [] and isinstance(payload.get("usage"), dict)
