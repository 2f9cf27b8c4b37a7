"""Decode a body incrementally: gzip, deflate, and with a package Brotli and Zstandard.

The packages are those that httpx and httpx2 need for these encodings. Without one, only the HTTP library can decode the
body, at its end.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any, Final, Protocol

_PIECE_BYTES: Final = 64 * 1024
_HEADER_BYTES: Final = 2
_PART_BYTES: Final = 1024
"""Input bytes of Brotli or Zstandard decoded at once, so that output stays within a few dozen megabytes."""
_GZIP: Final = frozenset({b"gzip", b"x-gzip", b"deflate"})
_ZSTD_MODULES: Final = ("compression.zstd", "backports.zstd", "zstandard")
_BROTLI_MODULES: Final = ("brotli", "brotlicffi")


class Unpacking(Protocol):
    """Decodes the bytes of a body incrementally."""

    def pieces(self, raw: bytes) -> Iterator[bytes]:
        """Yield the decoded pieces of these bytes; nothing once the encoding proves wrong."""


def unpacking(encoding: bytes) -> Unpacking | None:
    """Return the incremental decoder of an encoding, named in lower case; None if there is none."""
    if encoding in _GZIP:
        return _Inflate()
    if encoding == b"br" and (module := _first_of(_BROTLI_MODULES)) is not None:
        return _Parts(lambda: _of_brotli(module))
    if encoding == b"zstd" and (module := _first_of(_ZSTD_MODULES)) is not None:
        return _Parts(lambda: _of_zstd(module))
    return None


class _Inflate:
    """Decodes gzip and deflate in bounded pieces."""

    def __init__(self) -> None:
        self._inflate: Any = None
        self._first = b""
        self._broken = False

    def pieces(self, raw: bytes) -> Iterator[bytes]:
        if self._inflate is None:
            self._first += raw
            if len(self._first) < _HEADER_BYTES:
                return
            raw = self._first
            zipped = raw[:2] == b"\x1f\x8b" or (raw[0] & 15 == 8 and int.from_bytes(raw[:2], "big") % 31 == 0)
            self._inflate = zlib.decompressobj(zlib.MAX_WBITS | 32 if zipped else -zlib.MAX_WBITS)
        while not self._broken:
            try:
                piece = self._inflate.decompress(raw, _PIECE_BYTES)
            except zlib.error:
                self._broken = True
                return
            if piece:
                yield piece
            if self._inflate.eof:
                raw = self._inflate.unused_data
                self._inflate = zlib.decompressobj(zlib.MAX_WBITS | 32)
            else:
                raw = self._inflate.unconsumed_tail
            if not raw and len(piece) < _PIECE_BYTES:
                return


class _Parts:
    """Decodes Brotli and Zstandard: a body is one frame, or several of Zstandard."""

    def __init__(self, begin: Callable[[], tuple[Any, Callable[[bytes], bytes]]]) -> None:
        self._begin = begin
        self._frame, self._decompress = begin()
        self._broken = False

    def pieces(self, raw: bytes) -> Iterator[bytes]:
        for start in range(0, len(raw), _PART_BYTES):
            part = raw[start : start + _PART_BYTES]
            while part and not self._broken:
                try:
                    piece = self._decompress(part)
                # The packages raise their own errors, and an invalid body concerns the application only.
                except Exception:
                    self._broken = True
                    return
                if piece:
                    yield piece
                part = b""
                if getattr(self._frame, "eof", False):
                    part = self._frame.unused_data
                    self._frame, self._decompress = self._begin()


def _first_of(modules: tuple[str, ...]) -> Any:
    for name in modules:
        try:
            return import_module(name)
        except ImportError:
            continue
    return None


def _of_brotli(module: Any) -> tuple[Any, Callable[[bytes], bytes]]:
    frame = module.Decompressor()
    decompress: Callable[[bytes], bytes] = frame.process if hasattr(frame, "process") else frame.decompress
    return frame, decompress


def _of_zstd(module: Any) -> tuple[Any, Callable[[bytes], bytes]]:
    frame = module.ZstdDecompressor()
    if module.__name__ == "zstandard":
        frame = frame.decompressobj()
    return frame, frame.decompress
