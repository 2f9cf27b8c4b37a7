"""Tells events of a stream that differ from one before in nothing but the text that they bring.

Nearly all events of a stream are such. What finds the telling ones has to look at every byte of them; comparing the
parts around the text takes a tenth of that.
"""

from __future__ import annotations

import re
from typing import Final

LEARNED_MAX: Final = 8
"""How often the frame of the events is learned in one stream. Where it changes all the time, it is of no use."""
_TEXT: Final = re.compile(
    rb'"(?:content|text|delta|thinking|reasoning|reasoning_content|partial_json|arguments)"\s*:\s*"([^"\\]*)"'
)
_PADDING: Final = re.compile(rb'"obfuscation"\s*:\s*"([^"\\]*)"[\s}]*\Z')
"""OpenAI ends its events with text of a random length, so that nothing can be told from their size."""


class AlikeEvents:
    """The frame of the events of one stream: what stands before, between and behind their texts.

    A chunk fits if it is one event whose texts hold no quotation mark: then it has the same keys as the event that the
    frame was learned from, with the same values but for the texts.
    """

    __slots__ = ("_end", "_head", "_learned", "_padded", "_tail")

    def __init__(self) -> None:
        """Know none: nothing fits."""
        self._learned = 0
        self._head = b"\0"
        """How an event begins, with the quotation mark that opens its text."""
        self._tail = b"\0"
        """How it goes on behind the text; up to its end, or to where the padding begins."""
        self._padded = False
        self._end = b""

    def learn(self, chunk: bytes) -> None:
        """Take the frame of one event that told nothing."""
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
        """Whether this is such an event, in which nothing but the text is new."""
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
