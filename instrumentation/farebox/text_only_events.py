"""Detect stream events that differ from an earlier one only in their text.

Nearly all events of a stream are such. Searching an event for usage reads every byte; comparing the parts around the
text takes a tenth of the time.
"""

from __future__ import annotations

import re
from typing import Final

LEARNED_MAX: Final = 8
"""How often the frame is learned per stream. A frame that keeps changing is useless."""
_TEXT: Final = re.compile(
    rb'"(?:content|text|delta|thinking|reasoning|reasoning_content|partial_json|arguments)"\s*:\s*"([^"\\]*)"'
)
_PADDING: Final = re.compile(rb'"obfuscation"\s*:\s*"([^"\\]*)"[\s}]*\Z')
"""OpenAI pads its events with text of random length, to hide their size."""


class TextOnlyEvents:
    """The frame of a stream's events: the bytes before, between and after their texts.

    A chunk fits if it is one event whose texts hold no quotation mark: then it has the keys and values of the event
    that the frame was learned from, except the texts.
    """

    __slots__ = ("_end", "_head", "_learned", "_padded", "_tail")

    def __init__(self) -> None:
        """Start without a frame: nothing fits."""
        self._learned = 0
        self._head = b"\0"
        """The start of an event, including the quotation mark that opens its text."""
        self._tail = b"\0"
        """The bytes after the text, up to the event's end or its padding."""
        self._padded = False
        self._end = b""

    def learn(self, chunk: bytes) -> None:
        """Learn the frame of an event without usage."""
        if self._learned >= LEARNED_MAX or chunk[-2:] != b"\n\n" or chunk.count(b"\n\n") != 1:
            return
        self._learned += 1
        text = _TEXT.search(chunk)
        if text is None or chunk[text.end() : text.end() + 1] not in (b",", b"}"):
            return
        padding = _PADDING.search(chunk, text.end())
        self._head = chunk[: text.start(1)]
        self._tail = chunk[text.end(1) : len(chunk) if padding is None else padding.start(1)]
        self._padded = padding is not None
        self._end = b"" if padding is None else chunk[padding.end(1) :]

    def fits(self, chunk: bytes) -> bool:
        """Return whether the chunk is such an event with only new text."""
        head, tail = self._head, self._tail
        if not chunk.startswith(head):
            return False
        behind = chunk.find(b'"', len(head))
        if not chunk.startswith(tail, behind):
            return False
        behind += len(tail)
        if not self._padded:
            return behind == len(chunk)
        return chunk.find(b'"', behind) == len(chunk) - len(self._end) and chunk.endswith(self._end)
