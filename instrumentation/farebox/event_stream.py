"""Reads server-sent events out of a stream of bytes that is cut anywhere."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, Final

EVENT_BYTES_MAX: Final = 8 * 1024 * 1024
"""A line longer than this is passed over: too large to be worth holding for its few numbers."""


class EventStream:
    """Takes the bytes as they come and gives the JSON payloads of the events that are complete.

    Data that is no JSON is passed over, such as OpenAI's ``[DONE]``, or an event that was cut off; and so is,
    after the first event, what is not ``worth_reading``.
    """

    def __init__(self, worth_reading: Callable[[bytes], bool] = lambda _: True) -> None:
        """``worth_reading`` says of the bytes of an event, or of some, whether they are to be taken apart."""
        self._worth_reading = worth_reading
        self._line = bytearray()
        self._data: list[bytes] = []
        self._begun = False

    def passes_over(self, chunk: bytes) -> bool:
        """Whether the chunk is whole events that are not worth reading; then ``feed`` need not see it.

        Nearly all chunks of a stream are, and this is what they cost.
        """
        return (
            self._begun
            and chunk.endswith(b"\n\n")
            and not self._line
            and not self._data
            and not self._worth_reading(chunk)
        )

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
            if self._begun and not self._worth_reading(data):
                return
            try:
                payload = json.loads(data)
            except ValueError:
                return
            self._begun = True
            yield payload
