"""Read server-sent events from arbitrary chunks of bytes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, Final

from farebox.json_excerpt import JsonExcerpt, Wanted, excerpt

EVENT_BYTES_MAX: Final = 64 * 1024
"""Events above this are not buffered: priced parts are extracted from the stream."""
_LINE_BYTES: Final = 64
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"


FindFacts = Callable[[bytes], object | None]
"""Searches the bytes of events for a reason to parse them; None if there is none."""


class EventStream:
    """Takes chunks of bytes and yields the JSON payloads of complete events.

    Skips data that is not JSON, such as OpenAI's ``[DONE]``, and, after the first event, events in which ``find_facts``
    finds nothing. Lines end as specified: with a line feed, a carriage return, or both.
    """

    def __init__(self, find_facts: FindFacts | None = None, wanted: Wanted | None = None) -> None:
        """Without ``find_facts`` all events are read; ``wanted`` names what is extracted from large ones."""
        self.find_facts = find_facts
        self._wanted = wanted
        self._line = bytearray()
        self._data: list[bytes] = []
        self._data_bytes = 0
        self._large: JsonExcerpt | None = None
        self._values: list[object] = []
        self._passing: bool | None = None
        """Whether a line too long to buffer is data."""
        self._after_return = False
        self._begun = False
        self._at_start = True

    @property
    def between(self) -> bool:
        """Return whether an event was read and the next bytes start a new one."""
        return (
            self._begun
            and not self._line
            and not self._data
            and self._large is None
            and self._passing is None
            and not self._after_return
        )

    def feed(self, chunk: bytes) -> Iterator[Any]:
        """Yield the payloads of events that this chunk completes."""
        if self._at_start and chunk:
            self._at_start = False
            chunk = chunk.removeprefix(_BYTE_ORDER_MARK)
        if self._after_return or b"\r" in chunk:
            chunk = self._with_line_feeds(chunk)
        start = 0
        while (end := chunk.find(b"\n", start)) >= 0:
            line = chunk[start:end]
            start = end + 1
            if self._passing is not None:
                self._pass(line)
                self._passing = None
                continue
            if self._line:
                line = bytes(self._line) + line
                self._line.clear()
            if line[:5] == b"data:":
                self._add(line[5:])
            elif not line and (self._data or self._large is not None):
                yield from self._event()
        if start < len(chunk):
            self._hold(chunk[start:])

    def end(self) -> Iterator[Any]:
        """Yield the payload of a last event without a closing blank line."""
        yield from self.feed(b"\n\n")

    def _with_line_feeds(self, chunk: bytes) -> bytes:
        if self._after_return and chunk[:1] == b"\n":
            chunk = chunk[1:]
            self._after_return = False
        if chunk:
            self._after_return = chunk[-1:] == b"\r"
        return chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    def _hold(self, part: bytes) -> None:
        """Buffer the start of a line; process a line that is too long as it arrives."""
        if self._passing is not None:
            self._pass(part)
            return
        self._line += part
        if len(self._line) > EVENT_BYTES_MAX:
            line = bytes(self._line)
            self._line.clear()
            self._passing = line[:5] == b"data:"
            self._pass(line[5:])

    def _pass(self, part: bytes) -> None:
        if self._passing:
            self._pick_from(part)

    def _add(self, data: bytes) -> None:
        """Add a line of data. Its overhead counts too, which also bounds the number of lines."""
        self._data_bytes += len(data) + _LINE_BYTES
        if self._large is None and self._data_bytes <= EVENT_BYTES_MAX:
            self._data.append(data)
        else:
            self._pick_from(b"\n" + data)

    def _pick_from(self, part: bytes) -> None:
        if self._large is None:
            self._large = JsonExcerpt(self._wanted, self._values.append)
            if self._data:
                self._large.feed(b"\n".join(self._data))
                self._data.clear()
        self._large.feed(part)
        del self._values[:-1]  # an event has one payload

    def _event(self) -> Iterator[Any]:
        data, large = b"\n".join(self._data), self._large
        self._data.clear()
        self._data_bytes = 0
        if large is not None:
            self._large = None
            large.end()
            values = self._values[-1:]
            self._values.clear()
        elif self._begun and self.find_facts is not None and self.find_facts(data) is None:
            return
        else:
            values = payloads_in(data, self._wanted)
        for value in values:
            self._begun = True
            yield value


def payloads_in(data: bytes, wanted: Wanted | None) -> list[Any]:
    """Return the JSON value as a list of one; of broken JSON the readable part, of other data nothing."""
    try:
        return [json.loads(data)]
    except (ValueError, RecursionError):
        return excerpt(data, wanted) if data.lstrip()[:1] in (b"{", b"[") else []
