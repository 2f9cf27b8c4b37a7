"""Extract the wanted parts from JSON of any size in one pass and bounded memory.

The reader is lenient: truncated, endlessly nested or malformed JSON yields its readable part.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

Wanted: TypeAlias = Mapping[str, Any]
"""The keys to keep of an object, each with the ``Wanted`` of its value, or None for the whole value.

Lists are transparent: the ``Wanted`` of a list applies to each item.
"""

TEXT_BYTES_MAX: Final = 4 * 1024
"""Longer texts in a large answer are emptied: they are content, not names or counts."""
VALUES_MAX: Final = 20_000
"""Maximum values kept of a large answer; further ones are dropped."""
DEPTH_MAX: Final = 64
"""Maximum nesting kept of a large answer."""
_NUMBER_BYTES_MAX: Final = 64

_TEXT: Final = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_TOKEN: Final = re.compile(rb"[\s,:]*+(?:(" + _TEXT + rb')|([{}\[\]])|([^\s"{}\[\],:]{1,64}+))', re.DOTALL)
_GAP: Final = re.compile(rb"[\s,:]*+")
# Up to the next bracket outside a text, or to the opening quote of an incomplete text.
_TO_BRACKET: Final = re.compile(rb'(?:[^"{}\[\]]++|' + _TEXT + rb')*+([{}\[\]"])', re.DOTALL)
_REST_OF_TEXT: Final = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL)
_DECODER: Final = json.JSONDecoder(strict=False)
_UNWANTED: Final = object()
_LITERALS: Final[Mapping[bytes, object]] = {b"true": True, b"false": False, b"null": None}


class _Open:
    """An open container that is kept."""

    __slots__ = ("key", "value", "wanted")

    def __init__(self, value: dict[str, Any] | list[Any], wanted: Wanted | None) -> None:
        self.value = value
        self.wanted = wanted
        self.key: object = None
        """For an object: the key of the next value; None if a key comes next."""


class JsonExcerpt:
    """Takes chunks of bytes and emits the excerpt of each top-level value or item of a top-level list."""

    def __init__(self, wanted: Wanted | None, take: Callable[[object], None]) -> None:
        """``take`` receives each excerpt once its value is complete. ``wanted`` None keeps all, within the bounds."""
        self._wanted = wanted
        self._take_value = take
        self._rest = b""
        self._stack: list[_Open] = []
        self._skipped_depth = 0
        self._in_text = False
        self._left = VALUES_MAX

    def feed(self, data: bytes) -> None:
        """Read on."""
        data = self._rest + data if self._rest else data
        self._rest = b""
        position, size = 0, len(data)
        while position < size:
            if self._in_text:
                position = self._pass_text(data, position)
            elif self._skipped_depth:
                position = self._skip(data, position)
            else:
                position = self._read(data, position)

    def end(self) -> None:
        """Emit the rest of a truncated value."""
        self.feed(b" ")
        if self._stack:
            root = self._stack[0].value
            self._stack.clear()
            for value in root if isinstance(root, list) else [root]:
                self._take_value(value)

    def _pass_text(self, data: bytes, position: int) -> int:
        """Skip the rest of a text. A final backslash waits for the escaped character."""
        found = _REST_OF_TEXT.match(data, position)
        end = found.end() if found else position
        if end == len(data):
            return end
        if data[end : end + 1] == b'"':
            self._in_text = False
            return end + 1
        self._rest = data[end:]
        return len(data)

    def _skip(self, data: bytes, position: int) -> int:
        """Skip brackets until the unwanted value is closed."""
        while self._skipped_depth:
            found = _TO_BRACKET.match(data, position)
            if found is None:
                return len(data)
            position = found.end()
            bracket = found[1]
            if bracket == b'"':
                self._in_text = True
                return position
            self._skipped_depth += 1 if bracket in b"{[" else -1
        return position

    def _read(self, data: bytes, position: int) -> int:
        """Read tokens until a part must be skipped or the bytes end."""
        while True:
            found = _TOKEN.match(data, position)
            if found is None:
                return self._wait(data, position)
            position = found.end()
            kind = found.lastindex
            if kind == 1:
                self._text(found[1])
            elif kind == 3:
                number = found[3]
                if position == len(data) and len(number) < _NUMBER_BYTES_MAX:
                    self._rest = number  # it may continue
                    return position
                self._scalar(number)
            else:
                self._bracket(found[2])
                if self._skipped_depth:
                    return position

    def _wait(self, data: bytes, position: int) -> int:
        """Buffer the rest: whitespace or an incomplete text."""
        gap = _GAP.match(data, position)
        position = gap.end() if gap else position
        if len(data) - position > TEXT_BYTES_MAX:
            self._text(b'""')
            self._in_text = True
            return position + 1
        self._rest = data[position:]
        return len(data)

    def _text(self, token: bytes) -> None:
        text = ""
        if len(token) <= TEXT_BYTES_MAX:
            text = _decoded(token)
        top = self._stack[-1] if self._stack else None
        if top is not None and isinstance(top.value, dict) and top.key is None:
            top.key = text if top.wanted is None or text in top.wanted else _UNWANTED
        else:
            self._keep(text)

    def _scalar(self, token: bytes) -> None:
        if token in _LITERALS:
            self._keep(_LITERALS[token])
            return
        try:
            self._keep(_DECODER.decode(token.decode()))
        except ValueError:
            self._keep(None)

    def _keep(self, value: object) -> None:
        """Store a value if wanted."""
        if not self._stack:
            return
        top = self._stack[-1]
        if isinstance(top.value, list):
            if self._left > 0:
                self._left -= 1
                top.value.append(value)
            return
        key, top.key = top.key, None
        if isinstance(key, str) and self._left > 0:
            self._left -= 1
            top.value[key] = value

    def _bracket(self, bracket: bytes) -> None:
        if bracket in b"{[":
            self._open({} if bracket == b"{" else [])
        elif self._stack:
            self._close()

    def _open(self, value: dict[str, Any] | list[Any]) -> None:
        wanted: Wanted | None = self._wanted
        if self._stack:
            top = self._stack[-1]
            wanted = top.wanted
            if isinstance(top.value, dict):
                key = top.key
                if not isinstance(key, str) or len(self._stack) >= DEPTH_MAX or self._left <= 0:
                    top.key = None
                    self._skipped_depth = 1
                    return
                wanted = None if wanted is None else wanted[key]
            elif len(self._stack) >= DEPTH_MAX or self._left <= 0:
                self._skipped_depth = 1
                return
            self._keep(value)
        self._stack.append(_Open(value, wanted))

    def _close(self) -> None:
        closed = self._stack.pop().value
        if not self._stack:
            self._left = VALUES_MAX
            if isinstance(closed, dict):
                self._take_value(closed)
            return
        above = self._stack[-1].value
        if not isinstance(above, list):
            return
        if len(self._stack) == 1:  # emit each item of a top-level list
            above.clear()
            self._left = VALUES_MAX
            self._take_value(closed)
        elif not closed:  # nothing of the item was wanted
            above.pop()
            self._left += 1


def _decoded(token: bytes) -> str:
    if b"\\" not in token:
        return token[1:-1].decode("utf-8", "replace")
    try:
        return str(_DECODER.decode(token.decode("utf-8", "replace")))
    except ValueError:
        return ""


def excerpt(body: bytes, wanted: Wanted | None) -> list[object]:
    """Return the excerpts of a complete body."""
    values: list[object] = []
    reader = JsonExcerpt(wanted, values.append)
    reader.feed(body)
    reader.end()
    return values
