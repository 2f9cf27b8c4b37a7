"""Reads server-sent events out of a stream of bytes that is cut anywhere."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, Final

EVENT_BYTES_MAX: Final = 8 * 1024 * 1024
"""A line longer than this is passed over: too large to be worth holding for its few numbers."""


Tells = Callable[[bytes], object | None]
"""Finds in the bytes of an event, or of some, what makes them worth taking apart, or None."""


class EventStream:
    """Takes the bytes as they come and gives the JSON payloads of the events that are complete.

    Data that is no JSON is passed over, such as OpenAI's ``[DONE]``, or an event that was cut off; and so is,
    after the first event, what is not worth reading.
    """

    def __init__(self, tells: Tells | None = None) -> None:
        """Without ``tells`` all are."""
        self._tells = tells
        self._line = bytearray()
        self._data: list[bytes] = []
        self._begun = False

    @property
    def between(self) -> bool:
        """Whether there was an event, and the next bytes begin one."""
        return self._begun and not self._line and not self._data

    def feed(self, chunk: bytes) -> Iterator[Any]:
        """The payloads of the events that this chunk completes."""
        *ends, rest = chunk.split(b"\n")
        for end in ends:
            self._line += end
            line = bytes(self._line)
            self._line.clear()
            yield from self._take(line.rstrip(b"\r"))
        self._line += rest
        if len(self._line) > EVENT_BYTES_MAX:
            self._line.clear()

    def end(self) -> Iterator[Any]:
        """The payload of a last event that no blank line closed."""
        yield from self.feed(b"\n\n")

    def _take(self, line: bytes) -> Iterator[Any]:
        if line.startswith(b"data:"):
            self._data.append(line[5:])
        elif not line and self._data:
            data = b"\n".join(self._data)
            self._data.clear()
            if self._begun and self._tells is not None and self._tells(data) is None:
                return
            try:
                payload = json.loads(data)
            except ValueError:
                return
            self._begun = True
            yield payload
