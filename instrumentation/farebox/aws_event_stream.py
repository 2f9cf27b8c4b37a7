"""Reads Amazon's binary event stream (``application/vnd.amazon.eventstream``) out of bytes that are cut anywhere.

A message is: its length and its headers' length (4 bytes each, big-endian), a checksum of the two, the headers, the
payload, a checksum. The checksums are the transport's concern; whoever is wrong about them raises in the application.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from typing import Any, Final

MESSAGE_BYTES_MAX: Final = 24 * 1024 * 1024
"""A message that says it is longer is none; its stream is read no further."""
_PRELUDE: Final = struct.Struct(">III")
_CHECKSUM_BYTES: Final = 4


class AwsEventStream:
    """Takes the bytes as they come and gives the JSON payloads of the messages that are complete."""

    between: Final = False
    """A length has to be read to know where the next message starts: none is passed over."""

    def __init__(self) -> None:
        """Nothing has come yet."""
        self._held = bytearray()
        self._lost = False

    def feed(self, chunk: bytes) -> Iterator[Any]:
        """The payloads of the messages that this chunk completes."""
        if self._lost:
            return
        self._held += chunk
        while len(self._held) >= _PRELUDE.size:
            size, headers, _ = _PRELUDE.unpack_from(self._held)
            if size > MESSAGE_BYTES_MAX or size < _PRELUDE.size + headers + _CHECKSUM_BYTES:
                # This is no such stream after all; where the next message starts cannot be known.
                self._lost = True
                self._held.clear()
                return
            if len(self._held) < size:
                return
            payload = bytes(self._held[_PRELUDE.size + headers : size - _CHECKSUM_BYTES])
            del self._held[:size]
            try:
                yield json.loads(payload)
            except ValueError:
                continue

    def end(self) -> Iterator[Any]:
        """A message that is cut off says nothing."""
        return iter(())
