"""Read Amazon's binary event stream (``application/vnd.amazon.eventstream``) from arbitrary chunks.

A message is its length and its headers' length (4 bytes each, big-endian), a checksum of both, the headers, the
payload, and a checksum. The client verifies the checksums, not this reader.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, Final

from farebox.event_stream import payloads_in
from farebox.guard import report
from farebox.json_excerpt import JsonExcerpt, Wanted

MESSAGE_BYTES_MAX: Final = 24 * 1024 * 1024
"""Maximum length of a message; a stream with a longer one is not read further."""
PAYLOAD_BYTES_MAX: Final = 64 * 1024
"""Payloads above this are not buffered: priced parts are extracted from the stream."""
_PRELUDE: Final = struct.Struct(">III")
_CHECKSUM_BYTES: Final = 4


class AwsEventStream:
    """Takes chunks of bytes and yields the JSON payloads of complete messages."""

    between: Final = False
    """No chunk may be skipped: the lengths locate the next message."""

    def __init__(self, wanted: Wanted | None = None) -> None:
        """``wanted`` names what is extracted from large payloads."""
        self._wanted = wanted
        self._held = bytearray()
        self._skip = 0
        """Remaining bytes of headers or of a checksum."""
        self._payload: int | None = None
        """Remaining bytes of the payload; None outside one."""
        self._large: JsonExcerpt | None = None
        self._values: list[object] = []
        self._lost = False

    def feed(self, chunk: bytes) -> Iterator[Any]:
        """Yield the payloads of messages that this chunk completes."""
        if self._lost:
            return
        self._held += chunk
        while self._held and not self._lost:
            if self._skip:
                passed = min(self._skip, len(self._held))
                del self._held[:passed]
                self._skip -= passed
            elif self._payload is None:
                if len(self._held) < _PRELUDE.size:
                    return
                self._begin(*_PRELUDE.unpack_from(self._held))
            elif self._large is not None:
                part = bytes(self._held[: self._payload])
                del self._held[: len(part)]
                self._payload -= len(part)
                self._large.feed(part)
                del self._values[:-1]
                if not self._payload:
                    yield from self._end_large()
            elif len(self._held) < self._payload:
                return
            else:
                payload = bytes(self._held[: self._payload])
                del self._held[: self._payload]
                self._payload, self._skip = None, _CHECKSUM_BYTES
                yield from payloads_in(payload, self._wanted)

    def end(self) -> Iterator[Any]:
        """Yield nothing: an incomplete message has no payload."""
        return iter(())

    def _begin(self, size: int, headers: int, _: int) -> None:
        payload = size - _PRELUDE.size - headers - _CHECKSUM_BYTES
        if size > MESSAGE_BYTES_MAX or payload < 0:
            # Not an event stream; the start of the next message is unknown.
            self._lost = True
            self._held.clear()
            report("aws events", "farebox: a Bedrock stream is malformed; its usage may be missing")
            return
        del self._held[: _PRELUDE.size]
        self._skip, self._payload = headers, payload
        if payload > PAYLOAD_BYTES_MAX:
            self._large = JsonExcerpt(self._wanted, self._values.append)

    def _end_large(self) -> Iterator[Any]:
        assert self._large is not None
        self._large.end()
        self._large, self._payload, self._skip = None, None, _CHECKSUM_BYTES
        values = self._values[-1:]
        self._values.clear()
        yield from values
